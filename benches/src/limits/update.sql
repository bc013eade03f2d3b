-- Limit (c): what a transactional step cannot do without: the application's update and the step's row, in one
-- transaction.
\set n :n + 1
\set workflow 10000000000000000 + :client_id * 1000000000 + :n / 10
\set bucket :workflow % 64
\set seq :n % 10
\set account random(1, :accounts)
begin;
update bench.account set balance = balance + 1 where id = :account;
insert into bench.step (bucket, workflow_id, lane, seq, kind, name, input, output, started_at)
values (:bucket, '018f6b1c-9d3e-7c4a-' || :workflow, '', :seq, 'transaction', 'deposit', '[200]', :payload, now());
commit;
