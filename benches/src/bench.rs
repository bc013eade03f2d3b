//! The ground that everything is measured on: a private server, its tables, and how long to measure.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use durable_dev::{Server, ServerOptions};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::catalog::Rounds;

/// Rows of the application's table.
pub(crate) const ACCOUNTS: i64 = 100_000;

/// What differs from PostgreSQL's defaults, and why. Durability does not.
const SETTINGS: [(&str, &str); 5] = [
    // What any server of this size is given.
    ("shared_buffers", "1GB"),
    // A checkpoint in the middle would hit one figure and spare its neighbour; each begins after one instead.
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "15min"),
    // WAL files are recycled, as on a server that has been up for a day, not made anew.
    ("min_wal_size", "2GB"),
    // Statistics of statements cost a limit of many small statements more than they cost us.
    ("shared_preload_libraries", ""),
];

/// Settings that the report shows beside those.
const SHOWN: [&str; 5] = ["fsync", "synchronous_commit", "full_page_writes", "autovacuum", "max_connections"];

/// How long and how often to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// One run of pgbench.
    pub(crate) limit: Duration,
    /// One closed loop, after its warm-up.
    pub(crate) ours: Duration,
    pub(crate) warm_up: Duration,
    /// How often limit and workload take turns.
    pub(crate) rounds: usize,
    /// What counted workloads are divided by: queued workflows, rows to load.
    pub(crate) divide: u32,
}

impl Pace {
    pub(crate) const FULL: Self = Self {
        limit: Duration::from_secs(2),
        ours: Duration::from_secs(4),
        warm_up: Duration::from_millis(1_500),
        rounds: 3,
        divide: 1,
    };
    pub(crate) const QUICK: Self = Self {
        limit: Duration::from_secs(1),
        ours: Duration::from_millis(1_500),
        warm_up: Duration::from_millis(700),
        rounds: 1,
        divide: 5,
    };

    /// The pace of a group of rows.
    pub(crate) fn in_turns(self, rounds: Rounds) -> Self {
        match rounds {
            Rounds::InTurns => self,
            Rounds::InShortTurns => {
                Self { rounds: self.rounds * 4, ours: self.ours / 3, warm_up: self.warm_up / 3, ..self }
            }
            Rounds::Once => Self { rounds: 1, ..self },
        }
    }
}

/// The private server and what is known of it.
pub(crate) struct Bench {
    pub(crate) url: String,
    /// One connection, for everything beside the measurements.
    pub(crate) pool: PgPool,
    pub(crate) pgbench: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) pace: Pace,
    pub(crate) server_pid: u32,
    /// Stopped and removed when this goes.
    _server: Server,
}

impl Bench {
    pub(crate) async fn start(pace: Pace, scratch: PathBuf) -> Result<Self> {
        let server = tokio::task::spawn_blocking(|| {
            let options = SETTINGS.iter().fold(ServerOptions::new(), |options, (name, value)| options.set(name, value));
            Server::start(options)
        });
        let server = server.await?.context("could not start a private PostgreSQL")?;
        let pgbench = server.programs().join("pgbench");
        if !pgbench.is_file() {
            bail!(
                "there is no pgbench in {}: install PostgreSQL's contrib package, or name a directory that has it \
                 in DURABLE_DEV_SEARCH",
                server.programs().display()
            );
        }
        let url = server.url("postgres");
        let pool = PgPoolOptions::new().max_connections(1).connect(&url).await?;
        durable::migrate(&pool, "durable").await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(tables())).execute(&pool).await.context("could not make the tables")?;
        sqlx::raw_sql("vacuum analyze bench.account").execute(&pool).await?;
        let server_pid = server.pid().context("the server is not up")?;
        Ok(Self { url, pool, pgbench, scratch, pace, server_pid, _server: server })
    }

    /// The state in which every measurement begins: empty tables, nothing left to write.
    pub(crate) async fn fresh(&self) -> Result<()> {
        let empty = "truncate durable.workflow, durable.step, durable.message, durable.worker, durable.place, durable.partition, durable.queue, \
             durable.line, durable.queue_look, durable.step_limit, durable.step_permit, bench.step, bench.workflow";
        sqlx::raw_sql(empty).execute(&self.pool).await.context("could not empty the tables")?;
        sqlx::raw_sql("checkpoint").execute(&self.pool).await.context("could not write a checkpoint")?;
        Ok(())
    }

    /// Change a setting of the running server.
    pub(crate) async fn set(&self, name: &str, value: &str) -> Result<()> {
        for sql in [format!("alter system set {name} = {value}"), "select pg_reload_conf()".to_owned()] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Wait until nobody but us is connected: a session adds its figures to the statistics at its end.
    pub(crate) async fn alone(&self) -> Result<()> {
        self.alone_but(0).await
    }

    /// The same, but for so many sessions that stay.
    pub(crate) async fn alone_but(&self, others: i64) -> Result<()> {
        let sessions = "select count(*) from pg_stat_activity where backend_type = 'client backend'";
        for _ in 0..1_000 {
            if sqlx::query_scalar::<_, i64>(sessions).fetch_one(&self.pool).await? == 1 + others {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("sessions of a measurement did not end");
    }

    /// The server in words: its version and its settings.
    pub(crate) async fn settings(&self) -> Result<Vec<(String, String)>> {
        let mut settings = vec![("server_version".to_owned(), self.show("server_version").await?)];
        for name in SHOWN.iter().chain(SETTINGS.iter().map(|(name, _)| name)) {
            settings.push(((*name).to_owned(), self.show(name).await?));
        }
        Ok(settings)
    }

    async fn show(&self, name: &str) -> Result<String> {
        let setting = sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(&self.pool);
        Ok(setting.await?)
    }
}

/// The tables of the limits: the library's own by shape, and the application's.
fn tables() -> String {
    format!(
        "create schema bench;
         create table bench.step (like durable.step including all) with (autovacuum_vacuum_insert_scale_factor = 0.1);
         create table bench.workflow (like durable.workflow including all) with (
             fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
             autovacuum_vacuum_cost_delay = 0);
         create table bench.account (id bigint primary key, balance bigint not null) with (fillfactor = 80);
         insert into bench.account select id, 0 from generate_series(1, {ACCOUNTS}) as id"
    )
}
