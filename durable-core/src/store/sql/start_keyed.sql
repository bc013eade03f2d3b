-- Start a workflow with a key: see `durable.start_keyed` in `0014_start_key.sql`. A repeat after a lost reply is known by the id.
-- Locks: the key; a batch that has it; then workflow rows: the one that has the key, or as `cancel`, and the new one.
select t.what, t.workflow_id, t.same_input, t.name, t.version, t.stopper, t.undo_in, t.is_due
from durable.start_keyed(
    row($1, $2, $3::integer, $4, $5, $6::integer, $7::text::json, $8::bigint * interval '1 millisecond',
        $9::text::json)::durable.new_start,
    $10, $11, $12::bigint * interval '1 millisecond', $13, $14::bigint * interval '1 millisecond',
    $15::bigint * interval '1 millisecond', $16) t
