-- All steps of all leads: the journal (a row when a body begins) against the history (a row when a
-- step is complete). They meet in the step's key, which is its position.
--
-- Reread: for each worker that went on with a lead, the steps that were complete when it first did
-- something for it. Without a history it would have had to do all of them again.
with begun as (
    select *, lag(worker) over (partition by key order by id) as previous_worker from body_started
), history as (
    select workflow_id, concat(workflow_id, '/', concat_ws('.', nullif(lane, ''), seq)) as key, recorded_at
    from {library}.step where kind in ('step', 'transaction')
), arrival as (
    select workflow_id, worker, min(started_at) as arrived_at from body_started group by workflow_id, worker
)
select (select count(*) from begun),
       (select count(*) from history),
       (select count(*) from history where not exists (select from begun where begun.key = history.key)),
       (select count(*) from begun where previous_worker < worker),
       (select count(*) from begun where previous_worker = worker),
       (select count(*) - count(distinct workflow_id) from arrival),
       (select count(*) from arrival join history using (workflow_id) where recorded_at < arrived_at),
       (select count(*) from begun join history using (key) where started_at > recorded_at)
