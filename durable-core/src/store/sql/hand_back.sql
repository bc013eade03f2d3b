-- A worker that stops gives up its lease and everything it still owns, at once. Each workflow keeps its place
-- in the queue.
-- Locks: the worker's row, then the workflow rows.
with left_behind as (
    update durable.worker k set fenced_at = durable.now() where k.id = $1 and k.fenced_at is null
),
mine as materialized (
    select w.bucket, w.id from durable.workflow w where w.owner = $1
    order by w.bucket + 0, w.id  -- likewise
    for no key update
)
update durable.workflow w
set status = 'queued', owner = null, due_at = coalesce(w.due_at, durable.now())
from mine m
-- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
where w.bucket = any (array[m.bucket]) and w.id = m.id and w.owner = $1
returning w.id
