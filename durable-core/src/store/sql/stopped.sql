-- Say that $1 has stopped these workflows, which were cancelled, cut off or paused, and under which claim each was. What is to be undone is due now; the answer has its
-- queue.
-- Locks: their rows, in key order.
with mine as (
    select w.bucket, w.id
    from durable.workflow w
    where w.stopping = $1 and w.id = any ($2::text[])
    order by w.bucket + 0, w.id  -- likewise
    for no key update
)
update durable.workflow w
set stopping = null,
    due_at = case when w.status in ('queued', 'suspended') then durable.now() else w.due_at end
from mine m
-- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
where w.bucket = any (array[m.bucket]) and w.id = m.id
returning case when w.status in ('queued', 'suspended') then w.queue end as undo_in, w.id, w.claims
