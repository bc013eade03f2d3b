-- Decide that a workflow is cancelled, unless it has ended, and with it its children that are not detached; see
-- `durable.cancel` in `0009_cut_off.sql`. The workers that run them are told, so that the caller can wait until they have stopped.
-- Locks: the workflow rows, and that of a parent which waits for the first of them, in key order.
select c.id, c.cancelled as cut, c.stopping, c.undo_in, c.parent, c.parent_queue
from durable.cancel($1, $2) as c
