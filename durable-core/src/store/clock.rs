//! The database's clock in the hands of a test: moved for every connection at once.

use sqlx::{AssertSqlSafe, PgConnection};

use super::sql::Sql;

/// Let the clock be moved. From now on it is the server's time plus an offset that starts at zero.
pub(crate) async fn install(connection: &mut PgConnection, sql: &Sql) -> Result<(), sqlx::Error> {
    let schema = format!("\"{}\"", sql.schema);
    sqlx::raw_sql(AssertSqlSafe(format!(
        "create table if not exists {schema}.test_clock (moved interval not null);
         insert into {schema}.test_clock
             select interval '0' where not exists (select from {schema}.test_clock);
         create or replace function {schema}.now() returns timestamptz language sql stable
             as 'select statement_timestamp() + (select moved from {schema}.test_clock)'"
    )))
    .execute(connection)
    .await?;
    Ok(())
}

/// Move it forward.
pub(crate) async fn advance(connection: &mut PgConnection, sql: &Sql, ms: i64) -> Result<(), sqlx::Error> {
    let statement = format!("update \"{}\".test_clock set moved = moved + $1 * interval '1 millisecond'", sql.schema);
    sqlx::query(AssertSqlSafe(statement)).bind(ms).execute(connection).await?;
    Ok(())
}

/// Move it forward, and let the leases that hold go on for as long as they would have.
pub(crate) async fn advance_with_leases(connection: &mut PgConnection, sql: &Sql, ms: i64) -> Result<(), sqlx::Error> {
    // Both see the time before the move: a statement does not see what it changes itself.
    let statement = format!(
        "with moved as (
             update \"{schema}\".test_clock set moved = moved + $1 * interval '1 millisecond'
         )
         update \"{schema}\".worker k set lease_until = k.lease_until + $1 * interval '1 millisecond'
         where k.fenced_at is null and k.lease_until > \"{schema}\".now()",
        schema = sql.schema
    );
    sqlx::query(AssertSqlSafe(statement)).bind(ms).execute(connection).await?;
    Ok(())
}
