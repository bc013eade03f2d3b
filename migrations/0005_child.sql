-- Which workflows are children, of whom. Cancelling, which reaches them, is in `0009_cut_off.sql`.
--
-- A table of its own and not columns of the workflow's: these would have to wait until nobody writes to that table. It has no
-- row for a workflow that nobody's body has started.
create table durable.child (
    bucket        smallint    not null,
    id            text        collate "C" not null,          -- the child
    parent_bucket smallint    not null,
    parent        text        collate "C" not null,          -- the workflow whose body has started it
    lane          text        collate "C" not null,          -- where in that body
    seq           integer     not null,
    detached      boolean     not null,                      -- the parent's cancellation leaves it alone
    primary key (bucket, id)
);

create index child_of on durable.child (parent_bucket, parent);
