-- Give one workflow back after something went wrong here that it did not do: for any worker to take, later each
-- time. After more than $4 times in a row it is parked as blocked, with $5 as its failure.
-- Only under the same claim, $6: a repeat after a lost reply must not meet a later claim of the same worker.
-- Locks: the workflow row.
update durable.workflow w
set status = case when w.recoveries >= $4 then 'blocked' else 'queued' end,
    owner = null,
    recoveries = w.recoveries + 1,
    due_at = durable.now() + least(power(2, least(w.recoveries, 20)), 60) * interval '1 second',
    failure = case when w.recoveries >= $4 then $5::json else w.failure end
where w.bucket = $2 and w.id = $3 and w.owner is not distinct from $1 and w.claims = $6
