-- Give workflows back that this worker owns without knowing it, each if it is still under that claim. They
-- keep their place in the queue.
-- Locks: the workflow rows. Nobody else takes several of one worker's rows.
with given as (
    select * from unnest($2::smallint[], $3::text[], $4::integer[]) as g (bucket, id, claims)
),
mine as materialized (
    select w.bucket, w.id
    from given g
    cross join lateral (
        select * from durable.workflow w
        where w.bucket = g.bucket and w.id = g.id and w.owner is not distinct from $1 and w.claims = g.claims
        offset 0
    ) w
    order by w.bucket, w.id
)
update durable.workflow w
set status = 'queued', owner = null, due_at = coalesce(w.due_at, durable.now())
from mine m
-- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
where w.bucket = any (array[m.bucket]) and w.id = m.id and w.owner is not distinct from $1
