-- End the sessions of fenced workers ($1, as the sessions name them), and say how many are still there. A statement that one
-- of them had begun before the fence would still pass for the owner's; it ends here, committed or not at all.
-- Only sessions of roles that this one may speak for. Repeated until none is left.
-- Locks: nothing.
select count(pg_catalog.pg_terminate_backend(a.pid)) as sessions
from pg_catalog.pg_stat_activity a
where a.datname = pg_catalog.current_database()
  and pg_catalog.split_part(a.application_name, ' ', 1) = 'durable'
  and pg_catalog.split_part(a.application_name, ' ', 3) = any ($1)
  and a.pid <> pg_catalog.pg_backend_pid()
  and pg_catalog.pg_has_role(a.usesysid, 'MEMBER')
