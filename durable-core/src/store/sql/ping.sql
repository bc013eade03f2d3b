-- Whether the other end of a connection that only listens is still there.
-- Locks: nothing.
select 1
