-- Which limits of steps, of those that a worker has declared ($1, as $2), live workers have declared as something else, and as what;
-- $3 at most.
-- Locks: nothing.
select o.name, min(o.declared) as others
from durable.worker k
join durable.worker_declares t on t.worker = k.id
cross join lateral unnest(t.step_limits, t.declared) as o (name, declared)
join unnest($1::text[], $2::text[]) as g (name, declared) on g.name = o.name
where k.fenced_at is null and k.lease_until > durable.now() and o.declared <> g.declared
group by o.name
order by o.name
limit $3
