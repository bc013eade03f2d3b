-- What stands at one position, and whether $5 still owns the workflow. Asked only after a write came back
-- empty, never before a step.
-- Locks: nothing.
select w.owner is not distinct from $5 as held, s.kind, s.name, s.output::text as output,
       s.failure::text as failure, s.ended_at
from durable.workflow w
left join durable.step s
    on s.bucket = w.bucket and s.workflow_id = w.id and s.lane = $3 and s.seq = $4
where w.bucket = $1 and w.id = $2
