-- Create a schedule, or change it to what is given. What is as it was changes nothing, so this may be sent at every start of every
-- process. A schedule whose rule has changed counts its ticks from now on; whether it is paused stays.
-- Locks: the schedule's row, unless it is as it should be.
insert into durable.schedule as s
    (name, workflow, version, input, queue, priority, attributes, deadline, cron, time_zone, every, every_offset, overlap,
     catch_up, catch_up_most, catch_up_within, jitter, partition, due_at)
select g.*, durable.now()
from (
    select $1::text as name, $2::text as workflow, $3::integer as version, $4::json as input, $5::text as queue,
           $6::smallint as priority, $7::json as attributes, $8::bigint * interval '1 millisecond' as deadline, $9::text as cron,
           $10::text as time_zone, $11::bigint * interval '1 second' as every, $12::bigint * interval '1 second' as every_offset,
           $13::text as overlap, $14::text as catch_up, $15::integer as catch_up_most,
           $16::bigint * interval '1 second' as catch_up_within, $17::bigint * interval '1 millisecond' as jitter,
           $18::text as partition
) g
where not exists (
    -- Without a lock, whose commit could lose its reply again.
    select from durable.schedule k
    where k.name = g.name
      and (k.workflow, k.version, k.input::text, k.queue, k.priority, k.attributes::text, k.deadline, k.cron, k.time_zone, k.every,
           k.every_offset, k.overlap, k.catch_up, k.catch_up_most, k.catch_up_within, k.jitter, k.partition)
          is not distinct from
          (g.workflow, g.version, g.input::text, g.queue, g.priority, g.attributes::text, g.deadline, g.cron, g.time_zone, g.every,
           g.every_offset, g.overlap, g.catch_up, g.catch_up_most, g.catch_up_within, g.jitter, g.partition)
)
on conflict (name) do update
set workflow = excluded.workflow, version = excluded.version, input = excluded.input, queue = excluded.queue,
    priority = excluded.priority, attributes = excluded.attributes, deadline = excluded.deadline, cron = excluded.cron,
    time_zone = excluded.time_zone, every = excluded.every, every_offset = excluded.every_offset,
    overlap = excluded.overlap, catch_up = excluded.catch_up, catch_up_most = excluded.catch_up_most,
    catch_up_within = excluded.catch_up_within, jitter = excluded.jitter, partition = excluded.partition,
    passed_until = case when (s.cron, s.time_zone, s.every, s.every_offset)
                             is distinct from (excluded.cron, excluded.time_zone, excluded.every, excluded.every_offset)
                        then greatest(s.passed_until, durable.now()) else s.passed_until end,
    next_at = null, due_at = case when s.paused_at is null then durable.now() end,
    revision = s.revision + 1, changed_at = durable.now()
