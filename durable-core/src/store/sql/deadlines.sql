-- Which workflows have passed their deadlines, from a bounded look ($1), the earliest first; and when the next deadline is, in
-- milliseconds from now. Those that have ended in time are forgotten on the way.
-- Locks: deadlines that have passed, skipping locked ones: so several workers share them, and no order is needed.
with passed as materialized (
    select d.bucket, d.id, d.at
    from durable.deadline d
    where d.at <= durable.now()
    order by d.at
    limit $1
    for update skip locked
),
stands as materialized (
    select p.bucket, p.id, p.at, w.created_at
    from passed p
    left join lateral (
        -- offset 0 keeps this a look by the key
        select w.created_at from durable.workflow w
        where w.bucket = p.bucket and w.id = p.id and w.status in ('queued', 'running', 'suspended', 'blocked')
        offset 0
    ) w on true
),
forgotten as (
    delete from durable.deadline d
    using stands s
    where d.bucket = any (array[s.bucket]) and d.id = s.id and s.created_at is null
)
-- A parent goes before the children that have its deadline from it, so that they are cancelled with it.
select array(select s.id from stands s where s.created_at is not null order by s.at, s.created_at) as passed,
       (select greatest(0, ceil(extract(epoch from d.at - durable.now()) * 1000))::bigint
        from durable.deadline d where d.at > durable.now() order by d.at limit 1) as next_ms
