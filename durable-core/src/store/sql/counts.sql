-- How many workflows have each status, but for those that have completed: they have no index, and counting them would be
-- to read the whole table.
-- Locks: nothing.
select 'queued' as status, count(*) as workflows from durable.workflow w where w.status = 'queued'
union all
select 'running', count(*) from durable.workflow w where w.status = 'running' and w.owner is not null
union all
select 'suspended', count(*) from durable.workflow w where w.status = 'suspended'
union all
select 'failed', count(*) from durable.workflow w where w.status = 'failed'
union all
select 'cancelled', count(*) from durable.workflow w where w.status = 'cancelled'
union all
select 'blocked', count(*) from durable.workflow w where w.status = 'blocked'
