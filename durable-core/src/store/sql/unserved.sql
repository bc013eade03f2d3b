-- The queues in which workflows are due and from which no live worker takes, by name, up to $1 of them. From one queue and priority to
-- the next by a look into the index each, up to 10,000; so it costs nothing that grows with what waits.
-- Locks: nothing.
with recursive place as (
    (select w.queue, w.priority from durable.workflow w where w.status = 'queued' order by w.queue, w.priority limit 1)
    union all
    select n.queue, n.priority
    from place p
    cross join lateral (
        select w.queue, w.priority from durable.workflow w
        where w.status = 'queued' and (w.queue, w.priority) > (p.queue, p.priority)
        order by w.queue, w.priority limit 1
    ) n
),
sleeping as (
    (select w.queue from durable.workflow w where w.status = 'suspended' order by w.queue limit 1)
    union all
    select n.queue
    from sleeping s
    cross join lateral (
        select w.queue from durable.workflow w
        where w.status = 'suspended' and w.queue > s.queue order by w.queue limit 1
    ) n
),
due as (
    select p.queue
    from (select * from place limit 10000) p
    cross join lateral (
        select from durable.workflow w
        where w.status = 'queued' and w.queue = p.queue and w.priority = p.priority and w.due_at <= durable.now()
        order by w.due_at limit 1
    ) w
    union
    select s.queue
    from (select * from sleeping limit 10000) s
    cross join lateral (
        -- In the order of the index that it is to go by.
        select from durable.workflow w
        where w.status = 'suspended' and w.queue = s.queue and w.due_at <= durable.now()
        order by w.due_at limit 1
    ) w
)
select d.queue
from due d
where not exists (select from durable.taker t where t.queue = d.queue offset 0)
order by d.queue
limit $1
