-- Act on a due schedule, once: see `durable.tick_schedule` in `0012_schedule.sql`.
-- Locks: the schedule's row, unless somebody else has it; then the rows of ticks and new workflow rows, and those that are cancelled.
select t.what, t.workflow_id, t.in_queue, t.stopper, t.undo_in, t.parent, t.parent_queue
from durable.tick_schedule($1, $2, $3, $4, $5::text[], $6::timestamptz[], $7, $8, $9) as t
