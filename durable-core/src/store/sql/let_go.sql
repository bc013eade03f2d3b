-- Give workflows back that this worker owns without knowing it, each if it is still under that claim. They
-- keep their place in the queue, and have a note of the claim that came to nothing.
-- Locks: the workflow rows, then their notes. Nobody else takes several of one worker's rows.
with given as (
    select * from unnest($2::smallint[], $3::text[], $4::integer[]) as g (bucket, id, claims)
),
mine as materialized (
    select w.bucket, w.id
    from given g
    cross join lateral (
        select * from durable.workflow w
        where w.bucket = g.bucket and w.id = g.id and w.owner is not distinct from $1 and w.claims = g.claims
        offset 0
    ) w
    order by w.bucket, w.id
),
given_back as (
    update durable.workflow w
    set status = 'queued', owner = null, due_at = coalesce(w.due_at, durable.now())
    from mine m
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    where w.bucket = any (array[m.bucket]) and w.id = m.id and w.owner is not distinct from $1
    returning w.bucket, w.id, w.claims, w.claimed_at
),
noted as (
    insert into durable.operation (bucket, workflow_id, n, act, stood, reason, done_at)
    select b.bucket, b.id, o.next + t.n, t.act, t.stood, t.reason, t.at
    from given_back b
    cross join lateral (
        select coalesce(max(o.n) + 1, 0) as next
        from durable.operation o where o.bucket = b.bucket and o.workflow_id = b.id
    ) o
    cross join lateral (
        values (0, 'claim', null, format('claim %s, by worker %s', b.claims, $1), b.claimed_at),
               (1, 'release', 'running', 'its worker did not know that it had it, or begins anew with it', durable.now())
    ) as t (n, act, stood, reason, at)
    -- Somebody else's note of this moment, which this statement does not see. It must not hold up the rest.
    on conflict do nothing
)
select b.id from given_back b
