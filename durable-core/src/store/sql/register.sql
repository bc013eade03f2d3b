-- A new worker, or a new incarnation of one, takes its lease.
-- Locks: the new row.
insert into durable.worker (id, lease_until, host, pid, queue)
values ($1, durable.now() + $2 * interval '1 millisecond', $3, $4, $5)
on conflict (id) do update set lease_until = excluded.lease_until where worker.fenced_at is null
