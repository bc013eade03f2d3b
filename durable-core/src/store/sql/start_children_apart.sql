-- What `start_children` does, for a batch in which an id or a position is taken: it says of each child what became of it. Each
-- for itself is started with its record, or not at all. One that the very same start has started before, whose reply was
-- lost, counts as started. No id may be there twice.
-- The answer has a row for each child whose parent is held: whether it is started, and if just now, the parent's count of wakes;
-- and otherwise which workflow has the id, or that the position is taken (by a former owner's record, after this one had read
-- the history). A row that says none of it is to be asked for again: somebody else has committed a workflow with that id while
-- this statement waited for it.
-- Locks: as `start_children`; but nothing where all is there already, so that a repeat has nothing to commit.
with asked as materialized (
    select g.*, f.name as found_name, f.version as found_version, f.mine, s.ended_at,
           f.name is null and s.ended_at is null as is_new
    from (
        select unnest($5::integer[]) as parent_n, unnest($6::smallint[]) as parent_bucket, unnest($7::text[]) as parent,
               unnest($8::text[]) as lane, unnest($9::integer[]) as seq, unnest($10::smallint[]) as bucket,
               unnest($11::text[]) as id, unnest($12::text[]) as name, unnest($13::integer[]) as version,
               unnest($14::text[]) as own_queue, unnest($15::smallint[]) as own_priority,
               unnest($16::bigint[]) as delay_ms, unnest($17::text[]) as input, unnest($18::boolean[]) as detached,
               unnest($19::text[]) as output, unnest($20::bigint[]) as deadline_ms,
               unnest($21::text[]) as partition,
               generate_subscripts($5, 1) as n
    ) g
    left join lateral (
        -- offset 0 keeps these looks by the key
        select w.name, w.version,
               exists (select from durable.child c
                       where c.bucket = g.bucket and c.id = g.id and c.parent_bucket = g.parent_bucket
                         and c.parent = g.parent and c.lane = g.lane and c.seq = g.seq) as mine
        from durable.workflow w
        where w.bucket = g.bucket and w.id = g.id
        offset 0
    ) f on true
    left join lateral (
        select s.ended_at from durable.step s
        where s.bucket = g.parent_bucket and s.workflow_id = g.parent and s.lane = g.lane and s.seq = g.seq
        offset 0
    ) s on true
),
parents as materialized (
    select p.n, w.wakes, w.queue, w.priority,
           (select d.at from durable.deadline d where d.bucket = w.bucket and d.id = w.id offset 0) as deadline
    from (
        select unnest($2::smallint[]) as bucket, unnest($3::text[]) as id, unnest($4::integer[]) as claims,
               generate_subscripts($2, 1) as n
    ) p
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    join durable.workflow w
        on w.bucket = any (array[p.bucket]) and w.id = p.id and w.owner is not distinct from $1 and w.claims = p.claims
    where p.n = any (array(select a.parent_n from asked a where a.is_new))
    order by w.bucket + 0, w.id  -- likewise
    for no key update of w
),
born as (
    insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
    select a.bucket, a.id, a.name, a.version, coalesce(a.own_queue, p.queue), coalesce(a.own_priority, p.priority), 'queued',
           durable.now() + a.delay_ms * interval '1 millisecond', a.input::json
    from asked a
    join parents p on p.n = a.parent_n
    where a.is_new
    on conflict (bucket, id) do nothing
    returning bucket, id, queue, priority
),
noted as (
    insert into durable.child (bucket, id, parent_bucket, parent, lane, seq, detached)
    select a.bucket, a.id, a.parent_bucket, a.parent, a.lane, a.seq, a.detached
    from born b
    join asked a on a.bucket = b.bucket and a.id = b.id
),
placed as (
    insert into durable.place (bucket, id, queue, partition, name, version, priority, is_new)
    select b.bucket, b.id, b.queue, a.partition, a.name, a.version, b.priority, true
    from born b
    join asked a on a.bucket = b.bucket and a.id = b.id
    where a.partition is not null
    -- of a workflow that had the id before
    on conflict (bucket, id) do update
        set queue = excluded.queue, partition = excluded.partition, is_held = false, due_at = null
),
bounded as (
    insert into durable.deadline (bucket, id, at)
    select t.bucket, t.id, t.deadline
    from (
        select b.bucket, b.id,
               least(case when not a.detached and p.deadline is not null
                              then durable.deadline_of(a.parent_bucket, a.parent) end,
                     durable.now() + a.deadline_ms * interval '1 millisecond') as deadline
        from born b
        join asked a on a.bucket = b.bucket and a.id = b.id
        join parents p on p.n = a.parent_n
    ) t
    where t.deadline is not null
    -- of a workflow that had the id before
    on conflict (bucket, id) do update set at = excluded.at
),
recorded as (
    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
    select a.parent_bucket, a.parent, a.lane, a.seq, 'start', a.name, a.output::json, durable.now()
    from born b
    join asked a on a.bucket = b.bucket and a.id = b.id
)
select a.n, case when b.id is not null then p.wakes end as wakes, a.found_name, a.found_version,
       b.id is not null or (a.mine and a.ended_at is not null) is true as started,
       a.ended_at is not null and a.mine is not true as overtaken,
       coalesce(a.ended_at, durable.now()) as now
from asked a
left join parents p on p.n = a.parent_n
left join born b on b.bucket = a.bucket and b.id = a.id
where case
    when a.is_new then p.n is not null
    else exists (
        select from durable.workflow w
        where w.bucket = a.parent_bucket and w.id = a.parent and w.owner is not distinct from $1
          and w.claims = ($4::integer[])[a.parent_n]
        offset 0
    )
end
