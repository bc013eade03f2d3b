-- Let go on to be undone what dead workers ($1) had still to stop, once they can no longer write.
-- Locks: the workflow rows, few at any time.
update durable.workflow w
set stopping = null, due_at = durable.now()
from durable.ending e
-- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
where w.bucket = any (array[e.bucket]) and w.id = e.id and w.stopping = any ($1)
returning w.queue
