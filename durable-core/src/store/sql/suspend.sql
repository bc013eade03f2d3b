-- Write down what a body waits for. With $10 it is suspended: the row gives up its owner, if nothing woke
-- the workflow since $11 was seen. Without, the waits are only noted, because other work of the same
-- workflow still goes on and a crash must not make its timers start over.
-- $19 is the claim that the attempt belongs to: a repeat after a lost reply must not meet a later claim of
-- the same worker.
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
    where exists (select from durable.workflow w
                  where w.bucket = $2 and w.id = $3 and w.owner = $1 and w.claims = $19)
    order by g.lane, g.seq
    on conflict (bucket, workflow_id, lane, seq) do nothing
),
wait as (
    select u.lane, u.seq, u.kind, u.topic, u.attempts,
           coalesce(u.until, durable.now() + u.after_ms * interval '1 millisecond') as until
    from unnest($12::text[], $13::integer[], $14::text[], $15::text[], $16::text[], $17::timestamptz[],
                $18::bigint[])
        as u (lane, seq, kind, topic, attempts, until, after_ms)
),
written as (
    update durable.workflow w
    set waits = (select json_agg(json_build_object(
                    'lane', u.lane, 'seq', u.seq, 'kind', u.kind, 'topic', u.topic, 'until', u.until,
                    'attempts', u.attempts::json) order by u.lane, u.seq) from wait u),
        status = case when $10 then 'suspended' else w.status end,
        owner = case when $10 then null else w.owner end,
        due_at = case when $10 then (select min(u.until) from wait u) else w.due_at end,
        recoveries = case when $10 then 0 else w.recoveries end
    where w.bucket = $2 and w.id = $3 and w.owner = $1 and w.claims = $19
      and (not $10 or w.wakes = $11)
    returning true
)
select exists (select from written) as written,
       (select w.wakes from durable.workflow w
        where w.bucket = $2 and w.id = $3 and w.owner = $1 and w.claims = $19) as wakes
