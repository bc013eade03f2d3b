-- Everything recorded for the given workflows, in position order: one statement for a whole claim batch.
-- Locks: nothing.
select s.workflow_id, s.lane, s.seq, s.kind, s.name, s.output::text as output, s.failure::text as failure,
       s.ended_at
from unnest($1::smallint[], $2::text[]) as g (bucket, id)
cross join lateral (
    -- offset 0 keeps this a look by the key, also for a batch that is large beside the table
    select * from durable.step s
    where s.bucket = g.bucket and s.workflow_id = g.id
    offset 0
) s
order by s.workflow_id, s.lane, s.seq
