-- The application's own tables. The library's tables live in a schema of their own.

create table if not exists lead (
    id          bigint generated always as identity primary key,
    company     text not null,
    contact     text not null,
    email       text not null,
    website     text not null,
    note        text not null,
    received_at timestamptz not null default now(),
    outcome     text,
    outcome_at  timestamptz
);

-- lead_id is deliberately not unique here or in mail: a step that wrote twice
-- would leave two rows, and the demonstration looks for them.
create table if not exists draft (
    id         bigint generated always as identity primary key,
    lead_id    bigint not null references lead,
    subject    text not null,
    body       text not null,
    created_at timestamptz not null default now(),
    decision   text,
    decided_at timestamptz
);
create index if not exists draft_lead on draft (lead_id);

create table if not exists mail (
    id         bigint generated always as identity primary key,
    lead_id    bigint not null references lead,
    message_id text not null,
    subject    text not null,
    sent_at    timestamptz not null default now()
);
create index if not exists mail_lead on mail (lead_id);

create table if not exists engagement (
    lead_id    bigint primary key references lead,
    event      text not null,
    engaged_at timestamptz not null default now()
);

-- One row each time the body of a step begins, whether or not it gets to its end.
create table if not exists body_started (
    id          bigint generated always as identity primary key,
    workflow_id text not null,
    step        text not null,
    key         text not null,
    attempt     integer not null,
    worker      integer not null,
    started_at  timestamptz not null default clock_timestamp()
);
create index if not exists body_started_workflow on body_started (workflow_id);

create or replace view lead_overview as
select lead.*,
       draft.id as draft_id, draft.subject as draft_subject, draft.body as draft_body, draft.decision,
       case when lead.outcome is not null   then lead.outcome
            when draft.id is null           then 'researching'
            when draft.decision is null     then 'waiting'
            when draft.decision = 'rejected' then 'closing'
            when exists (select from mail where mail.lead_id = lead.id) then 'mailed'
            else 'sending' end as state
from lead
left join lateral (select * from draft where draft.lead_id = lead.id order by draft.id limit 1) draft on true;
