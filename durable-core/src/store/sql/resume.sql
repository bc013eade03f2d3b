-- Put a blocked workflow back into its queue, its recoveries forgiven.
-- Locks: the workflow row.
update durable.workflow w
set status = 'queued', due_at = durable.now(), failure = null, recoveries = 0, wakes = w.wakes + 1
-- Compared so that no index of all that is blocked looks better than the key to a plan made for a new table.
where w.bucket = $1 and w.id = $2 and w.status is not distinct from 'blocked'
returning w.queue
