-- Which limits of steps each worker's code has declared, and as what: so that live workers whose declarations disagree are told of it.
--
-- A table of its own and not columns of `worker_takes`: these would have to wait for whoever reads that table, a backup for instance, and
-- every worker that starts meanwhile for them.

-- Written once, with its lease; a worker that declares none has no row.
create table durable.worker_declares (
    worker       uuid        primary key,
    step_limits  text[]      collate "C" not null,
    declared     text[]      not null
);
