-- Tell the other processes something. A hint only: it may be lost, and is sent where commits are asynchronous.
-- Locks: the cluster's queue of notifications, until this commits; so it is never part of another statement's
-- transaction.
select pg_notify($1, $2)
