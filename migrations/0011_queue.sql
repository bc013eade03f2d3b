-- Queues with limits: how many of a queue's workflows may run at once, and how many may begin in a time; for all of them, for
-- each worker, and for each partition.
--
-- In reading order: the queues, the places of their workflows, partitions, rates, and then a claim from such queues, which is the only
-- place where a workflow of theirs begins to run. Everything stands in tables of its own, for the reason that `0005_child.sql` gives.
--
-- A claim holds the queue's row, so that only one at a time counts and takes; whoever finds it held leaves that queue to the other
-- one. Nothing else ever makes a workflow of such a queue run, so what is counted can only become less meanwhile: a
-- limit may be reached late, and is never exceeded. Nobody else writes to these rows: a workflow that ends or is suspended
-- keeps its place until the next claim sees that it does not run any more.

create table durable.queue (
    name                      text        collate "C" primary key,
    concurrency               integer,                       -- that run at once; null for any number, like all that follow
    concurrency_per_worker    integer,
    concurrency_per_partition integer,
    rate                      integer,                       -- that may begin within any rate_period
    rate_period               interval,
    rate_per_partition        integer,
    rate_per_partition_period interval,
    suspended_count           boolean     not null default false, -- whether suspended ones count as running, once they ran
    is_paused                 boolean     not null default false,
    declared                  json,                          -- what code has declared last; it may have been changed since
    served                    text        collate "C" not null default '', -- the partition that was served last
    begun_at                  timestamptz[] not null default '{}', -- when some began lately,
    begun                     integer[]   not null default '{}',   -- and how many then
    constraint limits_are_positive check (least(concurrency, concurrency_per_worker, concurrency_per_partition, rate,
                                                rate_per_partition) > 0),
    constraint rate_has_a_period check ((rate is null) = (rate_period is null) and rate_period > '0'),
    constraint rate_per_partition_has_a_period check (
        (rate_per_partition is null) = (rate_per_partition_period is null) and rate_per_partition_period > '0')
) with (fillfactor = 50);

-- The place of a workflow in such a queue: it waits there, or runs. Made when it is due for the first time, or at its start if that
-- gives a partition; then it stays as long as the workflow does.
create table durable.place (
    bucket       smallint    not null,
    id           text        collate "C" not null,           -- the workflow
    queue        text        collate "C" not null,
    partition    text        collate "C" not null default '',
    name         text        collate "C" not null,
    version      integer     not null,
    priority     smallint    not null,                       -- of the workflow, whose own is 32767 while it waits here
    is_new       boolean     not null,                       -- it has not run yet, so it counts for the rate
    due_at       timestamptz,                                -- since when it waits; null while it runs, sleeps or is blocked
    is_held      boolean     not null default false,         -- it counts as running
    primary key (bucket, id)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

create index place_waiting on durable.place (queue, partition, is_new, priority, due_at) where due_at is not null and not is_held;
create index place_held    on durable.place (queue, partition) where is_held;

-- What is known of a partition: only for its rate.
create table durable.partition (
    queue        text        collate "C" not null,
    partition    text        collate "C" not null,
    begun_at     timestamptz[] not null,
    begun        integer[]   not null,
    primary key (queue, partition)
) with (fillfactor = 50);

-- How many may still begin now, of so many in any period; null for any number.
create function durable.rate_left(rate integer, period interval, begun_at timestamptz[], begun integer[]) returns integer
    language sql stable
    as $$
        select case when rate is not null then greatest(0, rate - coalesce((
            select sum(t.begun) from unnest(rate_left.begun_at, rate_left.begun) as t (at, begun)
            where t.at > durable.now() - rate_left.period
        ), 0)::integer) end
    $$;

-- Add that so many begin now, and forget what was a period ago. What was less than a thousandth of the period ago counts as now: so there are a
-- thousand entries at most, and nobody begins too early for it.
create function durable.with_begun(
    inout begun_at timestamptz[], inout begun integer[], period interval, many integer
) language plpgsql stable
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_variable
declare
    last integer;
begin
    select coalesce(array_agg(t.at order by t.n), '{}'), coalesce(array_agg(t.many order by t.n), '{}') into begun_at, begun
    from unnest(begun_at, begun) with ordinality as t (at, many, n)
    where t.at > durable.now() - period;
    last := cardinality(begun_at);
    if begun_at[last] > durable.now() - period / 1000 then
        begun_at[last] := greatest(begun_at[last], durable.now());
        begun[last] := begun[last] + many;
    else
        begun_at := begun_at || durable.now();
        begun := begun || many;
    end if;
end
$$;

-- Let those go from their places who do not run any more. One that has ended needs no place, but it keeps what says of which partition it
-- is, should it be resumed or restarted; another one waits again, once it is due.
-- Locks: places. The caller holds the queue.
create function durable.leave_places(queue durable.queue) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
    begin
        with stands as materialized (
            select p.bucket, p.id, w.status
            from durable.place p
            left join lateral (
                select w.status from durable.workflow w where w.bucket = p.bucket and w.id = p.id
                offset 0
            ) w on true
            where p.queue = (leave_places.queue).name and p.is_held
              and w.status is distinct from 'running'
              and not ((leave_places.queue).suspended_count and w.status in ('suspended', 'queued'))
        ),
        gone as (
            delete from durable.place p using stands s
            where p.bucket = any (array[s.bucket]) and p.id = s.id
              and (s.status is null or s.status in ('completed', 'failed', 'cancelled') and p.partition = '')
        )
        update durable.place p set is_held = false, due_at = null
        from stands s
        where p.bucket = any (array[s.bucket]) and p.id = s.id
          and (s.status in ('queued', 'suspended', 'blocked') or s.status is not null and p.partition > '');
    end
    $$;

-- Give places to those who are due in a queue and wait in none, at most so many; and say how many they were.
-- Locks: the workflow rows, skipping what others hold; then their places. The caller holds the queue.
create function durable.enter_places(queue durable.queue, most integer) returns integer
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    at_priority integer := -32769;
    entered integer := 0;
    now_entered integer;
begin
    loop
        -- One priority after the other, so that those which are not due yet are not read. Then, by null, those that were suspended.
        if at_priority is not null then
            select w.priority into at_priority
            from durable.workflow w
            where w.queue = (enter_places.queue).name and w.status = 'queued' and w.priority > at_priority
            order by w.priority
            limit 1;
            -- The lowest priority is that of those who wait in a place. Whoever has it without one is found once nobody waits.
            if at_priority = 32767 and exists (
                select from durable.place p
                where p.queue = (enter_places.queue).name and not p.is_held and p.due_at is not null
            ) then
                at_priority := null;
            end if;
        end if;
        with due as materialized (
            select w.bucket, w.id
            from durable.workflow w
            where w.queue = (enter_places.queue).name and w.status = 'queued' and w.priority = at_priority
              and w.due_at <= durable.now() and w.stopping is null
              and (at_priority < 32767 or not exists (select from durable.place p
                                                      where p.bucket = w.bucket and p.id = w.id and p.due_at is not null
                                                      offset 0))
            order by w.due_at
            limit most - entered
            for no key update of w skip locked
        ),
        woken as materialized (
            select w.bucket, w.id
            from durable.workflow w
            where at_priority is null
              and w.queue = (enter_places.queue).name and w.status = 'suspended' and w.due_at <= durable.now()
              and w.stopping is null
            order by w.due_at
            limit most - entered
            for no key update of w skip locked
        ),
        coming as materialized (
            select w.bucket, w.id, w.queue, w.name, w.version, w.priority, w.claims, w.due_at
            from (select * from due union all select * from woken) d
            cross join lateral (
                select * from durable.workflow w where w.bucket = d.bucket and w.id = d.id
                offset 0
            ) w
        ),
        placed as (
            insert into durable.place as p (bucket, id, queue, name, version, priority, is_new, due_at)
            select c.bucket, c.id, c.queue, c.name, c.version, c.priority, c.claims = 0, c.due_at
            from coming c
            on conflict (bucket, id) do update
                set queue = excluded.queue, name = excluded.name, version = excluded.version,
                    priority = excluded.priority, is_new = excluded.is_new, due_at = excluded.due_at,
                    is_held = p.is_held and p.queue = excluded.queue
        )
        update durable.workflow w set status = 'queued', priority = 32767
        from coming c
        where w.bucket = any (array[c.bucket]) and w.id = c.id;
        get diagnostics now_entered = row_count;
        entered := entered + now_entered;
        exit when entered >= most or at_priority is null;
        at_priority := case when at_priority < 32767 then at_priority end;
    end loop;
    return entered;
end
$$;

-- How many more of a queue may run in this worker now.
create function durable.room_in(queue durable.queue, owner uuid) returns integer
    language sql stable
    as $$
        select greatest(0, least(
            (queue).concurrency - case when (queue).concurrency is not null then
                (select count(*) from durable.place p where p.queue = (room_in.queue).name and p.is_held)
            end,
            (queue).concurrency_per_worker - case when (queue).concurrency_per_worker is not null then
                (select count(*)
                 from durable.place p
                 cross join lateral (
                     select from durable.workflow w
                     where w.bucket = p.bucket and w.id = p.id and w.owner is not distinct from room_in.owner
                     offset 0
                 ) w
                 where p.queue = (room_in.queue).name and p.is_held)
            end,
            2147483647
        ))::integer
    $$;

-- The partitions of a queue in which somebody waits, at most so many, from the one after that which was served last on: how many may
-- run in each, and how many of the new ones, of which so many may run in the whole queue. Without room are those in which nobody may.
create function durable.open_partitions(queue durable.queue, new_in_all integer, most integer)
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

-- Let workflows that wait in a partition hold their places: those first that ran before, then by priority and age. At most so many, and
-- of those that are new so many. Only those whose body the worker has.
-- Locks: their places. The caller holds the queue.
create function durable.hold_places(
    queue text, partition text, names text[], versions integer[], room integer, new_room integer
) returns table (place_bucket smallint, place_id text, was_new boolean)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
    begin
        return query with ahead as materialized (
            (
                select p.bucket, p.id, p.is_new, p.priority, p.due_at
                from durable.place p
                where p.queue = hold_places.queue and p.partition = hold_places.partition and not p.is_new
                  and not p.is_held and p.due_at is not null
                  and (p.name, p.version) in (select * from unnest(hold_places.names, hold_places.versions))
                order by p.priority, p.due_at
                limit hold_places.room
            )
            union all
            (
                select p.bucket, p.id, p.is_new, p.priority, p.due_at
                from durable.place p
                where p.queue = hold_places.queue and p.partition = hold_places.partition and p.is_new
                  and not p.is_held and p.due_at is not null
                  and (p.name, p.version) in (select * from unnest(hold_places.names, hold_places.versions))
                order by p.priority, p.due_at
                limit least(hold_places.room, hold_places.new_room)
            )
        ),
        chosen as materialized (
            select a.bucket, a.id from ahead a
            order by a.is_new, a.priority, a.due_at
            limit hold_places.room
        )
        update durable.place p set is_held = true
        from chosen c
        where p.bucket = any (array[c.bucket]) and p.id = c.id
        returning p.bucket, p.id, p.is_new;
    end
    $$;

-- Who runs next in a queue: each partition in turn gets an equal share of what room there is, until there is none, or nobody. Some
-- partitions are looked at together; where nobody of them can run, the next ones are, up to a thousand in a call.
-- Locks: their places. The caller holds the queue.
create function durable.share_out(queue durable.queue, owner uuid, names text[], versions integer[], most integer)
    returns table (place_bucket smallint, place_id text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_variable
declare
    left_over integer := least(most, durable.room_in(queue, owner));
    new_left_over integer := coalesce(durable.rate_left(queue.rate, queue.rate_period, queue.begun_at, queue.begun), 2147483647);
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

-- Note that so many of a queue begin now, and so many in each of its partitions; where there are rates.
-- Locks: the queue, which the caller holds, and the partitions.
create function durable.note_begun(queue durable.queue, begun_in text[]) returns void
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
    end if;
end
$$;

-- After a claim: those who run have begun, the others did not come to it. Who has ended needs no place; who is blocked, or has still to be
-- stopped by a worker, comes again when it is due; and whom somebody else holds just now waits on.
-- Locks: the places; the workflow rows of those who wait on no longer. The caller holds the queue.
create function durable.settle_places(queue durable.queue, owner uuid, buckets smallint[], ids text[]) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    begun_in text[];
begin
    with stands as materialized (
        select p.bucket, p.id, p.partition, p.priority, p.is_new, w.status, w.stopping,
               (w.status = 'running' and w.owner is not distinct from settle_places.owner) is true as runs
        from unnest(settle_places.buckets, settle_places.ids) as g (bucket, id)
        cross join lateral (
            select * from durable.place p where p.bucket = g.bucket and p.id = g.id
            offset 0
        ) p
        left join lateral (
            select w.status, w.stopping, w.owner from durable.workflow w where w.bucket = g.bucket and w.id = g.id
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
        set due_at = case when s.status = 'queued' and s.stopping is null then p.due_at end,
            is_held = s.runs
        from stands s
        where p.bucket = any (array[s.bucket]) and p.id = s.id
          and (s.status in ('queued', 'running', 'suspended', 'blocked') or s.status is not null and p.partition > '')
    ),
    -- They do not wait in a place any more.
    restored as (
        update durable.workflow w set priority = s.priority
        from stands s
        where w.bucket = any (array[s.bucket]) and w.id = s.id and w.priority = 32767
          and not (s.status = 'queued' and s.stopping is null)
    )
    select array_agg(s.partition) into begun_in from stands s where s.runs and s.is_new;
    if begun_in is not null then
        perform durable.note_begun(settle_places.queue, begun_in);
    end if;
end
$$;

-- Claim workflows of queues with limits, at most so many: what the worker's own claim does for the queue that has none. A last row without
-- an id says that there is more to do at once.
-- What lost two workers in a row runs alone among its kind in a worker, as in that claim.
-- Locks: the queues in which something is due, in the order of their names, skipping those that another claim holds; then places and
-- workflow rows, of which it skips what others hold.
create function durable.claim_limited(owner uuid, queues text[], names text[], versions integer[], most integer)
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
    buckets smallint[];
    ids text[];
    suspect text;
begin
    if not exists (select from durable.worker k
                   where k.id = claim_limited.owner and k.fenced_at is null and k.lease_until > durable.now()) then
        return;
    end if;
    for q in
        select *
        from durable.queue q
        where q.name = any (claim_limited.queues) and not q.is_paused
          and (exists (select from durable.place p where p.queue = q.name and not p.is_held and p.due_at is not null)
               or exists (select from durable.place p where p.queue = q.name and p.is_held and p.due_at is not null)
               or exists (select from durable.workflow w where w.queue = q.name and w.status = 'queued')
               or exists (select from durable.workflow w
                          where w.queue = q.name and w.status = 'suspended' and w.due_at <= durable.now()))
        order by q.name
        for no key update of q skip locked
    loop
        exit when left_over <= 0;
        perform durable.leave_places(q);
        is_more := durable.enter_places(q, entered_max) = entered_max or is_more;
        -- Those who kept their places while they were suspended, and then whose turn it is.
        select array_agg(p.bucket), array_agg(p.id) into buckets, ids
        from (
            select p.bucket, p.id
            from durable.place p
            where p.queue = q.name and p.is_held and p.due_at is not null
              and (p.name, p.version) in (select * from unnest(claim_limited.names, claim_limited.versions))
            limit left_over
        ) p;
        select buckets || array_agg(s.place_bucket), ids || array_agg(s.place_id) into buckets, ids
        from durable.share_out(q, claim_limited.owner, claim_limited.names, claim_limited.versions,
                               left_over - coalesce(cardinality(ids), 0)) s;
        continue when ids is null;
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

        return query
            with locked as materialized (
                select w.bucket, w.id, p.priority
                from unnest(buckets, ids) as g (bucket, id)
                cross join lateral (
                    -- By the key: what is asked of the row beside that can use no index.
                    select w.bucket, w.id
                    from durable.workflow w
                    where w.bucket = g.bucket and w.id = g.id and w.queue is not distinct from q.name
                      and w.status is not distinct from 'queued' and w.stopping is null
                      and (w.recoveries < 2 or w.id = suspect)
                    for no key update of w skip locked
                ) w
                cross join lateral (
                    select p.priority from durable.place p where p.bucket = g.bucket and p.id = g.id
                    offset 0
                ) p
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
        left_over := left_over - cardinality(ids);
        perform durable.settle_places(q, claim_limited.owner, buckets, ids);
    end loop;
    if is_more and left_over > 0 then
        id := null;
        return next;
    end if;
end
$$;

-- Let a queue have no limits any more: who waits there waits as in any other queue. Says whether it had some.
-- Locks: the queue, which waits for a claim that holds it; then the places of those who wait, and their workflow rows.
create function durable.remove_queue(name text) returns boolean
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
    return true;
end
$$;

comment on function durable.remove_queue is 'Let a queue have no limits any more.';
