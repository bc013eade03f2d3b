-- The queues with limits, by name: how they stand, and how many of each run or wait, of which 100,000 are counted at most.
-- Locks: nothing.
select q.name, q.concurrency, q.concurrency_per_worker, q.concurrency_per_partition, q.rate,
       (extract(epoch from q.rate_period) * 1000)::bigint as rate_ms, q.rate_per_partition,
       (extract(epoch from q.rate_per_partition_period) * 1000)::bigint as rate_per_partition_ms, q.suspended_count,
       q.is_paused, b.burst, b.burst_per_partition,
       (select count(*) from durable.place p where p.queue = q.name and p.is_held)
       + (select count(*) from durable.line l where l.queue = q.name) as running,
       -- Whoever waits for its turn in a place is queued and due, too.
       (select count(*) from (select from durable.workflow w
                              where w.queue = q.name and w.status = 'queued' and w.due_at <= durable.now() limit 100000) w) as waiting
from durable.queue q
left join durable.burst b on b.queue = q.name
order by q.name
limit $1
