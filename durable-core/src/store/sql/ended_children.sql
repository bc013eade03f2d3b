-- Which of the workflows that others wait for ($5 to $7) have ended, and how; asked for those that wait ($2 to $4), each only
-- while it is held by the owner $1 under the claim that is given with it.
-- The answer has a row for each of those that wait and are held, with its count of wakes: whatever ends later than this look
-- saw has bumped it. And a row for each awaited one that has ended, does not exist, or is not its child. Values come along
-- as far as they have $8 bytes together, where what is stored compressed counts eightfold, and one that has ended in any case for
-- each that waits; for the others (not `there`) one has to look again.
-- Locks: nothing.
with waiting as materialized (
    select p.n, p.bucket, p.id, w.wakes
    from (
        select unnest($2::smallint[]) as bucket, unnest($3::text[]) as id, unnest($4::integer[]) as claims,
               generate_subscripts($2, 1) as n
    ) p
    cross join lateral (
        -- offset 0 keeps this a look by the key
        select w.wakes from durable.workflow w
        where w.bucket = p.bucket and w.id = p.id and w.owner is not distinct from $1 and w.claims = p.claims
        offset 0
    ) w
),
found as (
    select a.waiting_n, a.n, w.status, w.output, w.failure, c.mine is true as mine,
           coalesce(w.status in ('completed', 'failed', 'cancelled'), false) as has_ended,
           128 + coalesce(pg_column_size(w.failure), 0)
               + least(coalesce(pg_column_size(w.output), 0), 100000000)
                 * case when pg_column_compression(w.output) is null then 1 else 8 end as size
    from (
        select unnest($5::integer[]) as waiting_n, unnest($6::smallint[]) as bucket, unnest($7::text[]) as id,
               generate_subscripts($5, 1) as n
    ) a
    join waiting p on p.n = a.waiting_n
    left join lateral (
        select w.status, w.output, w.failure from durable.workflow w
        where w.bucket = a.bucket and w.id = a.id
        offset 0
    ) w on true
    left join lateral (
        select c.parent_bucket = p.bucket and c.parent = p.id as mine from durable.child c
        where c.bucket = a.bucket and c.id = a.id
        offset 0
    ) c on true
    where w.status is null or w.status in ('completed', 'failed', 'cancelled') or c.mine is not true
),
counted as (
    select f.*,
           not f.has_ended or sum(f.size) over (order by f.n rows unbounded preceding) <= $8
               or row_number() over (partition by f.waiting_n, f.has_ended order by f.n) = 1 as there
    from found f
)
select p.n as waiting_n, null::integer as n, p.wakes, null as status, true as mine, true as there,
       null as output, null as failure
from waiting p
union all
select f.waiting_n, f.n, null, f.status, f.mine, f.there,
       case when f.there then f.output::text end, case when f.there then f.failure::text end
from counted f
