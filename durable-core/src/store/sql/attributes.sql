-- The attributes of one workflow, by name.
-- Locks: nothing.
select a.name, a.sort, a.by_body
from durable.attribute a
where a.bucket = $1 and a.id = $2
order by a.name
