-- Give one workflow back after something went wrong here that is not its fault, for any worker to take in $4 ms.
-- Locks: the workflow row.
update durable.workflow w
set status = 'queued', owner = null, due_at = durable.now() + $4 * interval '1 millisecond'
where w.bucket = $2 and w.id = $3 and w.owner = $1
