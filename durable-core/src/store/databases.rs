//! Databases of tests on the user's server: made, copied, dropped, and swept when their test was killed.
//!
//! A name says when its database was made: `durable_kit_<seconds>_<number>`.

use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Dropped in one sweep, so that the first test does not wait for last night's thousand.
const SWEEP_MAX: i64 = 64;

/// What nobody uses any more after this time was left by a test that was killed, or by one that failed.
const KEPT_SECONDS: i64 = 3_600;

/// Make a database: empty, or a copy of `from`, in which nobody may have a session. Answers its name.
pub(crate) async fn create(connection: &mut PgConnection, from: Option<&str>) -> Result<String, sqlx::Error> {
    let now = "select extract(epoch from pg_catalog.now())::bigint as now";
    let now: i64 = sqlx::query(now).fetch_one(&mut *connection).await?.try_get("now")?;
    let name = format!("durable_kit_{now}_{:016x}", fastrand::u64(..));
    // Not template1: what somebody put there is not part of the test, and others may be connected to it.
    let from = from.unwrap_or("template0");
    let statement = format!("create database \"{name}\" template \"{from}\"");
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(name)
}

/// Drop one, whoever is still connected.
pub(crate) async fn drop_database(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let statement = format!("drop database if exists \"{name}\" with (force)");
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

/// Drop what tests of long ago left, as far as nobody is connected.
pub(crate) async fn sweep(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let old = "select datname::text as name from pg_catalog.pg_database
               where case when datname ~ '^durable_kit_[0-9]+_[0-9a-f]{16}$'
                     then split_part(datname, '_', 3)::bigint < extract(epoch from pg_catalog.now()) - $1 end
               order by datname limit $2";
    for row in sqlx::query(old).bind(KEPT_SECONDS).bind(SWEEP_MAX).fetch_all(&mut *connection).await? {
        let name: String = row.try_get("name")?;
        // Without force: somebody may be looking at it. Another sweep may have been quicker.
        drop(sqlx::query(AssertSqlSafe(format!("drop database if exists \"{name}\""))).execute(&mut *connection).await);
    }
    Ok(())
}
