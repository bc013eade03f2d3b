//! Where the application lives in PostgreSQL: its pool, its schema, its tables.
//!
//! Queries are in `leads`. The library creates its own tables in `Schemas::library`.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use sqlx::{
    AssertSqlSafe, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The two schemas of this example. Nothing outside of them is touched.
#[derive(Clone, Copy)]
pub(crate) struct Schemas {
    pub(crate) application: &'static str,
    pub(crate) library: &'static str,
}

/// Emptied at the start of each demonstration.
pub(crate) const DEMO: Schemas = Schemas { application: "sales_agent_demo", library: "sales_agent_demo_durable" };

/// Kept, so that a server that is stopped goes on where it was.
pub(crate) const SERVE: Schemas = Schemas { application: "sales_agent", library: "sales_agent_durable" };

/// A pool whose queries find the application's tables by their bare names.
pub(crate) async fn connect(url: &str, schemas: Schemas, connections: u32) -> Result<PgPool> {
    let options = PgConnectOptions::from_str(url)
        .context("the database address is not one")?
        .options([("search_path", schemas.application)]);
    PgPoolOptions::new()
        .max_connections(connections)
        .connect_with(options)
        .await
        .context("could not connect to the database")
}

/// Creates what is missing.
pub(crate) async fn create(conn: &mut PgConnection, schemas: Schemas) -> Result<()> {
    let schema = format!("create schema if not exists {}", schemas.application);
    sqlx::raw_sql(AssertSqlSafe(schema)).execute(&mut *conn).await?;
    sqlx::raw_sql(include_str!("schema.sql"))
        .execute(conn)
        .await
        .context("could not create the application's tables")?;
    Ok(())
}

/// Drops both schemas, and keeps other demonstrations out of them as long as `conn` is open.
pub(crate) async fn reset(conn: &mut PgConnection, schemas: Schemas) -> Result<()> {
    let alone: bool = sqlx::query_scalar("select pg_try_advisory_lock(hashtext($1))")
        .bind(schemas.application)
        .fetch_one(&mut *conn)
        .await?;
    if !alone {
        bail!("another demonstration is running in this database");
    }
    for schema in [schemas.application, schemas.library] {
        sqlx::raw_sql(AssertSqlSafe(format!("drop schema if exists {schema} cascade")))
            .execute(&mut *conn)
            .await
            .with_context(|| format!("could not drop schema {schema}"))?;
    }
    Ok(())
}
