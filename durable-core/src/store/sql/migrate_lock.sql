-- One migrator at a time, in this database and for this schema. Released at the end of the transaction.
select pg_advisory_xact_lock(hashtextextended('durable migrations ' || $1, 0))
