-- What `start` does, with attributes for those that are new ($13 to $17): a start with attributes is one statement, and one
-- without pays nothing for them.
-- Start workflows: one row each, or nothing where the id exists already; then say which it was. They come in groups,
-- one for each caller: when one of a group is refused, because its id is another workflow's or by the policy (1: same
-- input, 2: none at all), nothing of the group is written.
-- A row that names an owner is born running and owned by it, so that no claim is needed; but only while that worker
-- holds its lease.
-- Whoever asks matches the answers to the ids in memory, where it costs less than a join.
-- What has a deadline or a partition ($18) has it in a row of its own.
-- Locks: the new rows and then their attributes, in key order, which is the order in which they are given. A concurrent start of the same id waits
-- for the other transaction.
with given as (
    select *
    from unnest($1::smallint[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::smallint[],
                $7::bigint[], $8::text[], $9::uuid[], $10::integer[], $11::integer[], $12::bigint[], $18::text[])
        as g (bucket, id, name, version, queue, priority, delay_ms, input, owner, policy, grp, deadline_ms, partition)
),
found as materialized (
    -- A birth and a claim differ: only at a birth are the claim and the creation one moment. It is found here
    -- when the same statement was sent before and its reply was lost; only the caller that names an owner, and keeps
    -- a place there, may take it for its own.
    select g.grp, g.policy, g.id, w.created_at, w.name,
           case when w.first_version = g.version then g.version else w.version end as version, w.first_input::text = g.input as same_input,
           (w.owner = g.owner and w.claims = 1 and w.claimed_at = w.created_at) is true as born_here,
           w.name = g.name and (w.version = g.version or w.first_version = g.version) as same_workflow
    from given g
    cross join lateral (
        -- offset 0 keeps this a look by the key, also for a batch that is large beside the table
        select w.*, coalesce(c.first_version, w.version) as first_version, coalesce(c.first_input, w.input) as first_input
        from durable.workflow w
        -- One that has continued as new is known by what it was started with.
        left join durable.generation c on c.bucket = w.bucket and c.id = w.id
        where w.bucket = g.bucket and w.id = g.id
        offset 0
    ) w
),
refused as materialized (
    select distinct f.grp
    from found f
    where not f.same_workflow or (not f.born_here and (f.policy = 2 or (f.policy = 1 and not f.same_input)))
),
born as (
    insert into durable.workflow
        (bucket, id, name, version, queue, priority, status, owner, due_at, claims, claimed_at, input)
    select g.bucket, g.id, g.name, g.version, g.queue, g.priority,
           case when a.id is null then 'queued' else 'running' end,
           a.id,
           durable.now() + g.delay_ms * interval '1 millisecond',
           case when a.id is null then 0 else 1 end,
           case when a.id is null then null else durable.now() end,
           g.input::json
    from given g
    left join lateral (
        select k.id
        from durable.worker k
        where k.id = g.owner and k.fenced_at is null and k.lease_until > durable.now()
          -- Whether one of a queue with limits may run is not for its start to say.
          and not exists (select from durable.queue q where q.name = g.queue)
        offset 0
    ) a on true
    where g.grp <> all (array(select r.grp from refused r))
    on conflict (bucket, id) do nothing
    returning id, owner, created_at, ctid::text as row_at
),
placed as (
    -- Only for what is given with it: whoever has none gets a place once it is due.
    insert into durable.place (bucket, id, queue, partition, name, version, priority, is_new)
    select g.bucket, g.id, g.queue, g.partition, g.name, g.version, g.priority, true
    from given g
    where g.partition is not null and g.id = any (array(select b.id from born b))
    -- of a workflow that had the id before
    on conflict (bucket, id) do update
        set queue = excluded.queue, partition = excluded.partition, is_held = false, due_at = null
),
bounded as (
    insert into durable.deadline (bucket, id, at)
    select g.bucket, g.id, durable.now() + g.deadline_ms * interval '1 millisecond'
    from given g
    where g.deadline_ms is not null and g.id = any (array(select b.id from born b))
    -- of a workflow that had the id before
    on conflict (bucket, id) do update set at = excluded.at
),
attributed as (
    insert into durable.attribute (bucket, id, name, value, sort, by_body, created_at)
    select a.bucket, a.id, a.name, a.value::json, a.sort, false, durable.now()
    from (
        select unnest($13::smallint[]) as bucket, unnest($14::text[]) as id, unnest($15::text[]) as name,
               unnest($16::text[]) as value, unnest($17::text[]) as sort
    ) a
    -- What was born has no index, and thousands may be born at once.
    where (select jsonb_object_agg(b.id, true) from born b) ? a.id
)
select b.id, true as created, b.owner is not null as born_here, b.created_at, null as name,
       null as version, true as same_input, false as refused, b.row_at
from born b
union all
select f.id, false, f.born_here, f.created_at, f.name, f.version, f.same_input,
       f.grp = any (array(select r.grp from refused r)), null
from found f
