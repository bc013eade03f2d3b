-- Pause a limit of steps ($1), or let it go on ($2).
-- Locks: the limit.
update durable.step_limit l set is_paused = $2 where l.name = $1
returning l.name
