-- Start workflows: one row each, or nothing where the id exists already; then say which it was.
-- With an owner given, a row marked `here` is born running and owned, so that no claim is needed; but only
-- while that worker holds its lease.
-- Locks: the new rows, in key order. A concurrent start of the same id waits for the other transaction.
with given as (
    select *
    from unnest($1::smallint[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::smallint[],
                $7::bigint[], $8::text[], $9::boolean[])
        with ordinality as g (bucket, id, name, version, queue, priority, delay_ms, input, here, n)
),
alive as (
    select k.id
    from durable.worker k
    where k.id = $10 and k.fenced_at is null and k.lease_until > durable.now()
),
born as (
    insert into durable.workflow
        (bucket, id, name, version, queue, priority, status, owner, due_at, claims, claimed_at, input)
    select g.bucket, g.id, g.name, g.version, g.queue, g.priority,
           case when a.id is null then 'queued' else 'running' end,
           a.id,
           durable.now() + g.delay_ms * interval '1 millisecond',
           case when a.id is null then 0 else 1 end,
           case when a.id is null then null else durable.now() end,
           g.input::json
    from given g
    left join alive a on g.here
    order by g.bucket, g.id
    on conflict (bucket, id) do nothing
    returning bucket, id, owner, created_at
)
select g.n, true as created, b.owner is not null as born_here, b.created_at, g.name, g.version, true as same_input
from given g
join born b on b.bucket = g.bucket and b.id = g.id
union all
-- A birth and a claim differ: only at a birth are its claim and its creation one moment. It is found here when
-- the same statement was sent before and its reply was lost.
select g.n, false, w.owner is not distinct from $10 and $10 is not null and w.claims = 1 and w.claimed_at = w.created_at,
       w.created_at, w.name, w.version, w.input::text = g.input
from given g
cross join lateral (
    -- offset 0 keeps this a look by the key, also for a batch that is large beside the table
    select * from durable.workflow w
    where w.bucket = g.bucket and w.id = g.id
    offset 0
) w
where not exists (select from born b where b.bucket = g.bucket and b.id = g.id)
