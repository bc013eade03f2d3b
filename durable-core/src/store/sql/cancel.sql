-- Decide that a workflow is cancelled, unless it has ended, and with it its children that are not detached; see
-- `durable.cancel` in `0005_child.sql`. The workers that run them are told, so that the caller can wait until they have stopped.
-- Locks: the workflow rows, and that of a parent which waits for the first of them, in key order.
select c.id, c.cancelled, c.stopping, c.parent, c.parent_queue
from durable.cancel($1) as c
