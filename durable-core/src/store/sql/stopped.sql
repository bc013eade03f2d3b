-- Say that $1 has stopped these cancelled workflows.
-- Locks: their rows, in key order.
with mine as (
    select w.bucket, w.id
    from durable.workflow w
    where w.stopping = $1 and w.id = any ($2::text[])
    order by w.bucket + 0, w.id  -- likewise
    for no key update
)
update durable.workflow w
set stopping = null
from mine m
-- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
where w.bucket = any (array[m.bucket]) and w.id = m.id
