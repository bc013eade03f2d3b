-- Fence the workers whose lease has ended, and say which dead workers still own something, from a bounded look ($1).
-- It looks at every owner that is not alive, not only at those fenced just now: so what a dying worker did in its last moment
-- is repaired by the next round, and a worker whose row vanished strands nothing.
-- Locks: the expired workers' rows.
with fenced as (
    update durable.worker k
    set fenced_at = durable.now()
    where k.fenced_at is null and k.lease_until < durable.now()
    returning k.id
),
forgotten as (
    delete from durable.worker k where k.fenced_at < durable.now() - interval '1 day'
)
select distinct o.owner
from (
    select w.owner
    from durable.workflow w
    where w.owner is not null
      and not exists (select from durable.worker k
                      where k.id = w.owner and k.fenced_at is null
                        and not exists (select from fenced f where f.id = k.id))
    limit $1
) o
