-- Let begin what was held back for long enough, at most $1 of each kind; see `durable.release_starts` in `0014_start_key.sql`. And when
-- the next batch's time comes, in milliseconds from now, and whether something waits for a workflow to end. It always gives a row.
-- Locks: the rows in `held_start`, skipping what others hold, then the workflow rows.
select r.workflow_id, r.in_queue, r.name, r.version, c.next_ms, c.some_wait
from (
    select (select greatest(0, ceil(extract(epoch from h.due_at - durable.now()) * 1000))::bigint
            from durable.held_start h where h.due_at > durable.now() order by h.due_at limit 1) as next_ms,
           exists (select from durable.held_start h where h.after is not null) as some_wait
) c
left join durable.release_starts($1) r on true
