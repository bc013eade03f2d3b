-- Take up to $5 workflows that are due and whose body this worker has: those whose wait has ended, then
-- queued ones by priority and age. Only for a worker that holds its lease.
-- A workflow that lost two workers in a row without recording a step is a suspect. A worker has one suspect at
-- a time that has not recorded a step since, so that a death is the fault of at most one of them, and a poison
-- workflow does not take others with it.
-- What was cut off is not taken before the worker that ran it has stopped it.
-- Queued ones are looked for priority by priority, each with those that are due: what is due later is not read, however much it is.
-- $7 and $8 (priority and time), and $9 (time of a wait), are where the last look got to, or null: nothing before that is read. What
-- was claimed lately stays in the indexes for as long as somebody's snapshot sees it, and would be passed by with each look.
-- Then the same from the queues $6, if there are any, which may have limits: see `durable.claim_limited`. A row without an id says that
-- there is more to do there at once.
-- Locks: the picked rows, skipping what another worker is taking; then as `claim_limited`. Safe to lose: it commits asynchronously.
with recursive known as (
    select * from unnest($3::text[], $4::integer[]) as k (name, version)
    -- Those of a queue with limits are claimed by `durable.claim_limited`.
    where not exists (select from durable.queue q where q.name = $2)
),
due as materialized (
    select w.bucket, w.id, 'due' as arm
    from durable.workflow w
    where w.status = 'suspended' and w.queue = $2 and w.due_at <= durable.now() and w.stopping is null
      and w.due_at >= coalesce($9::timestamptz, '-infinity')
      and (w.name, w.version) in (select k.name, k.version from known k)
    order by w.due_at
    limit $5
    for no key update of w skip locked
),
priorities as (
    (select w.priority
     from durable.workflow w
     where w.status = 'queued' and w.queue = $2
       and (w.priority, w.due_at) >= (coalesce($7::smallint, (-32768)::smallint), coalesce($8::timestamptz, '-infinity'))
     order by w.priority, w.due_at
     limit 1)
    union all
    select (select w.priority
            from durable.workflow w
            where w.status = 'queued' and w.queue = $2 and w.priority > p.priority
            order by w.priority
            limit 1)
    from priorities p
    where p.priority is not null
),
ready as materialized (
    select w.bucket, w.id, 'ready' as arm
    from priorities p
    cross join lateral (
        select w.bucket, w.id
        from durable.workflow w
        where w.status = 'queued' and w.queue = $2 and w.priority = p.priority and w.due_at <= durable.now()
          and w.due_at >= case when p.priority = $7 then $8 else '-infinity' end
          and w.recoveries < 2 and w.stopping is null
          and (w.name, w.version) in (select k.name, k.version from known k)
        order by w.due_at
        limit $5
        for no key update of w skip locked
    ) w
    limit $5
),
suspect as materialized (
    select w.bucket, w.id, 'suspect' as arm
    from durable.workflow w
    where w.status = 'queued' and w.queue = $2 and w.due_at <= durable.now() and w.recoveries >= 2
      and w.stopping is null
      and (w.name, w.version) in (select k.name, k.version from known k)
      and not exists (
          select from durable.workflow o
          where o.status = 'running' and o.queue = $2 and o.owner = $1 and o.recoveries >= 2
            and not exists (select from durable.step s
                            where s.bucket = o.bucket and s.workflow_id = o.id and s.recorded_at >= o.claimed_at
                            offset 0)
      )
    order by w.due_at
    limit 1
    for no key update of w skip locked
),
picked as materialized (
    select *
    from (select * from suspect union all select * from due union all select * from ready) as any_of_them
    limit $5
),
claimed as (
    update durable.workflow w
    set status = 'running', owner = $1, claims = w.claims + 1, claimed_at = durable.now()
    from picked p
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    where w.bucket = any (array[p.bucket]) and w.id = p.id
      and exists (select from durable.worker k
                  where k.id = $1 and k.fenced_at is null and k.lease_until > durable.now())
    returning w.id, p.arm, w.priority, w.due_at, w.name, w.version, w.input::text as input, w.waits::text as waits, w.wakes, w.claims,
              w.created_at, durable.now() as now, w.ctid::text as row_at,
              (select json_build_array(f.seed_id, f.seed_at)::text
               from durable.fork f where f.bucket = w.bucket and f.id = w.id offset 0) as seed,
              (select json_build_array(c.parent, (select p.queue from durable.workflow p
                                                  where p.bucket = c.parent_bucket and p.id = c.parent offset 0))::text
               from durable.child c where c.bucket = w.bucket and c.id = w.id offset 0) as parent,
              (select json_build_array(g.generation, g.started_at)::text
               from durable.generation g where g.bucket = w.bucket and g.id = w.id offset 0) as generation,
              (select json_build_array(e.status, e.failure)::text
               from durable.ending e where e.bucket = w.bucket and e.id = w.id offset 0) as ending
)
select c.id, c.name, c.version, c.input, c.waits, c.wakes, c.claims, c.created_at, c.now, c.row_at, c.seed, c.parent, c.generation,
       c.ending, false as is_limited, c.arm, c.priority, c.due_at
from claimed c
union all
select l.id, l.name, l.version, l.input, l.waits, l.wakes, l.claims, l.created_at, l.now, l.row_at, l.seed, l.parent, l.generation,
       l.ending, true, null, null, null
from durable.claim_limited($1, $6, $3, $4, $5::integer - (select count(*) from claimed)::integer) l
-- Without such queues the function is not even called.
where cardinality($6::text[]) > 0
