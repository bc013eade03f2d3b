-- Park one workflow whose code does not fit its history or what else is there, with $5 as its failure, and note that among what was
-- done to it, with the reason ($6) and the claim that found it. Its outcomes were written before. Only under the owner $1 and the claim $4; so a repeat after a lost
-- reply does nothing, and its answer is empty.
-- Locks: the workflow row, then its notes.
with blocked as (
    -- Its waits stay: it goes on one day, and its timers must not start over.
    update durable.workflow w
    set status = 'blocked', owner = null, due_at = null, output = null, failure = $5::json
    where w.bucket = $2 and w.id = $3 and w.owner is not distinct from $1 and w.claims = $4
    returning w.bucket, w.id, w.claims, w.claimed_at
),
noted as (
    insert into durable.operation (bucket, workflow_id, n, act, stood, reason, done_at)
    select b.bucket, b.id, o.next + t.n, t.act, t.stood, t.reason, t.at
    from blocked b
    cross join lateral (
        select coalesce(max(o.n) + 1, 0) as next
        from durable.operation o where o.bucket = b.bucket and o.workflow_id = b.id
    ) o
    cross join lateral (
        values (0, 'claim', null, format('claim %s, by worker %s', b.claims, $1), b.claimed_at),
               (1, 'block', 'running', $6, durable.now())
    ) as t (n, act, stood, reason, at)
    -- Somebody else's note of this moment, which this statement does not see. It must not hold up the rest.
    on conflict do nothing
)
select true as held from blocked
