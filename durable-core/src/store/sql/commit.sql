-- Write down what many workflows have come to, in one act: outcomes of their steps ($2 to $14), and what becomes of
-- their rows ($15 to $23): suspended, ended, or only their waits noted. Each only under the owner $1 and under the
-- claim that is given with it: a repeat after a lost reply must not meet a later claim of the same worker.
-- This is the way it goes nearly always: all positions are free, all workflows are held, nothing woke them. When a position
-- is taken, it fails, and nothing is written. When a workflow is not held, its outcomes are left out, and no row becomes
-- anything. The answer says which rows became what was given, unless all did; about the rest `commit_apart` finds out.
-- The owner is compared so that no index can be used for it: a plan that goes by the owner reads everything that the worker
-- ever ran and that was not vacuumed yet.
-- A workflow is looked up where its row stood when it was claimed or started ($24), which is a third of the price of finding
-- it by its key; where it has moved since, because something woke it, by its key.
-- Rows are unnested in the select list, which hands them on one by one; in the from list each array would be stored as a
-- table of its own first, and costs a fifth of the whole.
-- Locks: the new step rows, then the workflow rows, both in key order, which is the order in which they are given.
with done as (
    insert into durable.step
        (bucket, workflow_id, lane, seq, kind, name, input, output, failure, attempts, started_at, ended_at)
    select g.bucket, g.workflow_id, g.lane, g.seq, g.kind, g.name, g.input::json, g.output::json,
           g.failure::json, g.attempts::json, g.ended_at - g.took_ms * interval '1 millisecond', g.ended_at
    from (
        select unnest($2::smallint[]) as bucket, unnest($3::text[]) as workflow_id, unnest($4::integer[]) as claims,
               unnest($5::text[]) as lane, unnest($6::integer[]) as seq, unnest($7::text[]) as kind,
               unnest($8::text[]) as name, unnest($9::text[]) as input, unnest($10::text[]) as output,
               unnest($11::text[]) as failure, unnest($12::text[]) as attempts,
               unnest($13::timestamptz[]) as ended_at, unnest($14::bigint[]) as took_ms,
               unnest($24::text[])::tid as row_at
    ) g
    -- offset 0 keeps each of them a probe of one row
    where exists (
        select from durable.workflow w
        where w.ctid = g.row_at and w.bucket = g.bucket and w.id = g.workflow_id
          and w.owner is not distinct from $1 and w.claims = g.claims
        offset 0
    ) or exists (
        select from durable.workflow w
        where w.bucket = g.bucket and w.id = g.workflow_id
          and w.owner is not distinct from $1 and w.claims = g.claims
        offset 0
    )
    returning true
),
becoming as (
    select *
    from (
        select unnest($15::smallint[]) as bucket, unnest($16::text[]) as id, unnest($17::integer[]) as claims,
               unnest($18::text[]) as status, unnest($19::bigint[]) as seen, unnest($20::text[]) as waits,
               unnest($21::text[]) as output, unnest($22::text[]) as failure,
               unnest($23::bigint[]) as n
    ) b
    left join lateral (
        -- attempts come in hex, because a failure may hold a NUL, on which json_to_recordset gives up
        select json_agg(json_build_object(
                   'lane', u.lane, 'seq', u.seq, 'kind', u.kind, 'topic', u.topic, 'until', t.until, 'since', t.since,
                   'attempts', convert_from(decode(u.attempts, 'hex'), 'UTF8')::json)) as waits_for,
               min(t.until) as first_until
        from json_to_recordset(b.waits::json) as u
                 (lane text, seq integer, kind text, topic text, until timestamptz, after_ms bigint, since timestamptz,
                  for_ms bigint, attempts text)
        cross join lateral (
            select coalesce(u.until, durable.now() + u.after_ms * interval '1 millisecond') as until,
                   coalesce(u.since, durable.now() - u.for_ms * interval '1 millisecond') as since
        ) t
        -- nearly all rows wait for nothing, and then nothing of this is begun
        where b.waits is not null
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
        finished_at = case when b.status in ('completed', 'failed', 'cancelled') then durable.now() end
    from becoming b
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    where w.bucket = any (array[b.bucket]) and w.id = b.id and w.owner is not distinct from $1 and w.claims = b.claims
      and (b.seen is null or w.wakes = b.seen)
      and (select count(*) from done) = cardinality($2)
    returning b.n
)
select durable.now() as now,
       (select count(*) from done) = cardinality($2) as recorded,
       case when (select count(*) from became) < cardinality($15) then array(select b.n from became b) end as became
