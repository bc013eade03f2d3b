//! Subscriptions: their rows, and what a publication starts by them.

use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::info::SubscriptionInfo;

/// A subscription as it is written down.
pub(crate) struct Subscribed {
    pub(crate) event: String,
    pub(crate) workflow: &'static str,
    pub(crate) version: i32,
    pub(crate) queue: String,
    pub(crate) priority: i16,
    pub(crate) partition_by: Option<String>,
}

/// What a publication has come to.
pub(crate) struct SubscribersStarted {
    pub(crate) started: i32,
    pub(crate) existed: i32,
    /// Where those that were started are.
    pub(crate) queues: Vec<String>,
}

/// Write subscriptions down. `revive`: also those that were removed. Gives the events and workflows of those that stay removed.
pub(crate) async fn set_subscriptions(
    connection: &mut PgConnection,
    sql: &Sql,
    given: &[Subscribed],
    revive: bool,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = query(&sql.set_subscriptions)
        .bind(given.iter().map(|s| &*s.event).collect::<Vec<_>>())
        .bind(given.iter().map(|s| s.workflow).collect::<Vec<_>>())
        .bind(given.iter().map(|s| s.version).collect::<Vec<_>>())
        .bind(given.iter().map(|s| &*s.queue).collect::<Vec<_>>())
        .bind(given.iter().map(|s| s.priority).collect::<Vec<_>>())
        .bind(given.iter().map(|s| s.partition_by.as_deref()).collect::<Vec<_>>())
        .bind(revive)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("event")?, row.try_get("workflow")?))).collect()
}

/// Let an event start a workflow no more. Whether it did.
pub(crate) async fn unsubscribe(
    connection: &mut PgConnection,
    sql: &Sql,
    event: &str,
    workflow: &str,
) -> Result<bool, sqlx::Error> {
    query(&sql.unsubscribe).bind(event).bind(workflow).fetch_one(connection).await?.try_get("removed")
}

/// So many subscriptions at most.
pub(crate) async fn subscriptions(
    connection: &mut PgConnection,
    sql: &Sql,
    limit: i64,
) -> Result<Vec<SubscriptionInfo>, sqlx::Error> {
    let rows = query(&sql.subscriptions).bind(limit).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(SubscriptionInfo {
                event: row.try_get("event")?,
                workflow: row.try_get("workflow")?,
                version: row.try_get("version")?,
                queue: row.try_get("queue")?,
                priority: row.try_get("priority")?,
                partition_by: row.try_get("partition_by")?,
                changed_at: row.try_get("changed_at")?,
                is_removed: row.try_get("is_removed")?,
            })
        })
        .collect()
}

/// Start every workflow that is subscribed to an event. May be sent twice.
pub(crate) async fn start_subscribers(
    connection: &mut PgConnection,
    sql: &Sql,
    event: &str,
    value: &str,
    id: &str,
) -> Result<SubscribersStarted, sqlx::Error> {
    let row = query(&sql.start_subscribers).bind(event).bind(value).bind(id).fetch_one(connection).await?;
    Ok(SubscribersStarted {
        started: row.try_get("started")?,
        existed: row.try_get("existed")?,
        queues: row.try_get("queues")?,
    })
}
