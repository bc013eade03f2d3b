-- Partitions from SQL; subscriptions: which workflows an event starts that an application publishes; schedules from SQL; bursts.
--
-- In reading order: `durable.start` with a partition; the subscriptions; who declares and removes them; the ids of what an event
-- starts; publishing; setting a schedule; bursts of rates, and what of `0011_queue.sql` is different by them. Like those in
-- `0002_from_sql.sql` the functions run with the rights of whoever calls them, in the caller's transaction, and send no NOTIFY.

-- The `start` of before stays what it is for whoever holds it by its number: a view, a function in plain SQL, a prepared statement of a
-- session that is older than this. By its name, everybody finds the one below, which takes whatever that one took: two of one name would
-- make `start('x')` ambiguous.
alter function durable.start(text, json, text, integer, text, integer, interval) rename to start_without_partition;

-- Start a workflow, once per id, and give its id. It exists if, and only if, the caller's transaction commits. With a partition it has
-- its place in that from the start on; one that was there already stays where it is.
-- Locks: the new row, then its place. A concurrent start of the same id waits for the other transaction.
create function durable.start(
    name      text,
    input     json     default 'null',
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
#variable_conflict use_column
declare
    place constant smallint := durable.bucket(start.id);
    found_name text;
    found_version integer;
begin
    perform durable.check_start(row(start.id, start.name, start.version, start.queue, start.partition, start.priority, start.input, null,
                                    null)::durable.new_start),
            durable.check_wait('delay', start.delay, '0');

    insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
    values (place, start.id, start.name, start.version, start.queue, start.priority, 'queued',
            durable.now() + least(start.delay, interval '36600 days'), start.input)
    on conflict (bucket, id) do nothing;
    if found then
        if start.partition is not null then
            -- A workflow's place goes with it, so there is none. Without a conflict's target this takes no right to look.
            insert into durable.place (bucket, id, queue, partition, name, version, priority, is_new)
            values (place, start.id, start.queue, start.partition, start.name, start.version, start.priority, true)
            on conflict do nothing;
        end if;
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
comment on function durable.start_without_partition is 'What durable.start was before it took a partition. Call that.';

create or replace function durable.start_without_partition(
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
begin
    return durable.start(name, input, id, version, queue, priority, delay);
end
$$;

-- Whoever was given or denied the old one has, or lacks, the new one.
do $$
declare
    old constant oid := 'durable.start_without_partition'::regproc;
    new constant regprocedure := 'durable.start(text, json, text, integer, text, integer, interval, text)'::regprocedure;
    given record;
begin
    if (select p.proacl from pg_proc p where p.oid = old) is not null then
        execute format('revoke all on function %s from public', new);
        for given in
            select a.grantee, a.is_grantable
            from pg_proc p, aclexplode(p.proacl) a
            where p.oid = old and a.privilege_type = 'EXECUTE' and a.grantee <> p.proowner
        loop
            execute format('grant execute on function %s to %s%s', new,
                           case when given.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(given.grantee)) end,
                           case when given.is_grantable then ' with grant option' else '' end);
        end loop;
    end if;
end
$$;

-- Which workflows an event starts. Few rows, which change with deploys: a workflow is subscribed to an event once, whatever its version.
create table durable.subscription (
    event        text        collate "C" not null,
    workflow     text        collate "C" not null,           -- its name
    version      integer     not null,                       -- that is started: of the code that came last
    queue        text        collate "C" not null,
    priority     smallint    not null,
    partition_by text,                                       -- the field of the event's value that names the partition; null for none
    changed_at   timestamptz not null,
    removed_at   timestamptz,                                -- since when it starts nothing, whoever declares it
    primary key (event, workflow)
);

-- Write subscriptions down. One that was removed stays so, unless `revive`: code that declares it may be of a release that is on its way
-- out. Gives those that stay removed. What is as it should be is left alone: a repeat locks nothing.
-- Locks: the subscriptions that change, in key order.
create function durable.set_subscriptions(
    events text[], workflows text[], versions integer[], queues text[], priorities smallint[], partition_bys text[], revive boolean
) returns table (event text, workflow text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    most constant integer := 1000;
    crowded record;
begin
    insert into durable.subscription as s (event, workflow, version, queue, priority, partition_by, changed_at)
    select g.event, g.workflow, g.version, g.queue, g.priority, g.partition_by, durable.now()
    from unnest(set_subscriptions.events, set_subscriptions.workflows, set_subscriptions.versions, set_subscriptions.queues,
                set_subscriptions.priorities, set_subscriptions.partition_bys)
        as g (event, workflow, version, queue, priority, partition_by)
    where not exists (
        select from durable.subscription o
        where o.event = g.event and o.workflow = g.workflow
          and (o.removed_at is not null and not set_subscriptions.revive
               or o.removed_at is null
                  and (o.version, o.queue, o.priority, o.partition_by)
                      is not distinct from (g.version, g.queue, g.priority, g.partition_by))
    )
    order by g.event collate "C", g.workflow collate "C"
    on conflict (event, workflow) do update
        set version = excluded.version, queue = excluded.queue, priority = excluded.priority,
            partition_by = excluded.partition_by, changed_at = excluded.changed_at, removed_at = null
        -- Whoever removes it in this moment has the last word.
        where s.removed_at is null or set_subscriptions.revive;

    -- Those that are being added in the same moment are not seen, so there may be some more.
    select s.event, count(*) as many into crowded
    from durable.subscription s
    where s.event = any (set_subscriptions.events) and s.removed_at is null
    group by s.event
    having count(*) > most
    limit 1;
    if found then
        raise exception 'the event "%" would have % subscriptions, at most % are allowed', crowded.event, crowded.many, most
            using errcode = 'program_limit_exceeded', hint = 'Let one workflow start the others as its children.';
    end if;
    return query
        select s.event, s.workflow
        from durable.subscription s
        join unnest(set_subscriptions.events, set_subscriptions.workflows) as g (event, workflow)
            on g.event = s.event and g.workflow = s.workflow
        where s.removed_at is not null
        order by 1, 2;
end
$$;

-- Let an event start a workflow no more. Whether it did. What it has started goes on.
-- Locks: the subscription; a publication that runs meanwhile has read it before.
create function durable.unsubscribe(event text, workflow text) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    perform durable.check_text('event', unsubscribe.event), durable.check_text('workflow name', unsubscribe.workflow);
    update durable.subscription s
    set removed_at = durable.now(), changed_at = durable.now()
    where s.event = unsubscribe.event and s.workflow = unsubscribe.workflow and s.removed_at is null;
    return found;
end
$$;

-- The id of the workflow that an event with this id starts. No two of them have the same, because / and % are written in another way in the
-- event's name and the workflow's; what would be too long is a hash.
create function durable.subscriber_id(event text, workflow text, event_id text) returns text
    language sql immutable parallel safe
    as $$
        select case when octet_length(convert_to(whole, 'UTF8')) <= 512 then whole
                    else encode(sha256(convert_to(whole, 'UTF8')), 'hex') end
        from (select replace(replace(subscriber_id.event, '%', '%25'), '/', '%2F') || '/'
                  || replace(replace(subscriber_id.workflow, '%', '%25'), '/', '%2F') || '/' || subscriber_id.event_id) as t (whole)
    $$;

-- Start every workflow that is subscribed to an event: how many were new, how many the same event had started before, and in which
-- queues the new ones are. All of it if the caller's transaction commits, else nothing.
-- Locks: the new rows in key order, in which two publications of the same event wait for each other; then their places.
create function durable.start_subscribers(
    event text, value json, id text, out started integer, out existed integer, out queues text[]
)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    bytes constant integer := octet_length(start_subscribers.value::text);
    subscribers text[];
    partitions text[];
    born text[];
    taken record;
begin
    perform durable.check_text('event', start_subscribers.event),
            durable.check_text('event''s id', start_subscribers.id),
            durable.check_value('event''s value', start_subscribers.value);
    if bytes > 1048576 then
        raise exception 'the event''s value is % bytes of JSON, at most 1048576 can be published', bytes
            using errcode = 'program_limit_exceeded', hint = 'Keep it elsewhere and publish its address.';
    end if;
    select array_agg(s.workflow), array_agg(s.partition) into subscribers, partitions
    from (
        -- An empty text is no partition, as a missing field is none.
        select s.workflow, nullif(start_subscribers.value ->> s.partition_by, '') as partition
        from durable.subscription s
        where s.event = start_subscribers.event and s.removed_at is null
        order by s.workflow
    ) s;
    started := 0;
    existed := 0;
    queues := '{}';
    if subscribers is null then
        return;
    end if;
    perform durable.check_text('partition', p) from unnest(partitions) as p where p is not null;

    with given as materialized (
        select durable.bucket(n.new_id) as bucket, n.new_id as id, g.partition, s.workflow, s.version, s.queue, s.priority
        from unnest(subscribers, partitions) as g (workflow, partition)
        join durable.subscription s on s.event = start_subscribers.event and s.workflow = g.workflow
        cross join lateral (
            select durable.subscriber_id(s.event, s.workflow, start_subscribers.id) as new_id
            offset 0
        ) n
        order by 1, n.new_id collate "C"
    ),
    born as (
        insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
        select g.bucket, g.id, g.workflow, g.version, g.queue, g.priority, 'queued', durable.now(), start_subscribers.value
        from given g
        on conflict (bucket, id) do nothing
        returning id, name, queue
    ),
    placed as (
        insert into durable.place (bucket, id, queue, partition, name, version, priority, is_new)
        select g.bucket, g.id, g.queue, g.partition, g.workflow, g.version, g.priority, true
        from given g
        where g.partition is not null and g.workflow = any (array(select b.name from born b))
        on conflict do nothing
    )
    select count(*), coalesce(array_agg(b.name), '{}'), coalesce(array_agg(distinct b.queue), '{}')
    into started, born, queues
    from born b;

    -- What was there already is the same event's, or somebody else has started something under its id.
    for taken in
        select n.new_id, g.workflow, w.name
        from unnest(subscribers) as g (workflow)
        cross join lateral (
            select durable.subscriber_id(start_subscribers.event, g.workflow, start_subscribers.id) as new_id
            offset 0
        ) n
        left join lateral (
            select w.name from durable.workflow w where w.bucket = durable.bucket(n.new_id) and w.id = n.new_id
            offset 0
        ) w on true
        where g.workflow <> all (born)
    loop
        if taken.name is null then
            raise exception 'could not start workflow %', taken.new_id
                using errcode = 'serialization_failure', hint = 'Its id was taken and given up meanwhile: try again.';
        elsif taken.name <> taken.workflow then
            raise exception 'the id % belongs to workflow "%", not to "%"', taken.new_id, taken.name, taken.workflow
                using errcode = 'unique_violation', hint = 'Publish the event under another id.';
        end if;
        existed := existed + 1;
    end loop;
end
$$;

-- Publish an event, and give the number of workflows that it has started.
create function durable.publish(event text, value json default 'null', id text default durable.new_id()) returns integer
    language sql
    as 'select p.started from durable.start_subscribers(publish.event, publish.value, publish.id) p';

comment on function durable.publish is
    'Start every workflow that is subscribed to an event, with the event''s value as its input, once per id of the event; and give '
    'the number of those that this has started. They exist if, and only if, this transaction commits.';
comment on function durable.unsubscribe is
    'Let an event start a workflow no more, whoever declares the subscription. What it has started goes on.';

-- Schedules from SQL: create one, or change the one that has its name to what is given; what is as it was changes nothing. `cron` in
-- `time_zone`, or `every`. SQL knows no cron: an expression that cannot be read starts nothing, and the workers say so in their log; what
-- else can be wrong is refused.
-- Locks: the schedule's row, unless it is as it should be.
create function durable.set_schedule(
    name          text,
    workflow      text,
    input         json     default 'null',
    cron          text     default null,
    time_zone     text     default null,
    every         interval default null,
    overlap       text     default 'skip',
    catch_up      text     default 'last',
    catch_up_most integer  default 1,
    version       integer  default 1,
    queue         text     default 'default',
    partition     text     default null,
    priority      integer  default 0,
    deadline      interval default null
) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    seconds constant numeric := extract(epoch from set_schedule.every);
    within constant interval := case when set_schedule.deadline is not null
                                     then least(set_schedule.deadline, interval '36600 days') end;
    problem text;
begin
    perform durable.check_text('schedule''s name', set_schedule.name),
            durable.check_text('workflow name', set_schedule.workflow),
            durable.check_text('queue', set_schedule.queue),
            durable.check_value('input', set_schedule.input);
    if set_schedule.partition is not null then
        perform durable.check_text('partition', set_schedule.partition);
    end if;
    problem := case
        when octet_length(convert_to(set_schedule.name, 'UTF8')) > 400 then 'its name has more than 400 bytes'
        when (set_schedule.cron is null) = (set_schedule.every is null) then 'it needs either cron or every'
        when (set_schedule.cron is null) <> (set_schedule.time_zone is null) then 'cron and time_zone go together'
        when set_schedule.time_zone is not null
             and not exists (select from pg_timezone_names z where z.name = set_schedule.time_zone)
            then format('there is no time zone "%s"', set_schedule.time_zone)
        when seconds < 1 or seconds <> trunc(seconds) or seconds > 315360000
            then format('it ticks every %s, which has to be whole seconds, 1 s to ten years', set_schedule.every)
        when set_schedule.overlap is null
             or set_schedule.overlap not in ('skip', 'queue_one', 'queue_all', 'cancel_running', 'allow')
            then format('there is no overlap "%s"', set_schedule.overlap)
        when set_schedule.catch_up is null or set_schedule.catch_up not in ('skip', 'last', 'all')
            then format('there is no catch_up "%s"', set_schedule.catch_up)
        when set_schedule.catch_up_most is null or set_schedule.catch_up_most not between 1 and 1000
            then format('it catches up on %s ticks, which has to be 1 to 1000', set_schedule.catch_up_most)
        when set_schedule.version is null or set_schedule.version < 1
            then format('the version is %s, it has to be 1 or more', set_schedule.version)
        when set_schedule.priority is null or set_schedule.priority not between -32768 and 32767
            then format('the priority is %s, it has to be -32768 to 32767', set_schedule.priority)
        when set_schedule.deadline <= interval '0' then format('the deadline is %s, it has to be more than 0', set_schedule.deadline)
    end;
    if problem is not null then
        raise exception 'could not set schedule %: %', set_schedule.name, problem using errcode = 'invalid_parameter_value';
    end if;

    insert into durable.schedule as s
        (name, workflow, version, input, queue, partition, priority, attributes, deadline, cron, time_zone, every, every_offset,
         overlap, catch_up, catch_up_most, jitter, due_at)
    select set_schedule.name, set_schedule.workflow, set_schedule.version, set_schedule.input, set_schedule.queue,
           set_schedule.partition, set_schedule.priority, '[]', within, set_schedule.cron,
           set_schedule.time_zone, seconds * interval '1 second', case when seconds is not null then interval '0' end,
           set_schedule.overlap, set_schedule.catch_up, set_schedule.catch_up_most, interval '0', durable.now()
    where not exists (
        -- Without a lock, whose commit could lose its reply again.
        select from durable.schedule k
        where k.name = set_schedule.name
          and (k.workflow, k.version, k.input::text, k.queue, k.partition, k.priority, k.attributes::text, k.deadline, k.cron,
               k.time_zone, k.every, k.every_offset, k.overlap, k.catch_up, k.catch_up_most, k.catch_up_within, k.jitter)
              is not distinct from
              (set_schedule.workflow, set_schedule.version, set_schedule.input::text, set_schedule.queue, set_schedule.partition,
               set_schedule.priority, '[]', within, set_schedule.cron,
               set_schedule.time_zone, seconds * interval '1 second', case when seconds is not null then interval '0' end,
               set_schedule.overlap, set_schedule.catch_up, set_schedule.catch_up_most, null, interval '0')
    )
    on conflict (name) do update
    set workflow = excluded.workflow, version = excluded.version, input = excluded.input, queue = excluded.queue,
        partition = excluded.partition, priority = excluded.priority, attributes = excluded.attributes, deadline = excluded.deadline,
        cron = excluded.cron, time_zone = excluded.time_zone, every = excluded.every, every_offset = excluded.every_offset,
        overlap = excluded.overlap, catch_up = excluded.catch_up, catch_up_most = excluded.catch_up_most,
        catch_up_within = excluded.catch_up_within, jitter = excluded.jitter,
        passed_until = case when (s.cron, s.time_zone, s.every, s.every_offset)
                                 is distinct from (excluded.cron, excluded.time_zone, excluded.every, excluded.every_offset)
                            then greatest(s.passed_until, durable.now()) else s.passed_until end,
        next_at = null, due_at = case when s.paused_at is null then durable.now() end,
        revision = s.revision + 1, changed_at = durable.now();
end
$$;

comment on function durable.set_schedule is
    'Create a schedule, or change the one that has its name to what is given. It ticks by cron in a time zone, or every so often.';

-- Bursts: how many of a rate may begin at once, so that the others are spread. Beside the rate itself, of which no more than so many may
-- begin in any period, a second rule holds: of a rate of m in a period p with a burst of n, in any span of k times p / m no more than
-- n + k begin. All that has to be known for it is one moment, `next_at`: up to which what has begun would have filled the time,
-- had it been spread. No more begins while that is n times p / m ahead.
-- They stand beside the queues, so that nobody who has one as a row waits for, or stumbles over, another column.
create table durable.burst (
    queue               text    collate "C" primary key,
    burst               integer,                             -- of the queue's rate; null for any number
    burst_per_partition integer,                             -- of the rate of each partition; likewise
    next_at             timestamptz,                         -- null for none yet
    constraint bursts_are_positive check (least(burst, burst_per_partition) > 0)
) with (fillfactor = 50);

create table durable.partition_burst (
    queue               text    collate "C" not null,
    partition           text    collate "C" not null,
    next_at             timestamptz not null,
    primary key (queue, partition)
) with (fillfactor = 50);

-- What lies between two of a rate, in microseconds: rounded up, so that nobody begins too early.
create function durable.rate_step(rate integer, period interval) returns bigint
    language sql immutable
    as 'select ceil(extract(epoch from rate_step.period) * 1000000 / rate_step.rate)::bigint';

-- How many may still begin now by the burst; null for any number.
create function durable.burst_left(burst integer, rate integer, period interval, next_at timestamptz) returns integer
    language sql stable
    as $$
        select case when burst is not null and rate is not null then
            greatest(0, burst - ceil(greatest(0, extract(epoch from burst_left.next_at - durable.now()) * 1000000)
                                     / durable.rate_step(rate, period)))::integer
        end
    $$;

-- The moment after so many more have begun now.
create function durable.burst_moved(next_at timestamptz, rate integer, period interval, many integer) returns timestamptz
    language sql stable
    as $$
        select greatest(burst_moved.next_at, durable.now()) + durable.rate_step(rate, period) * many * interval '1 microsecond'
    $$;

-- How many of a queue may still begin now, by its rate and its burst.
create function durable.new_left(queue durable.queue) returns integer
    language sql stable
    as $$
        -- Without a limit there is null, which is not the least.
        select least(
            durable.rate_left((queue).rate, (queue).rate_period, (queue).begun_at, (queue).begun),
            (select durable.burst_left(b.burst, (new_left.queue).rate, (new_left.queue).rate_period, b.next_at)
             from durable.burst b where b.queue = (new_left.queue).name),
            2147483647)
    $$;

-- Of `0011_queue.sql`, with bursts:

-- Who runs next in a queue: each partition in turn gets an equal share of what room there is, until there is none, or nobody. Some
-- partitions are looked at together; where nobody of them can run, the next ones are, up to a thousand in a call.
-- Locks: their places. The caller holds the queue.
create or replace function durable.share_out(queue durable.queue, owner uuid, names text[], versions integer[], most integer)
    returns table (place_bucket smallint, place_id text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_variable
declare
    left_over integer := least(most, durable.room_in(queue, owner));
    new_left_over integer := durable.new_left(queue);
    together constant integer := least(greatest(left_over, 20), 200);
    served_before constant text := queue.served;
    partitions text[];
    rooms integer[];
    new_rooms integer[];
    share integer;
    held integer;
    was_new boolean;
    anybody boolean := false;
begin
    if left_over <= 0 then
        return;
    end if;
    for look in 1..1000 / together loop
        select array_agg(o.partition), array_agg(o.room), array_agg(o.new_room) into partitions, rooms, new_rooms
        from durable.open_partitions(queue, new_left_over, together) o;
        exit when partitions is null;
        while left_over > 0 and 0 < any (rooms) loop
            share := greatest(1, case when new_left_over > 0 then least(left_over, new_left_over) else left_over end
                                 / (select count(*) from unnest(rooms) as r where r > 0));
            for n in 1..cardinality(partitions) loop
                exit when left_over <= 0;
                held := 0;
                for place_bucket, place_id, was_new in
                    select * from durable.hold_places(queue.name, partitions[n], names, versions,
                                                      least(share, rooms[n], left_over), least(new_rooms[n], new_left_over))
                loop
                    held := held + 1;
                    new_rooms[n] := new_rooms[n] - was_new::integer;
                    new_left_over := new_left_over - was_new::integer;
                    return next;
                end loop;
                left_over := left_over - held;
                -- Whoever has taken less than the share has nobody left.
                rooms[n] := case when held = share then rooms[n] - held else 0 end;
                if held > 0 then
                    anybody := true;
                    queue.served := partitions[n];
                end if;
            end loop;
        end loop;
        exit when anybody or cardinality(partitions) < together;
        queue.served := partitions[cardinality(partitions)];
    end loop;
    -- Whoever did not come to it this time is the first one then.
    if queue.served <> served_before then
        update durable.queue q set served = queue.served where q.name = queue.name;
    end if;
end
$$;

-- The partitions of a queue in which somebody waits, at most so many, from the one after that which was served last on: how many may
-- run in each, and how many of the new ones, of which so many may run in the whole queue. Without room are those in which nobody may.
create or replace function durable.open_partitions(queue durable.queue, new_in_all integer, most integer)
    returns table (partition text, room integer, new_room integer)
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_variable
declare
    of constant text := queue.name;
    is_second_half boolean := false;
begin
    partition := queue.served;
    for looked in 1..most loop
        select p.partition into partition
        from durable.place p
        where p.queue = of and p.partition > partition and not p.is_held and p.due_at is not null
        order by p.partition
        limit 1;
        if partition is null then
            exit when is_second_half;
            is_second_half := true;
            select p.partition into partition
            from durable.place p
            where p.queue = of and not p.is_held and p.due_at is not null
            order by p.partition
            limit 1;
        end if;
        exit when partition is null or (is_second_half and partition > queue.served);
        room := 2147483647;
        if queue.concurrency_per_partition is not null then
            select queue.concurrency_per_partition - count(*) into room
            from durable.place p
            where p.queue = of and p.partition = partition and p.is_held;
        end if;
        new_room := new_in_all;
        if queue.rate_per_partition is not null then
            select least(new_in_all, durable.rate_left(queue.rate_per_partition, queue.rate_per_partition_period,
                                                       k.begun_at, k.begun))
            into new_room
            from durable.partition k
            where k.queue = of and k.partition = partition;
            new_room := coalesce(new_room, least(new_in_all, queue.rate_per_partition));
            select least(new_room, durable.burst_left(b.burst_per_partition, queue.rate_per_partition,
                                                      queue.rate_per_partition_period, k.next_at))
            into new_room
            from (select of as queue, partition as partition) o
            left join durable.burst b on b.queue = o.queue
            left join durable.partition_burst k on k.queue = o.queue and k.partition = o.partition;
        end if;
        if new_room = 0 and not exists (
            select from durable.place p
            where p.queue = of and p.partition = partition and not p.is_new and not p.is_held and p.due_at is not null
        ) then
            room := 0;
        end if;
        return next;
    end loop;
end
$$;

-- Note that so many of a queue begin now, and so many in each of its partitions; where there are rates.
-- Locks: the queue, which the caller holds, and the partitions.
create or replace function durable.note_begun(queue durable.queue, begun_in text[]) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
begin
    if queue.rate is not null then
        update durable.queue q
        set (begun_at, begun) = (select n.begun_at, n.begun
                                 from durable.with_begun(q.begun_at, q.begun, q.rate_period, cardinality(note_begun.begun_in)) n)
        where q.name = queue.name;
    end if;
    update durable.burst b
    set next_at = durable.burst_moved(b.next_at, queue.rate, queue.rate_period, cardinality(note_begun.begun_in))
    where b.queue = queue.name and b.burst is not null and queue.rate is not null;
    if queue.rate_per_partition is not null then
        insert into durable.partition as k (queue, partition, begun_at, begun)
        select queue.name, b.partition, array[durable.now()], array[count(*)::integer]
        from unnest(note_begun.begun_in) as b (partition)
        group by b.partition
        on conflict (queue, partition) do update
            set (begun_at, begun) = (select n.begun_at, n.begun
                                     from durable.with_begun(k.begun_at, k.begun, queue.rate_per_partition_period,
                                                             excluded.begun[1]) n);
        -- What is over is forgotten, some of it at a time.
        delete from durable.partition k
        where k.queue = queue.name and k.partition in (
            select o.partition from durable.partition o
            where o.queue = queue.name
              and o.begun_at[cardinality(o.begun_at)] < durable.now() - queue.rate_per_partition_period
            limit 10
        );
        insert into durable.partition_burst as k (queue, partition, next_at)
        select queue.name, g.partition,
               durable.burst_moved(null, queue.rate_per_partition, queue.rate_per_partition_period, g.many)
        from (select b.partition, count(*)::integer as many from unnest(note_begun.begun_in) as b (partition) group by b.partition) g
        where exists (select from durable.burst b where b.queue = queue.name and b.burst_per_partition is not null)
        on conflict (queue, partition) do update
            set next_at = durable.burst_moved(
                k.next_at, queue.rate_per_partition, queue.rate_per_partition_period,
                (select count(*)::integer from unnest(note_begun.begun_in) as b (partition) where b.partition = k.partition));
        delete from durable.partition_burst k
        where k.queue = queue.name and k.partition in (
            select o.partition from durable.partition_burst o
            where o.queue = queue.name and o.next_at < durable.now()
            limit 10
        );
    end if;
end
$$;

-- Let a queue have no limits any more: who waits there waits as in any other queue. Says whether it had some.
-- Locks: the queue, which waits for a claim that holds it; then the places of those who wait, and their workflow rows.
create or replace function durable.remove_queue(name text) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
begin
    delete from durable.queue q where q.name = remove_queue.name;
    if not found then
        return false;
    end if;
    with left_over as materialized (
        delete from durable.place p where p.queue = remove_queue.name
        returning p.bucket, p.id, p.priority, p.due_at is not null and not p.is_held as waited
    )
    update durable.workflow w set priority = l.priority
    from left_over l
    where w.bucket = any (array[l.bucket]) and w.id = l.id and w.priority = 32767 and l.waited;
    delete from durable.partition k where k.queue = remove_queue.name;
    delete from durable.burst b where b.queue = remove_queue.name;
    delete from durable.partition_burst k where k.queue = remove_queue.name;
    return true;
end
$$;
