-- Look at events ($5 to $7) for workflows ($2 to $4) that wait for their first values, each only under the owner $1 and the claim
-- that is given; and note in those that have none who waits.
-- The answer has a row for each that is held, with its count of wakes: whatever is published later than this look saw has
-- bumped it.
-- Locks: the events that have no value, in key order.
with held as materialized (
    select g.*, w.wakes
    from unnest($2::smallint[], $3::text[], $4::integer[], $5::smallint[], $6::text[], $7::text[])
        with ordinality as g (bucket, id, claims, of_bucket, of_id, key, n)
    cross join lateral (
        -- offset 0 keeps these looks by the key
        select w.wakes from durable.workflow w
        where w.bucket = g.bucket and w.id = g.id and w.owner is not distinct from $1 and w.claims = g.claims
        offset 0
    ) w
),
seen as materialized (
    select h.*, e.value, e.published_at
    from held h
    left join lateral (
        select e.value, e.published_at from durable.event e
        where e.bucket = h.of_bucket and e.workflow_id = h.of_id and e.key = h.key
        offset 0
    ) e on true
),
noted as (
    insert into durable.event as e (bucket, workflow_id, key, waiters)
    select s.of_bucket, s.of_id, s.key, array_agg(distinct s.id)
    from seen s
    where s.published_at is null
    group by s.of_bucket, s.of_id, s.key
    order by s.of_bucket, s.of_id, s.key
    on conflict (bucket, workflow_id, key) do update
        set waiters = case when e.published_at is null
            then array(select distinct t.id from unnest(e.waiters || excluded.waiters) as t (id))
            else e.waiters end
    returning bucket, workflow_id, key, value, published_at
)
select s.n, s.wakes, coalesce(s.published_at, d.published_at) is not null as published,
       coalesce(s.value, d.value)::text as value
from seen s
left join noted d on d.bucket = s.of_bucket and d.workflow_id = s.of_id and d.key = s.key
