-- Whether a worker has come with other code of a workflow ($1, $2) after the code with this fingerprint ($3) had come.
-- Locks: nothing.
select exists (
    select from durable.fingerprint own
    join durable.fingerprint other on other.name = own.name and other.version = own.version
    where own.name = $1 and own.version = $2 and own.fingerprint = $3 and other.first_seen > own.first_seen
) as newer
