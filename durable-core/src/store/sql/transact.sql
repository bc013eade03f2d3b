-- Record a transactional step on the connection that made the application's writes. It goes in only if the
-- workflow is still owned by $1 under the claim $13, and only if this is still the transaction that the engine began ($2 is
-- set for that transaction alone, so that a COMMIT or ROLLBACK in the step's code takes it away). It fails when the
-- position is taken.
-- Locks: the new step row. A second owner of the same position waits here for the first, and adopts its record.
insert into durable.step
    (bucket, workflow_id, lane, seq, kind, name, input, output, failure, attempts, started_at)
select w.bucket, w.id, $5, $6, 'transaction', $7, $8::json, $9::json, $10::json, $11::json,
       durable.now() - $12 * interval '1 millisecond'
from durable.workflow w
where w.bucket = $3 and w.id = $4 and w.owner is not distinct from $1 and w.claims = $13
  and current_setting('durable_step.key', true) = $2
returning recorded_at
