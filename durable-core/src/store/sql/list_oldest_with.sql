-- A page of the workflows that have an attribute and one of the statuses $1, oldest first: those after a place ($8, $9), which
-- is where the page before ended, that have what is asked for; what is null is not asked for. The attribute is $11, equal to
-- $12, or from $13 and before $14. Others ($15) have to be from $16 and before $17.
-- Planned for its parameters. Where an attribute has to be equal, its index has the workflows in the order of the list.
-- Locks: nothing.
select w.id, w.name, w.version, w.queue, w.priority, w.status, w.recoveries, w.claims, w.due_at, w.created_at,
       w.claimed_at, w.finished_at, w.failure::text as failure,
       (select f.source from durable.fork f where f.bucket = w.bucket and f.id = w.id offset 0) as forked_from,
       (select c.parent from durable.child c where c.bucket = w.bucket and c.id = w.id offset 0) as parent,
       coalesce((select g.generation from durable.generation g where g.bucket = w.bucket and g.id = w.id offset 0), 0)
           as generation,
       (select d.at from durable.deadline d where d.bucket = w.bucket and d.id = w.id offset 0) as deadline
from durable.attribute a
cross join lateral (
    -- offset 0 keeps this a look by the key, whatever it costs to find the attributes
    select w.* from durable.workflow w
    where w.bucket = a.bucket and w.id = a.id and w.status = any ($1::text[])
      and ($2::text is null or w.name = $2)
      and ($3::text is null or w.queue = $3)
    offset 0
) w
where a.name = $11
  and ($12::text is null or a.sort = $12)
  and ($13::text is null or a.sort >= $13)
  and ($14::text is null or a.sort < $14)
  and ($4::timestamptz is null or a.created_at >= $4)
  and ($5::timestamptz is null or a.created_at < $5)
  and ($6::text is null or (a.bucket = any ($7::smallint[]) and a.id like $6))
  and ($8::timestamptz is null or (a.created_at, a.id) > ($8, $9::text))
  and not exists (
      select
      from unnest($15::text[], $16::text[], $17::text[]) as c (name, from_sort, before_sort)
      where not exists (
          select from durable.attribute o
          where o.bucket = a.bucket and o.id = a.id and o.name = c.name
            and o.sort >= c.from_sort and o.sort < c.before_sort
          offset 0
      )
  )
order by a.created_at, a.id
limit $10
