-- Remove a limit of steps ($1), and say whether it was there.
-- Locks: the limit; then what workers hold of it.
with removed as (
    delete from durable.step_limit l where l.name = $1 returning l.name
),
let_go as (
    delete from durable.step_permit p using removed r where p.name = r.name
)
select r.name from removed r
