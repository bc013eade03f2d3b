-- The schema of durable, in reading order: the clock, workflows, their steps, their messages, the workers.
--
-- Every object is schema-qualified, because the engine's connections have an empty search_path. A schema
-- with another name is made by replacing `durable.` in this text. Nothing here is a trigger, an extension,
-- a foreign key on a hot table, or a function that runs with its owner's rights.

create schema if not exists durable;

-- The only clock of the library. It is inlined into index conditions. A test replaces it to move time for
-- every connection at once.
create function durable.now() returns timestamptz
    language sql stable parallel safe
    as 'select statement_timestamp()';

-- One row per workflow, also while it sleeps.
create table durable.workflow (
    bucket       smallint    not null,                       -- first byte of sha256(id), modulo 64
    id           text        collate "C" not null,           -- the caller's key, or a generated one
    name         text        collate "C" not null,           -- which body
    version      integer     not null,
    queue        text        collate "C" not null,
    priority     smallint    not null default 0,             -- lower goes first
    status       text        collate "C" not null,
    owner        uuid,                                       -- the worker that runs it; null unless running
    stopping     uuid,                                       -- the worker that has still to notice a cancellation
    due_at       timestamptz,                                -- queued: not before; suspended: the first wait that ends
    wakes        bigint      not null default 0,             -- bumped by everything that wakes it
    claims       integer     not null default 0,             -- how many times a worker took it
    recoveries   integer     not null default 0,             -- workers lost in a row without a step in between
    created_at   timestamptz not null default durable.now(),
    claimed_at   timestamptz,
    finished_at  timestamptz,
    waits        json,                                       -- what a suspended body waits for
    input        json        not null,
    output       json,
    failure      json,
    primary key (bucket, id),
    constraint status_is_known check (status in
        ('queued', 'running', 'suspended', 'completed', 'failed', 'cancelled', 'blocked')),
    constraint running_has_an_owner check ((status = 'running') = (owner is not null))
) with (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

create index workflow_ready    on durable.workflow (queue, priority, due_at) where status = 'queued';
create index workflow_due      on durable.workflow (queue, due_at)           where status = 'suspended';
-- The few that lost workers in a row; claimed one at a time.
create index workflow_suspect  on durable.workflow (queue, status, due_at)   where recoveries >= 2 and status in ('queued', 'running');
create index workflow_owner    on durable.workflow (owner)                   where owner is not null;
create index workflow_stopping on durable.workflow (stopping)                where stopping is not null;

-- What happened, once per position. Append-only: the primary key is the fence.
create table durable.step (
    -- In the order of their alignment, which saves some bytes in every row.
    started_at   timestamptz not null,
    ended_at     timestamptz not null default durable.now(), -- what the body takes for the time, from then on
    recorded_at  timestamptz not null default durable.now(),
    seq          integer     not null,
    bucket       smallint    not null,
    workflow_id  text        collate "C" not null,
    lane         text        collate "C" not null,           -- '' is the body; '3' the branch opened at 3; '3.1' inside it
    kind         text        collate "C" not null,           -- step, transaction, sleep, receive
    name         text        collate "C" not null,
    input        json,
    output       json,
    failure      json,
    attempts     json,                                       -- the attempts that failed, with their errors
    primary key (bucket, workflow_id, lane, seq)
) with (
    autovacuum_vacuum_insert_scale_factor = 0.1
);

-- The mailbox. `n` is the receiver's `wakes` after the send, taken under its row lock, so that it is the
-- order in which sends committed. A received message keeps its row (its key still refuses a repeat), and
-- its value lives on in the step that received it.
create table durable.message (
    bucket       smallint    not null,
    workflow_id  text        collate "C" not null,
    n            bigint      not null,
    topic        text        collate "C" not null,
    key          text        collate "C",                    -- the sender's idempotency key
    value        json,                                       -- null once received
    sent_at      timestamptz not null default durable.now(),
    received_at  timestamptz,
    primary key (bucket, workflow_id, n)
);

create index message_unread on durable.message (bucket, workflow_id, topic, n) where received_at is null;
create unique index message_key on durable.message (bucket, workflow_id, key) where key is not null;

-- One lease per worker process and incarnation.
create table durable.worker (
    id           uuid        primary key,
    lease_until  timestamptz not null,
    fenced_at    timestamptz,                                -- set once, by whoever found the lease expired
    host         text        not null,
    pid          integer     not null,
    queue        text        collate "C" not null,
    started_at   timestamptz not null default durable.now()
) with (fillfactor = 50);

-- What waits for what, for a person with psql.
create view durable.waiting as
    select w.id, w.name, w.due_at, wait ->> 'kind' as waits_for, wait ->> 'topic' as topic,
           (wait ->> 'until')::timestamptz as until
    from durable.workflow w, json_array_elements(w.waits) as wait
    where w.status = 'suspended';
