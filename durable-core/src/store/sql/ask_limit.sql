-- Say what worker $2 has running of limit $1, and ask for more. Its askings are numbered ($3); one that comes late changes nothing.
-- Locks: see `durable.ask_limit`.
select state, booked_begin, newcomers_begin, turn_in, spacing, again_in, counts
from durable.ask_limit($1, $2, $3, $4, $5, $6, $7, $8)
