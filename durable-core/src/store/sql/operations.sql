-- What operators did to one workflow, and workers that took it over, in order: the latest $3 of it. What is noted for its timeline alone is
-- left out.
-- Locks: nothing.
select l.act, l.stood, l.reason, l.dropped, l.done_by, l.done_at, c.was as deadline_before, c.at as deadline
from (
    select o.n, o.act, o.stood, o.reason, o.dropped::text as dropped, o.done_by, o.done_at
    from durable.operation o
    where o.bucket = $1 and o.workflow_id = $2 and o.act not in ('create', 'claim', 'wait', 'block', 'release', 'end')
    order by o.n desc
    limit $3
) l
left join lateral (
    -- offset 0 keeps this a look by the key
    select c.was, c.at from durable.deadline_change c where c.bucket = $1 and c.workflow_id = $2 and c.n = l.n
    offset 0
) c on true
order by l.n
