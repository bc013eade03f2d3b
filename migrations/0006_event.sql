-- Events: what workflows have published, and who waits for it.
--
-- A table of its own, for the reason that `0005_child.sql` gives. To be read by anybody: `select value from durable.event where
-- workflow_id = 'order-42' and key = 'progress'`.
create table durable.event (
    bucket       smallint    not null,
    workflow_id  text        collate "C" not null,           -- who publishes it; it need not exist yet
    key          text        collate "C" not null,
    n            bigint      not null default 0,             -- how often it was published
    value        json,                                       -- the last one; null before the first
    published_at timestamptz,
    waiters      text[]      collate "C" not null default '{}', -- workflows that wait for the first one
    woken        text[]      collate "C" not null default '{}', -- those that the last one has woken
    primary key (bucket, workflow_id, key)
);
