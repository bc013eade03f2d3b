-- Start workflows: one row each, or nothing where the id exists already; then say which it was. When one of
-- them is refused, because its id is another workflow's or by the policy $11 (1: same input, 2: none at all),
-- nothing is written.
-- With an owner given, a row marked `here` is born running and owned, so that no claim is needed; but only
-- while that worker holds its lease.
-- Locks: the new rows, in key order. A concurrent start of the same id waits for the other transaction.
with given as (
    select *
    from unnest($1::smallint[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::smallint[],
                $7::bigint[], $8::text[], $9::boolean[])
        with ordinality as g (bucket, id, name, version, queue, priority, delay_ms, input, here, n)
),
found as materialized (
    -- A birth and a claim differ: only at a birth are the claim and the creation one moment. It is found here
    -- when the same statement was sent before and its reply was lost; only the caller that `here` keeps a place for
    -- may take it for its own.
    select g.n, w.created_at, w.name, w.version, w.input::text = g.input as same_input,
           g.here and w.owner is not distinct from $10
               and w.claims = 1 and w.claimed_at = w.created_at as born_here,
           w.name = g.name and w.version = g.version as same_workflow
    from given g
    cross join lateral (
        -- offset 0 keeps this a look by the key, also for a batch that is large beside the table
        select * from durable.workflow w
        where w.bucket = g.bucket and w.id = g.id
        offset 0
    ) w
),
refused as (
    select from found f
    where not f.same_workflow or (not f.born_here and ($11 = 2 or ($11 = 1 and not f.same_input)))
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
    where not exists (select from refused)
    order by g.bucket, g.id
    on conflict (bucket, id) do nothing
    returning bucket, id, owner, created_at
)
select g.n, true as created, b.owner is not null as born_here, b.created_at, g.name, g.version,
       true as same_input, false as refused
from given g
join born b on b.bucket = g.bucket and b.id = g.id
union all
select f.n, false, f.born_here, f.created_at, f.name, f.version, f.same_input, exists (select from refused)
from found f
