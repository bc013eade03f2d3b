-- Which workflows are children, of whom; and cancelling, which reaches them.
--
-- A table of its own and not columns of the workflow's: these would have to wait until nobody writes to that table. It has no
-- row for a workflow that nobody's body has started.
create table durable.child (
    bucket        smallint    not null,
    id            text        collate "C" not null,          -- the child
    parent_bucket smallint    not null,
    parent        text        collate "C" not null,          -- the workflow whose body has started it
    lane          text        collate "C" not null,          -- where in that body
    seq           integer     not null,
    detached      boolean     not null,                      -- the parent's cancellation leaves it alone
    primary key (bucket, id)
);

create index child_of on durable.child (parent_bucket, parent);

-- Cancel a workflow that has not ended, and the children that it has started, and theirs, but for detached ones and what is
-- below those. Gives a row for each that is cancelled now, and for each that was cancelled before and has still to be
-- stopped by a worker; none where there was nothing to cancel. A parent that waits for the workflow is woken; the row of the
-- workflow itself names it, and its queue.
-- Like `start` and `send` it runs with the rights of whoever calls it, in the caller's transaction, and sends no NOTIFY.
-- Each of its statements sees what was committed before that statement (in READ COMMITTED, which is the default). A start of
-- a child locks its parent's row. So once that row is locked here, the child is there and is found, or its start finds
-- that the parent is not held any more.
-- Locks: all the rows, and that of the waiting parent, in key order; then those of children that were being started.
create function durable.cancel(workflow_id text)
    returns table (id text, cancelled boolean, stopping uuid, parent text, parent_queue text)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    place constant smallint := durable.bucket(cancel.workflow_id);
    buckets smallint[] := '{}';
    ids text[] := '{}';
    more_buckets smallint[];
    more_ids text[];
    stands text;
    awaits_place smallint;
    awaits text;
    awaits_in text;
begin
    perform durable.check_text('workflow id', cancel.workflow_id);
    select c.parent_bucket, c.parent into awaits_place, awaits
    from durable.child c where c.bucket = place and c.id = cancel.workflow_id;
    loop
        with recursive tree as (
            select place as bucket, cancel.workflow_id collate "C" as id
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
    select w.status into stands from durable.workflow w where w.bucket = place and w.id = cancel.workflow_id;
    if not found or stands in ('completed', 'failed') then
        return;
    end if;

    if stands <> 'cancelled' and awaits is not null then
        update durable.workflow w
        set wakes = w.wakes + 1,
            due_at = case when w.status = 'suspended' then durable.now() else w.due_at end
        where w.bucket = awaits_place and w.id = awaits and w.status in ('queued', 'running', 'suspended', 'blocked')
        returning w.queue into awaits_in;
    end if;
    return query
        with stopped as (
            update durable.workflow w
            set status = 'cancelled', stopping = w.owner, owner = null, due_at = null, waits = null,
                wakes = w.wakes + 1, finished_at = durable.now()
            from (select unnest(buckets) as bucket, unnest(ids) as id) k
            where w.bucket = any (array[k.bucket]) and w.id = k.id
              and w.status in ('queued', 'running', 'suspended', 'blocked')
            returning w.id, w.stopping
        )
        select s.id, true, s.stopping,
               case when s.id = cancel.workflow_id and awaits_in is not null then awaits end,
               case when s.id = cancel.workflow_id then awaits_in end
        from stopped s
        union all
        -- By an earlier call, whose answer may have been lost.
        select w.id, false, w.stopping, null, null
        from (select unnest(buckets) as bucket, unnest(ids) as id) k
        join durable.workflow w on w.bucket = any (array[k.bucket]) and w.id = k.id
        where w.status = 'cancelled' and w.stopping is not null;
end
$$;

comment on function durable.cancel is
    'Cancel a workflow that has not ended, and the children that it has started. A worker that runs one of them stops within a '
    'third of its lease. It is cancelled if, and only if, this transaction commits.';
