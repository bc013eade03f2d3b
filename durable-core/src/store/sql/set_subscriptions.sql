-- Write subscriptions ($1 to $6) down, also removed ones if $7, and give those that stay removed: see `durable.set_subscriptions` in
-- `0015_subscription.sql`.
-- Locks: those that change, in key order.
select s.event, s.workflow
from durable.set_subscriptions($1, $2, $3, $4, $5, $6, $7) as s
