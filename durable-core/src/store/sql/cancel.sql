-- Decide that a workflow is cancelled, unless it has ended, and with it its children that are not detached, for the reason $2; see
-- `durable.cut_off` in `0009_cut_off.sql`. $3 is by what a repeat of this very call is known, see `durable.cancel_once` in
-- `0013_deadline.sql`. The workers that run them are told, so that the caller can wait until they have stopped.
-- Locks: the workflow rows, and that of a parent which waits for the first of them, in key order.
select c.id, c.cut, c.stopping, c.undo_in, c.parent, c.parent_queue
from durable.cancel_once($1, $2, $3) as c
