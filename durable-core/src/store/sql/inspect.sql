-- One workflow as it stands.
-- Locks: nothing.
select w.id, w.name, w.version, w.queue, w.priority, w.status, w.recoveries, w.claims, w.due_at, w.created_at,
       w.claimed_at, w.finished_at, w.output::text as output, w.failure::text as failure,
       (select f.source from durable.fork f where f.bucket = w.bucket and f.id = w.id offset 0) as forked_from
from durable.workflow w
where w.bucket = $1 and w.id = $2
