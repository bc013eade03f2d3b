-- What a workflow was started with.
-- Locks: nothing.
select w.input::text as input
from durable.workflow w
where w.bucket = $1 and w.id = $2
