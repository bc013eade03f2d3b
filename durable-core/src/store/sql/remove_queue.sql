-- Let a queue ($1) have no limits any more, and say whether it had some.
-- Locks: see `durable.remove_queue`.
select durable.remove_queue($1) as removed
