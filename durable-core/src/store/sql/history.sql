-- What is recorded for each of the given workflows, from a position of it on, in key order: the first $5 records of
-- each that have up to $6 bytes together, where what is stored compressed counts eightfold. Of one workflow alone
-- there is at least one record. One row more says that others follow: one without a record (not `there`), or the
-- one after the $5th.
-- Locks: nothing.
select g.n, s.there, s.lane, s.seq, s.kind, s.name, s.ended_at,
       case when s.there then s.output::text end as output, case when s.there then s.failure::text end as failure
from unnest($1::smallint[], $2::text[], $3::text[], $4::integer[]) with ordinality as g (bucket, id, lane, seq, n)
cross join lateral (
    select f.*, f.bytes <= f.most as there
    from (
        select h.*, sum(h.size) over way as bytes,
               greatest($6, case when cardinality($2) = 1 then first_value(h.size) over way end) as most
        from (
            -- The limit keeps this a walk along the key. The sizes are those in the row: nothing is unpacked or
            -- fetched to find them. They are integers, because a sum of bigint is numeric, and slow.
            select s.lane, s.seq, s.kind, s.name, s.output, s.failure, s.ended_at,
                   128 + coalesce(pg_column_size(s.failure), 0)
                       + least(coalesce(pg_column_size(s.output), 0), 100000000)
                         * case when pg_column_compression(s.output) is null then 1 else 8 end as size
            from durable.step s
            where s.bucket = g.bucket and s.workflow_id = g.id and (s.lane, s.seq) >= (g.lane, g.seq)
            order by s.lane, s.seq
            limit $5 + 1
        ) h
        window way as (order by h.lane, h.seq rows unbounded preceding)
    ) f
    where f.bytes - f.size <= f.most
) s
