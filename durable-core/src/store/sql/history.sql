-- Everything recorded for the given workflows, in position order: one statement for a whole claim batch.
-- Locks: nothing.
select s.workflow_id, s.lane, s.seq, s.kind, s.name, s.output::text as output, s.failure::text as failure,
       s.recorded_at
from unnest($1::smallint[], $2::text[]) as g (bucket, id)
join durable.step s on s.bucket = g.bucket and s.workflow_id = g.id
order by s.workflow_id, s.lane, s.seq
