-- Starting and sending from SQL, in reading order: where a workflow lives, a new id, what a text may be, start, send.
--
-- For whoever speaks SQL to the application's database: its triggers, its other programs, a person with psql. `start`
-- and `send` are the library's public functions and keep their signatures; the other three are theirs.
-- They run with the rights of whoever calls them, in the caller's transaction, and look nothing up by the search_path.
-- There is one for `json` and none for `jsonb`: with both, a quoted literal would fit neither.
--
-- Neither sends a NOTIFY: it would take a lock of the whole cluster until the caller's transaction ends. Workers find
-- what was started or sent by their poll, within a second.

-- Where a workflow lives: the same as in Rust, and part of every key, so it can never change.
create function durable.bucket(id text) returns smallint
    language sql stable parallel safe
    as 'select (get_byte(sha256(convert_to(id, ''UTF8'')), 0) % 64)::smallint';

-- A UUID of version 7, ordered by the time at which it was made, to the microsecond.
create function durable.new_id() returns text
    language sql volatile parallel safe
    as $$
        -- 48 bits of milliseconds, 4 with the version, 12 with a fraction of a millisecond, 64 of chance.
        select encode(substring(int8send(micros / 1000) from 3)
                      || substring(int8send(7 * 4096 + micros % 1000 * 4096 / 1000) from 7)
                      || substring(uuid_send(gen_random_uuid()) from 9), 'hex')::uuid::text
        from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as micros) as clock
    $$;

-- Refuse text that a key cannot hold or a person cannot read; the same as in Rust.
create function durable.check_text(what text, given text) returns void
    language plpgsql immutable parallel safe
    as $$
declare
    bytes constant integer := octet_length(convert_to(given, 'UTF8'));
begin
    if given is null then
        raise exception 'the % is null', what
            using errcode = 'null_value_not_allowed', hint = 'Give a text, or leave it out where there is a default.';
    elsif given = '' then
        raise exception 'the % is empty', what
            using errcode = 'invalid_parameter_value', hint = 'Give it at least one character.';
    elsif bytes > 512 then
        raise exception 'the % has % bytes, at most 512 are allowed', what, bytes
            using errcode = 'invalid_parameter_value', hint = 'Use a shorter one, or a hash of it.';
    elsif given collate "C" ~ E'[\\u0001-\\u001f\\u007f-\\u009f]' then
        raise exception 'the % holds a control character', what
            using errcode = 'invalid_parameter_value', hint = 'Leave it out.';
    end if;
end
$$;

-- Refuse a value that would not fit through memory a few times, here and in the workers; the same as in Rust.
create function durable.check_value(what text, given json) returns void
    language plpgsql immutable parallel safe
    as $$
declare
    bytes constant integer := octet_length(given::text);
begin
    if given is null then
        raise exception 'the % is null', what
            using errcode = 'null_value_not_allowed', hint = 'The null of JSON is written ''null''.';
    elsif bytes > 33554432 then
        raise exception 'the % is % bytes of JSON, at most 33554432 can be stored', what, bytes
            using errcode = 'program_limit_exceeded', hint = 'Keep it elsewhere and store its address.';
    end if;
end
$$;

-- Start a workflow, once per id, and give its id. It exists if, and only if, the caller's transaction commits.
-- Locks: the new row. A concurrent start of the same id waits for the other transaction.
create function durable.start(
    name     text,
    input    json     default 'null',
    id       text     default durable.new_id(),
    version  integer  default 1,
    queue    text     default 'default',
    priority integer  default 0,
    delay    interval default '0'
) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    place constant smallint := durable.bucket(start.id);
    found_name text;
    found_version integer;
begin
    perform durable.check_text('workflow name', start.name),
            durable.check_text('workflow id', start.id),
            durable.check_text('queue', start.queue),
            durable.check_value('input', start.input);
    if start.version is null or start.version < 1 then
        raise exception 'the version is %, it has to be 1 or more', start.version
            using errcode = 'invalid_parameter_value', hint = 'Give the version that workers have, or leave it out for 1.';
    elsif start.priority is null or start.priority not between -32768 and 32767 then
        raise exception 'the priority is %, it has to be -32768 to 32767', start.priority
            using errcode = 'invalid_parameter_value', hint = 'Lower goes first; leave it out for 0.';
    elsif start.delay is null or start.delay < interval '0' then
        raise exception 'the delay is %, it has to be 0 or more', start.delay
            using errcode = 'invalid_parameter_value', hint = 'It counts from now; leave it out to start at once.';
    end if;

    insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
    values (place, start.id, start.name, start.version, start.queue, start.priority, 'queued',
            durable.now() + least(start.delay, interval '36600 days'), start.input)
    on conflict (bucket, id) do nothing;
    if found then
        return start.id;
    end if;

    select w.name, w.version into found_name, found_version
    from durable.workflow w
    where w.bucket = place and w.id = start.id;
    if not found then
        raise exception 'could not start workflow %', start.id
            using errcode = 'serialization_failure', hint = 'Its id was taken and given up meanwhile: try again.';
    elsif (found_name, found_version) <> (start.name, start.version) then
        raise exception 'the id % belongs to workflow "%" version %, not to "%" version %',
            start.id, found_name, found_version, start.name, start.version
            using errcode = 'unique_violation', hint = 'Use another id.';
    end if;
    return start.id;
end
$$;

comment on function durable.start is
    'Start a workflow, once per id, and give its id. The input is what the workflow''s parameters are stored as: null '
    'for none, the value itself for one, an array for more. It exists if, and only if, this transaction commits.';

-- Put a message into a workflow's mailbox and wake it, once per key, if the caller's transaction commits.
-- A suspended workflow is made due and stays suspended, which a claim takes as well; so a role that may only start and
-- send needs no right to change what status a workflow has.
-- Locks: the receiver's row (which gives the message its number), then the new message row.
create function durable.send(workflow_id text, topic text, value json, key text default null) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    place constant smallint := durable.bucket(send.workflow_id);
    number bigint;
    stands text;
begin
    perform durable.check_text('workflow id', send.workflow_id),
            durable.check_text('topic', send.topic),
            durable.check_value('value', send.value);
    if send.key is not null then
        perform durable.check_text('message key', send.key);
    end if;

    -- Once is enough, but for a receiver that another transaction has changed while this one waited for it.
    for attempt in 1..3 loop
        update durable.workflow w
        set wakes = w.wakes + 1,
            due_at = case when w.status = 'suspended' then durable.now() else w.due_at end
        where w.bucket = place and w.id = send.workflow_id
          and w.status in ('queued', 'running', 'suspended', 'blocked')
          and not exists (select from durable.message m
                          where m.bucket = place and m.workflow_id = send.workflow_id and m.key = send.key)
        returning w.wakes into number;
        if found then
            insert into durable.message (bucket, workflow_id, n, topic, key, value)
            values (place, send.workflow_id, number, send.topic, send.key, send.value)
            on conflict (bucket, workflow_id, key) where key is not null do nothing;
            return;
        end if;

        perform from durable.message m
        where m.bucket = place and m.workflow_id = send.workflow_id and m.key = send.key;
        if found then
            return;
        end if;
        select w.status into stands from durable.workflow w where w.bucket = place and w.id = send.workflow_id;
        if not found then
            raise exception 'could not send "%" to workflow %: there is no such workflow', send.topic, send.workflow_id
                using errcode = 'no_data_found', hint = 'Start it first; the same transaction will do.';
        elsif stands in ('completed', 'failed', 'cancelled') then
            raise exception 'could not send "%" to workflow %: it is %, nobody would read the message',
                send.topic, send.workflow_id, stands
                using errcode = 'object_not_in_prerequisite_state', hint = 'Start another one, with an id of its own.';
        end if;
    end loop;
    raise exception 'could not send "%" to workflow %', send.topic, send.workflow_id
        using errcode = 'serialization_failure', hint = 'It is being changed by others: try again.';
end
$$;

comment on function durable.send is
    'Put a message into a workflow''s mailbox and wake it, if this transaction commits. With a key, a second message '
    'with the same key is not stored.';
