-- The history of one workflow in the order in which it was recorded, for people.
-- Locks: nothing.
select s.lane, s.seq, s.kind, s.name, s.input::text as input, s.output::text as output,
       s.failure::text as failure, s.attempts::text as attempts, s.started_at, s.recorded_at
from durable.step s
where s.bucket = $1 and s.workflow_id = $2
order by s.recorded_at, s.lane, s.seq
