-- The library's own record of its migrations; never the application's table.
-- Run inside the migrating transaction, under its advisory lock.

create schema if not exists durable;

create table if not exists durable.migration (
    version    integer     primary key,
    name       text        not null,
    applied_at timestamptz not null default now()
)
