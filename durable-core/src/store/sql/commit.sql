-- Write down what many workflows have come to, in one act: outcomes of their steps ($2 to $14), and what becomes of
-- their rows ($15 to $22): suspended, ended, or only their waits noted. Each only under the owner $1 and under the
-- claim that is given with it: a repeat after a lost reply must not meet a later claim of the same worker.
-- This is the way it goes nearly always: all positions are free, all workflows are held, nothing woke them. When a position
-- is taken, it fails, and nothing is written. When a workflow is not held, its outcomes are left out, and no row becomes
-- anything. The answer says which rows became what was given, unless all did; about the rest `commit_apart` finds out.
-- The owner is compared so that no index can be used for it: a plan that goes by the owner reads everything that the worker
-- ever ran and that was not vacuumed yet.
-- Locks: the new step rows, then the workflow rows, both in key order, which is the order in which they are given.
with done as (
    insert into durable.step
        (bucket, workflow_id, lane, seq, kind, name, input, output, failure, attempts, started_at, ended_at)
    select g.bucket, g.workflow_id, g.lane, g.seq, g.kind, g.name, g.input::json, g.output::json,
           g.failure::json, g.attempts::json, g.ended_at - g.took_ms * interval '1 millisecond', g.ended_at
    from unnest($2::smallint[], $3::text[], $4::integer[], $5::text[], $6::integer[], $7::text[], $8::text[],
                $9::text[], $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::bigint[])
        as g (bucket, workflow_id, claims, lane, seq, kind, name, input, output, failure, attempts, ended_at, took_ms)
    cross join lateral (
        -- offset 0 keeps this a probe of one row by its key
        select from durable.workflow w
        where w.bucket = g.bucket and w.id = g.workflow_id and w.owner is not distinct from $1
          and w.claims = g.claims
        offset 0
    ) held
    returning true
),
becoming as (
    select *
    from unnest($15::smallint[], $16::text[], $17::integer[], $18::text[], $19::bigint[], $20::text[], $21::text[],
                $22::text[])
        with ordinality as b (bucket, id, claims, status, seen, waits, output, failure, n)
    left join lateral (
        -- attempts come in hex, because a failure may hold a NUL, on which json_to_recordset gives up
        select json_agg(json_build_object(
                   'lane', u.lane, 'seq', u.seq, 'kind', u.kind, 'topic', u.topic, 'until', t.until,
                   'attempts', convert_from(decode(u.attempts, 'hex'), 'UTF8')::json)
                   order by u.lane, u.seq) as waits_for,
               min(t.until) as first_until
        from json_to_recordset(b.waits::json) as u
                 (lane text, seq integer, kind text, topic text, until timestamptz, after_ms bigint, attempts text)
        cross join lateral (
            select coalesce(u.until, durable.now() + u.after_ms * interval '1 millisecond') as until
        ) t
    ) waiting on true
),
became as (
    update durable.workflow w
    set status = coalesce(b.status, w.status),
        owner = case when b.status is null then w.owner end,
        due_at = case when b.status is null then w.due_at else b.first_until end,
        -- A blocked workflow goes on one day, and its timers must not start over.
        waits = case when b.status = 'blocked' then w.waits else b.waits_for end,
        recoveries = case when b.status = 'suspended' then 0 else w.recoveries end,
        output = b.output::json,
        failure = b.failure::json,
        finished_at = case when b.status in ('completed', 'failed') then durable.now() end
    from becoming b
    where w.bucket = b.bucket and w.id = b.id and w.owner is not distinct from $1 and w.claims = b.claims
      and (b.seen is null or w.wakes = b.seen)
      and (select count(*) from done) = cardinality($2)
    returning b.n
)
select durable.now() as now,
       (select count(*) from done) = cardinality($2) as recorded,
       case when (select count(*) from became) < cardinality($15) then array(select b.n from became b) end as became
