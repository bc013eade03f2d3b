-- Limit (a): one row like a step's per transaction. The keys are spread as the library spreads them: by workflow
-- over 64 buckets, ten steps of a workflow one after the other. The content is a parameter, sent every time.
\set n :n + 1
\set workflow 10000000000000000 + :client_id * 1000000000 + :n / 10
\set bucket :workflow % 64
\set seq :n % 10
insert into bench.step (bucket, workflow_id, lane, seq, kind, name, input, output, started_at)
values (:bucket, '018f6b1c-9d3e-7c4a-' || :workflow, '', :seq, 'step', 'work', '[200]', :payload, now());
