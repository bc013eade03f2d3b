-- Whether a worker was fenced. Asked after a session has said whose it is, so that `silence` finds every session of its that
-- was not told so.
-- Locks: nothing.
select exists (select from durable.worker k where k.id = $1 and k.fenced_at is not null) as fenced
