-- Ends that do not come from the body: cancellations and deadlines. They reach children, and where undo steps are registered
-- these are run first.
--
-- Tables of their own, for the reason that `0005_child.sql` gives.

-- When a workflow that has not ended by then fails. The row goes when that time has come.
create table durable.deadline (
    bucket       smallint    not null,
    id           text        collate "C" not null,
    at           timestamptz not null,
    primary key (bucket, id)
);

create index deadline_next on durable.deadline (at);

-- Workflows that were cut off and whose undo steps have yet to be run, and how they end then. The row outlives that for a while.
create table durable.ending (
    bucket       smallint    not null,
    id           text        collate "C" not null,
    status       text        collate "C" not null,           -- cancelled, failed
    failure      json        not null,
    begun_at     timestamptz not null default durable.now(),
    primary key (bucket, id),
    constraint status_is_an_end check (status in ('cancelled', 'failed'))
);

-- End a workflow that has not ended, with this status and this failure; and cancel the children that it has started, and theirs,
-- but for detached ones and what is below those. One that has registered undo steps does not end yet: it is taken from its
-- worker, noted in `ending`, and goes on once that worker has stopped it. If it is blocked then, because its code does not get as
-- far, cutting it off again ends it as it is.
-- Gives a row for each that is cut off now, and for each that was before and has still to be stopped by a worker; none where
-- there was nothing to end. `undo_in` is the queue of one that goes on to be undone. A parent that waits for the workflow is
-- woken; the row of the workflow itself names it, and its queue.
-- Like `start` and `send` it runs with the rights of whoever calls it, in the caller's transaction, and sends no NOTIFY.
-- Each of its statements sees what was committed before that statement (in READ COMMITTED, which is the default). A start of
-- a child locks its parent's row. So once that row is locked here, the child is there and is found, or its start finds
-- that the parent is not held any more.
-- Locks: all the rows, and that of the waiting parent, in key order; then those of children that were being started.
create function durable.cut_off(workflow_id text, end_as text, why json)
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
            select k.bucket, k.id,
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

-- Cancel a workflow that has not ended, and the children that it has started; see `cut_off`.
create function durable.cancel(workflow_id text, reason text default null)
    returns table (id text, cancelled boolean, stopping uuid, undo_in text, parent text, parent_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    c record;
begin
    for c in select * from durable.cut_off(cancel.workflow_id, 'cancelled', json_build_object(
        'kind', 'cancelled', 'terminal', true,
        'messages', case when cancel.reason is null then json_build_array() else json_build_array(cancel.reason) end))
    loop
        -- Who did it, and why, is kept with the workflow; see `0007_operate.sql`.
        if c.cut then
            perform durable.note(durable.bucket(c.id), c.id, 'cancel', null, cancel.reason);
        end if;
        id := c.id;
        cancelled := c.cut;
        stopping := c.stopping;
        undo_in := c.undo_in;
        parent := c.parent;
        parent_queue := c.parent_queue;
        return next;
    end loop;
end
$$;

comment on function durable.cancel is
    'Cancel a workflow that has not ended, and the children that it has started. A worker that runs one of them stops within a '
    'third of its lease; undo steps are run then. It is cancelled if, and only if, this transaction commits.';

-- End a workflow whose deadline has passed. Sent twice, the second finds no deadline.
create function durable.expire(workflow_id text)
    returns table (id text, cut boolean, stopping uuid, undo_in text, parent text, parent_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    delete from durable.deadline d
    where d.bucket = durable.bucket(expire.workflow_id) and d.id = expire.workflow_id and d.at <= durable.now();
    if found then
        return query select c.* from durable.cut_off(expire.workflow_id, 'failed', json_build_object(
            'kind', 'deadline', 'terminal', true,
            'messages', json_build_array('its deadline has passed'))) c;
    end if;
end
$$;
