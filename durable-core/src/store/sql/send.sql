-- Put a message into a workflow's mailbox and wake it, once per key.
-- Locks: the receiver's row (which gives the message its number), then the new message row.
with receiver as (
    update durable.workflow w
    set wakes = w.wakes + 1,
        status = case when w.status = 'suspended' then 'queued' else w.status end,
        due_at = case when w.status = 'suspended' then durable.now() else w.due_at end
    where w.bucket = $1 and w.id = $2
      and w.status in ('queued', 'running', 'suspended', 'blocked')
      and not exists (select from durable.message m
                      where m.bucket = $1 and m.workflow_id = $2 and m.key = $4)
    returning w.wakes
),
sent as (
    insert into durable.message (bucket, workflow_id, n, topic, key, value)
    select $1, $2, r.wakes, $3, $4, $5::json
    from receiver r
    on conflict (bucket, workflow_id, key) where key is not null do nothing
    returning n
)
select w.status, w.queue,
       exists (select from sent) as sent,
       exists (select from receiver)
           or exists (select from durable.message m
                      where m.bucket = $1 and m.workflow_id = $2 and m.key = $4) as known
from durable.workflow w
where w.bucket = $1 and w.id = $2
