-- Which limits of steps each worker's code has declared, and as what: so that live workers whose declarations disagree are told of it.

-- Written once, with its lease; null for a worker of a version before this one.
alter table durable.worker_takes
    add column step_limits text[] collate "C",
    add column declared    text[];
