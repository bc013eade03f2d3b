-- Change the deadline of a workflow that has not ended ($1): to $2 milliseconds from now, or to none; for the reason $3. $4 is by
-- what a repeat of this very call is known. See `durable.change_deadline` in `0013_deadline.sql`.
-- Locks: the workflow rows of the family, in key order, then the deadlines.
select c.at, c.refused, c.problem
from durable.change_deadline($1, $2 * interval '1 millisecond', $3, $4) as c
