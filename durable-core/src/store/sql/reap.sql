-- Give back workflows of workers that are dead and can no longer write ($3), up to $1 at a time. A workflow that lost more
-- than $2 workers in a row without recording a step is parked as blocked; the second and later times it waits, longer each
-- time. That its worker was lost, and when that had claimed it, stands among what was done to it.
-- Locks: the workflow rows, skipping locked ones: so it waits for none and needs no order, which would tempt the planner to
-- read the whole table by its key.
with orphan as materialized (
    select w.bucket, w.id, w.owner, w.claims, w.claimed_at,
           case when exists (select from durable.step s
                             where s.bucket = w.bucket and s.workflow_id = w.id
                               and s.recorded_at >= w.claimed_at)
                then 1 else w.recoveries + 1 end as recoveries
    from durable.workflow w
    where w.owner = any ($3)
    limit $1
    for no key update of w skip locked
),
noted as (
    insert into durable.operation (bucket, workflow_id, n, act, stood, reason, done_at)
    select o.bucket, o.id, p.next + t.n, t.act, t.stood, t.reason, t.at
    from orphan o
    cross join lateral (
        select coalesce(max(p.n) + 1, 0) as next
        from durable.operation p where p.bucket = o.bucket and p.workflow_id = o.id
    ) p
    cross join lateral (
        values (0, 'claim', null, format('claim %s, by worker %s', o.claims, o.owner), o.claimed_at),
               (1, 'recover', 'running',
                coalesce((select format('worker %s was lost (process %s on %s)', k.id, k.pid, k.host)
                          from durable.worker k where k.id = o.owner),
                         format('worker %s was lost', o.owner)), durable.now())
    ) as t (n, act, stood, reason, at)
    where t.at is not null
    -- Somebody else's note of this moment, which this statement does not see. It must not hold up the takeover.
    on conflict do nothing
)
update durable.workflow w
set status = case when o.recoveries > $2 then 'blocked' else 'queued' end,
    owner = null,
    recoveries = o.recoveries,
    -- The first time it keeps its place in the queue, ahead of what came later.
    due_at = case when o.recoveries < 2 then coalesce(w.due_at, durable.now())
        else durable.now() + least(power(2, least(o.recoveries, 20) - 2), 60) * interval '1 second' end,
    failure = case when o.recoveries > $2 then json_build_object(
        'kind', 'poison', 'terminal', true,
        'messages', json_build_array(format('%s workers in a row were lost while they ran this workflow', o.recoveries)))
        else w.failure end
from orphan o
-- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
where w.bucket = any (array[o.bucket]) and w.id = o.id
returning w.id, w.status
