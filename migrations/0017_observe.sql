-- What people and autoscalers see: the transitions of a workflow that nothing else tells, and who takes from which queue.
--
-- In reading order: what a journal keeps of a claim that is cut short and of what a resumption overwrites, which queues and
-- bodies each worker has. Nothing here is written by a workflow that is claimed, runs, waits and ends as it should.

-- Looking into JSON that may hold a NUL in a failure, on which every operator that does so gives up: by its text. What is looked for
-- stands before any text of a user's, or where such text, in which quotes are escaped, cannot be taken for it.

-- A wait without the attempts that failed.
create function durable.plain_wait(wait json) returns json
    language sql immutable
    as $$
        select case when strpos(wait::text, ', "attempts" : ') > 0
            then (split_part(wait::text, ', "attempts" : ', 1) || '}')::json else wait end
    $$;

-- The attempts of a wait that failed; null for none.
create function durable.attempts_of(wait json) returns json
    language sql immutable
    as $$
        select left(a.attempts, -1)::json
        from (select substr(wait::text, nullif(strpos(wait::text, ', "attempts" : '), 0) + 15) as attempts) a
        where a.attempts like '[%'
    $$;

-- The first message of a failure, as JSON has it between its quotes.
create function durable.first_message(failure json) returns text
    language sql immutable
    as $$
        select left(substring(failure::text from '"messages" ?: ?\["((?:[^"\\]|\\.)*)"'), 1000)
    $$;

-- Note what was done to a workflow whose row the caller has locked. Where that takes it away from a worker, when this had
-- claimed it is noted before: the row keeps only the last claim. The rest is as it was.
-- Only then the row is read: who changes deadlines has no right to.
create or replace function durable.note(
    place smallint, id text, act text, stood text, reason text, dropped json default null, call uuid default null
) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
begin
    if note.act in ('pause', 'cancel') and coalesce(note.stood, 'running') = 'running' then
        insert into durable.operation (bucket, workflow_id, n, act, reason, done_at)
        select note.place, note.id,
               coalesce((select max(o.n) + 1 from durable.operation o where o.bucket = note.place and o.workflow_id = note.id), 0),
               'claim', format('claim %s, by worker %s', w.claims, w.stopping), w.claimed_at
        from durable.workflow w
        where w.bucket = note.place and w.id = note.id and w.stopping is not null and w.claimed_at is not null;
    end if;
    insert into durable.operation (bucket, workflow_id, n, act, stood, reason, dropped, call)
    select note.place, note.id, coalesce(max(o.n) + 1, 0), note.act, note.stood, note.reason, note.dropped, note.call
    from durable.operation o
    where o.bucket = note.place and o.workflow_id = note.id;
end
$$;

-- As it was, and a note of what the workflows were waiting for, and since when: their rows forget that here.
create or replace function durable.cut_off(workflow_id text, end_as text, why json)
    returns table (id text, cut boolean, stopping uuid, undo_in text, parent text, parent_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    place constant smallint := durable.bucket(cut_off.workflow_id);
    buckets smallint[] := '{}';
    ids text[] := '{}';
    more_buckets smallint[];
    more_ids text[];
    stands text;
    undoes boolean;
    awaits_place smallint;
    awaits text;
    awaits_in text;
begin
    perform durable.check_text('workflow id', cut_off.workflow_id);
    select c.parent_bucket, c.parent into awaits_place, awaits
    from durable.child c where c.bucket = place and c.id = cut_off.workflow_id;
    loop
        with recursive tree as (
            select place as bucket, cut_off.workflow_id collate "C" as id
            union
            select c.bucket, c.id
            from tree t
            cross join lateral (
                -- offset 0 keeps this a look into the index
                select c.bucket, c.id from durable.child c
                where c.parent_bucket = t.bucket and c.parent = t.id and not c.detached
                offset 0
            ) c
        )
        select array_agg(t.bucket), array_agg(t.id) into more_buckets, more_ids from tree t;
        exit when cardinality(more_ids) = cardinality(ids);
        perform from (
            select unnest(more_buckets || awaits_place) as bucket, unnest(more_ids || awaits) as id
        ) k
        join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id
        where w.status in ('queued', 'running', 'suspended', 'blocked')
        order by w.bucket + 0, w.id
        for no key update of w;
        buckets := more_buckets;
        ids := more_ids;
    end loop;

    -- What has ended by itself is left alone, and with it what it has left behind.
    select w.status,
           not exists (select from durable.ending e where e.bucket = place and e.id = cut_off.workflow_id)
           and exists (select from durable.step s
                       where s.bucket = place and s.workflow_id = cut_off.workflow_id and s.kind = 'undo'
                       offset 0)
    into stands, undoes
    from durable.workflow w where w.bucket = place and w.id = cut_off.workflow_id;
    if not found or stands in ('completed', 'failed') then
        return;
    end if;

    if stands <> 'cancelled' and not undoes and awaits is not null
       and (stands = 'blocked'
            or not exists (select from durable.ending e where e.bucket = place and e.id = cut_off.workflow_id)) then
        update durable.workflow w
        set wakes = w.wakes + 1,
            due_at = case when w.status = 'suspended' then durable.now() else w.due_at end
        where w.bucket = awaits_place and w.id = awaits and w.status in ('queued', 'running', 'suspended', 'blocked')
        returning w.queue into awaits_in;
    end if;
    return query
        with open as (
            select k.bucket, k.id, w.waits,
                   case when k.id = cut_off.workflow_id then cut_off.end_as else 'cancelled' end as end_as,
                   case when k.id = cut_off.workflow_id then cut_off.why else json_build_object(
                       'kind', 'cancelled', 'terminal', true, 'messages',
                       json_build_array(format('with %s, which had started it', cut_off.workflow_id))) end as why,
                   e.id is null
                   and exists (select from durable.step s
                               where s.bucket = k.bucket and s.workflow_id = k.id and s.kind = 'undo'
                               offset 0) as undoes
            from (select unnest(buckets) as bucket, unnest(ids) as id) k
            join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id
            left join durable.ending e on e.bucket = k.bucket and e.id = k.id
            -- What is being undone is left to that; unless its code does not get it done.
            where e.id is null or w.status = 'blocked'
        ),
        stopped as (
            update durable.workflow w
            set status = case when o.undoes then 'suspended' else o.end_as end,
                stopping = coalesce(w.owner, w.stopping), owner = null, waits = null, wakes = w.wakes + 1,
                due_at = case when o.undoes and coalesce(w.owner, w.stopping) is null then durable.now() end,
                failure = case when o.undoes then w.failure else o.why end,
                finished_at = case when not o.undoes then durable.now() end
            from open o
            where w.bucket = any (array[o.bucket]) and w.id = o.id
              and w.status in ('queued', 'running', 'suspended', 'blocked')
            returning w.bucket, w.id, w.stopping, w.queue, o.undoes, o.end_as, o.why
        ),
        noted as (
            insert into durable.ending (bucket, id, status, failure)
            select s.bucket, s.id, s.end_as, s.why from stopped s where s.undoes
        ),
        waited as (
            insert into durable.operation (bucket, workflow_id, n, act, reason, done_at)
            select s.bucket, s.id, p.next + x.n, 'wait',
                   x.wait::text, btrim((x.wait -> 'since')::text, '"')::timestamptz
            from stopped s
            join open o on o.bucket = s.bucket and o.id = s.id
            cross join lateral (
                select coalesce(max(p.n), -1) as next
                from durable.operation p where p.bucket = s.bucket and p.workflow_id = s.id
            ) p
            cross join lateral (
                select durable.plain_wait(j.wait) as wait, j.n
                from json_array_elements(o.waits) with ordinality as j (wait, n)
            ) x
            where (x.wait -> 'since')::text <> 'null'
            on conflict do nothing
        )
        select s.id, true, s.stopping, case when s.undoes then s.queue end,
               case when s.id = cut_off.workflow_id and awaits_in is not null then awaits end,
               case when s.id = cut_off.workflow_id then awaits_in end
        from stopped s
        union all
        -- By an earlier call, whose answer may have been lost.
        select w.id, false, w.stopping, null, null, null
        from (select unnest(buckets) as bucket, unnest(ids) as id) k
        join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id
        where w.stopping is not null and not exists (select from stopped s where s.id = w.id);
end
$$;

-- As it was, and for failures that hold a NUL, too.
create or replace function durable.forget_failures(place smallint, of text) returns json
    language sql
    set enable_hashjoin = on
    as $$
        with recorded as materialized (
            select s.lane, s.seq, s.kind, s.failure is not null as failed, s.recorded_at,
                   -- The lanes of a generation begin with a g and its number.
                   string_to_array(nullif(ltrim(s.lane, 'g'), ''), '.')::integer[] || s.seq as path,
                   -- When its first attempt began: by the text, see above.
                   coalesce(substring(s.attempts::text from '"failed_at" ?: ?"([^"]+)"')::timestamptz
                                - substring(s.attempts::text from '"took_ms" ?: ?([0-9]+)')::bigint * interval '1 millisecond',
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

-- Note of a workflow that is about to be resumed or restarted what that overwrites: when it had ended, how, and the first message
-- of its failure; its last claim; and, of one that is restarted, when it was started. The caller has locked its row.
-- Locks: the notes.
create function durable.note_past(w durable.workflow, act text) returns void
    language sql
    as $$
        insert into durable.operation (bucket, workflow_id, n, act, stood, reason, done_at)
        select w.bucket, w.id, o.next + t.n, t.act, t.stood, t.reason, t.at
        from (
            select coalesce(max(o.n) + 1, 0) as next
            from durable.operation o where o.bucket = w.bucket and o.workflow_id = w.id
        ) o
        cross join (
            values (0, 'create', null, null, case when note_past.act = 'restart' then w.created_at end),
                   (1, 'claim', null, format('claim %s, by a worker', w.claims), w.claimed_at),
                   (2, 'end', w.status, durable.first_message(w.failure), w.finished_at)
        ) as t (n, act, stood, reason, at)
        where note_past.act in ('resume', 'restart') and t.at is not null
    $$;

-- As it was, but for `note_past`; and whether it is paused is found out without looking into the JSON.
create or replace function durable.operate(act text, ids text[], reason text default null, call uuid default null)
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
        is_paused := w.status = 'blocked' and w.failure::text ~ '^\{"kind" ?: ?"paused"';
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
            perform durable.note_past(w, operate.act);
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

-- What a worker takes beside the workflows of its own queue: of which queues with limits, and with which bodies. Written once, with its
-- lease; a worker of a version before this one has none.
create table durable.worker_takes (
    worker       uuid        primary key,
    limited      text[]      collate "C" not null,
    names        text[]      collate "C" not null,
    versions     integer[]   not null
);

-- Which live worker takes workflows from which queue now, and with which bodies; null for any.
create view durable.taker as
    select k.id as worker, k.queue, t.names, t.versions
    from durable.worker k
    left join durable.worker_takes t on t.worker = k.id
    where k.fenced_at is null and k.lease_until > durable.now()
      -- One with limits is served only by those who say so.
      and not exists (select from durable.queue q where q.name = k.queue)
    union all
    select k.id, l.queue, t.names, t.versions
    from durable.worker k
    join durable.worker_takes t on t.worker = k.id
    cross join lateral unnest(t.limited) as l (queue)
    where k.fenced_at is null and k.lease_until > durable.now()
      and exists (select from durable.queue q where q.name = l.queue);

-- How queues stand, all that have workflows under way, limits or workers, or only one: for people and autoscalers. `depth` are those that
-- are due and wait for a worker; the rest is as the columns say. Each count but that of the running ones goes up to 10,000, which then
-- means "or more"; so what it costs does not grow with what waits, sleeps or is dated ahead. At most 10,000 queues, and 1,000
-- priorities of each; of those that are due 1,000 are looked at for whether a worker has their code.
-- Locks: nothing.
create function durable.queue_metrics(only_queue text default null)
    returns table (queue text, depth bigint, oldest_due_at timestamptz, running bigint, suspended bigint, delayed bigint,
                   workers bigint, without_code bigint, has_limits boolean, is_paused boolean, waits_for text)
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set jit = off
    as $$
#variable_conflict use_column
begin
    return query
    with recursive ready as (
        -- From one name to the next by a look into the index each, whatever lies between them.
        select (select w.queue from durable.workflow w where w.status = 'queued' order by w.queue limit 1) as queue
        where queue_metrics.only_queue is null
        union all
        select (select w.queue from durable.workflow w where w.status = 'queued' and w.queue > r.queue order by w.queue limit 1)
        from ready r where r.queue is not null
    ),
    sleeping as (
        select (select w.queue from durable.workflow w where w.status = 'suspended' order by w.queue limit 1) as queue
        where queue_metrics.only_queue is null
        union all
        select (select w.queue from durable.workflow w where w.status = 'suspended' and w.queue > s.queue order by w.queue limit 1)
        from sleeping s where s.queue is not null
    ),
    run as materialized (
        select w.queue, count(*) as running
        from (select w.queue from durable.workflow w where w.owner is not null limit 100000) w
        group by w.queue
    ),
    taker as materialized (
        select t.queue, t.worker, t.names, t.versions from durable.taker t
    ),
    named as materialized (
        select queue_metrics.only_queue collate "C" as queue where queue_metrics.only_queue is not null
        union
        select n.queue
        from (
            select r.queue from ready r
            union all select s.queue from sleeping s
            union all select r.queue from run r
            union all select q.name from durable.queue q
            union all select t.queue from taker t
        ) n
        where n.queue is not null and queue_metrics.only_queue is null
        limit 10000
    ),
    counted as (
        select n.queue, d.due + s.due as depth, least(d.oldest, s.oldest) as oldest,
               coalesce((select r.running from run r where r.queue = n.queue), 0) as running,
               s.asleep as suspended, d.later as delayed,
               (select count(distinct t.worker) from taker t where t.queue = n.queue) as workers
        from named n
        cross join lateral (
            with recursive priority as (
                select (select w.priority from durable.workflow w
                        where w.status = 'queued' and w.queue = n.queue order by w.priority limit 1) as priority
                union all
                select (select w.priority from durable.workflow w
                        where w.status = 'queued' and w.queue = n.queue and w.priority > p.priority order by w.priority limit 1)
                from priority p where p.priority is not null
            ),
            priorities as materialized (
                select p.priority from priority p where p.priority is not null limit 1000
            )
            select (select count(*) from (
                        select from priorities p
                        cross join lateral (
                            select from durable.workflow w
                            where w.status = 'queued' and w.queue = n.queue and w.priority = p.priority
                              and w.due_at <= durable.now()
                            offset 0
                        ) w limit 10000) x) as due,
                   (select count(*) from (
                        select from priorities p
                        cross join lateral (
                            select from durable.workflow w
                            where w.status = 'queued' and w.queue = n.queue and w.priority = p.priority
                              and w.due_at > durable.now()
                            offset 0
                        ) w limit 10000) x) as later,
                   (select min(w.due_at) from priorities p
                    cross join lateral (
                        select w.due_at from durable.workflow w
                        where w.status = 'queued' and w.queue = n.queue and w.priority = p.priority
                          and w.due_at <= durable.now()
                        order by w.due_at limit 1
                    ) w) as oldest
        ) d
        cross join lateral (
            select (select count(*) from (
                        select from durable.workflow w
                        where w.status = 'suspended' and w.queue = n.queue and w.due_at <= durable.now()
                        order by w.due_at limit 10000) x) as due,
                   (select w.due_at from durable.workflow w
                    where w.status = 'suspended' and w.queue = n.queue and w.due_at <= durable.now()
                    order by w.due_at limit 1) as oldest,
                   (select count(*) from (
                        (select from durable.workflow w
                         where w.status = 'suspended' and w.queue = n.queue and w.due_at > durable.now()
                         order by w.due_at limit 10000)
                        union all
                        (select from durable.workflow w
                         where w.status = 'suspended' and w.queue = n.queue and w.due_at is null
                         order by w.due_at limit 10000)
                        limit 10000) x) as asleep
        ) s
    ),
    coded as (
        select c.*,
               case when c.workers > 0 then (
                   select count(*) filter (where not exists (
                       select from taker t
                       where t.queue = c.queue
                         and (t.names is null or (l.name, l.version) in (select * from unnest(t.names, t.versions)))))
                   from (
                       (select w.name, w.version from durable.workflow w
                        where w.status = 'queued' and w.queue = c.queue and w.due_at <= durable.now()
                        order by w.priority, w.due_at limit 1000)
                       union all
                       (select w.name, w.version from durable.workflow w
                        where w.status = 'suspended' and w.queue = c.queue and w.due_at <= durable.now()
                        order by w.due_at limit 1000)
                       limit 1000
                   ) l
               ) else 0 end as without_code
        from counted c
    )
    select c.queue, least(c.depth, 10000), c.oldest, c.running, c.suspended, c.delayed, c.workers, c.without_code,
           q.name is not null, coalesce(q.is_paused, false),
           case when c.depth = 0 then null
                when q.is_paused then 'paused'
                when c.workers = 0 then 'worker'
                when c.without_code >= least(c.depth, 1000) then 'code'
                else coalesce(durable.waits_for_turn(q, c.workers), 'slot') end
    from coded c
    left join durable.queue q on q.name = c.queue
    order by c.queue;
end
$$;

-- Which of its limits lets nobody of a queue begin or go on now; null if none does.
create function durable.waits_for_turn(queue durable.queue, workers bigint) returns text
    language sql stable
    as $$
        select case
            when (queue).name is null then null
            when (select count(*) from durable.place p where p.queue = (waits_for_turn.queue).name and p.is_held)
                >= least((queue).concurrency, (queue).concurrency_per_worker * waits_for_turn.workers) then 'concurrency'
            when durable.rate_left((queue).rate, (queue).rate_period, (queue).begun_at, (queue).begun) = 0 then 'rate'
            when (queue).concurrency_per_partition is not null or (queue).rate_per_partition is not null then (
                select case when bool_or(o.room > 0) or count(*) = 0 then null
                            when bool_or(o.new_room = 0) then 'rate_per_partition'
                            else 'concurrency_per_partition' end
                from durable.open_partitions(waits_for_turn.queue, 2147483647, 100) o
            ) end
    $$;

comment on function durable.queue_metrics is
    'How queues stand: what is due (depth), since when, running, suspended, delayed, workers, and what those that are due wait for. '
    'Counts go up to 10,000.';
