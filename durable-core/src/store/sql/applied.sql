-- The migrations that this database has.
-- Locks: nothing.
select m.version from durable.migration m order by m.version
