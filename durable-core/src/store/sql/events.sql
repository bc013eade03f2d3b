-- The last values of events ($1 to $3), for callers; and whether the workflow that publishes them is there, and has ended.
-- Locks: nothing.
select g.n, e.value::text as value, w.status
from unnest($1::smallint[], $2::text[], $3::text[]) with ordinality as g (bucket, id, key, n)
left join lateral (
    -- offset 0 keeps these looks by the key
    select e.value from durable.event e
    where e.bucket = g.bucket and e.workflow_id = g.id and e.key = g.key and e.published_at is not null
    offset 0
) e on true
left join lateral (
    select w.status from durable.workflow w where w.bucket = g.bucket and w.id = g.id
    offset 0
) w on true
