-- A worker of queue $1 has come with this code ($2 to $4: names, versions, fingerprints). Note what was never seen; say which
-- workflows are live whose code has changed with it; and, if $5, put up to $6 workflows back into the queue that other code
-- was blocked by for not fitting their histories. One that was blocked by this very code is left: so each start of a worker
-- tries once, and nothing goes in circles.
-- Which of several workers that start together has brought the code is decided by the key. The looks are bounded, and nothing
-- is looked at where nothing has changed, but for what is blocked.
-- Locks: the new fingerprints in key order; then the blocked rows in key order, skipping what somebody else is resuming, and their notes.
with given as materialized (
    select *
    from unnest($2::text[], $3::integer[], $4::text[]) as g (name, version, fingerprint)
    where g.fingerprint <> ''
),
known as materialized (
    select g.*,
           exists (select from durable.fingerprint f
                   where f.name = g.name and f.version = g.version and f.fingerprint = g.fingerprint offset 0) as seen,
           exists (select from durable.fingerprint f
                   where f.name = g.name and f.version = g.version offset 0) as others
    from given g
),
noted as (
    insert into durable.fingerprint (name, version, fingerprint)
    select k.name, k.version, k.fingerprint from known k where not k.seen
    -- Two workers need not register in the same order, and would wait for each other.
    order by k.name, k.version, k.fingerprint
    on conflict do nothing
    returning name, version
),
changed as materialized (
    select k.name, k.version from known k join noted n on n.name = k.name and n.version = k.version where k.others
),
live as materialized (
    select w.name, w.version, count(*) as seen
    from (
        (select w.name, w.version from durable.workflow w
         where w.queue = $1 and w.status = 'queued' and exists (select from changed) limit 10000)
        union all
        (select w.name, w.version from durable.workflow w
         where w.queue = $1 and w.status = 'suspended' and exists (select from changed) limit 10000)
        union all
        (select w.name, w.version from durable.workflow w
         where w.queue = $1 and w.owner is not null and exists (select from changed) limit 10000)
    ) w
    group by w.name, w.version
),
misfits as materialized (
    select w.bucket, w.id
    from durable.workflow w
    where $5 and w.status = 'blocked' and w.queue = $1
      -- As text, because a failure may hold a NUL, on which looking into the JSON gives up.
      and w.failure::text like '%"kind":"mismatch"%'
      and exists (select from given g
                  where g.name = w.name and g.version = w.version and strpos(w.failure::text, g.fingerprint) = 0)
    order by w.bucket + 0, w.id
    limit $6
    for no key update of w skip locked
),
resumed as (
    update durable.workflow w
    set status = 'queued', due_at = durable.now(), failure = null, recoveries = 0, wakes = w.wakes + 1
    from misfits m
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    where w.bucket = any (array[m.bucket]) and w.id = m.id and w.status is not distinct from 'blocked'
    returning w.bucket, w.id, w.name, w.version
),
journalled as (
    insert into durable.operation (bucket, workflow_id, n, act, stood, reason)
    select r.bucket, r.id, o.next, 'resume', 'blocked', 'a worker came with other code'
    from resumed r
    cross join lateral (
        select coalesce(max(o.n) + 1, 0) as next
        from durable.operation o where o.bucket = r.bucket and o.workflow_id = r.id
    ) o
    on conflict do nothing
)
select g.name, g.version,
       coalesce((select l.seen from live l join changed c on c.name = l.name and c.version = l.version
                 where l.name = g.name and l.version = g.version), 0) as live,
       (select count(*) from resumed r where r.name = g.name and r.version = g.version) as resumed
from given g
order by g.name, g.version
