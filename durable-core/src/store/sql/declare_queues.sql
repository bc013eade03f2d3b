-- Write down the limits ($2 to $9) of queues ($1), with the bursts of their rates ($12, $13). If $11, they are set whatever was there. Else they
-- are what code declares ($10): written only where something else was declared last, so that what somebody has set since then stands.
-- The answer has those of which live workers have declared something else, and what.
-- Locks: the queues, in the order of their names, in which they are given; then their bursts.
with before as materialized (
    select q.name, q.declared::text as declared from durable.queue q where q.name = any ($1)
),
given as (
    select *
    from unnest($1::text[], $2::integer[], $3::integer[], $4::integer[], $5::integer[], $6::bigint[], $7::integer[], $8::bigint[],
                $9::boolean[], $10::text[], $12::integer[], $13::integer[])
        as g (name, concurrency, per_worker, per_partition, rate, rate_ms, partition_rate, partition_rate_ms, suspended_count, declared,
              burst, burst_per_partition)
),
written as (
    insert into durable.queue as q
        (name, concurrency, concurrency_per_worker, concurrency_per_partition, rate, rate_period, rate_per_partition,
         rate_per_partition_period, suspended_count, declared)
    select g.name, g.concurrency, g.per_worker, g.per_partition, g.rate, g.rate_ms * interval '1 ms', g.partition_rate,
           g.partition_rate_ms * interval '1 ms', g.suspended_count, g.declared::json
    from given g
    on conflict (name) do update
        set concurrency = excluded.concurrency, concurrency_per_worker = excluded.concurrency_per_worker,
            concurrency_per_partition = excluded.concurrency_per_partition, rate = excluded.rate,
            rate_period = excluded.rate_period, rate_per_partition = excluded.rate_per_partition,
            rate_per_partition_period = excluded.rate_per_partition_period, suspended_count = excluded.suspended_count,
            declared = case when $11 then q.declared else excluded.declared end
        where $11 or q.declared::text is distinct from excluded.declared::text
    returning q.name
),
-- A queue that never had a burst needs no row. One that has none any more keeps it, because here two statements may not touch one row.
bursts as (
    insert into durable.burst (queue, burst, burst_per_partition)
    select g.name, g.burst, g.burst_per_partition
    from written w
    join given g on g.name = w.name
    where g.burst is not null or g.burst_per_partition is not null
       or exists (select from durable.burst b where b.queue = g.name)
    on conflict (queue) do update set burst = excluded.burst, burst_per_partition = excluded.burst_per_partition
)
select b.name, b.declared
from before b
join given g on g.name = b.name
where not $11 and b.declared is distinct from g.declared
  and exists (select from durable.taker t where t.queue = b.name offset 0)
