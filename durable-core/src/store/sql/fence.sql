-- Fence the workers whose lease has ended, and say which dead workers still own something, from a bounded look ($1); and how
-- many milliseconds the next deadline is away, and the next schedule or batch.
-- It looks at every owner that is not alive, not only at those fenced just now: so what a dying worker did in its last moment
-- is repaired by the next round, and a worker whose row vanished strands nothing.
-- Locks: the expired workers' rows.
with fenced as (
    update durable.worker k
    set fenced_at = durable.now()
    where k.fenced_at is null and k.lease_until < durable.now()
    returning k.id
),
forgotten as (
    delete from durable.worker k where k.fenced_at < durable.now() - interval '1 day'
),
forgotten_too as (
    delete from durable.worker_takes t where not exists (select from durable.worker k where k.id = t.worker)
),
forgotten_as_well as (
    delete from durable.worker_declares t where not exists (select from durable.worker k where k.id = t.worker)
),
undone as (
    -- What such rows are for is over once the workflow has ended.
    delete from durable.ending e
    where exists (select from durable.workflow w
                  where w.bucket = e.bucket and w.id = e.id and w.status in ('completed', 'failed', 'cancelled')
                  offset 0)
)
select array(
    select distinct o.owner
    from (
        (
            select w.owner
            from durable.workflow w
            where w.owner is not null
              and not exists (select from durable.worker k
                              where k.id = w.owner and k.fenced_at is null
                                and not exists (select from fenced f where f.id = k.id))
            limit $1
        )
        union all
        -- What they had still to stop, and somebody else has to undo.
        select w.stopping
        from durable.ending e
        cross join lateral (
            select w.stopping from durable.workflow w
            where w.bucket = e.bucket and w.id = e.id and w.stopping is not null
            offset 0
        ) w
        where not exists (select from durable.worker k
                          where k.id = w.stopping and k.fenced_at is null
                            and not exists (select from fenced f where f.id = k.id))
    ) o
) as dead,
       -- For whoever keeps the deadlines: this look is made anyway.
       (select greatest(0, ceil(extract(epoch from d.at - durable.now()) * 1000))::bigint
        from durable.deadline d order by d.at limit 1) as deadline_in_ms,
       -- Where something waits for a workflow to end, somebody has to look again and again: with each of these looks.
       least((select greatest(0, ceil(extract(epoch from s.due_at - durable.now()) * 1000))::bigint
              from durable.schedule s where s.due_at is not null order by s.due_at limit 1),
             (select 0 from durable.schedule s where s.may_start limit 1),
             (select greatest(0, ceil(extract(epoch from h.due_at - durable.now()) * 1000))::bigint
              from durable.held_start h where h.due_at is not null order by h.due_at limit 1),
             (select 0 from durable.held_start h where h.after is not null limit 1)) as schedule_in_ms
