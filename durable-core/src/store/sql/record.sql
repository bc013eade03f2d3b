-- Record steps of many workflows, each only if its workflow is still owned by $1 and its position is still
-- free. What does not come back was one or the other; `recorded` tells which.
-- Locks: the new step rows, in key order; never the workflow rows.
with given as (
    select *
    from unnest($2::smallint[], $3::text[], $4::text[], $5::integer[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[])
        as g (bucket, workflow_id, lane, seq, kind, name, input, output, failure, attempts, took_ms)
)
insert into durable.step
    (bucket, workflow_id, lane, seq, kind, name, input, output, failure, attempts, started_at)
select g.bucket, g.workflow_id, g.lane, g.seq, g.kind, g.name, g.input::json, g.output::json,
       g.failure::json, g.attempts::json, durable.now() - g.took_ms * interval '1 millisecond'
from given g
join lateral (
    -- offset 0 keeps this a probe of one row by its key
    select 1 from durable.workflow w
    where w.bucket = g.bucket and w.id = g.workflow_id and w.owner = $1
    offset 0
) held on true
order by g.bucket, g.workflow_id, g.lane, g.seq
on conflict (bucket, workflow_id, lane, seq) do nothing
returning workflow_id, lane, seq, recorded_at
