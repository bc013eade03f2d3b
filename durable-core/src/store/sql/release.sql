-- Give one workflow back after something went wrong here that it did not do: for any worker to take, later each
-- time. After more than $4 times in a row it is parked as blocked, with $5 as its failure. It is noted with the claim that came to
-- nothing.
-- Only under the same claim, $6: a repeat after a lost reply must not meet a later claim of the same worker.
-- Locks: the workflow row, then its notes.
with released as (
    update durable.workflow w
    set status = case when w.recoveries >= $4 then 'blocked' else 'queued' end,
        owner = null,
        recoveries = w.recoveries + 1,
        due_at = durable.now() + least(power(2, least(w.recoveries, 20)), 60) * interval '1 second',
        failure = case when w.recoveries >= $4 then $5::json else w.failure end
    where w.bucket = $2 and w.id = $3 and w.owner is not distinct from $1 and w.claims = $6
    returning w.bucket, w.id, w.claims, w.claimed_at, w.status
)
insert into durable.operation (bucket, workflow_id, n, act, stood, reason, done_at)
select r.bucket, r.id, o.next + t.n, t.act, t.stood, t.reason, t.at
from released r
cross join lateral (
    select coalesce(max(o.n) + 1, 0) as next
    from durable.operation o where o.bucket = r.bucket and o.workflow_id = r.id
) o
cross join lateral (
    values (0, 'claim', null, format('claim %s, by worker %s', r.claims, $1), r.claimed_at),
           (1, case r.status when 'blocked' then 'block' else 'release' end, 'running', 'its worker could not go on with it',
            durable.now())
) as t (n, act, stood, reason, at)
-- Somebody else's note of this moment, which this statement does not see. It must not hold up the rest.
on conflict do nothing
