-- Claims from queues with limits, for a fraction of what they cost: what of `0011_queue.sql` and `0015_subscription.sql` is different.
--
-- In reading order: what is left of rates and room, who leaves places, the line of a queue without partitions and rates, whose turn
-- it is otherwise, and the claim. The rules are those that `0011_queue.sql` tells.
--
-- Functions in plain SQL are planned anew with each call unless they are expanded into the statement that calls them. Those that hold a
-- subquery are not, so they are in PL/pgSQL, which keeps its plans.

-- Who runs in a queue in which nobody waits in a place (`durable.has_one_line`), and since when; instead of a place that is held.
create table durable.line (
    queue      text        collate "C" not null,
    held_at    timestamptz not null,
    bucket     smallint    not null,
    id         text        collate "C" not null,             -- the workflow
    primary key (queue, held_at, bucket, id)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

-- Where claims from a queue have to begin to look; only for what becomes slow otherwise. What was claimed stays in the indexes, ahead of what
-- is due and among who runs, for as long as the oldest snapshot of the whole server sees it.
create table durable.queue_look (
    queue      text        collate "C" primary key,
    held_since timestamptz not null default '-infinity',     -- nobody has been in the line for longer
    priority   smallint,                                     -- up to here everybody who was due has been taken,
    due_at     timestamptz,
    whole_at   timestamptz not null default '-infinity'      -- until the next look from the beginning, which is then
) with (fillfactor = 50);

-- Places in which nobody waits or runs: their workflows sleep, or have ended, or have not been due yet. Without this index everybody waits in
-- places, which costs more and is no less right. So it is made only where that takes a moment, as in `0004_listing.sql`.
-- Locks: writers of the places, for a fraction of a second.
do $$
declare
    waits_for constant text := current_setting('lock_timeout');
begin
    if pg_relation_size('durable.place') <= 64 * 1024 * 1024 then
        begin
            perform set_config('lock_timeout', '500ms', true);
            create index if not exists place_apart on durable.place (queue) where due_at is null and not is_held;
            perform set_config('lock_timeout', waits_for, true);
        exception when lock_not_available then
            null; -- Somebody has been writing to it for longer than a moment; said below.
        end;
    end if;
    if to_regclass('durable.place_apart') is null then
        raise warning 'the index place_apart was left out, because the table is large or was being written to'
            using hint = 'Claims from queues with limits cost more without it. When it suits: create index concurrently if not exists '
                'place_apart on durable.place (queue) where due_at is null and not is_held';
    end if;
end
$$;

create or replace function durable.rate_left(rate integer, period interval, begun_at timestamptz[], begun integer[]) returns integer
    language plpgsql stable
    as $$
    begin
        if rate is null then
            return null;
        end if;
        return greatest(0, rate - coalesce((
            select sum(t.begun) from unnest(rate_left.begun_at, rate_left.begun) as t (at, begun)
            where t.at > durable.now() - rate_left.period
        ), 0)::integer);
    end
    $$;

-- Add that so many begin now, and forget what was a period ago. What began within the same thousandth of a period counts as the last of it: so
-- there are about a thousand entries at most, nobody begins too early for it, and nobody later than by a thousandth.
create or replace function durable.with_begun(
    inout begun_at timestamptz[], inout begun integer[], period interval, many integer
) language plpgsql stable
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_variable
declare
    last integer;
    tick constant numeric := greatest(extract(epoch from period) / 1000, 0.000001);
begin
    select coalesce(array_agg(t.at order by t.n), '{}'), coalesce(array_agg(t.many order by t.n), '{}') into begun_at, begun
    from unnest(begun_at, begun) with ordinality as t (at, many, n)
    where t.at > durable.now() - period;
    last := cardinality(begun_at);
    if floor(extract(epoch from begun_at[last]) / tick) >= floor(extract(epoch from durable.now()) / tick) then
        begun_at[last] := greatest(begun_at[last], durable.now());
        begun[last] := begun[last] + many;
    else
        begun_at := begun_at || durable.now();
        begun := begun || many;
    end if;
end
$$;

-- How many of a queue may still begin now, by its rate and its burst.
create or replace function durable.new_left(queue durable.queue) returns integer
    language plpgsql stable
    as $$
    begin
        if queue.rate is null then
            return 2147483647;
        end if;
        -- Without a burst there is null, which is not the least.
        return least(
            durable.rate_left(queue.rate, queue.rate_period, queue.begun_at, queue.begun),
            (select durable.burst_left(b.burst, queue.rate, queue.rate_period, b.next_at)
             from durable.burst b where b.queue = queue.name));
    end
    $$;

-- How many more of a queue may run in this worker now.
create or replace function durable.room_in(queue durable.queue, owner uuid) returns integer
    language plpgsql stable
    as $$
    begin
        return (
            select greatest(0, least(queue.concurrency - count(*),
                                     queue.concurrency_per_worker - count(*) filter (where w.owner is not distinct from room_in.owner),
                                     2147483647))
            from (
                select p.bucket, p.id from durable.place p where p.queue = room_in.queue.name and p.is_held
                union all
                select l.bucket, l.id from durable.line l where l.queue = room_in.queue.name
            ) h
            left join lateral (
                select w.owner from durable.workflow w
                where queue.concurrency_per_worker is not null and w.bucket = h.bucket and w.id = h.id
                offset 0
            ) w on true
        );
    end
    $$;

-- Whether a look was slow that began then and has found so many: a rule like that of `worker::poll`, for fewer at a time.
create function durable.was_slow(began_at timestamptz, found bigint) returns boolean
    language sql volatile
    as $$ select clock_timestamp() - was_slow.began_at > interval '1 ms' + interval '20 us' * was_slow.found $$;

-- Let those go from their places and from the line who do not run any more, and say how many more may run in all, and in this worker. One that has
-- ended needs no place, but it keeps what says of which partition it is, should it be resumed or restarted; another one waits again, once it is
-- due, and has a place for that.
-- When that has been slow, those who stay in the line are there from now on, and the next looks begin there.
-- Locks: places. The caller holds the queue.
drop function durable.leave_places(durable.queue);
create function durable.leave_places(queue durable.queue, owner uuid, out room integer, out room_here integer)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    of constant text := queue.name;
    since constant timestamptz := coalesce((select l.held_since from durable.queue_look l where l.queue = of), '-infinity');
    now_at constant timestamptz := greatest(durable.now(), since); -- whatever the clock says, not before the looks begin
    began_at constant timestamptz := clock_timestamp();
    looked_at bigint;
begin
    with counted as (
        select p.bucket, p.id, p.partition, null::timestamptz as held_at
        from durable.place p where p.queue = of and p.is_held
        union all
        select l.bucket, l.id, '', l.held_at
        from durable.line l where l.queue = of and l.held_at >= since
    ),
    held as materialized (
        select c.bucket, c.id, c.partition, c.held_at, w.status, w.name, w.version, w.priority,
               (w.status = 'running' or leave_places.queue.suspended_count and w.status in ('suspended', 'queued')) is true as stays,
               (w.status = 'running' and w.owner = leave_places.owner) is true as runs_here
        from counted c
        left join lateral (
            select w.status, w.owner, w.name, w.version, w.priority
            from durable.workflow w where w.bucket = c.bucket and w.id = c.id
            offset 0
        ) w on true
    ),
    gone as (
        delete from durable.place p using held h
        where not h.stays and h.held_at is null and p.bucket = any (array[h.bucket]) and p.id = h.id
          and (h.status is null or h.status in ('completed', 'failed', 'cancelled') and h.partition = '')
    ),
    apart as (
        update durable.place p set is_held = false, due_at = null
        from held h
        where not h.stays and h.held_at is null and p.bucket = any (array[h.bucket]) and p.id = h.id
          and (h.status in ('queued', 'suspended', 'blocked') or h.status is not null and h.partition > '')
    ),
    out_of_line as (
        delete from durable.line l using held h
        where not h.stays and l.queue = of and l.held_at = any (array[h.held_at]) and l.bucket = h.bucket and l.id = h.id
    ),
    from_line as (
        insert into durable.place as p (bucket, id, queue, name, version, priority, is_new)
        select h.bucket, h.id, of, h.name, h.version, h.priority, false
        from held h
        where not h.stays and h.held_at is not null and h.status in ('queued', 'suspended', 'blocked')
        on conflict (bucket, id) do update set queue = excluded.queue, is_held = false, due_at = null
    )
    select coalesce(leave_places.queue.concurrency - count(*) filter (where h.stays), 2147483647),
           coalesce(leave_places.queue.concurrency_per_worker - count(*) filter (where h.runs_here), 2147483647),
           count(*)
    into room, room_here, looked_at
    from held h;
    if durable.was_slow(began_at, looked_at) then
        update durable.line l set held_at = now_at where l.queue = of and l.held_at >= since;
        insert into durable.queue_look as l (queue, held_since) values (of, now_at)
        on conflict (queue) do update set held_since = excluded.held_since;
    end if;
end
$$;

-- Whether a queue has one line only, in which everybody waits as in a queue without limits: no partitions, no rates, and nobody who ran before and
-- does not now. Such a one goes before those who have not run.
create function durable.has_one_line(queue durable.queue) returns boolean
    language plpgsql stable
    as $$
    begin
        if queue.suspended_count or queue.rate is not null or queue.rate_per_partition is not null
           or queue.concurrency_per_partition is not null or to_regclass('durable.place_apart') is null then
            return false;
        end if;
        return not exists (select from durable.place p
                           where p.queue = has_one_line.queue.name and not p.is_held and p.due_at is not null)
            and not exists (select from durable.place p
                            where p.queue = has_one_line.queue.name and not p.is_held and p.due_at is null)
            and not exists (select from durable.place p
                            where p.queue = has_one_line.queue.name and p.is_held and p.partition > '');
    end
    $$;

-- Let who is in the line of a queue hold a place instead, because it has one line no more.
-- Locks: places. The caller holds the queue.
create function durable.leave_line(queue durable.queue) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
begin
    if not exists (select from durable.line l where l.queue = leave_line.queue.name) then
        return;
    end if;
    with gone as (
        delete from durable.line l where l.queue = leave_line.queue.name returning l.bucket, l.id
    )
    insert into durable.place as p (bucket, id, queue, name, version, priority, is_new, is_held)
    select g.bucket, g.id, leave_line.queue.name, w.name, w.version, w.priority, false, true
    from gone g
    cross join lateral (
        select w.name, w.version, w.priority from durable.workflow w where w.bucket = g.bucket and w.id = g.id
        offset 0
    ) w
    on conflict (bucket, id) do update set queue = excluded.queue, is_new = false, due_at = null, is_held = true;
end
$$;

-- Let those into the line of a queue who are due, at most so many: who was suspended before it had limits, then by priority and
-- age. Only those whose body the worker has. After a slow look from the beginning the next ones begin where it got to, as those of a
-- queue without limits; see `worker::poll`.
-- Locks: the workflow rows, skipping what others hold. The caller holds the queue.
create function durable.hold_first(
    queue durable.queue, names text[], versions integer[], most integer,
    out buckets smallint[], out ids text[], out priorities smallint[]
) language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    of constant text := queue.name;
    began_at timestamptz;
    look durable.queue_look;
    is_whole boolean;
    last_priority smallint;
    last_due_at timestamptz;
begin
    select * into look from durable.queue_look l where l.queue = of;
    is_whole := (look.whole_at > clock_timestamp()) is not true;
    loop
        began_at := clock_timestamp();
        if is_whole then
            look.priority := -32768;
            look.due_at := '-infinity';
        end if;
        with recursive known as materialized (
            select k.name, k.version from unnest(hold_first.names, hold_first.versions) as k (name, version)
        ),
        woken as materialized (
            select w.bucket, w.id, w.priority, null::timestamptz as ready_at
            from durable.workflow w
            where w.queue = of and w.status = 'suspended' and w.due_at <= durable.now() and w.stopping is null
              and (w.name, w.version) in (select k.name, k.version from known k)
            order by w.due_at
            limit most
            for no key update of w skip locked
        ),
        -- One priority after the other, so that those which are not due yet are not read.
        priorities as (
            (select w.priority
             from durable.workflow w
             where w.status = 'queued' and w.queue = of and (w.priority, w.due_at) >= (look.priority, look.due_at)
             order by w.priority, w.due_at
             limit 1)
            union all
            select (select w.priority
                    from durable.workflow w
                    where w.status = 'queued' and w.queue = of and w.priority > p.priority
                    order by w.priority
                    limit 1)
            from priorities p
            where p.priority is not null
        ),
        ready as materialized (
            select w.bucket, w.id, w.priority, w.due_at
            from priorities p
            cross join lateral (
                select w.bucket, w.id, w.priority, w.due_at
                from durable.workflow w
                where w.status = 'queued' and w.queue = of and w.priority = p.priority
                  and w.due_at <= durable.now() and w.stopping is null
                  and w.due_at >= case when p.priority = look.priority then look.due_at else '-infinity' end
                  and (w.name, w.version) in (select k.name, k.version from known k)
                order by w.due_at
                limit most
                for no key update of w skip locked
            ) w
            limit most
        ),
        first as materialized (
            select * from (select * from woken union all select * from ready) as any_of_them
            limit most
        ),
        last as (
            select f.priority, f.ready_at as due_at from first f where f.ready_at is not null
            order by f.priority desc, f.ready_at desc
            limit 1
        )
        select array_agg(f.bucket), array_agg(f.id), array_agg(f.priority),
               (select l.priority from last l), (select l.due_at from last l)
        into buckets, ids, priorities, last_priority, last_due_at
        from first f;
        -- Where that was not from the beginning and has found too few, there may be more before: what has come back, what was locked, and
        -- what the worker did not have the code of that got there.
        exit when is_whole or coalesce(cardinality(ids), 0) >= most;
        is_whole := true;
    end loop;
    insert into durable.line (queue, held_at, bucket, id)
    -- Whatever the clock says, not before the looks begin.
    select of, greatest(durable.now(), look.held_since), f.bucket, f.id
    from unnest(buckets, ids) as f (bucket, id)
    on conflict do nothing;
    if is_whole and last_priority is not null and durable.was_slow(began_at, cardinality(ids)) then
        insert into durable.queue_look as l (queue, priority, due_at, whole_at)
        values (of, last_priority, last_due_at,
                clock_timestamp() + least((clock_timestamp() - began_at) * 20, interval '1 s'))
        on conflict (queue) do update
            set priority = excluded.priority, due_at = excluded.due_at, whole_at = excluded.whole_at;
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
#variable_conflict use_column
declare
    of constant text := queue.name;
    served constant text := queue.served;
    of_burst constant integer := (select b.burst_per_partition from durable.burst b where b.queue = of);
begin
    return query
    with recursive later as (
        select (select p.partition from durable.place p
                where p.queue = of and p.partition > served and not p.is_held and p.due_at is not null
                order by p.partition limit 1) as partition
        union all
        select (select p.partition from durable.place p
                where p.queue = of and p.partition > l.partition and not p.is_held and p.due_at is not null
                order by p.partition limit 1)
        from later l
        where l.partition is not null
    ),
    earlier as (
        select (select p.partition from durable.place p
                where p.queue = of and p.partition <= served and not p.is_held and p.due_at is not null
                order by p.partition limit 1) as partition
        union all
        select (select p.partition from durable.place p
                where p.queue = of and p.partition > e.partition and p.partition <= served
                  and not p.is_held and p.due_at is not null
                order by p.partition limit 1)
        from earlier e
        where e.partition is not null
    ),
    turn as materialized (
        -- The limit ends the walk from one to the next.
        select * from (select l.partition from later l union all select e.partition from earlier e) t
        where t.partition is not null
        limit open_partitions.most
    ),
    looked_at as (
        select t.partition,
               case when queue.concurrency_per_partition is null then 2147483647
                    else queue.concurrency_per_partition - (
                        select count(*)::integer from durable.place p
                        where p.queue = of and p.partition = t.partition and p.is_held) end as room,
               case when queue.rate_per_partition is null then new_in_all
                    else least(new_in_all,
                               coalesce((select durable.rate_left(queue.rate_per_partition, queue.rate_per_partition_period,
                                                                  k.begun_at, k.begun)
                                         from durable.partition k where k.queue = of and k.partition = t.partition),
                                        queue.rate_per_partition),
                               durable.burst_left(of_burst, queue.rate_per_partition, queue.rate_per_partition_period,
                                                  (select k.next_at from durable.partition_burst k
                                                   where k.queue = of and k.partition = t.partition))) end as new_room
        from turn t
    )
    select l.partition,
           case when l.new_room > 0 or exists (
               select from durable.place p
               where p.queue = of and p.partition = l.partition and not p.is_new and not p.is_held and p.due_at is not null
               offset 0
           ) then l.room else 0 end,
           l.new_room
    from looked_at l
    order by l.partition <= served, l.partition;
end
$$;

-- Let those hold places whose turn it is in some partitions: of each a share of its room, those first that ran before, then by priority and
-- age; of all together so many, and of the new ones so many. Only those whose body the worker has.
-- Locks: their places. The caller holds the queue.
drop function durable.hold_places(text, text, text[], integer[], integer, integer);
create function durable.hold_places(
    queue text, partitions text[], rooms integer[], new_rooms integer[], names text[], versions integer[],
    share integer, most integer, most_new integer
) returns table (place_bucket smallint, place_id text, place_priority smallint, of_partition integer, was_new boolean)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
begin
    return query
    with known as materialized (
        select k.name, k.version from unnest(hold_places.names, hold_places.versions) as k (name, version)
    ),
    ahead as materialized (
        select o.n, a.*,
               row_number() over (partition by o.n order by a.is_new, a.priority, a.due_at) as in_partition,
               least(hold_places.share, o.room) as at_most
        from unnest(hold_places.partitions, hold_places.rooms, hold_places.new_rooms) with ordinality
            as o (partition, room, new_room, n)
        cross join lateral (
            (
                select p.bucket, p.id, p.is_new, p.priority, p.due_at
                from durable.place p
                where p.queue = hold_places.queue and p.partition = o.partition and not p.is_new
                  and not p.is_held and p.due_at is not null
                  and (p.name, p.version) in (select k.name, k.version from known k)
                order by p.priority, p.due_at
                limit least(hold_places.share, o.room)
            )
            union all
            (
                select p.bucket, p.id, p.is_new, p.priority, p.due_at
                from durable.place p
                where p.queue = hold_places.queue and p.partition = o.partition and p.is_new
                  and not p.is_held and p.due_at is not null
                  and (p.name, p.version) in (select k.name, k.version from known k)
                order by p.priority, p.due_at
                limit least(hold_places.share, o.room, o.new_room)
            )
        ) a
        where o.room > 0
    ),
    allowed as (
        select a.*, count(*) filter (where a.is_new) over (order by a.n, a.in_partition) as new_ones
        from ahead a
        where a.in_partition <= a.at_most
    ),
    chosen as materialized (
        select a.n, a.bucket, a.id
        from allowed a
        where not a.is_new or a.new_ones <= hold_places.most_new
        order by a.n, a.in_partition
        limit hold_places.most
    )
    update durable.place p set is_held = true, due_at = null
    from chosen c
    where p.bucket = any (array[c.bucket]) and p.id = c.id
    returning p.bucket, p.id, p.priority, c.n::integer, p.is_new;
end
$$;

-- Who runs next in a queue: each partition in turn gets an equal share of what room there is, until there is none, or nobody. Some
-- partitions are looked at together; where nobody of them can run, the next ones are, up to a thousand in a call. Says of each new one in which
-- partition it begins.
-- Locks: their places. The caller holds the queue.
drop function durable.share_out(durable.queue, uuid, text[], integer[], integer);
create function durable.share_out(
    queue durable.queue, names text[], versions integer[], most integer,
    out buckets smallint[], out ids text[], out priorities smallint[], out begun_in text[]
) language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_variable
declare
    left_over integer := most;
    new_left_over integer := durable.new_left(queue);
    together constant integer := least(greatest(left_over, 20), 200);
    served_before constant text := queue.served;
    partitions text[];
    rooms integer[];
    new_rooms integer[];
    share integer;
    held record;
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
            with held as materialized (
                select * from durable.hold_places(queue.name, partitions, rooms, new_rooms, names, versions,
                                                  share, left_over, new_left_over)
            ),
            counted as (
                select t.n, sum(t.one)::integer as many, sum(t.new)::integer as new_ones
                from (
                    select n, 0 as one, 0 as new from generate_subscripts(rooms, 1) as n
                    union all
                    select h.of_partition, 1, h.was_new::integer from held h
                ) t
                group by t.n
            )
            select (select array_agg(h.place_bucket) from held h) as buckets,
                   (select array_agg(h.place_id) from held h) as ids,
                   (select array_agg(h.place_priority) from held h) as priorities,
                   (select array_agg(partitions[h.of_partition]) from held h where h.was_new) as begun_in,
                   -- Whoever has taken less than the share has nobody left.
                   array_agg(case when c.many = share then rooms[c.n] - c.many else 0 end order by c.n) as rooms,
                   array_agg(new_rooms[c.n] - c.new_ones order by c.n) as new_rooms,
                   sum(c.many)::integer as many,
                   sum(c.new_ones)::integer as new_ones,
                   max(c.n) filter (where c.many > 0) as last
            into held
            from counted c;
            buckets := buckets || held.buckets;
            ids := ids || held.ids;
            priorities := priorities || held.priorities;
            begun_in := begun_in || held.begun_in;
            rooms := held.rooms;
            new_rooms := held.new_rooms;
            left_over := left_over - held.many;
            new_left_over := new_left_over - held.new_ones;
            queue.served := coalesce(partitions[held.last], queue.served);
        end loop;
        exit when ids is not null or cardinality(partitions) < together;
        queue.served := partitions[cardinality(partitions)];
    end loop;
    -- Whoever did not come to it this time is the first one then.
    if queue.served <> served_before then
        update durable.queue q set served = queue.served where q.name = queue.name;
    end if;
end
$$;

-- Let those go on who kept their places while they were suspended, and are due, at most so many.
-- Locks: their places. The caller holds the queue.
create function durable.hold_on(
    queue durable.queue, names text[], versions integer[], most integer,
    out buckets smallint[], out ids text[], out priorities smallint[]
) language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
begin
    with due as materialized (
        select p.bucket, p.id
        from durable.place p
        where p.queue = hold_on.queue.name and p.is_held and p.due_at is not null
          and (p.name, p.version) in (select * from unnest(hold_on.names, hold_on.versions))
        limit most
    ),
    held as (
        update durable.place p set due_at = null
        from due d
        where p.bucket = any (array[d.bucket]) and p.id = d.id
        returning p.bucket, p.id, p.priority
    )
    select array_agg(h.bucket), array_agg(h.id), array_agg(h.priority) into buckets, ids, priorities from held h;
end
$$;

-- After a claim that did not get everybody who was to run: who does not come to it does not hold a place. Who has ended needs none; who is
-- blocked, or has still to be stopped by a worker, comes again when it is due; and whom somebody else holds just now waits on. Says in which
-- partitions new ones begin.
-- Locks: the places; the workflow rows of those who wait on no longer. The caller holds the queue.
drop function durable.settle_places(durable.queue, uuid, smallint[], text[]);
create function durable.settle_places(owner uuid, buckets smallint[], ids text[]) returns text[]
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    begun_in text[];
begin
    with stands as materialized (
        select p.bucket, p.id, p.partition, p.priority, p.is_new, w.status, w.stopping, w.due_at,
               (w.status = 'running' and w.owner is not distinct from settle_places.owner) is true as runs
        from unnest(settle_places.buckets, settle_places.ids) as g (bucket, id)
        cross join lateral (
            select * from durable.place p where p.bucket = g.bucket and p.id = g.id
            offset 0
        ) p
        left join lateral (
            select w.status, w.stopping, w.owner, w.due_at from durable.workflow w where w.bucket = g.bucket and w.id = g.id
            offset 0
        ) w on true
    ),
    gone as (
        delete from durable.place p using stands s
        where p.bucket = any (array[s.bucket]) and p.id = s.id
          and (s.status is null or s.status in ('completed', 'failed', 'cancelled') and p.partition = '')
    ),
    settled as (
        update durable.place p
        set due_at = case when s.status = 'queued' and s.stopping is null then s.due_at end, is_held = false
        from stands s
        where p.bucket = any (array[s.bucket]) and p.id = s.id and not s.runs
          and (s.status in ('queued', 'running', 'suspended', 'blocked') or s.status is not null and p.partition > '')
    ),
    -- They do not wait in a place any more.
    restored as (
        update durable.workflow w set priority = s.priority
        from stands s
        where w.bucket = any (array[s.bucket]) and w.id = s.id and w.priority = 32767 and not s.runs
          and not (s.status = 'queued' and s.stopping is null)
    )
    select array_agg(s.partition) into begun_in from stands s where s.runs and s.is_new;
    return begun_in;
end
$$;

-- Claim workflows of queues with limits, at most so many: what the worker's own claim does for the queue that has none. A last row without
-- an id says that there is more to do at once.
-- What lost two workers in a row runs alone among its kind in a worker, as in that claim.
-- Locks: the queues in which something is due, in the order of their names, skipping those that another claim holds; then places and
-- workflow rows, of which it skips what others hold.
create or replace function durable.claim_limited(owner uuid, queues text[], names text[], versions integer[], most integer)
    returns table (
        id text, name text, version integer, input text, waits text, wakes bigint, claims integer, created_at timestamptz,
        now timestamptz, row_at text, seed text, parent text, generation text, ending text
    )
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    entered_max constant integer := 500;
    q durable.queue;
    left_over integer := claim_limited.most;
    is_more boolean := false;
    room integer;
    room_here integer;
    buckets smallint[];
    ids text[];
    priorities smallint[];
    begun_in text[];
    turns record;
    is_one_line boolean;
    suspect text;
    taken integer;
    taken_now integer;
begin
    if not exists (select from durable.worker k
                   where k.id = claim_limited.owner and k.fenced_at is null and k.lease_until > durable.now()) then
        return;
    end if;
    for q in
        select q.*
        from durable.queue q
        left join lateral (
            select l.priority, l.due_at from durable.queue_look l where l.queue = q.name and l.whole_at > clock_timestamp()
            offset 0
        ) l on true
        where q.name = any (claim_limited.queues) and not q.is_paused
          -- offset 0 keeps each a look at the first one. Without it they may be answered by reading all that wait, once for all queues.
          and (exists (select from durable.place p where p.queue = q.name and not p.is_held and p.due_at is not null offset 0)
               or exists (select from durable.place p where p.queue = q.name and p.is_held and p.due_at is not null offset 0)
               or exists (select from durable.workflow w
                          where w.queue = q.name and w.status = 'queued'
                            and (w.priority, w.due_at) >= (coalesce(l.priority, (-32768)::smallint), coalesce(l.due_at, '-infinity'))
                          offset 0)
               or exists (select from durable.workflow w
                          where w.queue = q.name and w.status = 'suspended' and w.due_at <= durable.now()
                          offset 0))
        order by q.name
        for no key update of q skip locked
    loop
        exit when left_over <= 0;
        select l.room, l.room_here into room, room_here from durable.leave_places(q, claim_limited.owner) l;
        begun_in := null;
        is_one_line := durable.has_one_line(q);
        if is_one_line then
            continue when least(room, room_here) <= 0;
            select h.buckets, h.ids, h.priorities into buckets, ids, priorities
            from durable.hold_first(q, claim_limited.names, claim_limited.versions, least(left_over, room, room_here)) h;
        else
            perform durable.leave_line(q);
            is_more := durable.enter_places(q, entered_max) = entered_max or is_more;
            -- Those who kept their places while they were suspended, and then whose turn it is.
            select h.buckets, h.ids, h.priorities into buckets, ids, priorities
            from durable.hold_on(q, claim_limited.names, claim_limited.versions, greatest(0, least(left_over, room_here))) h;
            select t.* into turns
            from durable.share_out(q, claim_limited.names, claim_limited.versions,
                                   least(room, least(left_over, room_here) - coalesce(cardinality(ids), 0))) t;
            buckets := buckets || turns.buckets;
            ids := ids || turns.ids;
            priorities := priorities || turns.priorities;
            begun_in := turns.begun_in;
        end if;
        continue when ids is null;

        suspect := null;
        taken := 0;
        for attempt in 1..2 loop
            return query
                with locked as materialized (
                    select w.bucket, w.id, g.priority
                    from unnest(buckets, ids, priorities) as g (bucket, id, priority)
                    cross join lateral (
                        -- By the key: what is asked of the row beside that can use no index.
                        select w.bucket, w.id
                        from durable.workflow w
                        where w.bucket = g.bucket and w.id = g.id and w.queue is not distinct from q.name
                          and (w.status = 'queued' or w.status = 'suspended' and w.due_at <= durable.now()) is true
                          and w.stopping is null
                          and (w.recoveries < 2 or w.id = suspect)
                        for no key update of w skip locked
                    ) w
                )
                update durable.workflow w
                set status = 'running', owner = claim_limited.owner, claims = w.claims + 1, claimed_at = durable.now(),
                    priority = l.priority
                from locked l
                where w.bucket = any (array[l.bucket]) and w.id = l.id
                returning w.id, w.name, w.version, w.input::text, w.waits::text, w.wakes, w.claims, w.created_at, durable.now(),
                          w.ctid::text,
                          (select json_build_array(f.seed_id, f.seed_at)::text
                           from durable.fork f where f.bucket = w.bucket and f.id = w.id offset 0),
                          (select json_build_array(c.parent, (select p.queue from durable.workflow p
                                                              where p.bucket = c.parent_bucket and p.id = c.parent offset 0))::text
                           from durable.child c where c.bucket = w.bucket and c.id = w.id offset 0),
                          (select json_build_array(g.generation, g.started_at)::text
                           from durable.generation g where g.bucket = w.bucket and g.id = w.id offset 0),
                          (select json_build_array(e.status, e.failure)::text
                           from durable.ending e where e.bucket = w.bucket and e.id = w.id offset 0);
            get diagnostics taken_now = row_count;
            taken := taken + taken_now;
            exit when taken = cardinality(ids);
            -- One of those that lost two workers, where none of them is under way here.
            select r.id into suspect
            from unnest(buckets, ids) as g (bucket, id)
            cross join lateral (
                select r.id from durable.workflow r where r.bucket = g.bucket and r.id = g.id and r.recoveries >= 2
                offset 0
            ) r
            where not exists (
                select from durable.workflow o
                where o.status = 'running' and o.owner = claim_limited.owner and o.recoveries >= 2
                  and not exists (select from durable.step t
                                  where t.bucket = o.bucket and t.workflow_id = o.id and t.recorded_at >= o.claimed_at
                                  offset 0)
            )
            limit 1;
            exit when suspect is null;
        end loop;
        left_over := left_over - cardinality(ids);
        -- Of those in the line the next claim sees who does not run.
        if taken < cardinality(ids) and not is_one_line then
            begun_in := durable.settle_places(claim_limited.owner, buckets, ids);
        end if;
        if begun_in is not null and (q.rate is not null or q.rate_per_partition is not null) then
            perform durable.note_begun(q, begun_in);
        end if;
    end loop;
    if is_more and left_over > 0 then
        id := null;
        return next;
    end if;
end
$$;

-- Of others, what counts who runs:

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
    delete from durable.line l where l.queue = remove_queue.name;
    delete from durable.queue_look l where l.queue = remove_queue.name;
    delete from durable.burst b where b.queue = remove_queue.name;
    delete from durable.partition_burst k where k.queue = remove_queue.name;
    return true;
end
$$;

-- Which of its limits lets nobody of a queue begin or go on now; null if none does.
create or replace function durable.waits_for_turn(queue durable.queue, workers bigint) returns text
    language sql stable
    as $$
        select case
            when (queue).name is null then null
            when (select count(*) from durable.place p where p.queue = (waits_for_turn.queue).name and p.is_held)
                + (select count(*) from durable.line l where l.queue = (waits_for_turn.queue).name)
                >= least((queue).concurrency, (queue).concurrency_per_worker * waits_for_turn.workers) then 'concurrency'
            when durable.rate_left((queue).rate, (queue).rate_period, (queue).begun_at, (queue).begun) = 0 then 'rate'
            when (queue).concurrency_per_partition is not null or (queue).rate_per_partition is not null then (
                select case when bool_or(o.room > 0) or count(*) = 0 then null
                            when bool_or(o.new_room = 0) then 'rate_per_partition'
                            else 'concurrency_per_partition' end
                from durable.open_partitions(waits_for_turn.queue, 2147483647, 100) o
            ) end
    $$;
