-- Offer a trigger or a backfill ($2) to a schedule ($1): see `durable.ask_schedule` in `0012_schedule.sql`.
-- Locks: the schedule's row, then as `tick_schedule`.
select t.what, t.workflow_id, t.in_queue, t.stopper, t.undo_in, t.parent, t.parent_queue
from durable.ask_schedule($1, $2, $3, $4::text[], $5::timestamptz[]) as t
