-- A page of the history of one workflow, for people: the first $5 records after a position in key order, or as many of them
-- as have up to $6 bytes together, where what is stored compressed counts eightfold; one in any case. One more says that
-- others follow; it comes without its values.
-- Locks: nothing.
select f.there, f.lane, f.seq, f.kind, f.name, f.started_at, f.recorded_at,
       case when f.there then f.input::text end as input, case when f.there then f.output::text end as output,
       case when f.there then f.failure::text end as failure, case when f.there then f.attempts::text end as attempts
from (
    select h.*, h.n <= $5 and (h.bytes <= $6 or h.n = 1) as there, h.bytes - h.size <= $6 or h.n <= 2 as follows
    from (
        select p.*, row_number() over way as n, sum(p.size) over way as bytes
        from (
            -- The limit keeps this a walk along the key. The sizes are those in the row: nothing is unpacked to find
            -- them, and as integers they cannot overflow in a page of rows.
            select s.*, 128 + coalesce(pg_column_size(s.input), 0) + coalesce(pg_column_size(s.failure), 0)
                       + coalesce(pg_column_size(s.attempts), 0)
                       + least(coalesce(pg_column_size(s.output), 0), 100000000)
                         * case when pg_column_compression(s.output) is null then 1 else 8 end as size
            from durable.step s
            where s.bucket = $1 and s.workflow_id = $2 and (s.lane, s.seq) > ($3, $4)
            order by s.lane, s.seq
            limit $5 + 1
        ) p
        window way as (order by p.lane, p.seq rows unbounded preceding)
    ) h
) f
where f.follows
order by f.lane, f.seq
