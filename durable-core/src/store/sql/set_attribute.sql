-- Set an attribute of a workflow, in the transaction of a step; unless the workflow has $6 others. One row if it was set.
-- Locks: the attribute's row.
insert into durable.attribute (bucket, id, name, value, sort, by_body, created_at)
select w.bucket, w.id, $3, $4::json, $5, true, w.created_at
from durable.workflow w
where w.bucket = $1 and w.id = $2
  and (select count(*) from durable.attribute a where a.bucket = $1 and a.id = $2 and a.name <> $3) < $6
on conflict (bucket, id, name) do update set value = excluded.value, sort = excluded.sort, by_body = true
returning true as set
