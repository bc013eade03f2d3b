-- Look into the mailboxes of many workflows: take the oldest unread message of a topic, and record it as the outcome of
-- a position, in one act. Where there is none and the wait is over, that is recorded instead. Where neither, nothing
-- is written. Each only under the owner $1 and the claim that is given. No workflow may be there twice.
-- The answer is a row for each that is still held, with its count of wakes and with what there was to record; and
-- whether that was recorded now, which it was not if the position was taken.
-- Locks: the message rows, then the new step rows, in key order, which is the order in which they are given. Nobody
-- else reads a mailbox while the owner holds it.
with given as (
    select *
    from unnest($2::smallint[], $3::text[], $4::integer[], $5::text[], $6::integer[], $7::text[], $8::boolean[],
                $9::bigint[])
        with ordinality as g (bucket, id, claims, lane, seq, topic, is_over, took_ms, n)
),
looked as materialized (
    select g.*, w.wakes, m.n as message,
           case when m.n is not null then json_build_object('message', m.value)
                when g.is_over then json_build_object('timed_out', true) end as output
    from given g
    cross join lateral (
        -- offset 0 keeps this a look by the key
        select w.wakes from durable.workflow w
        where w.bucket = g.bucket and w.id = g.id and w.owner is not distinct from $1 and w.claims = g.claims
        offset 0
    ) w
    left join lateral (
        select m.n, m.value
        from durable.message m
        where m.bucket = g.bucket and m.workflow_id = g.id and m.topic = g.topic and m.received_at is null
        order by m.n
        limit 1
        for update of m
    ) m on true
),
done as (
    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
    select l.bucket, l.id, l.lane, l.seq, 'receive', l.topic, l.output,
           durable.now() - l.took_ms * interval '1 millisecond'
    from looked l
    where l.output is not null
    on conflict (bucket, workflow_id, lane, seq) do nothing
    returning bucket, workflow_id
),
recorded as materialized (
    select l.n, l.bucket, l.id, l.message
    from looked l
    where l.output is not null
      and ((select count(*) from done) = (select count(*) from looked o where o.output is not null)
           or exists (select from done d where d.bucket = l.bucket and d.workflow_id = l.id))
),
taken as (
    update durable.message m
    set received_at = durable.now(), value = null
    from recorded r
    -- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
    where m.bucket = any (array[r.bucket]) and m.workflow_id = r.id and m.n = r.message
)
select l.n, l.wakes, l.output::text as output, durable.now() as now,
       l.n = any (array(select r.n from recorded r)) as recorded
from looked l
