-- Whether the library's tables are there at all. Safe to ask of any database.
-- Locks: nothing.
select to_regclass('durable.migration') is not null as present
