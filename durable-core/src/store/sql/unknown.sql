-- Names and versions of live workflows that the given registry lacks, from a bounded look.
-- Locks: nothing.
select l.name, l.version, count(*) as seen
from (
    select w.name, w.version
    from durable.workflow w
    where w.queue = $1 and w.status = 'queued'
    limit 10000
) as l
where (l.name, l.version) not in (select * from unnest($2::text[], $3::integer[]))
group by l.name, l.version
order by l.name, l.version
