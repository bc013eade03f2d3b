-- Whether this connection is still in the transaction that the engine marked.
-- Locks: nothing.
select current_setting('durable_step.key', true) is not distinct from $1 as stands
