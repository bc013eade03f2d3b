-- Streams: values that workflows have written one after the other, to be read while they are written.
--
-- Tables of their own, for the reason that `0005_child.sql` gives. To be read by anybody: `select n, value from
-- durable.stream_value where workflow_id = 'chat-7' and key = 'tokens' order by n`.

-- Where a stream stands. Its row is locked by each write, so its values have no gap and no offset twice, whoever writes.
create table durable.stream (
    bucket       smallint    not null,
    workflow_id  text        collate "C" not null,           -- who writes it
    key          text        collate "C" not null,
    first        bigint      not null,                       -- the offset that the last write began with
    next         bigint      not null,                       -- the offset of the value to come, and so how many there are
    tag          bigint      not null,                       -- of the last write, by which its repetition is known
    primary key (bucket, workflow_id, key)
) with (fillfactor = 50);

create table durable.stream_value (
    bucket       smallint    not null,
    workflow_id  text        collate "C" not null,
    key          text        collate "C" not null,
    n            bigint      not null,                       -- the offset, from 0
    value        json        not null,
    written_at   timestamptz not null,
    lane         text        collate "C",                    -- the position of the step that wrote it; null for the body
    seq          integer,
    claims       integer,                                    -- the claim and the attempt of that step in which it did
    attempt      integer,
    primary key (bucket, workflow_id, key, n)
);
