-- One workflow as it stands.
-- Locks: nothing.
select w.id, w.name, w.version, w.queue, w.priority, w.status, w.recoveries, w.claims, w.due_at, w.created_at,
       w.claimed_at, w.finished_at, w.output::text as output, w.failure::text as failure,
       (select f.source from durable.fork f where f.bucket = w.bucket and f.id = w.id offset 0) as forked_from,
       (select c.parent from durable.child c where c.bucket = w.bucket and c.id = w.id offset 0) as parent,
       coalesce((select g.generation from durable.generation g where g.bucket = w.bucket and g.id = w.id offset 0), 0)
           as generation,
       (select d.at from durable.deadline d where d.bucket = w.bucket and d.id = w.id offset 0) as deadline
from durable.workflow w
where w.bucket = $1 and w.id = $2
