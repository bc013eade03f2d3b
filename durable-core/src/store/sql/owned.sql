-- What the database says a worker owns, with the number of the claim.
-- Locks: nothing.
select w.id, w.claims
from durable.workflow w
where w.owner = $1
