-- A page of the timeline of one workflow ($1, $2), for people: every change of how it stood, and every record of its history, in the order of
-- their times. The first $8 entries after a place in that order ($3 to $7), or as many as have records of up to $9 bytes together,
-- where what is stored compressed counts eightfold; one in any case. One more says that others follow; it comes without values.
-- Times are put together from what is stored anyway: the row, the journal, the records, and what the body waits for.
-- Locks: nothing.
with w as materialized (
    select * from durable.workflow w where w.bucket = $1 and w.id = $2
),
journal as materialized (
    select * from durable.operation o where o.bucket = $1 and o.workflow_id = $2
),
recorded as materialized (
    -- The sizes are those in the row: nothing is unpacked to find them.
    select s.lane, s.seq, s.kind, s.name, s.started_at, s.ended_at, s.attempts,
           128 + coalesce(pg_column_size(s.input), 0) + coalesce(pg_column_size(s.failure), 0)
               + coalesce(pg_column_size(s.attempts), 0)
               + least(coalesce(pg_column_size(s.output), 0), 100000000)
                 * case when pg_column_compression(s.output) is null then 1 else 8 end as size
    from durable.step s where s.bucket = $1 and s.workflow_id = $2
),
open_wait as materialized (
    select o.*
    from (
        select x.wait, x.attempts, btrim((x.wait -> 'lane')::text, '"') as lane, (x.wait -> 'seq')::text::integer as seq,
               btrim((x.wait -> 'kind')::text, '"') as kind,
               btrim(nullif((x.wait -> 'since')::text, 'null'), '"')::timestamptz as since
        from (
            select durable.plain_wait(x.wait) as wait, durable.attempts_of(x.wait) as attempts
            from w
            cross join lateral json_array_elements(w.waits) as x (wait)
            where w.status in ('queued', 'running', 'suspended', 'blocked')
            union all
            -- When it was cut off, its row forgot what it was waiting for.
            select j.reason::json, null from journal j where j.act = 'wait'
        ) x
    ) o
    where not exists (select from recorded r where r.lane = o.lane and r.seq = o.seq)
),
tried as materialized (
    -- By the text: every operator that looks into JSON gives up on a NUL in a failure.
    select t.*, substring(t.attempt::text from '"failed_at" ?: ?"([^"]+)"')::timestamptz as at,
           substring(t.attempt::text from '"took_ms" ?: ?([0-9]+)')::bigint * interval '1 millisecond' as took
    from (
        select r.lane, r.seq, r.name, a.attempt, a.n
        from recorded r
        cross join lateral json_array_elements(r.attempts) with ordinality as a (attempt, n)
        where r.attempts is not null
        union all
        select o.lane, o.seq, null, a.attempt, a.n
        from open_wait o
        cross join lateral json_array_elements(o.attempts) with ordinality as a (attempt, n)
    ) t
),
-- The claims that are known: those that were cut short or came to a block, and the last one.
claimed as materialized (
    select c.at, max(c.reason) as reason, max(c.number) as number
    from (
        select j.done_at as at, j.reason, substring(j.reason from '^claim ([0-9]+),')::integer as number
        from journal j where j.act = 'claim'
        union all
        select w.claimed_at, case when w.owner is not null then format('claim %s, by worker %s', w.claims, w.owner) end,
               w.claims
        from w where w.claimed_at is not null
    ) c
    group by c.at
),
-- When it first began: that is the first claim, if it is known; else what is known is later.
begun as materialized (
    select min(b.at) as at
    from w
    cross join lateral (
        select c.at from claimed c
        union all
        select r.started_at from recorded r
        union all
        select t.at - t.took from tried t
        union all
        select o.since from open_wait o
    ) b
    -- A fork has records from before it was one.
    where b.at >= w.created_at
),
entry as (
    select w.created_at as at, 0 as rank, '' as lane, 0 as seq, 0::bigint as n, 'create' as what, null::text as name,
           null::text as stood, null::text as reason, null::text as done_by, null::json as detail, 0::bigint as size
    from w
    where not exists (select from journal j where j.act = 'restart' and j.done_at = w.created_at)
    union all
    select g.started_at, 0, '', 0, g.generation, 'continue', null, null, null, null, null, 0
    from durable.generation g where g.bucket = $1 and g.id = $2
    union all
    select b.at, 1, '', 0, 0, case when c.at is null then 'begin_about' else 'begin' end, null, null, c.reason, null, null, 0
    from begun b left join claimed c on c.at = b.at and c.number = 1
    where b.at is not null
    union all
    select c.at, 1, '', 0, coalesce(c.number, 1), 'claim', null, null, c.reason, null, null, 0
    from claimed c
    where c.number is distinct from 1 or not exists (select from begun b where b.at = c.at)
    union all
    select t.at, 2, t.lane, t.seq, t.n, 'attempt', t.name, null, null, null, t.attempt, 128
    from tried t
    union all
    select r.started_at, 3, r.lane, r.seq, 0, 'wait', r.name, r.kind, null, null, null, 0
    from recorded r where r.kind in ('sleep', 'receive', 'event', 'child')
    union all
    select o.since, 3, o.lane, o.seq, 0, 'wait', null, o.kind, null, null, o.wait, 0
    from open_wait o where o.since is not null
    union all
    select r.ended_at, 4, r.lane, r.seq, 0, 'record', r.name, r.kind, null, null, null, r.size
    from recorded r
    union all
    select j.done_at, case j.act when 'create' then 0 when 'end' then 6 else 5 end, '', 0, j.n, j.act, null, j.stood, j.reason,
           j.done_by, j.dropped, 0
    from journal j where j.act not in ('claim', 'wait')
    union all
    select w.finished_at, 6, '', 0, 0, 'end', null, w.status, durable.first_message(w.failure), null, null, 0
    from w where w.finished_at is not null and w.status in ('completed', 'failed', 'cancelled')
),
page as materialized (
    select *
    from entry e
    where (e.at, e.rank, e.n, e.seq, e.lane collate "C") > ($3, $4, $7, $6, $5)
    order by e.at, e.rank, e.n, e.seq, e.lane collate "C"
    limit $8 + 1
),
filled as (
    select p.*, row_number() over way as place, sum(p.size) over way as bytes
    from page p
    window way as (order by p.at, p.rank, p.n, p.seq, p.lane collate "C" rows unbounded preceding)
)
select f.place <= $8 and (f.bytes <= $9 or f.place = 1) as there, f.at, f.rank, f.lane, f.seq, f.n, f.what, f.name, f.stood,
       f.reason, f.done_by, f.detail::text as detail, d.was as deadline_before, d.at as deadline, s.kind, s.input::text as input,
       s.output::text as output, s.failure::text as failure, s.attempts::text as attempts, s.started_at, s.recorded_at
from filled f
left join lateral (
    -- offset 0 keeps each of these a look by the key
    select s.* from durable.step s
    where f.what = 'record' and s.bucket = $1 and s.workflow_id = $2 and s.lane = f.lane and s.seq = f.seq
      and f.place <= $8 and (f.bytes <= $9 or f.place = 1)
    offset 0
) s on true
left join lateral (
    select c.was, c.at from durable.deadline_change c
    where f.what = 'deadline' and c.bucket = $1 and c.workflow_id = $2 and c.n = f.n
    offset 0
) d on true
where f.bytes - f.size <= $9 or f.place <= 2
order by f.place
