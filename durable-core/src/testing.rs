//! The kit for tests of workflows: a database each, a clock that is moved, crashes at every point, bodies replaced.
//! Behind the feature `testing`; never in a production build.
//!
//! [`TestDatabase`] is what most tests need, [`every_crash`] runs a workflow once for each of its crash points, and
//! [`Builder::mock`](crate::Builder::mock) replaces the body of a step. The rest is what these stand on, for tests of the
//! library itself: processes that die at their n-th crash point, the clock of any schema, committers that are wrong.
#![doc = ""]
#![doc = include_str!("../docs/testing.md")]

mod crash;
mod database;
mod mocking;
mod world;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;

use crate::error::Error;
use crate::options::millis;
use crate::probe;
use crate::sabotage;
pub use crate::sabotage::Sabotage;
use crate::store::clock;
use crate::store::link::{Commits, Links, call, factory};
use crate::store::sql::Sql;
pub use crash::{CrashReport, Violation, every_crash};
pub use database::TestDatabase;
pub use mocking::StepFn;

/// The whole schema as one SQL script, with its own record of it: for a template database, from which each
/// test gets a copy that needs no migration.
pub fn schema_script() -> String {
    crate::store::migrate::script()
}

/// Let this process die, without a destructor or a flush, at its `n`-th crash point from now; 0 for never.
pub fn crash_at(n: u64) {
    probe::crash_at(n);
}

/// How many crash points this process has passed.
pub fn crash_points_passed() -> u64 {
    probe::passed()
}

/// Let every committer of this process be wrong from now on, or right again.
pub fn sabotage(how: Option<Sabotage>) {
    sabotage::sabotage(how);
}

/// The database's clock in the hands of a test.
#[derive(Debug)]
pub struct Clock {
    pool: PgPool,
    schema: String,
}

impl Clock {
    /// Take over the clock of a schema. Until it is moved it shows the server's time.
    ///
    /// # Errors
    ///
    /// Database kinds; the schema has to be there.
    pub async fn install(pool: &PgPool, schema: &str) -> Result<Self, Error> {
        let clock = Self { pool: pool.clone(), schema: schema.to_owned() };
        let links = clock.links()?;
        call!(links, "install the test clock", connection => clock::install(connection, &links.sql))?;
        Ok(clock)
    }

    /// Move the time forward, for every connection at once. A lease is not renewed meanwhile: one that ends before the
    /// new time is over. [`TestDatabase::advance`] moves the time as it passes where workers live.
    ///
    /// # Errors
    ///
    /// Database kinds.
    pub async fn advance(&self, by: Duration) -> Result<(), Error> {
        let links = self.links()?;
        call!(links, "move the test clock", connection => clock::advance(connection, &links.sql, millis(by)))?;
        crate::clock::Moves::tell(self.pool.connect_options().get_database());
        Ok(())
    }

    fn links(&self) -> Result<Links, Error> {
        let sql = Arc::new(Sql::new(&self.schema)?);
        Ok(Links::new("testing", factory(&self.pool), sql, Commits::Flushed, 1, None))
    }
}
