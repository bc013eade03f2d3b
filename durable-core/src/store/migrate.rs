//! The schema: bringing a database up to date, and refusing one that is not.

use sqlx::{Connection, PgConnection, Row};

use super::link::server;
use super::query;
use super::sql::{Sql, in_schema};
use crate::error::{Error, ErrorKind};

struct Migration {
    version: i32,
    name: &'static str,
    text: &'static str,
}

/// All of them, in order. An applied one never changes.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "durable", text: include_str!("../../migrations/0001_durable.sql") },
    Migration { version: 2, name: "from_sql", text: include_str!("../../migrations/0002_from_sql.sql") },
    Migration { version: 3, name: "fork", text: include_str!("../../migrations/0003_fork.sql") },
    Migration { version: 4, name: "listing", text: include_str!("../../migrations/0004_listing.sql") },
    Migration { version: 5, name: "child", text: include_str!("../../migrations/0005_child.sql") },
    Migration { version: 6, name: "event", text: include_str!("../../migrations/0006_event.sql") },
    Migration { version: 7, name: "operate", text: include_str!("../../migrations/0007_operate.sql") },
    Migration { version: 8, name: "change", text: include_str!("../../migrations/0008_change.sql") },
    Migration { version: 9, name: "cut_off", text: include_str!("../../migrations/0009_cut_off.sql") },
    Migration { version: 10, name: "stream", text: include_str!("../../migrations/0010_stream.sql") },
    Migration { version: 11, name: "queue", text: include_str!("../../migrations/0011_queue.sql") },
    Migration { version: 12, name: "schedule", text: include_str!("../../migrations/0012_schedule.sql") },
    Migration { version: 13, name: "deadline", text: include_str!("../../migrations/0013_deadline.sql") },
    Migration { version: 14, name: "start_key", text: include_str!("../../migrations/0014_start_key.sql") },
    Migration { version: 15, name: "subscription", text: include_str!("../../migrations/0015_subscription.sql") },
    Migration { version: 16, name: "step_limit", text: include_str!("../../migrations/0016_step_limit.sql") },
    Migration { version: 17, name: "observe", text: include_str!("../../migrations/0017_observe.sql") },
    Migration { version: 18, name: "queue_claim", text: include_str!("../../migrations/0018_queue_claim.sql") },
    Migration { version: 19, name: "declared_limits", text: include_str!("../../migrations/0019_declared_limits.sql") },
];

const ACT: &str = "migrate the database";

/// The first difference between a database's schema and this version's.
enum State {
    UpToDate,
    Missing,
    Behind(i32),
}

/// Bring the schema up to date: all of it in one transaction, one migrator at a time.
pub(crate) async fn migrate(connection: &mut PgConnection, sql: &Sql) -> Result<(), Error> {
    let named = |e: sqlx::Error| Error::database(ACT, &e);
    server(connection, sql).await.map_err(named)?.check()?;
    // The usual case asks two questions and takes no lock.
    if let State::UpToDate = state(connection, sql).await.map_err(named)? {
        return Ok(());
    }
    apply_missing(connection, sql).await.map_err(named)
}

async fn apply_missing(connection: &mut PgConnection, sql: &Sql) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    query(&sql.migrate_lock).bind(&sql.schema).execute(&mut *tx).await?;
    sqlx::raw_sql(sql.migrations.clone()).execute(&mut *tx).await?;
    let applied = applied(&mut tx, sql).await?;
    for migration in MIGRATIONS.iter().filter(|m| !applied.contains(&m.version)) {
        sqlx::raw_sql(in_schema(migration.text, &sql.schema)).execute(&mut *tx).await?;
        query(&sql.apply).bind(migration.version).bind(migration.name).execute(&mut *tx).await?;
    }
    tx.commit().await
}

/// Refuse a database whose schema is missing or behind, and a server that cannot serve.
pub(crate) async fn check(connection: &mut PgConnection, sql: &Sql) -> Result<(), Error> {
    let named = |e: sqlx::Error| Error::database("look at the schema", &e);
    server(connection, sql).await.map_err(named)?.check()?;
    let schema = &sql.schema;
    let how = format!("run `durable::migrate(&pool, {schema:?}).await` once, or build with `.migrate(true)`");
    match state(connection, sql).await.map_err(named)? {
        State::UpToDate => Ok(()),
        State::Missing => {
            Err(Error::new(ErrorKind::Schema, format!("the database has no schema {schema:?} of durable: {how}")))
        }
        State::Behind(version) => Err(Error::new(
            ErrorKind::Schema,
            format!("the schema {schema:?} lacks migration {version} of durable: {how}"),
        )),
    }
}

async fn state(connection: &mut PgConnection, sql: &Sql) -> Result<State, sqlx::Error> {
    let present: bool = query(&sql.migrated).fetch_one(&mut *connection).await?.try_get("present")?;
    if !present {
        return Ok(State::Missing);
    }
    let applied = applied(connection, sql).await?;
    // A newer schema than ours is fine: neighbouring versions run side by side during a roll-out.
    Ok(match MIGRATIONS.iter().find(|m| !applied.contains(&m.version)) {
        Some(missing) => State::Behind(missing.version),
        None => State::UpToDate,
    })
}

async fn applied(connection: &mut PgConnection, sql: &Sql) -> Result<Vec<i32>, sqlx::Error> {
    query(&sql.applied).fetch_all(connection).await?.iter().map(|row| row.try_get("version")).collect()
}

/// All of it as one script, for the default schema.
#[cfg(feature = "testing")]
pub(crate) fn script() -> String {
    let mut script = include_str!("sql/migrations.sql").to_owned();
    for Migration { version, name, text } in MIGRATIONS {
        // Names are our own words, without quotes.
        script.push_str(&format!(
            ";\n{text};\ninsert into durable.migration (version, name) values ({version}, '{name}')"
        ));
    }
    script
}
