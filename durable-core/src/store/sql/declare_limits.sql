-- Write down limits of steps ($1 to $5). If $7, they are set whatever was there. Else they are what code declares ($6): written only where
-- something else was declared last, so that what somebody has set since then stands.
-- Locks: the limits, in the order of their names, in which they are given.
insert into durable.step_limit as l (name, concurrency, concurrency_per_worker, rate, rate_period, declared)
select g.name, g.concurrency, g.per_worker, g.rate, g.rate_ms * interval '1 ms', g.declared::json
from unnest($1::text[], $2::integer[], $3::integer[], $4::integer[], $5::bigint[], $6::text[])
    as g (name, concurrency, per_worker, rate, rate_ms, declared)
on conflict (name) do update
    set concurrency = excluded.concurrency, concurrency_per_worker = excluded.concurrency_per_worker,
        rate = excluded.rate, rate_period = excluded.rate_period,
        declared = case when $7 then l.declared else excluded.declared end
    where $7 or l.declared::text is distinct from excluded.declared::text
