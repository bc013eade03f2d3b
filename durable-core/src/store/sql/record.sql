-- Record one step alone, if its workflow is still owned by $1 under the claim $4. What `commit` does for many, at less
-- cost; and like it, it fails when the position is taken.
-- Locks: the new step row.
insert into durable.step
    (bucket, workflow_id, lane, seq, kind, name, input, output, failure, attempts, started_at, ended_at)
select $2, $3, $5, $6, $7, $8, $9::json, $10::json, $11::json, $12::json,
       $13 - $14 * interval '1 millisecond', $13
from durable.workflow w
where w.bucket = $2 and w.id = $3 and w.owner is not distinct from $1 and w.claims = $4
returning durable.now() as now
