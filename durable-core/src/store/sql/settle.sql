-- End one workflow alone ($15 to $17), with the outcome that led to it, if there is one ($5 to $14): what `commit` does for
-- many, at less cost; and like it, it fails when the position is taken. Only under the owner $1 and the claim $4; the end
-- only if the outcome stands.
-- Locks: the new step row, then the workflow row.
with done as (
    insert into durable.step
        (bucket, workflow_id, lane, seq, kind, name, input, output, failure, attempts, started_at, ended_at)
    select $2, $3, $5, $6, $7, $8, $9::json, $10::json, $11::json, $12::json,
           $13 - $14 * interval '1 millisecond', $13
    from durable.workflow w
    where w.bucket = $2 and w.id = $3 and w.owner is not distinct from $1 and w.claims = $4 and $5 is not null
    returning true
)
update durable.workflow w
set status = $15, owner = null, due_at = null,
    -- A blocked workflow goes on one day, and its timers must not start over.
    waits = case when $15 = 'blocked' then w.waits end,
    output = $16::json, failure = $17::json,
    finished_at = case when $15 in ('completed', 'failed', 'cancelled') then durable.now() end
where w.bucket = $2 and w.id = $3 and w.owner is not distinct from $1 and w.claims = $4
  and ($5 is null or exists (select from done))
returning durable.now() as now
