//! What the pages show: the reading queries of the application.
//!
//! Queries that a step or a request writes with are in `leads`.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::leads::Mail;

/// Most leads that the list shows; a real application would page.
const LISTED_MAX: i64 = 500;

/// A line of the list of leads.
pub(crate) struct Overview {
    pub(crate) id: i64,
    pub(crate) company: String,
    pub(crate) contact: String,
    pub(crate) state: String,
    pub(crate) mails: i64,
    pub(crate) received_at: DateTime<Utc>,
}

/// Everything about one lead.
pub(crate) struct Dossier {
    pub(crate) overview: Overview,
    pub(crate) email: String,
    pub(crate) website: String,
    pub(crate) note: String,
    pub(crate) draft: Option<Draft>,
    pub(crate) mails: Vec<(String, DateTime<Utc>)>,
    pub(crate) journal: Vec<Started>,
}

pub(crate) struct Draft {
    pub(crate) id: i64,
    pub(crate) mail: Mail,
    pub(crate) decision: Option<String>,
}

/// One start of a step's body.
pub(crate) struct Started {
    pub(crate) step: String,
    pub(crate) attempt: i32,
    pub(crate) worker: i32,
    pub(crate) at: DateTime<Utc>,
}

/// How many leads there are in each state.
pub(crate) async fn states(conn: &mut PgConnection) -> Result<Vec<(String, i64)>> {
    sqlx::query_as("select state, count(*) from lead_overview group by state order by state")
        .fetch_all(conn)
        .await
        .context("could not count the leads")
}

/// The newest leads, or those in one state.
pub(crate) async fn list(conn: &mut PgConnection, state: Option<&str>) -> Result<Vec<Overview>> {
    let rows: Vec<(i64, String, String, String, i64, DateTime<Utc>)> = sqlx::query_as(
        "select id, company, contact, state,
                (select count(*) from mail where mail.lead_id = lead_overview.id), received_at
         from lead_overview where $1::text is null or state = $1 order by id desc limit $2",
    )
    .bind(state)
    .bind(LISTED_MAX)
    .fetch_all(conn)
    .await
    .context("could not list the leads")?;
    Ok(rows
        .into_iter()
        .map(|(id, company, contact, state, mails, received_at)| Overview {
            id,
            company,
            contact,
            state,
            mails,
            received_at,
        })
        .collect())
}

type LeadRow = (String, String, String, DateTime<Utc>, String, String, String);
type DraftRow = (i64, String, String, Option<String>);

/// One lead with its draft, its mails and its journal, if it exists.
pub(crate) async fn dossier(conn: &mut PgConnection, id: i64, workflow_id: &str) -> Result<Option<Dossier>> {
    let lead: Option<LeadRow> = sqlx::query_as(
        "select company, contact, state, received_at, email, website, note from lead_overview where id = $1",
    )
    .bind(id)
    .fetch_optional(&mut *conn)
    .await
    .with_context(|| format!("could not read lead {id}"))?;
    let Some((company, contact, state, received_at, email, website, note)) = lead else {
        return Ok(None);
    };

    let draft: Option<DraftRow> =
        sqlx::query_as("select id, subject, body, decision from draft where lead_id = $1 order by id limit 1")
            .bind(id)
            .fetch_optional(&mut *conn)
            .await?;
    let draft = draft.map(|(id, subject, body, decision)| Draft { id, mail: Mail { subject, body }, decision });
    let mails: Vec<(String, DateTime<Utc>)> =
        sqlx::query_as("select subject, sent_at from mail where lead_id = $1 order by id")
            .bind(id)
            .fetch_all(&mut *conn)
            .await?;
    let journal = journal(conn, workflow_id).await?;

    let count = i64::try_from(mails.len())?;
    let overview = Overview { id, company, contact, state, mails: count, received_at };
    Ok(Some(Dossier { overview, email, website, note, draft, mails, journal }))
}

async fn journal(conn: &mut PgConnection, workflow_id: &str) -> Result<Vec<Started>> {
    let rows: Vec<(String, i32, i32, DateTime<Utc>)> =
        sqlx::query_as("select step, attempt, worker, started_at from body_started where workflow_id = $1 order by id")
            .bind(workflow_id)
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|(step, attempt, worker, at)| Started { step, attempt, worker, at }).collect())
}
