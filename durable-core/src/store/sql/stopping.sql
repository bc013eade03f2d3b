-- Where a cancellation stands: the workflow's status, and the worker that may still be running a step of it.
-- Locks: nothing.
select w.status,
       (select k.id from durable.worker k
        where k.id = w.stopping and k.fenced_at is null and k.lease_until > durable.now()) as stopping
from durable.workflow w
where w.bucket = $1 and w.id = $2
