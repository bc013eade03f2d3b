-- Cancel children ($5, $6) that losers of a race have started, but for detached ones; only while their parent is held by the
-- owner $1 under the claim $4. See `durable.cut_off` in `0009_cut_off.sql`.
-- Locks: as `cancel`, for one after the other; so a deadlock is possible, and is tried again like any.
select c.id, c.cut, c.stopping, c.undo_in, c.parent, c.parent_queue
from (
    select k.id
    from (select unnest($5::smallint[]) as bucket, unnest($6::text[]) as id) k
    cross join lateral (
        -- offset 0 keeps these looks by the key
        select from durable.child c
        where c.bucket = k.bucket and c.id = k.id and c.parent_bucket = $2 and c.parent = $3 and not c.detached
        offset 0
    ) mine
    where exists (select from durable.workflow w
                  where w.bucket = $2 and w.id = $3 and w.owner is not distinct from $1 and w.claims = $4
                  offset 0)
) lost
cross join lateral durable.cut_off(lost.id, 'cancelled', json_build_object(
    'kind', 'cancelled', 'terminal', true, 'messages', json_build_array('it lost a race'))) c
