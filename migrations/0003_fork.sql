-- Which workflows are forks, and of what.
--
-- A table of its own and not a column of the workflow's: that would have to wait until nobody writes to that table, and hold
-- up everybody who comes after meanwhile.
create table durable.fork (
    bucket       smallint    not null,
    id           text        collate "C" not null,           -- the fork
    source       text        collate "C" not null,           -- the workflow whose history it began with
    position     integer     not null,                       -- of the body: what was recorded before it was taken over
    seed_id      text        collate "C" not null,           -- what its draws and its first look at the time are made of
    seed_at      timestamptz not null,
    primary key (bucket, id)
);
