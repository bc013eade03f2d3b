-- Create a schedule, or change it to what is given. What is as it was changes nothing, so this may be sent at every start of every
-- process. A schedule whose rule has changed counts its ticks from now on; whether it is paused stays.
-- Locks: the schedule's row.
insert into durable.schedule as s
    (name, workflow, version, input, queue, priority, attributes, deadline, cron, time_zone, every, every_offset, overlap,
     catch_up, catch_up_most, catch_up_within, jitter, due_at)
values ($1, $2, $3, $4::json, $5, $6, $7::json, $8::bigint * interval '1 millisecond', $9, $10,
        $11::bigint * interval '1 second', $12::bigint * interval '1 second', $13, $14, $15,
        $16::bigint * interval '1 second', $17::bigint * interval '1 millisecond', durable.now())
on conflict (name) do update
set workflow = excluded.workflow, version = excluded.version, input = excluded.input, queue = excluded.queue,
    priority = excluded.priority, attributes = excluded.attributes, deadline = excluded.deadline, cron = excluded.cron,
    time_zone = excluded.time_zone, every = excluded.every, every_offset = excluded.every_offset,
    overlap = excluded.overlap, catch_up = excluded.catch_up, catch_up_most = excluded.catch_up_most,
    catch_up_within = excluded.catch_up_within, jitter = excluded.jitter,
    passed_until = case when (s.cron, s.time_zone, s.every, s.every_offset)
                             is distinct from (excluded.cron, excluded.time_zone, excluded.every, excluded.every_offset)
                        then greatest(s.passed_until, durable.now()) else s.passed_until end,
    next_at = null, due_at = case when s.paused_at is null then durable.now() end,
    revision = s.revision + 1, changed_at = durable.now()
where (s.workflow, s.version, s.input::text, s.queue, s.priority, s.attributes::text, s.deadline, s.cron, s.time_zone, s.every,
       s.every_offset, s.overlap, s.catch_up, s.catch_up_most, s.catch_up_within, s.jitter)
      is distinct from
      (excluded.workflow, excluded.version, excluded.input::text, excluded.queue, excluded.priority, excluded.attributes::text,
       excluded.deadline, excluded.cron, excluded.time_zone, excluded.every, excluded.every_offset, excluded.overlap,
       excluded.catch_up, excluded.catch_up_most, excluded.catch_up_within, excluded.jitter)
