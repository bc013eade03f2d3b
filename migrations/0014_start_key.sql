-- Starts with a key: one workflow of a key at a time (deduplication), the last of many inputs (debounce), many inputs for one
-- workflow (batch).
--
-- In reading order: keys, workflows that are held back, inputs of batches, what the three share, deduplication, debounce, batches,
-- letting go what was held back, and the functions for SQL. Everything stands in tables of its own, for the reason that
-- `0005_child.sql` gives.
--
-- Whoever starts with a key holds the key's row until its transaction ends, so starts of one key happen one after the other. Ends
-- write nothing: whether the workflow of a key is still open is seen by the next start of that key.
-- All functions run with the rights of whoever calls them, in the caller's transaction, and send no NOTIFY. Each of their
-- statements sees what was committed before that statement (in READ COMMITTED; under stricter levels the lock of a key that
-- another has changed is refused).

-- Which workflow has a key now: the open one, the one that waits for more, or the last one that was so.
create table durable.start_key (
    name     text        collate "C" not null,               -- of the workflow
    how      text        collate "C" not null,
    key      text        collate "C" not null,
    bucket   smallint    not null default 0,
    id       text        collate "C" not null default '',    -- none yet
    first_at timestamptz not null default durable.now(),     -- when it was started
    calls    text[]      not null default '{}',              -- debounce: the ids of the last starts that it took
    primary key (name, how, key),
    constraint how_is_known check (how in ('deduplicate', 'debounce', 'batch'))
) with (fillfactor = 70);

create index start_key_workflow on durable.start_key (bucket, id);

-- A workflow that was started and is not due, a hundred years from now, until this row is gone: a batch, which waits for inputs until
-- `due_at`; or one that waits for another one to end.
create table durable.held_start (
    bucket       smallint    not null,
    id           text        collate "C" not null,
    due_at       timestamptz,
    inputs       integer     not null default 0,             -- of a batch
    bytes        bigint      not null default 0,
    after_bucket smallint,
    after        text        collate "C",
    primary key (bucket, id),
    constraint waits_for_one_thing check ((due_at is null) <> (after is null) and (after is null) = (after_bucket is null))
) with (fillfactor = 70);

create index held_start_due on durable.held_start (due_at) where due_at is not null;
create index held_start_after on durable.held_start (after_bucket, after) where after is not null;

-- What starts have put into a batch, which is a workflow. The row stays as long as that does, so that a start that comes twice is known.
create table durable.batch_input (
    bucket       smallint    not null,
    id           text        collate "C" not null,           -- the batch
    n            integer     not null,                       -- of its first input
    name         text        collate "C" not null,
    call         text        collate "C" not null,           -- the id that the start was given
    inputs       text,                                       -- elements of JSON with commas between; null once they are the workflow's
    primary key (bucket, id, n)
);

create unique index batch_input_call on durable.batch_input (name, call);

-- Lock the row of a key, and make it first if need be.
create function durable.take_key(name text, how text, key text) returns durable.start_key
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    k durable.start_key;
begin
    loop
        select * into k
        from durable.start_key k
        where k.name = take_key.name and k.how = take_key.how and k.key = take_key.key
        for no key update;
        if found then
            return k;
        end if;
        insert into durable.start_key (name, how, key) values (take_key.name, take_key.how, take_key.key)
        on conflict (name, how, key) do nothing;
    end loop;
end
$$;

-- A new workflow has the key from now on.
-- Locks: the caller holds the key.
create function durable.give_key(k durable.start_key, to_id text) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    update durable.start_key u
    set bucket = durable.bucket(to_id), id = to_id, first_at = durable.now(), calls = array[to_id]
    where u.name = k.name and u.how = k.how and u.key = k.key;
end
$$;

-- Whether a workflow has not ended. A cancelled one has not as long as a worker has still to stop it.
create function durable.is_open(place smallint, of text) returns boolean
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    as $$
begin
    return exists (
        select from durable.workflow w
        where w.bucket = place and w.id = of
          and (w.status in ('queued', 'running', 'suspended', 'blocked')
               or w.stopping is not null
                  and exists (select from durable.worker k
                              where k.id = w.stopping and k.fenced_at is null and k.lease_until > durable.now())));
end
$$;

-- A workflow to be started.
create type durable.new_start as (
    id         text,
    name       text,
    version    integer,
    queue      text,
    partition  text,
    priority   integer,
    input      json,
    deadline   interval,
    attributes json                                          -- name, value and sort of each
);

-- What came of a start with a key: started; existed (its id was there, and it has that name and version); joined (another one has the
-- key, and this start is a part of that); refused (because of that one). And what was done beside it: cut (cancelled for it) and
-- stopping (cancelled before, and a worker has still to stop it), as `cancel` tells them; due (a batch that begins because of it).
create type durable.start_told as (
    what        text,
    workflow_id text,
    same_input  boolean,
    name        text,
    version     integer,
    stopper     uuid,
    undo_in     text,
    is_due      boolean                                      -- it waits for nothing
);

-- Start a workflow, with what hangs on it, `wait` from now. Says whether it is new.
-- Locks: the new rows. A concurrent start of the same id waits for the other transaction.
create function durable.insert_start(s durable.new_start, wait interval) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    place constant smallint := durable.bucket(s.id);
    created timestamptz;
begin
    insert into durable.workflow as w (bucket, id, name, version, queue, priority, status, due_at, input)
    values (place, s.id, s.name, s.version, s.queue, s.priority, 'queued',
            durable.now() + least(insert_start.wait, interval '36600 days'), s.input)
    on conflict (bucket, id) do nothing
    returning w.created_at into created;
    if not found then
        return false;
    end if;
    insert into durable.attribute (bucket, id, name, value, sort, by_body, created_at)
    select place, s.id, a ->> 'name', a -> 'value', a ->> 'sort', false, created
    from json_array_elements(s.attributes) a;
    -- Each of them perhaps of a workflow that had the id before.
    insert into durable.place (bucket, id, queue, partition, name, version, priority, is_new)
    select place, s.id, s.queue, s.partition, s.name, s.version, s.priority, true
    where s.partition is not null
    on conflict (bucket, id) do update
        set queue = excluded.queue, partition = excluded.partition, is_held = false, due_at = null;
    insert into durable.deadline (bucket, id, at)
    select place, s.id, created + s.deadline where s.deadline is not null
    on conflict (bucket, id) do update set at = excluded.at;
    return true;
end
$$;

-- The workflow that a start's id belongs to, if there is one, as the answer to that start.
create function durable.existing_start(s durable.new_start) returns setof durable.start_told
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    return query
        select 'existed', w.id, coalesce(g.first_input, w.input)::text = s.input::text, w.name,
               case when g.first_version = s.version then s.version else w.version end, null::uuid, null::text, false
        from durable.workflow w
        -- One that has continued as new is known by what it was started with.
        left join durable.generation g on g.bucket = w.bucket and g.id = w.id
        where w.bucket = durable.bucket(s.id) and w.id = s.id;
end
$$;

-- Deduplicate: while the workflow that has the key is open, there is no other one. It is joined, or the start is refused
-- (`answer_at_hand`); or it is replaced: cancelled, upon which the new one begins once the old one has ended, with its undo steps. A start
-- whose id is there already is that workflow, whoever has the key.
-- Locks: the caller holds the key. Where one is replaced: as `cancel`. Then the new rows.
create function durable.deduplicate(k durable.start_key, s durable.new_start, delay interval)
    returns setof durable.start_told
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    after_bucket smallint;
    after text;
begin
    if k.id <> '' and durable.is_open(k.bucket, k.id) then
        -- To be replaced, or there would be an answer at hand. One that has not begun, because it waits for another itself, leaves that to the new one.
        select h.after_bucket, h.after into after_bucket, after
        from durable.held_start h where h.bucket = k.bucket and h.id = k.id and h.after is not null;
        return query
            select case when c.cut then 'cut' else 'stopping' end, c.id, null::boolean, null::text, null::integer, c.stopping,
                   c.undo_in, false
            from durable.cancel_once(k.id, format('replaced by %s', s.id), gen_random_uuid()) c;
        if durable.is_open(k.bucket, k.id) then
            after_bucket := k.bucket;
            after := k.id;
        elsif not durable.is_open(after_bucket, after) then
            after := null;
        end if;
    end if;

    if not durable.insert_start(s, case when after is null then deduplicate.delay else interval '36600 days' end) then
        return query select e.* from durable.existing_start(s) e;
        return;
    end if;
    if after is not null then
        insert into durable.held_start (bucket, id, after_bucket, after)
        values (durable.bucket(s.id), s.id, after_bucket, after);
    end if;
    perform durable.give_key(k, s.id);
    return next row('started', s.id, true, s.name, s.version, null, null, after is null)::durable.start_told;
end
$$;

-- Debounce: as long as the workflow that has the key has not begun, a start replaces its input and puts it off, to `wait` from now, but
-- not to later than `max_wait` after the first one. One that is due already, and waits for a worker or its turn, gets the input too.
-- Locks: the caller holds the key. Then the workflow's row, which waits for a claim of it.
create function durable.debounce(k durable.start_key, s durable.new_start, wait interval, max_wait interval)
    returns setof durable.start_told
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    joined boolean := false;
begin
    if k.id <> '' then
        update durable.workflow w
        set input = s.input,
            -- Never sooner than it was: whoever had to wait for the key has an older time in mind.
            due_at = case when w.due_at > durable.now()
                          then greatest(w.due_at, least(durable.now() + debounce.wait, k.first_at + debounce.max_wait))
                          else w.due_at end
        where w.bucket = k.bucket and w.id = k.id and w.status = 'queued' and w.claims = 0 and w.stopping is null
          and w.version = s.version;
        joined := found;
    end if;
    if joined then
        -- The last ones are enough: a repeat follows within half a minute.
        update durable.start_key u set calls = (k.calls || s.id)[greatest(1, cardinality(k.calls) - 30):]
        where u.name = k.name and u.how = k.how and u.key = k.key;
        return next row('joined', k.id, true, s.name, s.version, null, null, false)::durable.start_told;
        return;
    end if;
    if not durable.insert_start(s, least(debounce.wait, debounce.max_wait)) then
        return query select e.* from durable.existing_start(s) e;
        return;
    end if;
    perform durable.give_key(k, s.id);
    return next row('started', s.id, true, s.name, s.version, null, null, false)::durable.start_told;
end
$$;

-- Put a batch's inputs into its workflow, and let that begin; a paused one once it is resumed. Not before it was time: one whose
-- cancellation was resumed meanwhile has found no input, and has failed by that.
-- Locks: the workflow's row. The caller holds the row in `held_start`.
create function durable.close_batch(place smallint, of text) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    update durable.workflow w
    set input = (select '[' || string_agg(b.inputs, ',' order by b.n) || ']'
                 from durable.batch_input b where b.bucket = place and b.id = of)::json,
        due_at = case when w.status in ('queued', 'blocked') and w.due_at is not null then durable.now() else w.due_at end
    where w.bucket = place and w.id = of;
    update durable.batch_input b set inputs = null where b.bucket = place and b.id = of;
    delete from durable.held_start h where h.bucket = place and h.id = of;
end
$$;

-- Batch: a start puts its inputs, an array, into the workflow that has the key, as long as that waits for more: until it has `most` of
-- them, or `wait` after the first. The inputs of one start stay together: where they do not fit, that batch begins, and they are the
-- first of the next one. The same goes for 16 MiB.
-- A start whose id has put something into a batch before puts nothing into another one.
-- Locks: the caller holds the key. Then the batch in `held_start`, and its workflow.
create function durable.batch(k durable.start_key, s durable.new_start, wait interval, most integer)
    returns setof durable.start_told
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    bytes_max constant bigint := 16777216;
    many integer;
    given text;
    h durable.held_start;
    batch_id text;
    what text := 'joined';
begin
    select count(*), string_agg(e.value::text, ',' order by e.n) into many, given
    from json_array_elements(s.input) with ordinality e (value, n);

    if k.id <> '' then
        select x.* into h
        from durable.held_start x
        where x.bucket = k.bucket and x.id = k.id and x.due_at is not null
        for no key update;
        if h.id is not null and not exists (
            select from durable.workflow w
            where w.bucket = k.bucket and w.id = k.id and w.status = 'queued' and w.version = s.version) then
            -- Somebody has cancelled or paused it, or it is of another version: it gets no more, and begins when its time has come.
            h.id := null;
        elsif h.inputs + many > batch.most or h.bytes + octet_length(given) > bytes_max then
            perform durable.close_batch(h.bucket, h.id);
            return next row('due', h.id, null, s.name, s.version, null, null, true)::durable.start_told;
            h.id := null;
        end if;
    end if;
    if h.id is null then
        batch_id := durable.new_id();
        perform durable.insert_start(
            row(batch_id, s.name, s.version, s.queue, s.partition, s.priority, 'null', s.deadline, s.attributes)::durable.new_start,
            interval '36600 days');
        insert into durable.held_start as x (bucket, id, due_at)
        values (durable.bucket(batch_id), batch_id, durable.now() + batch.wait)
        returning x.* into h;
        perform durable.give_key(k, h.id);
        what := 'started';
    end if;

    insert into durable.batch_input (bucket, id, n, name, call, inputs) values (h.bucket, h.id, h.inputs, s.name, s.id, given);
    if h.inputs + many >= batch.most or h.bytes + octet_length(given) >= bytes_max then
        perform durable.close_batch(h.bucket, h.id);
        return next row(what, h.id, true, s.name, s.version, null, null, true)::durable.start_told;
    else
        update durable.held_start x set inputs = h.inputs + many, bytes = h.bytes + octet_length(given)
        where x.bucket = h.bucket and x.id = h.id;
        return next row(what, h.id, true, s.name, s.version, null, null, false)::durable.start_told;
    end if;
end
$$;

-- The answer to a start with a key that has nothing to do: a repeat whose answer was lost, known by the id that it was given; and one that
-- finds an open workflow of its key.
-- Locks: nothing, so that such a start writes nothing and waits for nobody.
create function durable.answer_at_hand(s durable.new_start, how text, key text, if_open text) returns setof durable.start_told
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    found_id text;
begin
    case answer_at_hand.how
        when 'deduplicate' then
            return query select e.* from durable.existing_start(s) e;
            if not found and answer_at_hand.if_open <> 'replace' then
                return query
                    select case answer_at_hand.if_open when 'refuse' then 'refused' else 'joined' end, w.id,
                           w.input::text = s.input::text, w.name, w.version, null::uuid, null::text, false
                    from durable.start_key k
                    join durable.workflow w on w.bucket = k.bucket and w.id = k.id
                    where k.name = s.name and k.how = 'deduplicate' and k.key = answer_at_hand.key
                      and durable.is_open(k.bucket, k.id);
            end if;
            return;
        when 'debounce' then
            select k.id into found_id
            from durable.start_key k
            where k.name = s.name and k.how = 'debounce' and k.key = answer_at_hand.key and s.id = any (k.calls);
        when 'batch' then
            select b.id into found_id from durable.batch_input b where b.name = s.name and b.call = s.id;
    end case;
    if found then
        return next row('joined', found_id, true, s.name, s.version, null, null, false)::durable.start_told;
    end if;
end
$$;

-- Start a workflow with a key: how is deduplicate, debounce or batch, and of what follows each takes what it needs.
-- Locks: the key, and then as those do.
create function durable.start_keyed(
    s durable.new_start, how text, key text, delay interval, if_open text, wait interval, max_wait interval, most integer
) returns setof durable.start_told
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    k durable.start_key;
begin
    return query select r.* from durable.answer_at_hand(s, start_keyed.how, start_keyed.key, start_keyed.if_open) r;
    if found then
        return;
    end if;
    k := durable.take_key(s.name, start_keyed.how, start_keyed.key);
    -- Others may have been first while this waited for the key.
    return query select r.* from durable.answer_at_hand(s, start_keyed.how, start_keyed.key, start_keyed.if_open) r;
    if found then
        return;
    end if;
    case start_keyed.how
        when 'deduplicate' then
            return query select d.* from durable.deduplicate(k, s, start_keyed.delay) d;
        when 'debounce' then
            return query select d.* from durable.debounce(k, s, start_keyed.wait, start_keyed.max_wait) d;
        when 'batch' then
            return query select d.* from durable.batch(k, s, start_keyed.wait, start_keyed.most) d;
    end case;
end
$$;

-- Let begin what was held back for long enough: batches whose time has come, and what has waited for a workflow that has ended;
-- at most so many of each.
-- Locks: their rows in `held_start`, skipping what others hold, then the workflow rows.
create function durable.release_starts(most integer)
    returns table (workflow_id text, name text, version integer, in_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    h durable.held_start;
begin
    for h in
        select x.*
        from durable.held_start x
        where x.due_at <= durable.now()
        order by x.due_at
        limit release_starts.most
        for no key update of x skip locked
    loop
        perform durable.close_batch(h.bucket, h.id);
        return query
            select w.id, w.name, w.version, w.queue
            from durable.workflow w
            where w.bucket = h.bucket and w.id = h.id and w.status = 'queued';
    end loop;

    for h in
        select x.*
        from durable.held_start x
        where x.after is not null and not durable.is_open(x.after_bucket, x.after)
        limit release_starts.most
        for no key update of x skip locked
    loop
        delete from durable.held_start x where x.bucket = h.bucket and x.id = h.id;
        return query
            update durable.workflow w
            -- A paused one goes on once it is resumed.
            set due_at = durable.now()
            where w.bucket = h.bucket and w.id = h.id and w.status in ('queued', 'blocked') and w.due_at is not null
            returning w.id, w.name, w.version, w.queue;
    end loop;
end
$$;

-- Refuse a start that cannot be; the same as in Rust.
create function durable.check_start(s durable.new_start) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    perform durable.check_text('workflow name', s.name),
            durable.check_text('workflow id', s.id),
            durable.check_text('queue', s.queue),
            durable.check_value('input', s.input);
    if s.partition is not null then
        perform durable.check_text('partition', s.partition);
    end if;
    if s.version is null or s.version < 1 then
        raise exception 'the version is %, it has to be 1 or more', s.version
            using errcode = 'invalid_parameter_value', hint = 'Give the version that workers have, or leave it out for 1.';
    elsif s.priority is null or s.priority not between -32768 and 32767 then
        raise exception 'the priority is %, it has to be -32768 to 32767', s.priority
            using errcode = 'invalid_parameter_value', hint = 'Lower goes first; leave it out for 0.';
    end if;
end
$$;

-- Refuse a time that is not one.
create function durable.check_wait(what text, given interval, least_of interval) returns void
    language plpgsql immutable
    as $$
begin
    if given is null or given < least_of then
        raise exception 'the % is %, it has to be % or more', what, given, least_of
            using errcode = 'invalid_parameter_value', hint = 'It counts from now.';
    end if;
end
$$;

-- Start a workflow unless one of the same name and key is open, and give the id of the one that there is then. `if_open` says what to do
-- if one is: join (give it), refuse, or replace (cancel it, and begin once it has ended).
create function durable.start_deduplicated(
    name      text,
    key       text,
    input     json     default 'null',
    if_open   text     default 'join',
    id        text     default durable.new_id(),
    version   integer  default 1,
    queue     text     default 'default',
    priority  integer  default 0,
    delay     interval default '0',
    partition text     default null
) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_variable
declare
    s constant durable.new_start := row(id, name, version, queue, partition, priority, input, null, '[]')::durable.new_start;
    told durable.start_told;
begin
    perform durable.check_start(s), durable.check_text('key', key), durable.check_wait('delay', delay, '0');
    if if_open is null or if_open not in ('join', 'refuse', 'replace') then
        raise exception 'if_open is "%"', if_open
            using errcode = 'invalid_parameter_value', hint = 'It has to be join, refuse or replace.';
    end if;
    select t.* into told
    from durable.start_keyed(s, 'deduplicate', key, delay, if_open, null, null, null) t
    where t.what in ('started', 'existed', 'joined', 'refused');
    if told.what = 'existed' and (told.name, told.version) <> (name, version) then
        raise exception 'the id % belongs to workflow "%" version %, not to "%" version %',
            id, told.name, told.version, name, version
            using errcode = 'unique_violation', hint = 'Use another id.';
    elsif told.what = 'refused' then
        raise exception 'workflow % of "%" is open with this key', told.workflow_id, name
            using errcode = 'unique_violation', hint = 'Try again when it has ended, or join or replace it.';
    end if;
    return told.workflow_id;
end
$$;

-- Start a workflow `wait` after the last of these calls of the same name and key, with the input of that one, but not later than
-- `max_wait` after the first; and give its id.
create function durable.start_debounced(
    name      text,
    key       text,
    input     json,
    wait      interval,
    max_wait  interval default '36600 days',
    version   integer  default 1,
    queue     text     default 'default',
    priority  integer  default 0,
    partition text     default null
) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_variable
declare
    s constant durable.new_start :=
        row(durable.new_id(), name, version, queue, partition, priority, input, null, '[]')::durable.new_start;
    told durable.start_told;
begin
    perform durable.check_start(s), durable.check_text('key', key), durable.check_wait('wait', wait, '1 ms'), durable.check_wait('max_wait', max_wait, wait);
    select t.* into told from durable.start_keyed(s, 'debounce', key, '0', null, wait, max_wait, null) t;
    return told.workflow_id;
end
$$;

-- Put the elements of `input`, an array, into the next start of a workflow with this name and key: it begins with `most` of them, or
-- `wait` after the first; and give its id. With an `id` a second call with the same one puts in nothing.
create function durable.start_batched(
    name      text,
    key       text,
    input     json,
    most      integer,
    wait      interval,
    id        text     default durable.new_id(),
    version   integer  default 1,
    queue     text     default 'default',
    priority  integer  default 0,
    partition text     default null
) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_variable
declare
    s constant durable.new_start := row(id, name, version, queue, partition, priority, input, null, '[]')::durable.new_start;
    told durable.start_told;
    inputs integer;
begin
    perform durable.check_start(s), durable.check_text('key', key), durable.check_wait('wait', wait, '1 ms');
    if most is null or most not between 1 and 10000 then
        raise exception 'a batch of at most %', most
            using errcode = 'invalid_parameter_value', hint = 'Give 1 to 10000.';
    elsif json_typeof(input) <> 'array' then
        raise exception 'the input of a batch is a JSON %', json_typeof(input)
            using errcode = 'invalid_parameter_value', hint = 'Give an array, of one element or more.';
    end if;
    inputs := json_array_length(input);
    if inputs not between 1 and most then
        raise exception '% inputs in one call for a batch of at most %', inputs, most
            using errcode = 'invalid_parameter_value', hint = 'Give at least 1, and no more than a batch takes.';
    end if;
    select t.* into told
    from durable.start_keyed(s, 'batch', key, '0', null, wait, null, most) t
    where t.what in ('started', 'joined');
    return told.workflow_id;
end
$$;

comment on function durable.start_deduplicated is
    'Start a workflow unless one of the same name and key is open, and give the id of the one that there is then.';
comment on function durable.start_debounced is
    'Start a workflow so long after the last of these calls of the same name and key, with the input of that one.';
comment on function durable.start_batched is
    'Put inputs into the next start of a workflow with this name and key: it begins when it has enough, or after a time.';

-- As it was, and keys and batches. What somebody else holds of those, who starts with the key just now, that one takes over.
alter function durable.forget_rest(smallint, text) rename to forget_all_but_keys;

create function durable.forget_rest(place smallint, of text) returns void
    language plpgsql
    as $$
    begin
        perform durable.forget_all_but_keys(place, of);
        delete from durable.start_key k
        where (k.name, k.how, k.key) in (select x.name, x.how, x.key from durable.start_key x
                                         where x.bucket = place and x.id = of
                                         for update skip locked);
        delete from durable.held_start h
        where h.bucket = place and h.id in (select x.id from durable.held_start x
                                            where x.bucket = place and x.id = of
                                            for update skip locked);
        delete from durable.batch_input b where b.bucket = place and b.id = of;
    end
    $$;
