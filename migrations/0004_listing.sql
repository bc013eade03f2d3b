-- The index behind lists of workflows that somebody may have to look after: those that sleep, and those that did not go
-- well, newest or oldest first.
--
-- It has no entry for a workflow that is queued, runs or has completed: entries for each of these changes would cost 8 %
-- more WAL for a workflow of ten steps, and 40 % more for one of none. The queued and the running have indexes of their
-- own. Where completed workflows are listed among many millions, an operator may add the index that the documentation of
-- the list names.
--
-- A plain CREATE INDEX keeps writers out of the table while it reads all of it, and CONCURRENTLY is not possible in the
-- migration's transaction, nor good in the start of an application, because it waits for every transaction there is. So
-- it is made here where that takes a moment, and left to an operator elsewhere: lists are right without it, but slower.
-- Locks: writers of the workflow table, for a fraction of a second.
do $$
declare
    waits_for constant text := current_setting('lock_timeout');
begin
    if pg_relation_size('durable.workflow') <= 64 * 1024 * 1024 then
        begin
            perform set_config('lock_timeout', '500ms', true);
            create index if not exists workflow_listed on durable.workflow (status, created_at, id)
                where status in ('suspended', 'failed', 'cancelled', 'blocked');
            perform set_config('lock_timeout', waits_for, true);
        exception when lock_not_available then
            null; -- Somebody has been writing to it for longer than a moment; said below.
        end;
    end if;
    if to_regclass('durable.workflow_listed') is null then
        raise warning 'the index workflow_listed was left out, because the table is large or was being written to'
            using hint = 'When it suits: create index concurrently if not exists workflow_listed on durable.workflow '
                '(status, created_at, id) where status in (''suspended'', ''failed'', ''cancelled'', ''blocked'')';
    end if;
end
$$;
