-- Take away up to $3 records that earlier generations of a workflow have left behind: what its present generation has
-- recorded has lanes of its own. Safe at any time, and for as often as it is sent; nothing where it never continued as new.
-- Locks: the records, which nobody asks for any more.
delete from durable.step s
where s.ctid = any (array(
    select o.row_at
    from durable.generation g
    cross join lateral (
        -- The limit keeps this a walk along the key.
        select s.ctid as row_at from durable.step s
        where s.bucket = g.bucket and s.workflow_id = g.id
          and s.lane <> 'g' || g.generation and not starts_with(s.lane, 'g' || g.generation || '.')
        order by s.lane, s.seq
        limit $3
    ) o
    where g.bucket = $1 and g.id = $2
))
