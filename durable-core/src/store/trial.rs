//! What a test asks of the whole: whether anything is still to be done, how everything ended; and the end of a worker.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::sql::Sql;

/// Workflows that are named when a test waits in vain.
const NAMED_MAX: i64 = 5;

/// What there is to do in a schema, as of one moment.
pub(crate) struct Work {
    /// Or still to be stopped by a worker, where somebody waits for that.
    pub(crate) running: i64,
    /// Queued or suspended, and due.
    pub(crate) due: i64,
    /// Until the next one is due, if one will be.
    pub(crate) next_in_ms: Option<i64>,
    /// Schedules that have a tick to start now, and starts that were held back until now.
    pub(crate) ticks: i64,
    /// Until the next tick.
    pub(crate) tick_in_ms: Option<i64>,
}

impl Work {
    pub(crate) fn is_idle(&self) -> bool {
        self.running == 0 && self.due == 0 && self.ticks == 0
    }
}

/// When limits let more begin: once a period is over, or a burst has room for one more.
fn opens(schema: &str) -> String {
    format!(
        "select t.at + q.rate_period as at
         from \"{schema}\".queue q, unnest(q.begun_at) as t (at)
         where exists (select from \"{schema}\".place p where p.queue = q.name and p.due_at is not null)
         union all
         select t.at + q.rate_per_partition_period
         from \"{schema}\".queue q, \"{schema}\".partition k, unnest(k.begun_at) as t (at)
         where k.queue = q.name
           and exists (select from \"{schema}\".place p
                       where p.queue = k.queue and p.partition = k.partition and p.due_at is not null)
         union all
         -- When one more of a burst may begin.
         select b.next_at - (b.burst - 1) * \"{schema}\".rate_step(q.rate, q.rate_period) * interval '1 microsecond'
         from \"{schema}\".queue q join \"{schema}\".burst b on b.queue = q.name
         where exists (select from \"{schema}\".place p where p.queue = q.name and p.due_at is not null)
         union all
         select k.next_at - (b.burst_per_partition - 1)
                            * \"{schema}\".rate_step(q.rate_per_partition, q.rate_per_partition_period) * interval '1 microsecond'
         from \"{schema}\".queue q
         join \"{schema}\".burst b on b.queue = q.name
         join \"{schema}\".partition_burst k on k.queue = q.name
         where exists (select from \"{schema}\".place p
                       where p.queue = k.queue and p.partition = k.partition and p.due_at is not null)"
    )
}

/// Look at it.
pub(crate) async fn work(connection: &mut PgConnection, sql: &Sql) -> Result<Work, sqlx::Error> {
    let row = sqlx::query(AssertSqlSafe(look(&sql.schema))).fetch_one(connection).await?;
    Ok(Work {
        running: row.try_get("running")?,
        due: row.try_get("due")?,
        next_in_ms: row.try_get("next_in_ms")?,
        ticks: row.try_get("ticks")?,
        tick_in_ms: row.try_get("tick_in_ms")?,
    })
}

/// The statement for it.
fn look(schema: &str) -> String {
    // One statement, so that nothing changes its status between two looks. Rounded up: never too early.
    format!(
        "with closed as (
             -- Queues whose limits let nobody of those who wait begin now; not while a place is yet to be given up.
             select q.name, q.is_paused, \"{schema}\".room_in(q, null) = 0 as is_full
             from \"{schema}\".queue q
             where q.is_paused or not exists (
                 select from \"{schema}\".place p
                 left join \"{schema}\".workflow w on w.bucket = p.bucket and w.id = p.id
                 where p.queue = q.name and p.is_held and w.status is distinct from 'running'
                   and not (q.suspended_count and w.status in ('suspended', 'queued'))
             ) and not exists (
                 select from \"{schema}\".line l
                 left join \"{schema}\".workflow w on w.bucket = l.bucket and w.id = l.id
                 where l.queue = q.name and w.status is distinct from 'running'
             ) and (
                 \"{schema}\".room_in(q, null) = 0
                 or not exists (
                     select from \"{schema}\".open_partitions(
                         q, \"{schema}\".new_left(q), 10000
                     ) o where o.room > 0)
             )
         ),
         opens as ({opens}),
         -- A start that is held back waits for its batch's time, or for a workflow to end.
         open as (
             select w.status, w.stopping, d.at as deadline, \"{schema}\".now() as now,
                    case when h.id is not null then h.due_at
                         when not exists (
                        select from closed c
                        where c.name = w.queue and (c.is_paused or c.is_full or exists (
                            select from \"{schema}\".place p
                            where p.bucket = w.bucket and p.id = w.id and p.due_at is not null and not p.is_held))
                    ) then w.due_at end as due_at
             from \"{schema}\".workflow w
             left join \"{schema}\".deadline d on d.bucket = w.bucket and d.id = w.id
             left join \"{schema}\".held_start h on h.bucket = w.bucket and h.id = w.id
             where w.status in ('queued', 'running', 'suspended', 'blocked')
         )
         select count(*) filter (where status = 'running' or status in ('queued', 'suspended') and stopping is not null)
                + (select count(*) from \"{schema}\".held_start h
                   join \"{schema}\".workflow a on a.bucket = h.after_bucket and a.id = h.after
                   where a.stopping is not null and \"{schema}\".is_open(a.bucket, a.id)) as running,
                count(*) filter (where status in ('queued', 'suspended') and due_at <= now or deadline <= now) as due,
                ceil(extract(epoch from least(
                    min(due_at - now) filter (where status in ('queued', 'suspended') and due_at > now),
                    min(deadline - now) filter (where deadline > now),
                    (select min(o.at) - \"{schema}\".now() from opens o where o.at > \"{schema}\".now()))) * 1000)::bigint
                    as next_in_ms,
                (select count(*) from \"{schema}\".schedule s
                 where s.due_at <= \"{schema}\".now()
                    or s.may_start and (s.overlap = 'allow' or \"{schema}\".open_tick(s.name) is null))
                + (select count(*) from \"{schema}\".held_start h
                   where h.due_at <= \"{schema}\".now()
                      or h.after is not null and not \"{schema}\".is_open(h.after_bucket, h.after)) as ticks,
                (select ceil(extract(epoch from min(s.due_at) - \"{schema}\".now()) * 1000)::bigint
                 from \"{schema}\".schedule s where s.due_at > \"{schema}\".now()) as tick_in_ms
         from open",
        opens = opens(schema),
    )
}

/// Some of what there is to do, for a message.
pub(crate) async fn unfinished(connection: &mut PgConnection, sql: &Sql) -> Result<String, sqlx::Error> {
    let statement = format!(
        "select coalesce(string_agg(told, ', '), 'nothing') as told from (
             select format('%s (%s, %s on queue %s)', id, name, status, queue) as told
             from \"{schema}\".workflow
             where status = 'running' or status in ('queued', 'suspended') and due_at <= \"{schema}\".now()
             union all
             select format('schedule %s (due)', name) as told
             from \"{schema}\".schedule where due_at <= \"{schema}\".now()
             limit {NAMED_MAX}) as open",
        schema = sql.schema
    );
    sqlx::query(AssertSqlSafe(statement)).fetch_one(connection).await?.try_get("told")
}

/// How many workflows of each name have which status, in words.
pub(crate) async fn statuses(connection: &mut PgConnection, sql: &Sql) -> Result<Vec<String>, sqlx::Error> {
    let statement = format!(
        "select format('%s %s %s', count(*), name, status) as told
         from \"{}\".workflow group by name, status order by name, status",
        sql.schema
    );
    let rows = sqlx::query(AssertSqlSafe(statement)).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get("told")).collect()
}

/// Sessions of a dead worker that the server has not noticed the end of.
pub(crate) async fn sessions(connection: &mut PgConnection, named: &str) -> Result<i64, sqlx::Error> {
    let statement = "select count(*) as sessions from pg_catalog.pg_stat_activity
                     where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid()
                       and pg_catalog.strpos(application_name, $1) > 0";
    sqlx::query(statement).bind(named).fetch_one(connection).await?.try_get("sessions")
}

/// End them, where a process holds them by what it leaked.
pub(crate) async fn end_sessions(connection: &mut PgConnection, named: &str) -> Result<(), sqlx::Error> {
    let statement = "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity
                     where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid()
                       and pg_catalog.strpos(application_name, $1) > 0";
    sqlx::query(statement).bind(named).execute(connection).await?;
    Ok(())
}

/// Every lease is over.
pub(crate) async fn end_leases(connection: &mut PgConnection, sql: &Sql) -> Result<(), sqlx::Error> {
    let statement = format!(
        "update \"{schema}\".worker set lease_until = \"{schema}\".now() - interval '1 millisecond'
         where fenced_at is null",
        schema = sql.schema
    );
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}
