-- Pause, resume, restart or delete ($1) the workflows $2, each for itself, for the reason $3; $4 is by what a repeat of this
-- very call is known. See `durable.operate` in `0007_operate.sql`.
-- Locks: the workflow rows, in key order, each before what hangs on it.
select o.workflow, o.done, o.stood, o.in_queue, o.stopper, o.refused, o.problem
from durable.operate($1, $2::text[], $3, $4) as o
