//! Leads, drafts and mails: the words of the application and all of its SQL.
//!
//! Every function takes a connection, so that a caller decides in whose transaction it happens.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::agent::{Decision, Outcome};

/// Longest text that a field of a lead may have, in characters.
const FIELD_MAX: usize = 300;

/// A lead as it comes in, before it has an id.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NewLead {
    pub(crate) company: String,
    pub(crate) contact: String,
    pub(crate) email: String,
    pub(crate) website: String,
    #[serde(default)]
    pub(crate) note: String,
}

/// A stored lead.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lead {
    pub(crate) id: i64,
    pub(crate) company: String,
    pub(crate) contact: String,
    pub(crate) email: String,
    pub(crate) website: String,
    pub(crate) note: String,
}

/// A mail to a lead, sent or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mail {
    pub(crate) subject: String,
    pub(crate) body: String,
}

impl Mail {
    /// The mail itself and then its follow-ups, in the order in which they go out.
    pub(crate) fn with_follow_ups(self, follow_ups: usize) -> Vec<Mail> {
        let reminder = Mail {
            subject: format!("Re: {}", self.subject),
            body: "Did you get a chance to look at my mail below?".to_owned()
                + "\n\n> "
                + &self.body.replace('\n', "\n> "),
        };
        std::iter::once(self).chain(std::iter::repeat_n(reminder, follow_ups)).collect()
    }
}

impl NewLead {
    /// What is wrong with it, if anything; one sentence for the person who sent it.
    pub(crate) fn problem(&self) -> Option<String> {
        let fields = [
            ("company", &self.company),
            ("contact", &self.contact),
            ("email", &self.email),
            ("website", &self.website),
            ("note", &self.note),
        ];
        for (name, value) in fields {
            if value.trim().is_empty() && name != "note" {
                return Some(format!("{name} is empty"));
            }
            if value.chars().count() > FIELD_MAX {
                return Some(format!("{name} is longer than {FIELD_MAX} characters"));
            }
            if value.chars().any(char::is_control) {
                return Some(format!("{name} contains a control character"));
            }
        }
        if !looks_like_email(&self.email) {
            return Some(format!("\"{}\" is not an email address", self.email));
        }
        if !looks_like_host(&self.website) {
            return Some(format!("\"{}\" is not the name of a website, such as acme.example", self.website));
        }
        None
    }
}

fn looks_like_email(text: &str) -> bool {
    let Some((name, host)) = text.split_once('@') else {
        return false;
    };
    !name.is_empty() && !name.contains(char::is_whitespace) && looks_like_host(host)
}

fn looks_like_host(text: &str) -> bool {
    let label = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    text.contains('.') && text.split('.').all(label)
}

/// Stores leads in one statement; their ids, in no particular order.
pub(crate) async fn insert(conn: &mut PgConnection, leads: &[NewLead]) -> Result<Vec<i64>> {
    let column =
        |field: fn(&NewLead) -> &String| leads.iter().map(|lead| field(lead).trim().to_owned()).collect::<Vec<_>>();
    sqlx::query_scalar(
        "insert into lead (company, contact, email, website, note)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
         returning id",
    )
    .bind(column(|lead| &lead.company))
    .bind(column(|lead| &lead.contact))
    .bind(column(|lead| &lead.email))
    .bind(column(|lead| &lead.website))
    .bind(column(|lead| &lead.note))
    .fetch_all(conn)
    .await
    .context("could not store the leads")
}

pub(crate) async fn find(conn: &mut PgConnection, id: i64) -> Result<Lead> {
    let (company, contact, email, website, note) =
        sqlx::query_as("select company, contact, email, website, note from lead where id = $1")
            .bind(id)
            .fetch_one(conn)
            .await
            .with_context(|| format!("could not load lead {id}"))?;
    Ok(Lead { id, company, contact, email, website, note })
}

pub(crate) async fn insert_draft(conn: &mut PgConnection, lead: i64, draft: &Mail) -> Result<i64> {
    sqlx::query_scalar("insert into draft (lead_id, subject, body) values ($1, $2, $3) returning id")
        .bind(lead)
        .bind(&draft.subject)
        .bind(&draft.body)
        .fetch_one(conn)
        .await
        .with_context(|| format!("could not save the draft for lead {lead}"))
}

/// Writes a person's decision on a draft. The lead it is for, or `None` if there is no such draft
/// or somebody was quicker.
pub(crate) async fn decide(conn: &mut PgConnection, draft: i64, decision: &Decision) -> Result<Option<i64>> {
    let (word, edited) = match decision {
        Decision::Approve => ("approved", None),
        Decision::Edit(mail) => ("edited", Some(mail)),
        Decision::Reject => ("rejected", None),
    };
    sqlx::query_scalar(
        "update draft set decision = $2, decided_at = now(),
                          subject = coalesce($3, subject), body = coalesce($4, body)
         where id = $1 and decision is null
         returning lead_id",
    )
    .bind(draft)
    .bind(word)
    .bind(edited.map(|mail| &mail.subject))
    .bind(edited.map(|mail| &mail.body))
    .fetch_optional(conn)
    .await
    .with_context(|| format!("could not decide draft {draft}"))
}

pub(crate) async fn insert_mail(conn: &mut PgConnection, lead: i64, mail: &Mail, message_id: &str) -> Result<()> {
    sqlx::query("insert into mail (lead_id, message_id, subject) values ($1, $2, $3)")
        .bind(lead)
        .bind(message_id)
        .bind(&mail.subject)
        .execute(conn)
        .await
        .with_context(|| format!("could not record the mail to lead {lead}"))?;
    Ok(())
}

/// Notes that a lead opened or clicked something. Mail services report an event more than once.
pub(crate) async fn insert_engagement(conn: &mut PgConnection, lead: i64, event: &str) -> Result<()> {
    sqlx::query("insert into engagement (lead_id, event) select id, $2 from lead where id = $1 on conflict do nothing")
        .bind(lead)
        .bind(event)
        .execute(conn)
        .await
        .with_context(|| format!("could not note that lead {lead} engaged"))?;
    Ok(())
}

pub(crate) async fn has_engaged(conn: &mut PgConnection, lead: i64) -> Result<bool> {
    sqlx::query_scalar("select exists (select from engagement where lead_id = $1)")
        .bind(lead)
        .fetch_one(conn)
        .await
        .with_context(|| format!("could not see whether lead {lead} engaged"))
}

/// Records how it ended; `None` says that the agent could not go on.
pub(crate) async fn set_outcome(conn: &mut PgConnection, lead: i64, outcome: Option<Outcome>) -> Result<()> {
    let word = match outcome {
        Some(Outcome::Engaged) => "engaged",
        Some(Outcome::NoAnswer) => "no answer",
        Some(Outcome::Rejected) => "rejected",
        Some(Outcome::Expired) => "expired",
        None => "failed",
    };
    sqlx::query("update lead set outcome = $2, outcome_at = now() where id = $1")
        .bind(lead)
        .bind(word)
        .execute(conn)
        .await
        .with_context(|| format!("could not record the outcome of lead {lead}"))?;
    Ok(())
}
