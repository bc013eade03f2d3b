-- Where a cancellation stands: the workflow's status, the worker that may still be running a step of it, and whether it was
-- cut off and is being undone.
-- Locks: nothing.
select w.status,
       (select k.id from durable.worker k
        where k.id = w.stopping and k.fenced_at is null and k.lease_until > durable.now()) as stopping,
       exists (select from durable.ending e where e.bucket = w.bucket and e.id = w.id) as cut
from durable.workflow w
where w.bucket = $1 and w.id = $2
