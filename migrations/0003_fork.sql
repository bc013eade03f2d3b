-- Where a forked workflow comes from: {"id", "from", "seed_id", "seed_at"}. Null for all others.
--
-- A column without a default is a change of the catalogue only, but it has to have the table for itself for a moment. Whoever
-- waits for that holds up everybody who comes after; so it waits for half a second at most, and tries again later.
-- Locks: the workflow table, for a moment.
do $$
declare
    waits_for constant text := current_setting('lock_timeout');
begin
    for try in 1..30 loop
        begin
            perform set_config('lock_timeout', '500ms', true);
            alter table durable.workflow add column forked_from json;
            perform set_config('lock_timeout', waits_for, true);
            exit;
        exception when lock_not_available then
            if try = 30 then
                raise;
            end if;
            perform pg_sleep(random());
        end;
    end loop;
end;
$$;
