-- How queues stand, or only $1; see `durable.queue_metrics` in `0017_observe.sql`.
-- Locks: nothing.
select m.queue, m.depth, (extract(epoch from durable.now() - m.oldest_due_at) * 1000)::bigint as oldest_ms, m.running, m.suspended,
       m.delayed, m.workers, m.without_code, m.has_limits, m.is_paused, m.waits_for
from durable.queue_metrics($1) m
