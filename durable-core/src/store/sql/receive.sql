-- Take the oldest unread message of a topic and record it as the outcome of a position, in one act. When
-- there is none and the wait is over ($8), that is recorded instead. When neither, nothing is written.
-- Locks: the message row, then the new step row. Nobody else reads this mailbox while the owner holds it.
with held as (
    select w.bucket, w.id, w.wakes
    from durable.workflow w
    where w.bucket = $2 and w.id = $3 and w.owner = $1
),
oldest as materialized (
    select m.n, m.value
    from held h
    join durable.message m on m.bucket = h.bucket and m.workflow_id = h.id
    where m.topic = $7 and m.received_at is null
    order by m.n
    limit 1
    for update of m
),
outcome as (
    select json_build_object('message', o.value) as output from oldest o
    union all
    select json_build_object('timed_out', true)
    from held h
    where $8 and not exists (select from oldest)
),
done as (
    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
    select h.bucket, h.id, $4, $5, 'receive', $6, o.output, durable.now() - $9 * interval '1 millisecond'
    from held h, outcome o
    on conflict (bucket, workflow_id, lane, seq) do nothing
    returning output, recorded_at
),
taken as (
    update durable.message m
    set received_at = durable.now(), value = null
    from oldest o
    where m.bucket = $2 and m.workflow_id = $3 and m.n = o.n and exists (select from done)
)
select h.wakes, d.output::text as output, d.recorded_at, exists (select from outcome) as had_outcome
from held h
left join done d on true
