-- Which schedules are due, or have something waiting that may start now, from a bounded look ($1); and when the next one is due, in
-- milliseconds from now; and whether any start is held back. It always gives a row, also when none is due.
-- Locks: nothing: who acts on one says how he has seen it (`tick_schedule`).
with due as materialized (
    (select s.name from durable.schedule s where s.due_at <= durable.now() order by s.due_at limit $1)
    union
    (select s.name from durable.schedule s
     where s.may_start and (s.overlap = 'allow' or durable.open_tick(s.name) is null)
     limit $1)
)
select s.name, s.workflow, s.version, s.cron, s.time_zone, extract(epoch from s.every)::bigint as every_s,
       extract(epoch from s.every_offset)::bigint as every_offset_s, s.next_at, s.last_at, s.last_id, s.paused_at, s.paused_for,
       s.started, s.missed, s.skipped, s.waiting, s.overlap, s.catch_up, s.catch_up_most,
       extract(epoch from s.catch_up_within)::bigint as catch_up_within_s,
       (extract(epoch from s.jitter) * 1000)::bigint as jitter_ms, s.queue, s.priority, s.passed_until, s.revision,
       c.now, c.next_ms, c.some_wait, c.some_held
from (
    select durable.now() as now,
           (select greatest(0, ceil(extract(epoch from n.due_at - durable.now()) * 1000))::bigint
            from durable.schedule n where n.due_at > durable.now() order by n.due_at limit 1) as next_ms,
           exists (select from durable.schedule n where n.may_start) as some_wait,
           exists (select from durable.held_start h where h.due_at is not null)
           or exists (select from durable.held_start h where h.after is not null) as some_held
) c
left join (due d join durable.schedule s on s.name = d.name) on true
