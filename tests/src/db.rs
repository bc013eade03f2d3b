//! A database of its own for each test, and workers on it.

use std::time::{Duration, Instant};

use durable::testing::Clock;
use durable::{Builder, Durable};
use durable_dev::{Template, TestDb};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

/// The application's tables in every test database. Append-only and without unique constraints, so that a
/// duplicate shows instead of being prevented.
pub const APPLICATION_TABLES: &str = "
    create table effect (
        workflow_id text not null, step text not null, key text not null, attempt integer not null,
        pid integer not null, value text, at timestamptz not null default clock_timestamp()
    );
    create table application_row (name text not null, value text);
";

/// The longest that a test waits for something that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A test's own database, with the library's schema and the application's tables.
pub struct Db {
    /// The application's pool.
    pub pool: PgPool,
    database: TestDb,
}

impl Db {
    /// A fresh database.
    pub async fn new() -> Self {
        log_if_asked();
        let template = Template::new("durable", &[&durable::testing::schema_script(), APPLICATION_TABLES]);
        Self::from_template(template).await
    }

    /// A database without anything of the library's.
    pub async fn empty() -> Self {
        Self::from_template(Template::new("empty", &[APPLICATION_TABLES])).await
    }

    async fn from_template(template: Template) -> Self {
        let database = tokio::task::spawn_blocking(move || TestDb::create(&template))
            .await
            .expect("making a database does not panic")
            .expect("a database for the test");
        let pool = PgPoolOptions::new().max_connections(5).connect(database.url()).await.expect("a pool");
        Self { pool, database }
    }

    /// Its address, for other processes.
    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// A builder with times that suit tests.
    pub fn builder(&self) -> Builder {
        Durable::builder(self.pool.clone())
            .lease(Duration::from_secs(4))
            .poll_every(Duration::from_millis(50))
            .migrate(false)
    }

    /// A handle without a worker.
    pub async fn client(&self) -> Durable {
        self.builder().client().await.expect("a client")
    }

    /// The database's clock, in the test's hands.
    pub async fn clock(&self) -> Clock {
        Clock::install(&self.pool, "durable").await.expect("the test clock")
    }

    /// One number from the database.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect(sql)
    }

    /// One text from the database.
    pub async fn text(&self, sql: &'static str) -> String {
        sqlx::query_scalar::<_, Option<String>>(sql).fetch_one(&self.pool).await.expect(sql).unwrap_or_default()
    }

    /// Wait until a query gives `true`.
    pub async fn until(&self, sql: &'static str) {
        let began_at = Instant::now();
        loop {
            if sqlx::query_scalar::<_, Option<bool>>(sql).fetch_one(&self.pool).await.expect(sql) == Some(true) {
                return;
            }
            assert!(began_at.elapsed() < PATIENCE, "never came true: {sql}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Wait until a count is as wanted.
    pub async fn until_count(&self, sql: &'static str, wanted: impl Fn(i64) -> bool) {
        let began_at = Instant::now();
        loop {
            let count = self.count(sql).await;
            if wanted(count) {
                return;
            }
            assert!(began_at.elapsed() < PATIENCE, "never as wanted, but {count}: {sql}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Wait until a workflow has a status.
    pub async fn until_status(&self, id: &str, status: &str) {
        let began_at = Instant::now();
        let mut last: Option<String> = None;
        while last.as_deref() != Some(status) {
            assert!(began_at.elapsed() < PATIENCE, "workflow {id} never became {status}, it is {last:?}");
            last = sqlx::query_scalar("select status from durable.workflow where id = $1")
                .bind(id)
                .fetch_optional(&self.pool)
                .await
                .expect("the status of a workflow");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// `DURABLE_TEST_LOG=durable=debug cargo test ..` shows what the library says.
pub fn log_if_asked() {
    if let Ok(filter) = std::env::var("DURABLE_TEST_LOG") {
        // The first test of the process sets it up, the others find it there.
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Db({})", self.database.name())
    }
}
