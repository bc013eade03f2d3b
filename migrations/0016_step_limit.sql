-- Limits around steps: how many calls of steps that name a limit may run at once, and how many may begin in a time, over all workers.
--
-- There is one row per limit, and one per limit and worker. A worker asks for all its waiting calls together (`durable.ask_limit`), which
-- holds the limit's row while it counts and gives. It says how many calls it has running, always in full, so that an answer that was lost
-- leaves nothing behind: the next asking says the same anew. What a fenced worker held counts no more.

create table durable.step_limit (
    name                   text        collate "C" primary key,
    concurrency            integer,                          -- that run at once; null for any number, like all that follow
    concurrency_per_worker integer,
    rate                   integer,                          -- that may begin within any rate_period
    rate_period            interval,
    is_paused              boolean     not null default false,
    declared               json,                             -- what code has declared last; it may have been changed since
    begun_at               timestamptz[] not null default '{}', -- when some began lately,
    begun                  integer[]   not null default '{}',   -- and how many then
    line_until             timestamptz not null default '-infinity', -- the turn that was given last
    given_at               timestamptz not null default '-infinity', -- when a call was let go last
    took_ms                double precision not null default 0, -- about how long calls take
    constraint step_limits_are_positive check (least(concurrency, concurrency_per_worker, rate) > 0),
    constraint step_rate_has_a_period check ((rate is null) = (rate_period is null) and rate_period > '0')
) with (fillfactor = 50);

-- What a worker has running of a limit, and whether some of its calls wait although their turn has come.
create table durable.step_permit (
    name        text        collate "C" not null,
    owner       uuid        not null,
    held        integer     not null,
    n           bigint      not null,                        -- of the worker's askings, the last one that counted
    waits_since timestamptz,                                 -- the first turn that has come and was not taken
    asked_at    timestamptz not null,
    primary key (name, owner)
) with (fillfactor = 50);

-- Say what a worker has running of a limit, and ask for more: for those whose turn has come (`booked`), and for `newcomers`. The answer says
-- how many of each may begin; the turns of the other newcomers, of which the first is `turn_in` away and each next one `spacing` later;
-- and when to ask again for the others whose turn has come.
--
-- No state is needed for those who wait elsewhere: turns are given as fast as the limit lets calls begin, so a newcomer's is behind all that
-- were given before. While turns are still to come, or somebody's has come and was not taken, newcomers wait, too. Where nothing began for
-- a while although something might, those with a turn do not seem to come, and newcomers go ahead.
-- Locks: the limit's row; then rows of step_permit, this worker's and those of fenced ones.
create function durable.ask_limit(
    name text, owner uuid, n bigint, held integer, booked integer, booked_for_ms bigint, newcomers integer, took_ms double precision,
    out state text, out booked_begin integer, out newcomers_begin integer, out turn_in double precision, out spacing double precision,
    out again_in double precision, out counts boolean
) language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
#variable_conflict use_column
declare
    l durable.step_limit;
    at_time timestamptz;
    mine_since timestamptz;
    room bigint;
    free bigint;
    ahead bigint;
    rate_left integer;
    frees_at timestamptz;
    last integer;
begin
    select * into l from durable.step_limit s where s.name = ask_limit.name for no key update;
    if not found then
        state := 'undeclared';
        return;
    end if;
    if not exists (select from durable.worker k where k.id = ask_limit.owner and k.fenced_at is null) then
        state := 'fenced';
        return;
    end if;
    -- The time of the statement is from before the row was waited for. What begins now must not seem to have begun earlier.
    at_time := durable.now() + (clock_timestamp() - statement_timestamp());
    counts := l.concurrency is not null or l.concurrency_per_worker is not null;
    mine_since := case when booked > 0 then at_time - booked_for_ms * interval '1 ms' end;

    delete from durable.step_permit p
    where p.name = ask_limit.name
      and not exists (select from durable.worker k where k.id = p.owner and k.fenced_at is null);
    insert into durable.step_permit as p (name, owner, held, n, waits_since, asked_at)
    values (ask_limit.name, ask_limit.owner, case when counts then ask_limit.held else 0 end, ask_limit.n, mine_since, at_time)
    on conflict (name, owner) do update
        set held = excluded.held, n = excluded.n, waits_since = excluded.waits_since, asked_at = excluded.asked_at
        where p.n < excluded.n;
    if not found then
        -- An asking from before one that was answered.
        state := 'stale';
        return;
    end if;

    state := 'asked';
    if took_ms is not null then
        l.took_ms := case when l.took_ms = 0 then took_ms else l.took_ms * 0.8 + took_ms * 0.2 end;
    end if;
    spacing := greatest(1, extract(epoch from l.rate_period) * 1000 / l.rate, l.took_ms / 2 / l.concurrency);
    select least(l.concurrency - sum(p.held), l.concurrency_per_worker - ask_limit.held) into room
    from durable.step_permit p where p.name = ask_limit.name;
    rate_left := durable.rate_left(l.rate, l.rate_period, l.begun_at, l.begun);
    free := greatest(0, coalesce(least(room, rate_left), booked + newcomers));
    -- Those of other workers whose turn came earlier, one of each: they ask several times a second.
    select count(*) into ahead
    from durable.step_permit p
    where p.name = ask_limit.name and p.owner <> ask_limit.owner and p.asked_at > at_time - interval '2 s'
      and (p.waits_since < mine_since or mine_since is null and p.waits_since is not null);
    if l.is_paused then
        free := 0;
    end if;
    booked_begin := least(booked, greatest(0, free - ahead));
    newcomers_begin := case
        when booked_begin < booked or ahead > 0 then 0
        when l.line_until > at_time and at_time < l.given_at + spacing * interval '1 ms' + interval '1 s' then 0
        else least(newcomers, free - booked_begin) end;

    frees_at := at_time;
    if rate_left - booked_begin - newcomers_begin <= 0 then
        select min(t.at) + l.rate_period into frees_at
        from unnest(l.begun_at) as t (at) where t.at > at_time - l.rate_period;
        frees_at := coalesce(frees_at, at_time + l.rate_period);
    end if;
    if l.is_paused then
        frees_at := at_time + interval '15 s';
    end if;
    again_in := case when l.is_paused then 15000
        else greatest(20, case
            when rate_left - booked_begin - newcomers_begin <= 0 then extract(epoch from frees_at - at_time) * 1000
            when ahead > 0 then 100
            else 500 end) end;
    turn_in := greatest(0, extract(epoch from greatest(frees_at, l.line_until + spacing * interval '1 ms') - at_time) * 1000);

    if booked_begin + newcomers_begin > 0 then
        l.given_at := at_time;
        if l.rate is not null then
            select w.begun_at, w.begun into l.begun_at, l.begun
            from durable.with_begun(l.begun_at, l.begun, l.rate_period, booked_begin + newcomers_begin) w;
            last := cardinality(l.begun_at);
            l.begun_at[last] := greatest(l.begun_at[last], at_time);
        end if;
        if counts then
            update durable.step_permit p set held = p.held + booked_begin + newcomers_begin
            where p.name = ask_limit.name and p.owner = ask_limit.owner;
        end if;
    end if;
    -- Others leave something for who waits; not where it is this worker's own limit that keeps them waiting.
    update durable.step_permit p set waits_since = null
    where p.name = ask_limit.name and p.owner = ask_limit.owner and p.waits_since is not null
      and (booked_begin = booked or ask_limit.held + booked_begin >= l.concurrency_per_worker);
    if newcomers > newcomers_begin then
        l.line_until := at_time + (turn_in + spacing * (newcomers - newcomers_begin - 1)) * interval '1 ms';
    end if;
    update durable.step_limit s
    set begun_at = l.begun_at, begun = l.begun, line_until = l.line_until, given_at = l.given_at, took_ms = l.took_ms
    where s.name = ask_limit.name;
end
$$;

comment on table durable.step_limit is 'Limits around steps. To change one: update durable.step_limit set rate = 200 where name = ...';
