//! What is measured of the library. The limits beside it are in `limits` and `bare`.

pub(crate) mod closed;
pub(crate) mod cost;
pub(crate) mod curves;
pub(crate) mod limited;
pub(crate) mod lines;
pub(crate) mod processes;
pub(crate) mod profile;
pub(crate) mod queue;
pub(crate) mod sleepers;
pub(crate) mod takeover;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sqlx::PgPool;

/// What takes longer than this has gone wrong.
const PATIENCE: Duration = Duration::from_secs(300);

/// Wait until a question to the database is answered with true.
async fn until(pool: &PgPool, sql: &'static str, expected: i64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !sqlx::query_scalar::<_, bool>(sql).bind(expected).fetch_one(pool).await? {
        if Instant::now() > deadline {
            bail!("still false after {PATIENCE:?}, with $1 = {expected}: {sql}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
