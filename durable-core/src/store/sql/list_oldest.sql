-- A page of the workflows of one status, oldest first: those after a place ($8, $9), which is where the page before ended,
-- that have what is asked for; what is null is not asked for.
-- Planned for its parameters, so that a status finds its index, and a condition that is not asked for is none.
-- Locks: nothing.
select w.id, w.name, w.version, w.queue, w.priority, w.status, w.recoveries, w.claims, w.due_at, w.created_at,
       w.claimed_at, w.finished_at, w.failure::text as failure,
       (select f.source from durable.fork f where f.bucket = w.bucket and f.id = w.id offset 0) as forked_from,
       (select c.parent from durable.child c where c.bucket = w.bucket and c.id = w.id offset 0) as parent,
       coalesce((select g.generation from durable.generation g where g.bucket = w.bucket and g.id = w.id offset 0), 0)
           as generation,
       (select d.at from durable.deadline d where d.bucket = w.bucket and d.id = w.id offset 0) as deadline
from durable.workflow w
where w.status = $1
  -- What every running workflow has, and the index of the running ones is about.
  and ($1 <> 'running' or w.owner is not null)
  and ($2::text is null or w.name = $2)
  and ($3::text is null or w.queue = $3)
  and ($4::timestamptz is null or w.created_at >= $4)
  and ($5::timestamptz is null or w.created_at < $5)
  -- All the buckets, so that the ids are looked up by the key.
  and ($6::text is null or (w.bucket = any ($7::smallint[]) and w.id like $6))
  and ($8::timestamptz is null or (w.created_at, w.id) > ($8, $9::text))
order by w.created_at, w.id
limit $10
