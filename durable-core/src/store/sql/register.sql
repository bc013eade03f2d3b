-- A new worker, or a new incarnation of one, takes its lease; and says from which queues with limits ($6) it takes workflows, which
-- bodies it has ($7, $8), and which limits of steps its code has declared ($9), as what ($10).
-- Locks: the new rows.
with takes as (
    insert into durable.worker_takes (worker, limited, names, versions) values ($1, $6, $7, $8)
    on conflict (worker) do nothing
),
declares as (
    insert into durable.worker_declares (worker, step_limits, declared)
    select $1, $9, $10 where cardinality($9::text[]) > 0
    on conflict (worker) do nothing
)
insert into durable.worker (id, lease_until, host, pid, queue)
values ($1, durable.now() + $2 * interval '1 millisecond', $3, $4, $5)
on conflict (id) do update set lease_until = excluded.lease_until where worker.fenced_at is null
