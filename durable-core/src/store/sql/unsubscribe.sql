-- Let an event ($1) start a workflow ($2) no more, and say whether it did: see `0015_subscription.sql`.
-- Locks: the subscription.
select durable.unsubscribe($1, $2) as removed
