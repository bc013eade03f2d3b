-- Start every workflow that is subscribed to an event ($1) with this value ($2) and id ($3), each once: see
-- `durable.start_subscribers` in `0015_subscription.sql`.
-- Locks: the new rows, in key order, then their places.
select p.started, p.existed, p.queues
from durable.start_subscribers($1, $2::json, $3) as p
