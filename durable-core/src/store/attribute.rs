//! Attributes of one workflow. Finding workflows by them is `list`, giving them at a start is `start`.

use std::sync::Arc;

use serde::Serialize;
use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::attribute::{Attribute, AttributeValue, StoredAttribute};
use crate::id::Id;

/// The library's statements, where only the application's state is at hand: in a step of its own.
pub(crate) struct Statements(pub(crate) Arc<Sql>);

/// Set an attribute, unless the workflow has `most` others. Whether it did.
pub(crate) async fn set_attribute(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
    attribute: &StoredAttribute,
    most: i64,
) -> Result<bool, sqlx::Error> {
    let row = query(&sql.set_attribute)
        .bind(id.bucket())
        .bind(id.as_str())
        .bind(&attribute.name)
        .bind(&attribute.value)
        .bind(&attribute.sort)
        .bind(most)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// The attributes of a workflow.
pub(crate) async fn attributes(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
) -> Result<Vec<Attribute>, sqlx::Error> {
    let rows = query(&sql.attributes).bind(id.bucket()).bind(id.as_str()).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let value = AttributeValue::read(row.try_get("sort")?);
            let unknown = || sqlx::Error::Decode("an attribute of an unknown kind: written by a newer version".into());
            Ok(Attribute {
                name: row.try_get("name")?,
                value: value.ok_or_else(unknown)?,
                by_body: row.try_get("by_body")?,
            })
        })
        .collect()
}

/// An attribute in the form that functions of the database read.
#[derive(Serialize)]
struct AttributeRow<'a> {
    name: &'a str,
    value: Option<&'a serde_json::value::RawValue>,
    sort: &'a str,
}

/// Attributes for a function that starts a workflow with them.
pub(crate) fn as_json<'a>(attributes: impl Iterator<Item = &'a StoredAttribute>) -> Result<String, sqlx::Error> {
    let rows: Vec<_> = attributes
        .map(|a| AttributeRow { name: &a.name, value: serde_json::from_str(&a.value).ok(), sort: &a.sort })
        .collect();
    serde_json::to_string(&rows).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}
