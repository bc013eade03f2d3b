-- What `commit` does, for a batch of which not all went well: it says of each outcome whether it stands and of each row
-- whether it became what was given.
-- An outcome stands if it is written here, or if the very same was written before: by a statement whose reply was lost,
-- or by `commit` a moment ago. A row becomes what is given for it only if all outcomes given for its workflow stand, and,
-- where `seen` is given, if nothing woke it since.
-- What ends may be a child: then its parent ($23, $24, for each row or for none) is woken in the same act, once for all its
-- children that end here. No parent may have a row of its own here.
-- A registration of an undo step stands only if its workflow is held until this commits: whoever cuts a workflow off locks its row, and
-- then looks whether there is something to be undone. Without the lock it would be told that there is nothing, and what
-- the workflow does between that look and the end of the cancellation would never be undone.
-- The answer is one row: what does not stand and what did not become, by number; and whose parents run.
-- Locks: as `commit`. With parents or registrations: all their rows, those of the parents too, in key order, before anything else is done;
-- but none where the very same was written before, so that a repeat has nothing to commit.
with parents as materialized (
    select e.n, e.parent_bucket as bucket, e.parent as id, e.bucket as child_bucket, e.id as child
    from unnest($15::smallint[], $16::text[], $17::integer[], $23::smallint[], $24::text[]) with ordinality
        as e (bucket, id, claims, parent_bucket, parent, n)
    where e.parent is not null
      and exists (
          select from durable.workflow w
          where w.bucket = e.bucket and w.id = e.id and w.owner is not distinct from $1 and w.claims = e.claims
          offset 0
      )
),
undoable as materialized (
    select u.bucket, u.id
    from unnest($2::smallint[], $3::text[], $5::text[], $6::integer[], $7::text[]) as u (bucket, id, lane, seq, kind)
    where u.kind = 'undo'
      and not exists (
          select from durable.step s
          where s.bucket = u.bucket and s.workflow_id = u.id and s.lane = u.lane and s.seq = u.seq
          offset 0
      )
),
locked as materialized (
    select w.bucket, w.id, w.owner, w.claims
    from (select p.bucket, p.id from parents p union select p.child_bucket, p.child from parents p
          union select u.bucket, u.id from undoable u) k
    join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id
    order by w.bucket + 0, w.id
    for no key update of w
),
given as (
    select *
    from unnest($2::smallint[], $3::text[], $4::integer[], $5::text[], $6::integer[], $7::text[], $8::text[],
                $9::text[], $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::bigint[])
        with ordinality
        as g (bucket, workflow_id, claims, lane, seq, kind, name, input, output, failure, attempts, ended_at,
              took_ms, n)
),
done as (
    insert into durable.step
        (bucket, workflow_id, lane, seq, kind, name, input, output, failure, attempts, started_at, ended_at)
    select g.bucket, g.workflow_id, g.lane, g.seq, g.kind, g.name, g.input::json, g.output::json,
           g.failure::json, g.attempts::json, g.ended_at - g.took_ms * interval '1 millisecond', g.ended_at
    from given g
    cross join lateral (
        -- offset 0 keeps this a probe of one row by its key
        select from durable.workflow w
        where w.bucket = g.bucket and w.id = g.workflow_id and w.owner is not distinct from $1 and w.claims = g.claims
        offset 0
    ) held
    where g.kind <> 'undo' or exists (
        select from locked l
        where l.bucket = g.bucket and l.id = g.workflow_id and l.owner is not distinct from $1 and l.claims = g.claims
    )
    on conflict (bucket, workflow_id, lane, seq) do nothing
    returning bucket, workflow_id, lane, seq
),
missing as materialized (
    select g.n, g.bucket, g.workflow_id
    from given g
    where (select count(*) from done) < cardinality($2)
      and not exists (
          select from done d
          where d.bucket = g.bucket and d.workflow_id = g.workflow_id and d.lane = g.lane and d.seq = g.seq
      )
      and not exists (
          select from durable.step s
          join durable.workflow w on w.bucket = g.bucket and w.id = g.workflow_id
          where s.bucket = g.bucket and s.workflow_id = g.workflow_id and s.lane = g.lane and s.seq = g.seq
            and s.kind = g.kind and s.name = g.name and s.output::text is not distinct from g.output
            and s.failure::text is not distinct from g.failure
            and w.owner is not distinct from $1 and w.claims = g.claims
      )
),
becoming as (
    select *
    from unnest($15::smallint[], $16::text[], $17::integer[], $18::text[], $19::bigint[], $20::text[], $21::text[],
                $22::text[])
        with ordinality as b (bucket, id, claims, status, seen, waits, output, failure, n)
    left join lateral (
        -- attempts come in hex, because a failure may hold a NUL, on which json_to_recordset gives up
        select json_agg(json_build_object(
                   'lane', u.lane, 'seq', u.seq, 'kind', u.kind, 'topic', u.topic, 'until', t.until, 'since', t.since,
                   'attempts', convert_from(decode(u.attempts, 'hex'), 'UTF8')::json)
                   order by u.lane, u.seq) as waits_for,
               min(t.until) as first_until
        from json_to_recordset(b.waits::json) as u
                 (lane text, seq integer, kind text, topic text, until timestamptz, after_ms bigint, since timestamptz,
                  for_ms bigint, attempts text)
        cross join lateral (
            select coalesce(u.until, durable.now() + u.after_ms * interval '1 millisecond') as until,
                   coalesce(u.since, durable.now() - u.for_ms * interval '1 millisecond') as since
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
        finished_at = case when b.status in ('completed', 'failed', 'cancelled') then durable.now() end
    from becoming b
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    where w.bucket = any (array[b.bucket]) and w.id = b.id and w.owner is not distinct from $1 and w.claims = b.claims
      and (b.seen is null or w.wakes = b.seen)
      and not exists (select from missing m where m.bucket = b.bucket and m.workflow_id = b.id)
      and (select count(*) from locked) >= 0
    returning b.n
),
woken as (
    update durable.workflow w
    set wakes = w.wakes + 1,
        status = case when w.status = 'suspended' then 'queued' else w.status end,
        due_at = case when w.status = 'suspended' then durable.now() else w.due_at end
    from (select distinct p.bucket, p.id from parents p where p.n = any (array(select b.n from became b))) k
    -- likewise
    where w.bucket = any (array[k.bucket]) and w.id = k.id and w.status in ('queued', 'running', 'suspended', 'blocked')
    returning w.bucket, w.id, w.status
),
refused as (
    select b.n, w.wakes
    from becoming b
    left join lateral (
        select w.wakes from durable.workflow w
        where w.bucket = b.bucket and w.id = b.id and w.owner is not distinct from $1 and w.claims = b.claims
        offset 0
    ) w on true
    where (select count(*) from became) < cardinality($15)
      and not exists (select from became d where d.n = b.n)
)
select durable.now() as now,
       (select array_agg(m.n) from missing m) as missing,
       (select array_agg(r.n order by r.n) from refused r) as refused,
       (select array_agg(r.wakes order by r.n) from refused r) as wakes,
       (select array_agg(p.n) from woken k join parents p on p.bucket = k.bucket and p.id = k.id
        where k.status = 'running') as parent_runs
