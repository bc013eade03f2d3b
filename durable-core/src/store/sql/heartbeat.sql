-- Renew a lease, unless somebody has fenced it; and tell which cancelled workflows this worker has to stop.
-- Locks: the worker's row.
with renewed as (
    update durable.worker k
    set lease_until = durable.now() + $2 * interval '1 millisecond'
    where k.id = $1 and k.fenced_at is null
    returning true
)
select exists (select from renewed) as held,
       array(select w.id from durable.workflow w where w.stopping = $1 limit 1000) as stopping
