-- End an attempt for good: completed, failed or blocked, with the records that still ride along.
-- Locks: the workflow row, then the new step rows.
with given as (
    select *
    from unnest($4::text[], $5::integer[], $6::text[], $7::text[], $8::text[], $9::bigint[])
        as g (lane, seq, kind, name, output, took_ms)
),
kept as (
    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
    select $2, $3, g.lane, g.seq, g.kind, g.name, g.output::json,
           durable.now() - g.took_ms * interval '1 millisecond'
    from given g
    where exists (select from durable.workflow w where w.bucket = $2 and w.id = $3 and w.owner = $1)
    order by g.lane, g.seq
    on conflict (bucket, workflow_id, lane, seq) do nothing
)
update durable.workflow w
set status = $10, owner = null, due_at = null,
    -- A blocked workflow goes on one day, and its timers must not start over.
    waits = case when $10 = 'blocked' then w.waits end,
    output = $11::json, failure = $12::json,
    finished_at = case when $10 = 'blocked' then null else durable.now() end
where w.bucket = $2 and w.id = $3 and w.owner = $1
returning true as settled
