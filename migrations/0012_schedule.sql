-- Schedules: workflows that are started by the clock.
--
-- In reading order: the schedules, their ticks, which of a schedule's workflows is still open, starting what waits, offering ticks by
-- the policy for overlaps (`run_ticks`, the one place where that is decided), what a worker calls, what a person calls from psql.
--
-- When the next tick is, only a worker can tell, because SQL knows no cron: it sends the ticks that have passed and when the next one
-- is, and `tick_schedule` takes that only if nobody has been there before. All functions lock the schedule's row first, so whatever
-- starts something of one schedule does so after the other; each of their statements then sees what was committed before it. They run
-- with the rights of whoever calls them, in the caller's transaction, and send no NOTIFY.

create table durable.schedule (
    name             text        collate "C" primary key,
    workflow         text        collate "C" not null,       -- what each tick starts
    version          integer     not null,
    cron             text,                                   -- either this, in its time zone,
    time_zone        text,
    every            interval,                               -- or this, counted from the Unix epoch plus the offset
    every_offset     interval,
    next_at          timestamptz,                            -- the next tick; null when paused, or until a worker has looked
    last_at          timestamptz,                            -- the latest tick that has started a workflow
    last_id          text        collate "C",                -- and that workflow
    paused_at        timestamptz,
    paused_for       text,                                   -- the reason
    started          bigint      not null default 0,         -- workflows
    missed           bigint      not null default 0,         -- ticks that no worker was there for, and that were not made up for
    skipped          bigint      not null default 0,         -- ticks that the policy for overlaps has left out
    waiting          integer     not null default 0,         -- ticks that wait for a workflow to end
    overlap          text        collate "C" not null,
    catch_up         text        collate "C" not null,
    catch_up_most    integer     not null,
    catch_up_within  interval,                               -- null: however long ago
    jitter           interval    not null,
    queue            text        collate "C" not null,
    partition        text        collate "C",                -- of the queue, if that has limits
    priority         smallint    not null,
    deadline         interval,
    attributes       json        not null,                   -- name, value and sort of each
    input            json        not null,
    passed_until     timestamptz not null default durable.now(), -- all ticks up to this one have been dealt with
    due_at           timestamptz,                            -- when a worker has to look: the next tick and its jitter
    may_start        boolean     not null default false,     -- something waits that is not paused
    revision         bigint      not null default 0,         -- bumped by every change but a tick
    created_at       timestamptz not null default durable.now(),
    changed_at       timestamptz not null default durable.now(),
    constraint rule_is_one_of_two check ((cron is null) = (time_zone is null) and (cron is null) <> (every is null)),
    constraint overlap_is_known check (overlap in ('skip', 'queue_one', 'queue_all', 'cancel_running', 'allow')),
    constraint catch_up_is_known check (catch_up in ('skip', 'last', 'all'))
) with (fillfactor = 50);

create index schedule_due on durable.schedule (due_at) where due_at is not null;
create index schedule_may_start on durable.schedule (name) where may_start;

-- What schedules have started lately or is still open, and what waits to be started. An old row goes once its workflow has ended.
create table durable.tick (
    schedule     text        collate "C" not null,
    id           text        collate "C" not null,           -- the workflow
    bucket       smallint    not null,
    at           timestamptz not null,
    kind         text        collate "C" not null,           -- tick, trigger, backfill
    asked_at     timestamptz not null default durable.now(),
    started_at   timestamptz,                                -- null: it waits
    primary key (schedule, id)
);

create index tick_waiting on durable.tick (schedule, at, id) where started_at is null;
create index tick_started on durable.tick (schedule, started_at, at) where started_at is not null;

-- A workflow of a schedule that has not ended, if there is one. A blocked one has not; and a cancelled one has not as long as a
-- worker has still to stop it.
create function durable.open_tick(of text) returns text
    language sql stable
    as $$
        select t.id
        from durable.tick t
        cross join lateral (
            -- offset 0 keeps this a look by the key
            select w.id from durable.workflow w
            where w.bucket = t.bucket and w.id = t.id
              and (w.status in ('queued', 'running', 'suspended', 'blocked')
                   or w.stopping is not null
                      and exists (select from durable.worker k
                                  where k.id = w.stopping and k.fenced_at is null and k.lease_until > durable.now()))
            offset 0
        ) w
        where t.schedule = open_tick.of and t.started_at is not null
        order by t.started_at desc
        limit 1
    $$;

-- Start what waits of a schedule whose row the caller has locked: all of it, or one where nothing else may be open. At most a
-- thousand in one go; the rest is found by the next look.
-- Locks: the new workflow rows.
create function durable.start_waiting(of text)
    returns table (what text, workflow_id text, in_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    s durable.schedule;
    given record;
    created timestamptz;
begin
    select * into s from durable.schedule x where x.name = start_waiting.of;
    for n in 1..1000 loop
        exit when s.overlap <> 'allow' and durable.open_tick(s.name) is not null;
        select t.id, t.bucket, t.at into given
        from durable.tick t
        where t.schedule = s.name and t.started_at is null and (t.kind <> 'tick' or s.paused_at is null)
        order by t.at, t.id
        limit 1;
        exit when not found;

        update durable.tick t set started_at = durable.now() where t.schedule = s.name and t.id = given.id;
        insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
        values (given.bucket, given.id, s.workflow, s.version, s.queue, s.priority, 'queued', durable.now(), s.input)
        on conflict (bucket, id) do nothing
        returning created_at into created;
        workflow_id := given.id;
        in_queue := s.queue;
        if found then
            what := 'started';
            insert into durable.attribute (bucket, id, name, value, sort, by_body, created_at)
            select given.bucket, given.id, a ->> 'name', a -> 'value', a ->> 'sort', false, created
            from json_array_elements(s.attributes) a;
            insert into durable.place (bucket, id, queue, partition, name, version, priority, is_new)
            select given.bucket, given.id, s.queue, s.partition, s.workflow, s.version, s.priority, true
            where s.partition is not null
            -- of a workflow that had the id before
            on conflict (bucket, id) do update
                set queue = excluded.queue, partition = excluded.partition, is_held = false, due_at = null;
            insert into durable.deadline (bucket, id, at)
            select given.bucket, given.id, created + s.deadline where s.deadline is not null
            -- of a workflow that had the id before
            on conflict (bucket, id) do update set at = excluded.at;
            update durable.schedule x
            set started = x.started + 1,
                last_at = greatest(x.last_at, given.at),
                last_id = case when x.last_at > given.at then x.last_id else given.id end
            where x.name = s.name;
        else
            -- Started before, as a tick of this time or by somebody who has used its id.
            select case when w.name = s.workflow then 'existed' else 'taken' end into what
            from durable.workflow w where w.bucket = given.bucket and w.id = given.id;
        end if;
        return next;
    end loop;
end
$$;

-- Offer ticks ($3, $4: ids and times, in order) to a schedule whose row the caller has locked: each starts, waits, or is left out, as
-- its policy for overlaps says. Then start what may be started. Gives what became of it; a tick that was offered before is left
-- alone. `kind`: tick; trigger, which says why it was refused instead of being counted as skipped; backfill, which always waits.
-- Locks: the rows of ticks, new workflow rows; where a running one is cancelled, as `cancel`.
create function durable.run_ticks(of text, kind text, ids text[], ats timestamptz[])
    returns table (what text, workflow_id text, in_queue text, stopper uuid, undo_in text, parent text, parent_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    s durable.schedule;
    given record;
    told record;
    open_id text;
    waits_id text;
    left_out bigint := 0;
    dropped bigint;
begin
    select * into s from durable.schedule x where x.name = run_ticks.of;

    -- Of the oldest, those that have ended go; the latest twenty stay to be looked at.
    delete from durable.tick t
    using (
        select k.id, k.bucket
        from durable.tick k
        where k.schedule = s.name and k.started_at is not null
        order by k.started_at, k.at
        limit least(100, greatest(0, (select count(*) from durable.tick c
                                      where c.schedule = s.name and c.started_at is not null) - 20))
    ) old
    where t.schedule = s.name and t.id = old.id
      and not exists (select from durable.workflow w
                      where w.bucket = old.bucket and w.id = old.id
                        and (w.status in ('queued', 'running', 'suspended', 'blocked') or w.stopping is not null)
                      offset 0);

    if run_ticks.kind = 'backfill' then
        insert into durable.tick (schedule, id, bucket, at, kind)
        select s.name, g.id, durable.bucket(g.id), g.at, 'backfill'
        from unnest(run_ticks.ids, run_ticks.ats) as g (id, at)
        where not exists (select from durable.workflow w where w.bucket = durable.bucket(g.id) and w.id = g.id offset 0)
        on conflict (schedule, id) do nothing;
        get diagnostics left_out = row_count;
        what := 'waits';
        for n in 1..left_out loop
            return next;
        end loop;
        left_out := 0;
    end if;

    for told in select * from durable.start_waiting(s.name) loop
        what := told.what; workflow_id := told.workflow_id; in_queue := told.in_queue;
        return next;
    end loop;

    for given in
        select g.id, g.at from unnest(run_ticks.ids, run_ticks.ats) with ordinality as g (id, at, n)
        where run_ticks.kind <> 'backfill'
        order by g.n
    loop
        what := null; workflow_id := given.id; in_queue := s.queue;
        select case when t.started_at is null then 'waits' else 'existed' end into what
        from durable.tick t where t.schedule = s.name and t.id = given.id;
        if found then
            return next;
            continue;
        end if;
        open_id := case when s.overlap <> 'allow' then durable.open_tick(s.name) end;
        waits_id := null;
        if s.overlap = 'queue_one' then
            -- A backfill is no reason to leave out what may wait behind it.
            select t.id into waits_id from durable.tick t
            where t.schedule = s.name and t.started_at is null and t.kind <> 'backfill'
            order by t.at, t.id limit 1;
        end if;

        if s.overlap = 'skip' and open_id is not null
           or s.overlap = 'queue_one' and waits_id is not null
           or s.overlap = 'queue_all' and (select count(*) from durable.tick t
                                           where t.schedule = s.name and t.started_at is null) >= 10000 then
            what := case when run_ticks.kind = 'trigger' then 'refused' else 'skipped' end;
            workflow_id := coalesce(waits_id, open_id);
            left_out := left_out + (run_ticks.kind = 'tick')::integer;
            return next;
            continue;
        end if;

        if s.overlap = 'cancel_running' then
            delete from durable.tick t
            where t.schedule = s.name and t.started_at is null and t.kind = 'tick';
            get diagnostics dropped = row_count;
            left_out := left_out + dropped;
        end if;
        insert into durable.tick (schedule, id, bucket, at, kind)
        values (s.name, given.id, durable.bucket(given.id), given.at, run_ticks.kind);
        if s.overlap = 'cancel_running' and open_id is not null then
            for told in
                select c.*
                from (
                    select w.bucket, w.id
                    from durable.tick t
                    join durable.workflow w on w.bucket = t.bucket and w.id = t.id
                    where t.schedule = s.name and t.started_at is not null
                      and w.status in ('queued', 'running', 'suspended', 'blocked')
                      -- One that is being undone is left to that.
                      and not exists (select from durable.ending e where e.bucket = w.bucket and e.id = w.id)
                    order by w.bucket, w.id
                ) o
                cross join lateral durable.cancel(o.id, format('the next tick of schedule %s has come', s.name)) c
            loop
                what := case when told.cancelled then 'cancelled' else 'stopping' end;
                workflow_id := told.id; stopper := told.stopping; undo_in := told.undo_in;
                parent := told.parent; parent_queue := told.parent_queue;
                return next;
            end loop;
            stopper := null; undo_in := null; parent := null; parent_queue := null;
        end if;
        for told in select * from durable.start_waiting(s.name) loop
            what := told.what; workflow_id := told.workflow_id; in_queue := told.in_queue;
            return next;
        end loop;
        if exists (select from durable.tick t
                   where t.schedule = s.name and t.id = given.id and t.started_at is null) then
            what := 'waits'; workflow_id := given.id;
            return next;
        end if;
    end loop;

    update durable.schedule x
    set skipped = x.skipped + left_out,
        waiting = (select count(*) from durable.tick t where t.schedule = x.name and t.started_at is null),
        may_start = exists (select from durable.tick t
                            where t.schedule = x.name and t.started_at is null
                              and (t.kind <> 'tick' or x.paused_at is null))
    where x.name = s.name;
end
$$;

-- What a worker says of a schedule that is due: `ids` and `offered` are the ticks after `passed_from` that it offers, in order, and
-- `missed` how many it does not; everything up to `passed_until` is dealt with then, and the next tick is `next_at`, to be acted on
-- at `due_at`. All of that only if the schedule still stands as it was seen: so a tick is offered once, whoever sends this how often.
-- Gives 'busy' where somebody else has the row at the moment, 'changed' where it has changed since it was seen.
-- Locks: the schedule's row, unless somebody else has it; then as `run_ticks`.
create function durable.tick_schedule(
    of text, revision bigint, passed_from timestamptz, passed_until timestamptz, ids text[], offered timestamptz[],
    missed bigint, next_at timestamptz, due_at timestamptz
)
    returns table (what text, workflow_id text, in_queue text, stopper uuid, undo_in text, parent text, parent_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
begin
    perform from durable.schedule s where s.name = tick_schedule.of for no key update skip locked;
    if not found then
        return query select 'busy', null::text, null::text, null::uuid, null::text, null::text, null::text;
        return;
    end if;
    update durable.schedule s
    set passed_until = tick_schedule.passed_until, missed = s.missed + tick_schedule.missed,
        next_at = case when s.paused_at is null then tick_schedule.next_at end,
        due_at = case when s.paused_at is null then tick_schedule.due_at end
    where s.name = tick_schedule.of and s.revision = tick_schedule.revision
      and s.passed_until = tick_schedule.passed_from;
    if not found then
        return query select 'changed', null::text, null::text, null::uuid, null::text, null::text, null::text;
        return;
    end if;
    return query select * from durable.run_ticks(tick_schedule.of, 'tick', tick_schedule.ids, tick_schedule.offered);
end
$$;

-- Offer something besides the ticks: a trigger, or a backfill. Nothing comes back when there is no such schedule; and 'changed' when
-- it has another rule than the one that `seen` was computed by (its revision; null for a trigger).
-- A repeat locks nothing, because a lock alone has a commit, whose reply can be lost again.
-- Locks: the schedule's row, then as `run_ticks`.
create function durable.ask_schedule(of text, kind text, seen bigint, ids text[], ats timestamptz[])
    returns table (what text, workflow_id text, in_queue text, stopper uuid, undo_in text, parent text, parent_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    stands bigint;
begin
    perform from durable.schedule s where s.name = ask_schedule.of;
    if not found then
        return;
    end if;
    perform from unnest(ask_schedule.ids) as g (id)
    where not exists (select from durable.tick t where t.schedule = ask_schedule.of and t.id = g.id offset 0)
      and not exists (select from durable.workflow w where w.bucket = durable.bucket(g.id) and w.id = g.id offset 0);
    if not found then
        return query select 'existed', null::text, null::text, null::uuid, null::text, null::text, null::text;
        return;
    end if;
    select s.revision into stands from durable.schedule s where s.name = ask_schedule.of for no key update;
    if not found then
        return;
    elsif ask_schedule.seen <> stands then
        return query select 'changed', null::text, null::text, null::uuid, null::text, null::text, null::text;
        return;
    end if;
    return query select * from durable.run_ticks(
        ask_schedule.of, ask_schedule.kind, ask_schedule.ids, coalesce(ask_schedule.ats, array[durable.now()]));
end
$$;

-- Pause, resume or delete ($1) a schedule. Whether there is one; a repeat says so too, except for one that was deleted.
-- Locks: the schedule's row, then those of its ticks.
create function durable.operate_schedule(act text, of text, reason text default null) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    if operate_schedule.act = 'delete' then
        delete from durable.schedule s where s.name = operate_schedule.of;
        if not found then
            return false;
        end if;
        delete from durable.tick t where t.schedule = operate_schedule.of;
        return true;
    end if;
    if operate_schedule.act not in ('pause', 'resume') or operate_schedule.act is null then
        raise exception 'there is no operation "%"', operate_schedule.act using errcode = 'invalid_parameter_value';
    end if;
    -- A repeat locks nothing, for the reason that `ask_schedule` gives.
    perform from durable.schedule s
    where s.name = operate_schedule.of and (s.paused_at is null) = (operate_schedule.act = 'resume');
    if found then
        return true;
    end if;
    perform from durable.schedule s where s.name = operate_schedule.of for no key update;
    if not found then
        return false;
    elsif operate_schedule.act = 'pause' then
        update durable.schedule s
        set paused_at = durable.now(), paused_for = operate_schedule.reason, next_at = null, due_at = null,
            may_start = exists (select from durable.tick t
                                where t.schedule = s.name and t.started_at is null and t.kind <> 'tick'),
            revision = s.revision + 1, changed_at = durable.now()
        where s.name = operate_schedule.of and s.paused_at is null;
    else
        -- It goes on from now: what was paused is not made up for.
        update durable.schedule s
        set paused_at = null, paused_for = null, passed_until = greatest(s.passed_until, durable.now()),
            due_at = durable.now(), may_start = s.waiting > 0, revision = s.revision + 1, changed_at = durable.now()
        where s.name = operate_schedule.of and s.paused_at is not null;
    end if;
    return true;
end
$$;

-- The same for a person: an exception says that there is none.
create function durable.operate_schedule_named(act text, of text, reason text) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    perform durable.check_text('schedule', operate_schedule_named.of);
    if not durable.operate_schedule(operate_schedule_named.act, operate_schedule_named.of, operate_schedule_named.reason) then
        raise exception 'there is no schedule %', operate_schedule_named.of using errcode = 'no_data_found';
    end if;
end
$$;

create function durable.pause_schedule(name text, reason text default null) returns void
    language sql as 'select durable.operate_schedule_named(''pause'', pause_schedule.name, pause_schedule.reason)';
create function durable.resume_schedule(name text) returns void
    language sql as 'select durable.operate_schedule_named(''resume'', resume_schedule.name, null)';
create function durable.delete_schedule(name text) returns void
    language sql as 'select durable.operate_schedule_named(''delete'', delete_schedule.name, null)';

-- Start what a schedule starts, now, and give the workflow's id.
-- Locks: as `ask_schedule`.
create function durable.trigger_schedule(name text) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    new_id constant text := trigger_schedule.name || '/' || durable.new_id();
    said record;
begin
    perform durable.check_text('schedule', trigger_schedule.name);
    for said in select * from durable.ask_schedule(trigger_schedule.name, 'trigger', null, array[new_id], null) loop
        if said.what = 'refused' then
            raise exception 'schedule % does not start another workflow now', trigger_schedule.name
                using errcode = 'object_not_in_prerequisite_state',
                      detail = format('%s has not ended, or waits to be started.', said.workflow_id);
        end if;
    end loop;
    if said is null then
        raise exception 'there is no schedule %', trigger_schedule.name using errcode = 'no_data_found';
    end if;
    return new_id;
end
$$;

comment on function durable.pause_schedule is
    'Let a schedule start nothing by the clock until it is resumed. What has started goes on.';
comment on function durable.resume_schedule is
    'Let a paused schedule go on with its next tick. What it would have started meanwhile is not made up for.';
comment on function durable.trigger_schedule is
    'Start what a schedule starts, now, and give the workflow''s id. An exception says why its policy for overlaps does not allow it.';
comment on function durable.delete_schedule is
    'Delete a schedule. What it has started goes on; what waits to be started is forgotten.';
