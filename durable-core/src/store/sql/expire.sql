-- End a workflow whose deadline has passed, and cancel its children; see `durable.expire` in `0009_cut_off.sql`.
-- Locks: the deadline, then as `cancel`.
select c.id, c.cut, c.stopping, c.undo_in, c.parent, c.parent_queue
from durable.expire($1) as c
