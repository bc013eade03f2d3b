-- Pause a queue with limits ($1), or let it go on ($2).
-- Locks: the queue.
update durable.queue q set is_paused = $2 where q.name = $1
returning q.name
