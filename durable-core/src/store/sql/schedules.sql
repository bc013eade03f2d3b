-- Schedules from a name ($1) on, in order, at most so many ($2).
-- Locks: nothing.
select s.name, s.workflow, s.version, s.cron, s.time_zone, extract(epoch from s.every)::bigint as every_s,
       extract(epoch from s.every_offset)::bigint as every_offset_s, s.next_at, s.last_at, s.last_id, s.paused_at, s.paused_for,
       s.started, s.missed, s.skipped, s.waiting, s.overlap, s.catch_up, s.catch_up_most,
       extract(epoch from s.catch_up_within)::bigint as catch_up_within_s,
       (extract(epoch from s.jitter) * 1000)::bigint as jitter_ms, s.queue, s.priority, s.passed_until, s.revision,
       durable.now() as now
from durable.schedule s
where s.name >= $1
order by s.name
limit $2
