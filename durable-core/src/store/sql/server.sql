-- Which server this is: its version, and an identity that changes when another one was promoted in its place.
-- Locks: nothing.
select current_setting('server_version_num')::integer as version,
       pg_is_in_recovery() as standby,
       (select system_identifier from pg_control_system())::text || '/' ||
           case when pg_is_in_recovery() then '' else left(pg_walfile_name(pg_current_wal_lsn()), 8) end as identity
