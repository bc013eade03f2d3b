-- A worker that stops gives up its lease and everything it still owns, at once. Each workflow keeps its place
-- in the queue, and has a note of the claim that was cut short.
-- Locks: the worker's row, then the workflow rows, then their notes.
with left_behind as (
    update durable.worker k set fenced_at = durable.now() where k.id = $1 and k.fenced_at is null
),
mine as materialized (
    select w.bucket, w.id from durable.workflow w where w.owner = $1
    order by w.bucket + 0, w.id  -- likewise
    for no key update
),
given_back as (
    update durable.workflow w
    set status = 'queued', owner = null, due_at = coalesce(w.due_at, durable.now())
    from mine m
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    where w.bucket = any (array[m.bucket]) and w.id = m.id and w.owner = $1
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
               (1, 'release', 'running', 'its worker has stopped', durable.now())
    ) as t (n, act, stood, reason, at)
    -- Somebody else's note of this moment, which this statement does not see. It must not hold up the rest.
    on conflict do nothing
)
select b.id from given_back b
