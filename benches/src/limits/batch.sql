-- Limit (b): many rows like a step's per INSERT, from an UNNEST array. What a client does to build the rows is left
-- out: the array is made once, and then sent as a parameter every time. The keys are those of one step of as many
-- workflows, in the order of the index.
\if :n = 0
select array(select :payload::text from generate_series(1, :rows)) as payloads \gset
\endif
\set n :n + 1
\set base 10000000000000000 + :client_id * 1000000000 + (:n / 10) * :rows
\set seq :n % 10
insert into bench.step (bucket, workflow_id, lane, seq, kind, name, input, output, started_at)
select (64 * (g.i - 1) / :rows)::smallint, '018f6b1c-9d3e-7c4a-' || (:base::bigint + g.i), '', :seq,
       'step', 'work', '[200]', g.output::json, now()
from unnest(:payloads::text[]) with ordinality as g (output, i);
