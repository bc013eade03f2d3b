-- Operating on workflows: pause, resume, restart and delete them; what operators did; attributes to find them by.
--
-- In reading order: attributes, the journal, what is forgotten with a workflow, waiting for late writers, what of a failed
-- workflow is tried again, the one place where it is all decided (`operate`), and what a person calls from psql. Everything
-- about a workflow stands in tables of its own, so this waits for no writer. The functions run with the rights of whoever
-- calls them, in the caller's transaction, and send no NOTIFY: workers notice within a poll.

-- What a workflow can be found by. `sort` is the value in a form whose order as text, byte by byte, is that of the values; its
-- first letter is that of the kind, so that kinds do not mix.
create table durable.attribute (
    bucket       smallint    not null,
    id           text        collate "C" not null,           -- the workflow
    name         text        collate "C" not null,
    value        json        not null,                       -- as a person reads it
    sort         text        collate "C" not null,
    by_body      boolean     not null,                       -- set by the body, not at the start
    created_at   timestamptz not null,                       -- of the workflow, which is what lists are ordered by
    primary key (bucket, id, name)
);

create index attribute_found on durable.attribute (name, sort, created_at, id);

-- What operators did to a workflow, in order.
create table durable.operation (
    bucket       smallint    not null,
    workflow_id  text        collate "C" not null,
    n            integer     not null,
    act          text        collate "C" not null,           -- pause, resume, restart, cancel, fork
    stood        text        collate "C",                    -- the status before
    reason       text,
    dropped      json,                                       -- the records that are tried again
    done_by      text        not null default session_user,
    done_at      timestamptz not null default durable.now(),
    call         uuid,                                       -- by which a repeat is known
    primary key (bucket, workflow_id, n)
);

-- Note what was done to a workflow whose row the caller has locked.
create function durable.note(
    place smallint, id text, act text, stood text, reason text, dropped json default null, call uuid default null
) returns void
    language sql
    as $$
        insert into durable.operation (bucket, workflow_id, n, act, stood, reason, dropped, call)
        select note.place, note.id, coalesce(max(o.n) + 1, 0), note.act, note.stood, note.reason, note.dropped, note.call
        from durable.operation o
        where o.bucket = note.place and o.workflow_id = note.id
    $$;

-- Forget what a workflow did, so that it can begin again. A side table that holds what a body did has its line here.
-- Messages that nobody has received stay; the received ones are part of what it did.
-- Locks: these rows.
create function durable.forget_history(place smallint, of text) returns void
    language plpgsql
    as $$
    begin
        delete from durable.step s where s.bucket = place and s.workflow_id = of;
        delete from durable.message m where m.bucket = place and m.workflow_id = of and m.received_at is not null;
        delete from durable.fork f where f.bucket = place and f.id = of;
        delete from durable.attribute a where a.bucket = place and a.id = of and a.by_body;
        delete from durable.ending e where e.bucket = place and e.id = of;
        delete from durable.generation g where g.bucket = place and g.id = of;
    end
    $$;

-- Forget the rest of a workflow that is deleted. A side table that stays when a workflow begins again has its line here.
-- Locks: these rows.
create function durable.forget_rest(place smallint, of text) returns void
    language plpgsql
    as $$
    begin
        delete from durable.message m where m.bucket = place and m.workflow_id = of;
        delete from durable.attribute a where a.bucket = place and a.id = of;
        delete from durable.operation o where o.bucket = place and o.workflow_id = of;
        delete from durable.deadline d where d.bucket = place and d.id = of;
        -- Whoever waits for what it has not published waits on: the next one with this id may publish it.
        delete from durable.event e where e.bucket = place and e.workflow_id = of and e.waiters = '{}';
        update durable.event e set n = 0, value = null, published_at = null
        where e.bucket = place and e.workflow_id = of;
        delete from durable.child c where c.bucket = place and c.id = of;
        delete from durable.child c where c.parent_bucket = place and c.parent = of;
    end
    $$;

-- Wait until every transaction is through that may be writing steps now. A former owner's INSERT probes the owner in the
-- snapshot of its statement, and may be held up after that for as long as it likes: on a lock, on a disk. But a statement has its
-- lock of the table before it has its snapshot. So whoever sees that a workflow has no owner, and then waits for those that
-- hold this lock at that moment, has seen the last of that owner's writes. The caller may hold no row that they may want.
-- Locks: nothing.
create function durable.wait_for_writers(patience interval default '5 s') returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    began constant timestamptz := clock_timestamp();
    writers text[];
    others text[];
begin
    loop
        select array_agg(l.virtualtransaction) into others
        from pg_locks l
        where l.locktype = 'relation' and l.relation = 'durable.step'::regclass and l.mode = 'RowExclusiveLock'
          and l.database = (select d.oid from pg_database d where d.datname = current_database())
          and l.granted and l.pid <> pg_backend_pid()
          and (writers is null or l.virtualtransaction = any (writers));
        exit when others is null;
        if clock_timestamp() - began > patience then
            raise exception 'a transaction that writes steps does not end'
                using errcode = 'object_in_use',
                      hint = 'Try again; pg_locks tells who holds a lock of the table "step".';
        end if;
        writers := others;
        perform pg_sleep(0.002);
    end loop;
end
$$;

-- Take the failures out of a failed workflow's history that nothing came after, so that they are tried again; and tell what they
-- were. Something came after a failure if it stands at a later position of its lane, or of a lane that this was opened in, and
-- began after the failure was recorded: only then the body can have gone that way because of it. What ran beside it did not.
-- Branches that lie side by side (the items of a fan-out, the arms of a race) are none of each other's; their common lane is
-- known by having no record of its own.
-- Locks: the step rows.
create function durable.forget_failures(place smallint, of text) returns json
    language sql
    set enable_hashjoin = on
    as $$
        with recorded as materialized (
            select s.lane, s.seq, s.kind, s.failure is not null as failed, s.recorded_at,
                   -- The lanes of a generation begin with a g and its number.
                   string_to_array(nullif(ltrim(s.lane, 'g'), ''), '.')::integer[] || s.seq as path,
                   -- When its first attempt began. Not by ->>, which would read all of it, and gives up on a NUL.
                   coalesce(btrim((s.attempts -> 0 -> 'failed_at')::text, '"')::timestamptz
                                - (s.attempts -> 0 -> 'took_ms')::text::bigint * interval '1 millisecond',
                            s.started_at) as began_at
            from durable.step s
            where s.bucket = place and s.workflow_id = of
        ),
        places as (
            select r.path[1:i - 1] as lane, r.path[i] as at, max(r.began_at) as began_at,
                   bool_or(i = cardinality(r.path)) as has_record
            from recorded r, generate_series(1, cardinality(r.path)) i
            group by 1, 2
        ),
        later as materialized (
            select p.lane, p.at,
                   max(p.began_at) over (partition by p.lane order by p.at
                                         rows between 1 following and unbounded following) as began_at,
                   p.lane = '{}' or bool_or(p.has_record) over (partition by p.lane) as in_order
            from places p
        ),
        dropped as (
            delete from durable.step s
            using recorded r
            where s.bucket = place and s.workflow_id = of and s.lane = r.lane and s.seq = r.seq
              and r.failed and r.kind in ('step', 'transaction', 'start', 'child')
              and not exists (
                  select
                  from generate_series(1, cardinality(r.path)) i
                  join later l on l.lane = r.path[1:i - 1] and l.at = r.path[i]
                  where l.in_order and l.began_at >= r.recorded_at
              )
            returning s.lane, s.seq, s.kind, s.name, s.failure, s.attempts, s.recorded_at
        )
        select json_agg(json_build_object(
                   'lane', d.lane, 'seq', d.seq, 'kind', d.kind, 'name', d.name, 'failure', d.failure,
                   'attempts', d.attempts, 'recorded_at', d.recorded_at) order by d.recorded_at, d.lane, d.seq)
        from dropped d
    $$;

-- Pause, resume, restart or delete workflows, each for itself: one row each says whether it was done and how the workflow
-- stood; `refused` is a word for why not, `problem` says it to a person. `call` makes a repeat after a lost reply say the
-- same as the first one would have; but a deleted workflow is not there the second time.
-- Locks: the workflow rows, in key order, each before what hangs on it. It waits for late writers before it has any lock.
create function durable.operate(act text, ids text[], reason text default null, call uuid default null)
    returns table (workflow text, done boolean, stood text, in_queue text, stopper uuid, refused text, problem text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    given record;
    w durable.workflow;
    seen_before jsonb;
    is_paused boolean;
    parent_id text;
    dropped json;
begin
    if operate.act not in ('pause', 'resume', 'restart', 'delete') or operate.act is null then
        raise exception 'there is no operation "%"', operate.act using errcode = 'invalid_parameter_value';
    elsif octet_length(operate.reason) > 1000 then
        raise exception 'the reason has % bytes, at most 1000 are kept', octet_length(operate.reason)
            using errcode = 'invalid_parameter_value', hint = 'Use a shorter one.';
    elsif current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'workflows cannot be operated on in a transaction that is %',
            current_setting('transaction_isolation')
            using errcode = 'feature_not_supported',
                  hint = 'It would not see what was recorded since it began: use READ COMMITTED.';
    end if;

    if operate.act <> 'pause' then
        select jsonb_object_agg(k.id, k.claims) into seen_before
        from unnest(operate.ids) as g (id)
        cross join lateral (
            select w.id, w.claims from durable.workflow w
            where w.bucket = durable.bucket(g.id) and w.id = g.id and w.owner is null
            offset 0
        ) k;
        perform durable.wait_for_writers();
    end if;

    for given in
        select distinct durable.bucket(g.id) as bucket, g.id collate "C" as id from unnest(operate.ids) as g (id)
        order by 1, 2
    loop
        select * into w from durable.workflow w where w.bucket = given.bucket and w.id = given.id for update;
        workflow := given.id;
        stood := w.status;
        in_queue := w.queue;
        done := false;
        refused := null;
        problem := null;
        stopper := null;
        is_paused := w.status = 'blocked' and (w.failure -> 'kind')::text is not distinct from '"paused"';
        if w.id is not null and operate.call is not null then
            select true, o.stood into done, stood
            from durable.operation o
            where o.bucket = given.bucket and o.workflow_id = given.id and o.call = operate.call;
            done := coalesce(done, false);
            stood := coalesce(stood, w.status);
        end if;
        if operate.act = 'delete' then
            select c.parent into parent_id
            from durable.child c
            where c.bucket = given.bucket and c.id = given.id
              and exists (select from durable.workflow p
                          where p.bucket = c.parent_bucket and p.id = c.parent
                            and p.status in ('queued', 'running', 'suspended', 'blocked'));
        end if;

        if w.id is null then
            refused := 'missing';
            problem := 'there is no such workflow';
        elsif done then
            stopper := w.stopping;
        elsif operate.act = 'pause' and is_paused then
            refused := 'status';
            problem := 'it is paused already: resume it to let it go on';
        elsif operate.act = 'pause' and w.status not in ('queued', 'running', 'suspended') then
            refused := 'status';
            problem := format('it is %s, and takes no step anyway', w.status);
        elsif operate.act in ('resume', 'restart', 'delete') and w.status = 'running' then
            refused := 'status';
            problem := case operate.act when 'resume' then 'it is running, and goes on by itself'
                                        else 'it is running: cancel or pause it first' end;
        elsif operate.act = 'resume' and w.status = 'completed' then
            refused := 'status';
            problem := 'it is completed, there is nothing left to do: restart it to do all of it again, or fork it';
        elsif operate.act in ('resume', 'restart') and w.status in ('queued', 'suspended') then
            refused := 'status';
            problem := format(case operate.act when 'resume' then 'it is %s, and goes on by itself'
                                               else 'it is %s: cancel or pause it first' end, w.status);
        elsif operate.act <> 'pause' and w.stopping is not null and exists (
            select from durable.worker k
            where k.id = w.stopping and k.fenced_at is null and k.lease_until > durable.now()
        ) then
            refused := 'stopping';
            problem := 'a worker has still to stop it, which takes up to a third of its lease: try again';
            stopper := w.stopping;
        elsif operate.act <> 'pause' and (seen_before ->> w.id)::integer is distinct from w.claims then
            refused := 'changed';
            problem := 'it was run meanwhile: try again';
        elsif operate.act = 'resume' and w.status in ('failed', 'cancelled') and exists (
            select
            from durable.step u
            join durable.step s on s.bucket = u.bucket and s.workflow_id = u.workflow_id and s.seq = 0
                and s.lane = case when u.lane = '' then u.seq::text else u.lane || '.' || u.seq end
            where u.bucket = given.bucket and u.workflow_id = given.id and u.kind = 'undo'
        ) then
            refused := 'undone';
            problem := 'its undo steps have run, so what it had done is gone: restart it, or fork it from a position';
        elsif operate.act = 'delete' and parent_id is not null then
            refused := 'parent';
            problem := format('it is a child of %s, which has not ended: cancel that first', parent_id);
        else
            done := true;
            if operate.act = 'pause' then
                -- Whoever runs it finds that it has no owner, as after a cancellation. A timer is not stopped: what it was
                -- about to do at its end is done after the resumption.
                update durable.workflow u
                set status = 'blocked', stopping = coalesce(u.owner, u.stopping), owner = null,
                    due_at = case when u.status = 'queued' then u.due_at end,
                    failure = json_build_object('kind', 'paused', 'messages',
                                                json_build_array(coalesce(operate.reason, 'by an operator'))),
                    wakes = u.wakes + 1
                where u.bucket = given.bucket and u.id = given.id
                returning u.stopping into stopper;
                perform durable.note(given.bucket, given.id, 'pause', w.status, operate.reason, null, operate.call);
            elsif operate.act = 'resume' then
                dropped := case when w.status = 'failed' then durable.forget_failures(given.bucket, given.id) end;
                update durable.workflow u
                set status = 'queued', stopping = null, recoveries = 0, wakes = u.wakes + 1,
                    -- One that was paused before its time waits for it.
                    due_at = case when is_paused then greatest(u.due_at, durable.now()) else durable.now() end,
                    output = null, failure = null, finished_at = null
                where u.bucket = given.bucket and u.id = given.id;
                if w.status <> 'blocked' then
                    delete from durable.ending e where e.bucket = given.bucket and e.id = given.id;
                end if;
                perform durable.note(given.bucket, given.id, 'resume', w.status, operate.reason, dropped, operate.call);
            elsif operate.act = 'restart' then
                -- The counts of claims and wakes go on: they tell late writes and old messages from new ones.
                update durable.workflow u
                set status = 'queued', stopping = null, recoveries = 0, wakes = u.wakes + 1, due_at = durable.now(),
                    created_at = durable.now(), claimed_at = null, finished_at = null, waits = null,
                    output = null, failure = null
                where u.bucket = given.bucket and u.id = given.id;
                -- One that has continued as new begins with what it was started with at first.
                update durable.workflow u set input = g.first_input, version = g.first_version
                from durable.generation g
                where u.bucket = given.bucket and u.id = given.id and g.bucket = given.bucket and g.id = given.id;
                perform durable.forget_history(given.bucket, given.id);
                update durable.deadline d set at = durable.now() + (d.at - w.created_at)
                where d.bucket = given.bucket and d.id = given.id;
                update durable.attribute a set created_at = durable.now()
                where a.bucket = given.bucket and a.id = given.id;
                perform durable.note(given.bucket, given.id, 'restart', w.status, operate.reason, null, operate.call);
            else
                delete from durable.workflow u where u.bucket = given.bucket and u.id = given.id;
                perform durable.forget_history(given.bucket, given.id), durable.forget_rest(given.bucket, given.id);
            end if;
        end if;
        return next;
    end loop;
end
$$;

-- One workflow, for a person: an exception says why not.
create function durable.operate_one(act text, id text, reason text) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    answer record;
begin
    perform durable.check_text('workflow id', operate_one.id);
    select * into answer from durable.operate(operate_one.act, array[operate_one.id], operate_one.reason);
    if not answer.done then
        raise exception 'could not % workflow %: %', operate_one.act, operate_one.id, answer.problem
            using errcode = case answer.refused when 'missing' then 'no_data_found'
                                                else 'object_not_in_prerequisite_state' end;
    end if;
end
$$;

create function durable.pause(workflow_id text, reason text default null) returns void
    language sql as 'select durable.operate_one(''pause'', pause.workflow_id, pause.reason)';
create function durable.resume(workflow_id text, reason text default null) returns void
    language sql as 'select durable.operate_one(''resume'', resume.workflow_id, resume.reason)';
create function durable.restart(workflow_id text, reason text default null) returns void
    language sql as 'select durable.operate_one(''restart'', restart.workflow_id, restart.reason)';
create function durable.delete(workflow_id text) returns void
    language sql as 'select durable.operate_one(''delete'', delete.workflow_id, null)';

comment on function durable.pause is
    'Let a workflow take no further step until it is resumed. A worker that runs it stops within a third of its lease.';
comment on function durable.resume is
    'Let a blocked, paused, failed or cancelled workflow go on from its history. Of a failed one, the failures that nothing '
    'came after are tried again.';
comment on function durable.restart is
    'Let an ended or blocked workflow begin again from nothing, with the same id and input.';
comment on function durable.delete is
    'Delete a workflow that is not running, and everything that hangs on it.';
