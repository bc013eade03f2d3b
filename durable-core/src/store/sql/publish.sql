-- Publish values of events, each as the outcome of a position of the workflow whose event it is, under the owner $1 and the claim that
-- is given; and wake those who wait for one. A value whose position is taken is not published. No event may be there twice.
-- Whoever begins to wait at the same moment is in the event's row or finds the value there: the row is one, and each of the two
-- takes it in turn.
-- The answer has a row for each that is held: whether it is published now. The first has those who were woken.
-- Locks: the new step rows, the events, both in key order, in which they are given; then the rows of who is woken, in key order.
with held as materialized (
    select g.*
    from unnest($2::smallint[], $3::text[], $4::integer[], $5::text[], $6::integer[], $7::text[], $8::text[])
        with ordinality as g (bucket, id, claims, lane, seq, key, value, n)
    cross join lateral (
        -- offset 0 keeps this a look by the key
        select from durable.workflow w
        where w.bucket = g.bucket and w.id = g.id and w.owner is not distinct from $1 and w.claims = g.claims
        offset 0
    ) w
),
done as (
    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, input, output, started_at)
    select h.bucket, h.id, h.lane, h.seq, 'publish', h.key, h.value::json, 'null', durable.now()
    from held h
    on conflict (bucket, workflow_id, lane, seq) do nothing
    returning bucket, workflow_id, lane, seq
),
published as (
    insert into durable.event as e (bucket, workflow_id, key, n, value, published_at)
    select h.bucket, h.id, h.key, 1, h.value::json, durable.now()
    from held h
    where exists (select from done d
                  where d.bucket = h.bucket and d.workflow_id = h.id and d.lane = h.lane and d.seq = h.seq)
    on conflict (bucket, workflow_id, key) do update
        set n = e.n + 1, value = excluded.value, published_at = excluded.published_at, woken = e.waiters, waiters = '{}'
    returning bucket, workflow_id, key, woken
),
waiting as materialized (
    select w.bucket, w.id
    from (
        select distinct durable.bucket(t.id) as bucket, t.id
        from published p
        cross join lateral unnest(p.woken) as t (id)
    ) k
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id
    where w.status in ('queued', 'running', 'suspended', 'blocked')
    order by w.bucket + 0, w.id  -- likewise
    for no key update of w
),
woken as (
    update durable.workflow w
    set wakes = w.wakes + 1,
        status = case when w.status = 'suspended' then 'queued' else w.status end,
        due_at = case when w.status = 'suspended' then durable.now() else w.due_at end
    from waiting k
    where w.bucket = any (array[k.bucket]) and w.id = k.id  -- likewise
    returning w.id, w.status, w.queue
)
select h.n, durable.now() as now,
       exists (select from done d
               where d.bucket = h.bucket and d.workflow_id = h.id and d.lane = h.lane and d.seq = h.seq) as published,
       case when h.n = (select min(f.n) from held f)
           then (select json_agg(json_build_array(k.id, k.status, k.queue))::text from woken k) end as woken
from held h
