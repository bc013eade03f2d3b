-- Start workflows as children ($5 to $21) of others ($2 to $4), each only while its parent is held by the owner $1 under the
-- claim that is given with it; and record the start as the outcome of a position of the parent. All of it or, where an id or
-- a position is taken, nothing: it fails then, and `start_children_apart` finds out.
-- What is not given (queue, priority) a child has from its parent; its deadline is the nearer one of both, unless it is detached.
-- A deadline is read once the parent is locked, because whoever changed it may have held that lock: a function sees that.
-- The parent's row is locked, so that a cancellation either finds the child or keeps it from being started.
-- The answer has a row for each child whose parent is held: its number, the parent's count of wakes, and the time.
-- Locks: the parents' rows, then the new rows, both in key order, in which they are given.
with parents as materialized (
    select p.n, w.wakes, w.queue, w.priority,
           (select d.at from durable.deadline d where d.bucket = w.bucket and d.id = w.id offset 0) as deadline
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
           least(case when not g.detached and p.deadline is not null
                          then durable.deadline_of(g.parent_bucket, g.parent) end,
                 durable.now() + g.deadline_ms * interval '1 millisecond') as deadline
    from (
        select unnest($5::integer[]) as parent_n, unnest($6::smallint[]) as parent_bucket, unnest($7::text[]) as parent,
               unnest($8::text[]) as lane, unnest($9::integer[]) as seq, unnest($10::smallint[]) as bucket,
               unnest($11::text[]) as id, unnest($12::text[]) as name, unnest($13::integer[]) as version,
               unnest($14::text[]) as own_queue, unnest($15::smallint[]) as own_priority,
               unnest($16::bigint[]) as delay_ms, unnest($17::text[]) as input, unnest($18::boolean[]) as detached,
               unnest($19::text[]) as output, unnest($20::bigint[]) as deadline_ms, unnest($21::text[]) as partition,
               generate_subscripts($5, 1) as n
    ) g
    join parents p on p.n = g.parent_n
),
born as (
    insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
    select g.bucket, g.id, g.name, g.version, g.queue, g.priority, 'queued',
           durable.now() + g.delay_ms * interval '1 millisecond', g.input::json
    from given g
),
noted as (
    insert into durable.child (bucket, id, parent_bucket, parent, lane, seq, detached)
    select g.bucket, g.id, g.parent_bucket, g.parent, g.lane, g.seq, g.detached
    from given g
),
placed as (
    insert into durable.place (bucket, id, queue, partition, name, version, priority, is_new)
    select g.bucket, g.id, g.queue, g.partition, g.name, g.version, g.priority, true
    from given g
    where g.partition is not null
    -- of a workflow that had the id before
    on conflict (bucket, id) do update
        set queue = excluded.queue, partition = excluded.partition, is_held = false, due_at = null
),
bounded as (
    insert into durable.deadline (bucket, id, at)
    select g.bucket, g.id, g.deadline from given g where g.deadline is not null
    -- of a workflow that had the id before
    on conflict (bucket, id) do update set at = excluded.at
),
recorded as (
    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
    select g.parent_bucket, g.parent, g.lane, g.seq, 'start', g.name, g.output::json, durable.now()
    from given g
)
select g.n, g.wakes, durable.now() as now from given g
