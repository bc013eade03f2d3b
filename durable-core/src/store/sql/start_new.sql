-- Start workflows, each for itself: one row each, or nothing where the id exists already; about those, which have no row in
-- the answer, `start` finds out. This is the way it goes nearly always, at a third of the cost.
-- A row that is to be born here is born running and owned by $1, so that no claim is needed; but only while that worker
-- holds its lease.
-- Locks: the new rows, in key order, which is the order in which they are given. A concurrent start of the same id waits
-- for the other transaction.
insert into durable.workflow
    (bucket, id, name, version, queue, priority, status, owner, due_at, claims, claimed_at, input)
select g.bucket, g.id, g.name, g.version, g.queue, g.priority,
       case when b.here then 'running' else 'queued' end,
       case when b.here then $1 end,
       durable.now() + g.delay_ms * interval '1 millisecond',
       case when b.here then 1 else 0 end,
       case when b.here then durable.now() end,
       g.input::json
from (
    select unnest($2::smallint[]) as bucket, unnest($3::text[]) as id, unnest($4::text[]) as name,
           unnest($5::integer[]) as version, unnest($6::text[]) as queue, unnest($7::smallint[]) as priority,
           unnest($8::bigint[]) as delay_ms, unnest($9::text[]) as input, unnest($10::boolean[]) as here
) g
cross join lateral (
    -- offset 0 keeps it from being worked out once for each place where it is used
    select g.here and exists (
        select from durable.worker k
        where k.id = $1 and k.fenced_at is null and k.lease_until > durable.now()
          -- Whether one of a queue with limits may run is not for its start to say.
          and not exists (select from durable.queue q where q.name = g.queue)
    ) as here
    offset 0
) b
on conflict (bucket, id) do nothing
returning id, owner is not null as born_here, created_at, ctid::text as row_at
