-- What `start_children` does, for a batch in which an id or a position is taken: it says of each child what became of it. Each
-- for itself is started with its record, or not at all. One that the very same start has started before, whose reply was
-- lost, counts as started. No id may be there twice.
-- The answer has a row for each child whose parent is held: whether it is started; and otherwise which workflow has the id, or
-- that the position is taken (by a former owner's record, after this one had read the history). A row that says none of it is
-- to be asked for again: somebody else has committed a workflow with that id while this statement waited for it.
-- Locks: as `start_children`.
with parents as materialized (
    select p.n, w.wakes, w.queue, w.priority
    from (
        select unnest($2::smallint[]) as bucket, unnest($3::text[]) as id, unnest($4::integer[]) as claims,
               generate_subscripts($2, 1) as n
    ) p
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    join durable.workflow w
        on w.bucket = any (array[p.bucket]) and w.id = p.id and w.owner is not distinct from $1 and w.claims = p.claims
    order by w.bucket + 0, w.id  -- likewise
    for no key update of w
),
given as materialized (
    select g.*, p.wakes, coalesce(g.own_queue, p.queue) as queue, coalesce(g.own_priority, p.priority) as priority,
           f.name as found_name, f.version as found_version, f.mine, s.ended_at
    from (
        select unnest($5::integer[]) as parent_n, unnest($6::smallint[]) as parent_bucket, unnest($7::text[]) as parent,
               unnest($8::text[]) as lane, unnest($9::integer[]) as seq, unnest($10::smallint[]) as bucket,
               unnest($11::text[]) as id, unnest($12::text[]) as name, unnest($13::integer[]) as version,
               unnest($14::text[]) as own_queue, unnest($15::smallint[]) as own_priority,
               unnest($16::bigint[]) as delay_ms, unnest($17::text[]) as input, unnest($18::boolean[]) as detached,
               unnest($19::text[]) as output, generate_subscripts($5, 1) as n
    ) g
    join parents p on p.n = g.parent_n
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
born as (
    insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
    select g.bucket, g.id, g.name, g.version, g.queue, g.priority, 'queued',
           durable.now() + g.delay_ms * interval '1 millisecond', g.input::json
    from given g
    where g.found_name is null and g.ended_at is null
    on conflict (bucket, id) do nothing
    returning bucket, id
),
noted as (
    insert into durable.child (bucket, id, parent_bucket, parent, lane, seq, detached)
    select g.bucket, g.id, g.parent_bucket, g.parent, g.lane, g.seq, g.detached
    from born b
    join given g on g.bucket = b.bucket and g.id = b.id
),
recorded as (
    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
    select g.parent_bucket, g.parent, g.lane, g.seq, 'start', g.name, g.output::json, durable.now()
    from born b
    join given g on g.bucket = b.bucket and g.id = b.id
)
select g.n, g.wakes, g.found_name, g.found_version,
       b.id is not null or (g.mine and g.ended_at is not null) is true as started,
       g.ended_at is not null and g.mine is not true as overtaken,
       coalesce(g.ended_at, durable.now()) as now
from given g
left join born b on b.bucket = g.bucket and b.id = g.id
