//! Connections of the engine's own: made from the application's pool options, kept warm, never pinged.
//!
//! A connection goes back only after an answer that proves it healthy. A caller that is dropped in the
//! middle closes it, and the server rolls back; so no future here has to be polled to its end for safety.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::sql::Sql;
use crate::error::{Error, ErrorKind};
use crate::id::OwnerId;
use crate::probe::probe;

/// The longest wait for an answer. Longer than `statement_timeout`, so that the server speaks first.
const ANSWER_WITHIN: Duration = Duration::from_secs(35);

/// Oldest server that is supported, as `server_version_num`.
const SERVER_MIN: i32 = 140_000;

/// How a link's commits treat the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Commits {
    /// An answer means that it is on disk.
    Flushed,
    /// For claims and other writes that may be lost: WAL is prefix-durable, so a later flushed write of
    /// the same workflow makes them durable too.
    Asynchronous,
    /// The application's own settings, for transactional steps.
    AsTheApplication,
}

/// A worker as its connections know it.
#[derive(Clone)]
pub(crate) struct Tenant {
    /// `None` for the lease's own connection, which has to learn of a fence by its heartbeat, and writes nothing else.
    pub(crate) owner: Option<OwnerId>,
    /// The server that its memory belongs to.
    pub(crate) server: Arc<str>,
}

/// A few connections for one purpose, opened when first needed.
pub(crate) struct Links {
    /// What they are for, as `pg_stat_activity` shows it.
    purpose: &'static str,
    pub(crate) sql: Arc<Sql>,
    factory: PgPool,
    commits: Commits,
    /// Whose they are: a worker's, once it has a lease to lose.
    tenant: Option<Tenant>,
    idle: Mutex<Vec<PgConnection>>,
    permits: Arc<Semaphore>,
    most: u32,
}

impl Links {
    pub(crate) fn new(
        purpose: &'static str,
        factory: PgPool,
        sql: Arc<Sql>,
        commits: Commits,
        most: usize,
        tenant: Option<Tenant>,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(most));
        Self {
            purpose,
            sql,
            factory,
            commits,
            tenant,
            idle: Mutex::default(),
            permits,
            most: u32::try_from(most).unwrap_or(u32::MAX),
        }
    }

    /// The identity of the server that these connections have to reach.
    pub(crate) fn expected(&self) -> Option<&Arc<str>> {
        self.tenant.as_ref().map(|tenant| &tenant.server)
    }

    /// Wait until none of them is in use, and let nobody use one while this is held.
    pub(crate) async fn quiet(&self) -> OwnedSemaphorePermit {
        self.permits.clone().acquire_many_owned(self.most).await.expect("the permits are never closed")
    }

    /// An idle connection, or a new one.
    pub(crate) async fn take(&self, act: &str) -> Result<Link<'_>, Error> {
        let permit = self.permits.clone().acquire_owned().await.expect("the permits are never closed");
        let warm = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match warm {
            Some(connection) => connection,
            // Boxed, because it is large and rare: every future that may come here would carry the room for it about.
            None => Box::pin(self.connect(act)).await?,
        };
        probe!("before a call", act);
        Ok(Link { links: self, connection, _permit: permit })
    }

    async fn connect(&self, act: &str) -> Result<PgConnection, Error> {
        let opened = tokio::time::timeout(ANSWER_WITHIN, async {
            let mut connection = self.factory.acquire().await?.detach();
            let owner = self.tenant.as_ref().and_then(|tenant| tenant.owner);
            let settings = session_settings(self.commits, self.purpose, owner);
            sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut connection).await?;
            let problem = match &self.tenant {
                Some(tenant) => self.refused(&mut connection, tenant).await?,
                None => None,
            };
            Ok((connection, problem))
        });
        let (connection, problem) =
            opened.await.map_err(|_| Error::no_answer(act, ANSWER_WITHIN))?.map_err(|e| Error::database(act, &e))?;
        match problem {
            Some(problem) => Err(Error::new(ErrorKind::Unavailable, format!("could not {act}: {problem}"))),
            None => Ok(connection),
        }
    }

    /// Why a worker may not use this connection.
    async fn refused(
        &self,
        connection: &mut PgConnection,
        tenant: &Tenant,
    ) -> Result<Option<&'static str>, sqlx::Error> {
        if *tenant.server != *server(connection, &self.sql).await?.identity {
            return Ok(Some("another server was promoted"));
        }
        // Asked once the connection bears the worker's name: who fences it ends the sessions that bear it, and one that does
        // not yet finds the fence here. So none is left that can write.
        match tenant.owner {
            Some(owner) if super::lease::fenced(connection, &self.sql, owner).await? => {
                Ok(Some("this worker was fenced"))
            }
            Some(_) | None => Ok(None),
        }
    }
}

/// One connection in use.
pub(crate) struct Link<'l> {
    links: &'l Links,
    connection: PgConnection,
    _permit: OwnedSemaphorePermit,
}

impl Link<'_> {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Give the connection back, if the answer proves that it is healthy, and name the act in the error.
    pub(crate) fn keep<T>(
        self,
        act: &str,
        answer: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, Error> {
        match answer {
            Ok(Ok(value)) => {
                self.give_back();
                Ok(value)
            }
            Ok(Err(error)) => {
                // An idle connection whose server went away, and one that a failover demoted, must go.
                if error.as_database_error().is_some() && !crate::error::is_transient(&error) {
                    self.give_back();
                }
                Err(Error::database(act, &error))
            }
            Err(_) => Err(Error::no_answer(act, ANSWER_WITHIN)),
        }
    }

    pub(crate) fn give_back(self) {
        self.links.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.connection);
    }
}

/// Wait for an answer, but not for ever: sqlx sets no keepalive, a half-open connection is silent.
pub(crate) async fn answer<T>(
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed> {
    tokio::time::timeout(ANSWER_WITHIN, call).await
}

/// One call on a link: take a connection, run the statement within the deadline, give the connection back.
macro_rules! call {
    ($links:expr, $act:expr, $connection:ident => $statement:expr) => {{
        let act: &str = $act;
        match $links.take(act).await {
            Ok(mut link) => {
                let $connection = link.connection();
                let answer = $crate::store::link::answer($statement).await;
                $crate::probe::probe!("after a call", act);
                link.keep(act, answer)
            }
            Err(error) => Err(error),
        }
    }};
}
pub(crate) use call;

/// One call that somebody waits for, again and again until it is answered, or for about half a minute: for a statement that may be
/// sent twice.
macro_rules! call_patiently {
    ($links:expr, $act:expr, $connection:ident => $statement:expr) => {
        $crate::store::link::call_repeatedly!($links, $act, $connection => $statement).0
    };
}
pub(crate) use call_patiently;

/// The same, and whether it was sent more than once: then what it finds done may have been done by itself.
macro_rules! call_repeatedly {
    ($links:expr, $act:expr, $connection:ident => $statement:expr) => {{
        let (mut backoff, mut repeated) = ($crate::store::link::Backoff::for_callers(), false);
        loop {
            match $crate::store::link::call!($links, $act, $connection => $statement) {
                Err(error) if backoff.again(&error).await => repeated = true,
                answer => break (answer, repeated),
            }
        }
    }};
}
pub(crate) use call_repeatedly;

/// Bounded patience with a database that cannot just now: exponential delays with full jitter.
pub(crate) struct Backoff {
    tries: u32,
    most: u32,
}

impl Backoff {
    /// For calls that somebody waits for: about half a minute.
    pub(crate) fn for_callers() -> Self {
        Self { tries: 0, most: 12 }
    }

    /// For the engine's own work, which ends by losing the lease, not by counting.
    pub(crate) fn for_worker() -> Self {
        Self { tries: 0, most: u32::MAX }
    }

    /// Whether to try again; after the delay, if so.
    pub(crate) async fn again(&mut self, error: &Error) -> bool {
        if !error.is_transient() || self.tries >= self.most {
            return false;
        }
        let ceiling = 20.0 * f64::from(1 << self.tries.min(8));
        self.tries += 1;
        tokio::time::sleep(Duration::from_secs_f64(ceiling.min(5_000.0) * fastrand::f64() / 1_000.0)).await;
        true
    }
}

/// A pool that only makes connections: with the application's hooks and options, without its pings.
pub(crate) fn factory(pool: &PgPool) -> PgPool {
    let options: PgConnectOptions = (*pool.connect_options()).clone();
    let pool_options: PgPoolOptions = pool.options().clone();
    pool_options
        .test_before_acquire(false)
        .min_connections(0)
        // Connections are detached at once, so this bounds how many are being opened at a time.
        .max_connections(8)
        .connect_lazy_with(options)
}

/// Every statement of the engine looks rows up by a key. A plan that was made for a table that is new, or known to be
/// nearly empty, would read it from end to end, and be kept while the table grows a thousandfold; so the ways to read one
/// that way are closed, and each statement is planned once.
///
/// One way has no switch: to walk the whole key in its order, which the planner thinks of where that order could serve a
/// merge or a sort. So a table that is updated for rows of another is joined by `bucket = any (array[..])`, which an index
/// can use and a merge cannot, and what is locked in key order is sorted by `bucket + 0`.
const PLANS: &str = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                     set enable_hashjoin = off; set enable_mergejoin = off;";

fn session_settings(commits: Commits, purpose: &str, owner: Option<OwnerId>) -> String {
    // The server shall notice soon that its client is gone, also in the middle of a statement. Not every
    // platform can.
    let vigilance = "do $$ begin \
        set client_connection_check_interval = '2s'; set tcp_user_timeout = '15s'; \
        exception when others then null; end $$;";
    let commits = match commits {
        Commits::Flushed => "set synchronous_commit = on;",
        Commits::Asynchronous => "set synchronous_commit = off;",
        // Their name, search_path, time zone and time-outs are the application's.
        Commits::AsTheApplication => return vigilance.to_owned(),
    };
    let name = owner.map_or_else(|| purpose.to_owned(), |owner| format!("{purpose} {}", owner.session_name()));
    // The time-outs, not keepalives, free the rows that a half-open connection holds.
    format!(
        "set search_path = ''; set timezone = 'UTC'; set jit = off; {PLANS} {commits} \
         set idle_in_transaction_session_timeout = '10s'; set statement_timeout = '30s'; \
         set lock_timeout = '15s'; {vigilance} \
         select set_config('application_name', \
             concat_ws(' ', 'durable {name}', nullif(current_setting('application_name'), '')), false);"
    )
}

/// What a server says of itself.
pub(crate) struct Server {
    version: i32,
    standby: bool,
    pub(crate) identity: Arc<str>,
}

impl Server {
    /// Refuse what the library cannot work with.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let schema = |problem: String| Err(Error::new(ErrorKind::Schema, problem));
        if self.version < SERVER_MIN {
            return schema(format!(
                "the server is PostgreSQL {}, durable needs 14 or later: upgrade it, or point at another server",
                self.version / 10_000
            ));
        }
        if self.standby {
            return schema("the server is a standby, which cannot be written to: point at the primary".to_owned());
        }
        Ok(())
    }
}

/// See `server.sql`.
pub(crate) async fn server(connection: &mut PgConnection, sql: &Sql) -> Result<Server, sqlx::Error> {
    use sqlx::Row;
    let row = super::query(&sql.server).fetch_one(connection).await?;
    Ok(Server {
        version: row.try_get("version")?,
        standby: row.try_get("standby")?,
        identity: row.try_get::<String, _>("identity")?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_serve_is_refused_with_the_fix() {
        let server = |version, standby| Server { version, standby, identity: "1/00000001".into() };
        assert!(server(140_000, false).check().is_ok());
        assert!(server(190_001, false).check().is_ok());
        let old = server(130_014, false).check().unwrap_err();
        assert_eq!(old.kind(), ErrorKind::Schema);
        assert!(old.to_string().contains("PostgreSQL 13, durable needs 14"), "{old}");
        let standby = server(160_000, true).check().unwrap_err();
        assert!(standby.to_string().contains("point at the primary"), "{standby}");
    }

    #[tokio::test]
    async fn patience_ends_for_callers_and_at_once_for_what_will_not_change() {
        let mut backoff = Backoff { tries: 12, most: 12 };
        assert!(!backoff.again(&Error::no_answer("x", ANSWER_WITHIN)).await);
        let mut backoff = Backoff::for_worker();
        assert!(!backoff.again(&Error::new(ErrorKind::Database, "x")).await);
        assert!(backoff.again(&Error::no_answer("x", ANSWER_WITHIN)).await);
    }
}
