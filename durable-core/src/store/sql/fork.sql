-- Start a workflow ($4, $5) from the history of another one ($1, $2): with what that has recorded before position $3 of its
-- body, branches that were opened before it included; in the same partition of the same queue. What is given beside that takes the place of its own: version ($6),
-- input ($8), outputs of positions of the body ($9, $10). Its name has to be $7, if that is given. It has the attributes that
-- the other one has, and a note of why it was forked ($11).
-- One row says what there was to fork, and whether it was; the first that stands in the way is why not.
-- The seed is what the body's draws and its first look at the time are made of: they have to come out as they did.
-- Locks: the new rows. A concurrent start of the same id waits for the other transaction.
with source as materialized (
    select w.*, coalesce(g.root, '') as root, l.partition, coalesce(l.priority, w.priority) as own_priority
    from durable.workflow w
    left join lateral (
        -- While it waits in a queue with limits, its priority stands there.
        select l.partition, l.priority from durable.place l where l.bucket = $1 and l.id = $2 offset 0
    ) l on true
    left join lateral (
        -- One that has continued as new is forked as it is now, in lanes of the same names.
        select 'g' || g.generation as root from durable.generation g where g.bucket = $1 and g.id = $2 offset 0
    ) g on true
    where w.bucket = $1 and w.id = $2
),
recorded as materialized (
    select s.*, s.lane = o.root as of_body,
           case when s.lane = o.root then s.seq
                when o.root = '' then split_part(s.lane, '.', 1)::integer
                else split_part(s.lane, '.', 2)::integer end as at
    from source o
    cross join lateral (
        select s.* from durable.step s where s.bucket = $1 and s.workflow_id = $2 offset 0
    ) s
    where o.root = '' or s.lane = o.root or starts_with(s.lane, o.root || '.')
),
reach as materialized (
    select coalesce(max(r.at) + 1, 0) as reach from recorded r
),
edited as materialized (
    select * from unnest($9::integer[], $10::text[]) as e (seq, output)
),
nowhere as materialized (
    select min(e.seq) as seq
    from edited e
    where not exists (select from recorded r where r.of_body and r.seq = e.seq and r.seq < $3)
),
born as (
    insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
    select $4, $5, o.name, coalesce($6, o.version), o.queue, o.own_priority, 'queued', durable.now(),
           coalesce($8::json, o.input)
    from source o, reach, nowhere
    where $3 between 0 and reach.reach and nowhere.seq is null and o.name = coalesce($7, o.name)
    on conflict (bucket, id) do nothing
    returning id
),
noted as (
    insert into durable.fork (bucket, id, source, position, seed_id, seed_at)
    select $4, $5, o.id, $3, coalesce(f.seed_id, o.id), coalesce(f.seed_at, o.created_at)
    from source o
    left join lateral (
        select f.* from durable.fork f where f.bucket = $1 and f.id = $2 offset 0
    ) f on true
    where exists (select from born)
),
counted as (
    insert into durable.generation (bucket, id, generation, started_at, first_version, first_input)
    select $4, $5, g.generation, g.started_at, coalesce($6, o.version), coalesce($8::json, o.input)
    from source o
    cross join lateral (
        select g.* from durable.generation g where g.bucket = $1 and g.id = $2 offset 0
    ) g
    where exists (select from born)
),
copied as (
    insert into durable.step
        (bucket, workflow_id, lane, seq, kind, name, input, output, failure, attempts, started_at, ended_at)
    select $4, $5, r.lane, r.seq, r.kind, r.name, r.input,
           case when e.seq is null then r.output else e.output::json end,
           case when e.seq is null then r.failure end, r.attempts, r.started_at, r.ended_at
    from recorded r
    left join edited e on e.seq = r.seq and r.of_body
    where r.at < $3 and exists (select from born)
),
placed as (
    insert into durable.place (bucket, id, queue, partition, name, version, priority, is_new)
    select $4, $5, o.queue, o.partition, o.name, coalesce($6, o.version), o.own_priority, true
    from source o
    where o.partition > '' and exists (select from born)
    -- of a workflow that had the id before
    on conflict (bucket, id) do update
        set queue = excluded.queue, partition = excluded.partition, is_held = false, due_at = null
),
attributed as (
    insert into durable.attribute (bucket, id, name, value, sort, by_body, created_at)
    select $4, $5, a.name, a.value, a.sort, a.by_body, durable.now()
    from durable.attribute a
    where a.bucket = $1 and a.id = $2 and exists (select from born)
),
journalled as (
    insert into durable.operation (bucket, workflow_id, n, act, reason)
    select $4, $5, 0, 'fork', $11
    where exists (select from born)
)
select o.name, o.queue, reach.reach, nowhere.seq as nowhere, exists (select from born) as born,
       -- By an earlier try whose reply was lost, or by the same call made twice.
       exists (select from durable.fork f
               where f.bucket = $4 and f.id = $5 and f.source = $2 and f.position = $3 offset 0) as existed
from source o, reach, nowhere
