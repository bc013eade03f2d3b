-- Note a migration, in the transaction that made it.
insert into durable.migration (version, name) values ($1, $2)
