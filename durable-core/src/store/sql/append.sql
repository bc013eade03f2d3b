-- Append values to streams, under the owner $1 and the claims ($4) of the workflows ($2, $3) that write them: to each stream ($5)
-- the values $9, a JSON array, from the offset $6 on, of which there are $8. The marks $10, a JSON array alongside, say of each
-- value where it comes from: a lane and a seq, and the attempt of the step there; without one the body writes it, and its position
-- gets its record here.
-- Nothing is appended to a stream whose next offset is another one, or a position of which has a record. The tag $7 stays with the
-- stream: who sends this twice finds it there. No stream may be there twice.
-- The answer has a row for each that is held: whether it was appended, and how the stream and its positions stood before.
-- Locks: the streams, in key order, in which they are given; then the new values and step rows.
with held as materialized (
    select g.*, s.next, s.tag as last_tag, t.taken
    from unnest($2::smallint[], $3::text[], $4::integer[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[],
                $10::text[]) with ordinality as g (bucket, id, claims, key, first, tag, many, given, marks, n)
    cross join lateral (
        -- offset 0 keeps these looks by the key
        select from durable.workflow w
        where w.bucket = g.bucket and w.id = g.id and w.owner is not distinct from $1 and w.claims = g.claims
        offset 0
    ) w
    left join lateral (
        select s.next, s.tag from durable.stream s
        where s.bucket = g.bucket and s.workflow_id = g.id and s.key = g.key
        offset 0
    ) s on true
    cross join lateral (
        select exists (
            select from json_array_elements(g.marks::json) as m (mark)
            where m.mark ->> 'attempt' is null
              and exists (select from durable.step d
                          where d.bucket = g.bucket and d.workflow_id = g.id and d.lane = m.mark ->> 'lane'
                            and d.seq = (m.mark ->> 'seq')::integer
                          offset 0)
        ) as taken
    ) t
),
advanced as (
    insert into durable.stream as s (bucket, workflow_id, key, first, next, tag)
    select h.bucket, h.id, h.key, h.first, h.first + h.many, h.tag
    from held h
    -- As it stands in the snapshot, so that a repetition locks and writes nothing; and below as it stands then.
    where not h.taken and coalesce(h.next, 0) = h.first
    on conflict (bucket, workflow_id, key) do update
        set first = excluded.first, next = excluded.next, tag = excluded.tag
        where s.next = excluded.first
    returning bucket, workflow_id, key
),
done as materialized (
    select h.*
    from held h
    where exists (select from advanced a where a.bucket = h.bucket and a.workflow_id = h.id and a.key = h.key)
),
written as materialized (
    select h.bucket, h.id, h.claims, h.key, h.first + e.at - 1 as n, e.value, e.mark ->> 'lane' as lane,
           (e.mark ->> 'seq')::integer as seq, (e.mark ->> 'attempt')::integer as attempt
    from done h
    cross join lateral rows from (json_array_elements(h.given::json), json_array_elements(h.marks::json))
        with ordinality as e (value, mark, at)
),
kept as (
    insert into durable.stream_value (bucket, workflow_id, key, n, value, written_at, lane, seq, claims, attempt)
    select w.bucket, w.id, w.key, w.n, w.value, durable.now(), case when w.attempt is not null then w.lane end,
           case when w.attempt is not null then w.seq end, case when w.attempt is not null then w.claims end, w.attempt
    from written w
),
-- Not "on conflict do nothing": a value without its record would be written again.
recorded as (
    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, input, output, started_at)
    select w.bucket, w.id, w.lane, w.seq, 'stream', w.key, w.value, to_json(w.n), durable.now()
    from written w
    where w.attempt is null
)
select h.n, durable.now() as now, h.next, h.last_tag, h.taken,
       exists (select from done d where d.n = h.n) as appended
from held h
