-- The limits of steps, by name, $1 at most: how they stand, and how many calls of each run.
-- Locks: nothing.
select l.name, l.concurrency, l.concurrency_per_worker, l.rate, (extract(epoch from l.rate_period) * 1000)::bigint as rate_ms,
       l.is_paused,
       (select coalesce(sum(p.held), 0)::bigint
        from durable.step_permit p
        where p.name = l.name
          and exists (select from durable.worker k where k.id = p.owner and k.fenced_at is null)) as running
from durable.step_limit l
order by l.name
limit $1
