-- Decide that a workflow is cancelled, unless it has ended. The worker that runs it is noted, so that the
-- caller can wait until it has stopped.
-- Locks: the workflow row.
update durable.workflow w
set status = 'cancelled', stopping = w.owner, owner = null, due_at = null, waits = null,
    wakes = w.wakes + 1, finished_at = durable.now()
where w.bucket = $1 and w.id = $2 and w.status in ('queued', 'running', 'suspended', 'blocked')
returning w.stopping
