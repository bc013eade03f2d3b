-- What is recorded for each of the given workflows, from a position of it on, in key order: up to $5 records of
-- each, and up to $6 bytes, where what is stored compressed counts eightfold. Of one workflow alone there is at
-- least one record; of several, one whose first record is larger has a row without a record (`there`). `more` says
-- whether others follow.
-- Locks: nothing.
select g.n, s.there, s.more, s.lane, s.seq, s.kind, s.name, s.recorded_at,
       case when s.there then s.output::text end as output, case when s.there then s.failure::text end as failure
from unnest($1::smallint[], $2::text[], $3::text[], $4::integer[]) with ordinality as g (bucket, id, lane, seq, n)
cross join lateral (
    select p.*, p.bytes <= $6 or (p.place = 1 and cardinality($2) = 1) as there
    from (
        -- The sizes are those in the row: nothing is unpacked or fetched to find them.
        select h.*, row_number() over way as place, lead(true, 1, false) over way as more,
               sum(128 + coalesce(pg_column_size(h.output), 0)
                         * case when pg_column_compression(h.output) is null then 1 else 8 end
                       + coalesce(pg_column_size(h.failure), 0)) over way as bytes
        from (
            select s.lane, s.seq, s.kind, s.name, s.output, s.failure, s.recorded_at
            from durable.step s
            where s.bucket = g.bucket and s.workflow_id = g.id and (s.lane, s.seq) >= (g.lane, g.seq)
            order by s.lane, s.seq
            limit $5 + 1
        ) h
        window way as (order by h.lane, h.seq)
    ) p
    where p.place <= $5
) s
where s.there or s.place = 1
