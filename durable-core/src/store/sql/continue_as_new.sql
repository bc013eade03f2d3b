-- Let a workflow ($2, $3) begin anew with another input ($6) and version ($5), as one act: its history is forgotten, its
-- generation goes up, and it is queued. Only under the owner $1 and the claim $4; then a repeat after a lost reply does
-- nothing. What is kept: its id, queue, priority, when it was started, whose child it is, and messages that nobody has read.
-- Of the history up to $7 records go at once, and as many received messages; the answer says whether there may be more.
-- What is left counts as nothing, because the records of a generation have lanes of their own; `forget` takes it away.
-- Received messages with a key stay: they refuse a repeat.
-- Locks: the workflow row; then its generation, its old records and messages, which nobody else writes while it is held.
with held as materialized (
    select w.bucket, w.id, w.version, w.input
    from durable.workflow w
    where w.bucket = $2 and w.id = $3 and w.owner is not distinct from $1 and w.claims = $4
    for no key update
),
counted as (
    insert into durable.generation as g (bucket, id, generation, started_at, first_version, first_input)
    select h.bucket, h.id, 1, durable.now(), h.version, h.input from held h
    on conflict (bucket, id) do update set generation = g.generation + 1, started_at = excluded.started_at
),
forgotten as (
    delete from durable.step s
    where s.ctid = any (array(
        select o.row_at
        from held h
        cross join lateral (
            -- The limit keeps this a walk along the key.
            select s.ctid as row_at from durable.step s
            where s.bucket = h.bucket and s.workflow_id = h.id
            order by s.lane, s.seq
            limit $7
        ) o
    ))
    returning true
),
read as (
    delete from durable.message m
    where m.ctid = any (array(
        select o.row_at
        from held h
        cross join lateral (
            select m.ctid as row_at from durable.message m
            where m.bucket = h.bucket and m.workflow_id = h.id and m.received_at is not null and m.key is null
            order by m.n
            limit $7
        ) o
    ))
)
update durable.workflow w
set status = 'queued', owner = null, due_at = durable.now(), version = $5, input = $6::json,
    waits = null, recoveries = 0, failure = null
from held h
-- any, so that nobody walks the key for being in order; see PLANS in store/link.rs
where w.bucket = any (array[h.bucket]) and w.id = h.id
returning w.queue, (select count(*) from forgotten) >= $7 as more
