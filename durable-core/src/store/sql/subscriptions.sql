-- The subscriptions, up to $1 of them, in the order of events and workflows; removed ones, too.
-- Locks: none.
select s.event, s.workflow, s.version, s.queue, s.priority, s.partition_by, s.changed_at, s.removed_at is not null as is_removed
from durable.subscription s
order by s.event, s.workflow
limit $1
