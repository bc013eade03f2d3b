-- Deadlines that come or change after the start: of a live workflow, by an operator or by whoever starts it from SQL.
--
-- In reading order: what is kept of a change, the rows that a change or an end concerns, the change itself, what a person or a
-- trigger calls, what a child that is being started reads, and what of older functions is different: `expire`, a cancellation
-- that is sent twice, `forget_rest`.
-- Like those in `0007_operate.sql` they run with the rights of whoever calls them, in the caller's transaction, and send no NOTIFY:
-- workers find a deadline with their look for dead workers.

-- From when to when a deadline was put, by the operation of the same number.
create table durable.deadline_change (
    bucket       smallint    not null,
    workflow_id  text        collate "C" not null,
    n            integer     not null,                       -- of the row of `operation`
    was          timestamptz,                                -- null for none
    at           timestamptz,                                -- likewise
    primary key (bucket, workflow_id, n)
);

-- Lock a workflow that has not ended, the children that it has started, and theirs, but for detached ones and what is below those;
-- and its parent, which its end may wake. Gives the workflow and those below it, ended or not, in key order. See `cut_off`
-- in `0009_cut_off.sql`, whose locks these are.
-- Locks: all the rows in key order; then those of children that were being started.
create function durable.lock_family(workflow_id text, out buckets smallint[], out ids text[])
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    place constant smallint := durable.bucket(lock_family.workflow_id);
    more_buckets smallint[];
    more_ids text[];
    parent_place smallint;
    parent_id text;
begin
    buckets := '{}';
    ids := '{}';
    select c.parent_bucket, c.parent into parent_place, parent_id
    from durable.child c where c.bucket = place and c.id = lock_family.workflow_id;
    loop
        with recursive tree as (
            select place as bucket, lock_family.workflow_id collate "C" as id
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
        select array_agg(t.bucket order by t.bucket, t.id), array_agg(t.id order by t.bucket, t.id)
        into more_buckets, more_ids
        from tree t;
        exit when cardinality(more_ids) = cardinality(ids);
        perform from (
            select unnest(more_buckets || parent_place) as bucket, unnest(more_ids || parent_id) as id
        ) k
        join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id
        where w.status in ('queued', 'running', 'suspended', 'blocked')
        order by w.bucket + 0, w.id
        for no key update of w;
        buckets := more_buckets;
        ids := more_ids;
    end loop;
end
$$;

-- Put one deadline where the caller has locked the workflow's row, and note it. Each right is needed only for what it is for:
-- INSERT for a first deadline, UPDATE to move one, DELETE to take one away.
-- Locks: the deadline's row.
create function durable.put_deadline(
    place smallint, of text, was timestamptz, until timestamptz, stood text, reason text, call uuid
) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    if put_deadline.until is null then
        if put_deadline.was is not null then
            delete from durable.deadline d where d.bucket = place and d.id = of;
        end if;
    else
        if put_deadline.was is not null then
            update durable.deadline d set at = put_deadline.until where d.bucket = place and d.id = of;
        end if;
        -- Whoever looks for deadlines may have forgotten the old one meanwhile.
        insert into durable.deadline (bucket, id, at) values (place, of, put_deadline.until) on conflict do nothing;
    end if;
    perform durable.note(place, of, 'deadline', put_deadline.stood, put_deadline.reason, null, put_deadline.call);
    insert into durable.deadline_change (bucket, workflow_id, n, was, at)
    select place, of, max(o.n), put_deadline.was, put_deadline.until
    from durable.operation o
    where o.bucket = place and o.workflow_id = of;
end
$$;

-- Change the deadline of a workflow that has not ended: to so long from now, or to none. What it has started (but for detached
-- ones, and what is below those) has the new one where it had the same, and otherwise the nearer one of its own and this, as if
-- it were started now. One row says when it is, or why nothing was done: `refused` is a word for that, `problem` says it to
-- a person. `call` makes a repeat after a lost reply do nothing more.
-- Locks: as `lock_family`, then the deadlines' rows.
create function durable.change_deadline(workflow_id text, within interval, reason text default null, call uuid default null)
    returns table (at timestamptz, refused text, problem text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    place constant smallint := durable.bucket(change_deadline.workflow_id);
    -- Null stays null, which least alone would leave out.
    until constant timestamptz := durable.now() + case when change_deadline.within is not null then
        least(change_deadline.within, interval '36600 days') end;
    buckets smallint[];
    ids text[];
    was timestamptz;
    stands text;
    own record;
    own_until timestamptz;
begin
    perform durable.check_text('workflow id', change_deadline.workflow_id);
    if change_deadline.within < interval '0' then
        raise exception 'the deadline is % from now, it has to be 0 or more', change_deadline.within
            using errcode = 'invalid_parameter_value', hint = 'Null takes it away.';
    elsif octet_length(change_deadline.reason) > 1000 then
        raise exception 'the reason has % bytes, at most 1000 are kept', octet_length(change_deadline.reason)
            using errcode = 'invalid_parameter_value', hint = 'Use a shorter one.';
    end if;

    select f.buckets, f.ids into buckets, ids from durable.lock_family(change_deadline.workflow_id) f;
    select d.at into was from durable.deadline d where d.bucket = place and d.id = change_deadline.workflow_id;
    select w.status into stands from durable.workflow w where w.bucket = place and w.id = change_deadline.workflow_id;
    -- Apart from each other, so that who has no calls of its own needs no right to read those of others.
    if change_deadline.call is not null then
        perform from durable.operation o
        where o.bucket = place and o.workflow_id = change_deadline.workflow_id and o.call = change_deadline.call;
        if found then
            return query select was, null::text, null::text;
            return;
        end if;
    end if;
    if stands is null then
        return query select null::timestamptz, 'missing', 'there is no such workflow';
        return;
    elsif stands in ('completed', 'failed', 'cancelled') then
        return query select null::timestamptz, 'ended', format('it is %s already', stands);
        return;
    elsif exists (
        select from durable.ending e where e.bucket = place and e.id = change_deadline.workflow_id
    ) then
        return query select null::timestamptz, 'ended', 'it is being undone already';
        return;
    end if;

    for own in
        select w.bucket, w.id, w.status, d.at as had, w.id = change_deadline.workflow_id as is_it
        from (select unnest(buckets) as bucket, unnest(ids) as id) k
        join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id
        left join lateral (
            -- offset 0 keeps this a look by the key
            select d.at from durable.deadline d where d.bucket = k.bucket and d.id = k.id
            offset 0
        ) d on true
        where w.status in ('queued', 'running', 'suspended', 'blocked')
          and not exists (select from durable.ending e where e.bucket = k.bucket and e.id = k.id)
        order by w.bucket + 0, w.id
    loop
        own_until := case when own.had is not distinct from was then until else least(own.had, until) end;
        if own.is_it or own_until is distinct from own.had then
            perform durable.put_deadline(own.bucket, own.id, own.had, own_until, own.status,
                                         change_deadline.reason, change_deadline.call);
        end if;
    end loop;
    return query select until, null::text, null::text;
end
$$;

-- The same for a person, a trigger or another program: an exception says why not, but for a workflow that has ended, which has
-- no use for a deadline; so that a start can be repeated together with it. Gives when the deadline is.
create function durable.set_deadline(workflow_id text, within interval, reason text default null) returns timestamptz
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    answer record;
begin
    select * into answer
    from durable.change_deadline(set_deadline.workflow_id, set_deadline.within, set_deadline.reason);
    if answer.refused = 'missing' then
        raise exception 'could not set the deadline of workflow %: %', set_deadline.workflow_id, answer.problem
            using errcode = 'no_data_found', hint = 'Start it first; the same transaction will do.';
    elsif answer.refused is not null then
        raise notice 'workflow % has no deadline: %', set_deadline.workflow_id, answer.problem;
    end if;
    return answer.at;
end
$$;

comment on function durable.set_deadline is
    'End a workflow that has not ended by so long from now, as failed; null takes its deadline away. The children that it has '
    'started have the same deadline, unless they have a nearer one of their own. It holds if, and only if, this transaction commits.';

-- The deadline of a workflow that the caller has locked, as it is now and not as it was when the caller's statement began.
-- Locks: nothing.
create function durable.deadline_of(place smallint, of text) returns timestamptz
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    as $$
begin
    return (select d.at from durable.deadline d where d.bucket = place and d.id = of);
end
$$;

-- As it was, but the workflows' rows come before the deadline's, as wherever both are locked.
create or replace function durable.expire(workflow_id text)
    returns table (id text, cut boolean, stopping uuid, undo_in text, parent text, parent_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    perform durable.lock_family(expire.workflow_id);
    delete from durable.deadline d
    where d.bucket = durable.bucket(expire.workflow_id) and d.id = expire.workflow_id and d.at <= durable.now();
    if found then
        return query select c.* from durable.cut_off(expire.workflow_id, 'failed', json_build_object(
            'kind', 'deadline', 'terminal', true,
            'messages', json_build_array('its deadline has passed'))) c;
    end if;
end
$$;

-- `cancel` for the library: `call` makes a repeat after a lost reply cut nothing off once more. Without it, a workflow whose undo steps
-- were under way, and which was blocked in the middle of them meanwhile, would end by the repeat as if somebody had asked for it
-- twice. It also notes how each of them stood.
-- Locks: as `cut_off`.
create function durable.cancel_once(workflow_id text, reason text, call uuid)
    returns table (id text, cut boolean, stopping uuid, undo_in text, parent text, parent_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    place constant smallint := durable.bucket(cancel_once.workflow_id);
    family record;
    stood jsonb;
    c record;
begin
    select f.buckets, f.ids into family from durable.lock_family(cancel_once.workflow_id) f;
    perform from durable.operation o
    where o.bucket = place and o.workflow_id = cancel_once.workflow_id and o.call = cancel_once.call;
    if found then
        return query
            select w.id, false, w.stopping, null::text, null::text, null::text
            from (select unnest(family.buckets) as bucket, unnest(family.ids) as id) k
            join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id
            where w.stopping is not null;
        return;
    end if;
    select jsonb_object_agg(w.id, w.status) into stood
    from (select unnest(family.buckets) as bucket, unnest(family.ids) as id) k
    join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id;
    for c in select * from durable.cut_off(cancel_once.workflow_id, 'cancelled', json_build_object(
        'kind', 'cancelled', 'terminal', true, 'messages',
        case when cancel_once.reason is null then json_build_array() else json_build_array(cancel_once.reason) end))
    loop
        if c.cut then
            perform durable.note(durable.bucket(c.id), c.id, 'cancel', stood ->> c.id, cancel_once.reason, null,
                                 cancel_once.call);
        end if;
        id := c.id;
        cut := c.cut;
        stopping := c.stopping;
        undo_in := c.undo_in;
        parent := c.parent;
        parent_queue := c.parent_queue;
        return next;
    end loop;
end
$$;

-- As it was, and streams, places in queues, and what is kept of changed deadlines.
create or replace function durable.forget_rest(place smallint, of text) returns void
    language plpgsql
    as $$
    begin
        delete from durable.message m where m.bucket = place and m.workflow_id = of;
        delete from durable.attribute a where a.bucket = place and a.id = of;
        delete from durable.operation o where o.bucket = place and o.workflow_id = of;
        delete from durable.deadline_change c where c.bucket = place and c.workflow_id = of;
        delete from durable.deadline d where d.bucket = place and d.id = of;
        -- Whoever waits for what it has not published waits on: the next one with this id may publish it.
        delete from durable.event e where e.bucket = place and e.workflow_id = of and e.waiters = '{}';
        update durable.event e set n = 0, value = null, published_at = null
        where e.bucket = place and e.workflow_id = of;
        delete from durable.stream s where s.bucket = place and s.workflow_id = of;
        delete from durable.stream_value v where v.bucket = place and v.workflow_id = of;
        delete from durable.place p where p.bucket = place and p.id = of;
        delete from durable.child c where c.bucket = place and c.id = of;
        delete from durable.child c where c.parent_bucket = place and c.parent = of;
    end
    $$;
