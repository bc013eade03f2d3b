-- How workflows and their code change: generations of those that continue as new, and which code has been here.
--
-- Both are tables of their own and not columns of the workflow's: these would have to wait until nobody writes to that table.

-- Which workflows have continued as new, and how often. It has no row for one that never did.
create table durable.generation (
    bucket        smallint    not null,
    id            text        collate "C" not null,
    generation    integer     not null,                      -- its steps have lanes that begin with 'g' and this number
    started_at    timestamptz not null,                      -- what its body takes for the time, at first
    first_version integer     not null,                      -- what the workflow was started with, by which a repeated
    first_input   json        not null,                      -- start is known
    primary key (bucket, id)
);

-- The code of each workflow that a worker has come with, by its fingerprint.
create table durable.fingerprint (
    name         text        collate "C" not null,
    version      integer     not null,
    fingerprint  text        collate "C" not null,
    first_seen   timestamptz not null default durable.now(),
    primary key (name, version, fingerprint)
);
