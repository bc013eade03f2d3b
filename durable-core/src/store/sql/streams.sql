-- Read on in streams ($1 to $3), for callers: of each at most $5 values from the offset $4 on, and no more of them than have $6
-- bytes, but one at least; how many it has; and whether the workflow that writes it is there, and has ended. The answer has a row
-- for each value, and one without a value for a stream that has none there.
-- Locks: nothing.
select g.n as asked, w.status, coalesce(s.next, 0) as next, v.n, v.value::text as value, v.written_at, v.lane, v.seq, v.claims,
       v.attempt
from unnest($1::smallint[], $2::text[], $3::text[], $4::bigint[]) with ordinality as g (bucket, id, key, from_n, n)
left join lateral (
    -- offset 0 keeps these looks by the key
    select w.status from durable.workflow w where w.bucket = g.bucket and w.id = g.id
    offset 0
) w on true
left join lateral (
    select s.next from durable.stream s where s.bucket = g.bucket and s.workflow_id = g.id and s.key = g.key
    offset 0
) s on true
left join lateral (
    select v.*
    from (
        select v.*, sum(octet_length(v.value::text)) over (order by v.n) as bytes
        from (
            select v.* from durable.stream_value v
            where v.bucket = g.bucket and v.workflow_id = g.id and v.key = g.key and v.n >= g.from_n
            order by v.n
            limit $5
        ) v
    ) v
    where v.bytes <= $6 or v.n = g.from_n
) v on true
order by g.n, v.n
