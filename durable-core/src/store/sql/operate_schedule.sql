-- Pause, resume or delete ($1) the schedule $2 for the reason $3: whether there is one. See `0012_schedule.sql`.
-- Locks: the schedule's row, then those of its ticks.
select durable.operate_schedule($1, $2, $3) as there
