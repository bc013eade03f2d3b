//! The agent: what happens to one lead, from research to outcome, over days.
//!
//! The workflow is at the top and reads from there down; each step does one thing and leaves the
//! how to a neighbour: `research`, `model` and `mail` speak HTTP, `leads` speaks SQL.

use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, PgConnection, StepCtx, Topic, days, step, workflow};
use serde::{Deserialize, Serialize};

use crate::{
    journal::note,
    leads::{self, Lead, Mail},
    mail::{Mailer, Receipt},
    model::{self, Model},
    research::{Finding, Reader, Source},
};

/// What a person says about a draft.
pub(crate) const DECISION: Topic<Decision> = Topic::new("decision");

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Decision {
    Approve,
    Edit(Mail),
    Reject,
}

/// How it ended with a lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Engaged,
    NoAnswer,
    Rejected,
    Expired,
}

/// How patient the agent is. Given to the worker as state, read by a step.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    pub(crate) follow_up_after: Duration,
    pub(crate) follow_ups: usize,
}

/// The id of the workflow of a lead. One lead, one workflow.
pub(crate) fn workflow_id(lead: i64) -> String {
    format!("lead-{lead}")
}

#[workflow]
pub(crate) async fn sales_agent(ctx: &Ctx, lead: i64) -> Result<Outcome> {
    let lead = ctx.run(load_lead(lead)).await?;
    let outcome = pursue(ctx, &lead).await;
    ctx.run(record_outcome(lead.id, outcome.as_ref().ok().copied())).await?;
    outcome
}

async fn pursue(ctx: &Ctx, lead: &Lead) -> Result<Outcome> {
    let findings = ctx.fan_out(Source::of(lead), 3, async |ctx: &Ctx, source| ctx.run(research(source)).await).await;
    // A site that is down costs the mail a sentence, not the lead.
    let findings: Vec<Finding> = findings.into_iter().flatten().collect();

    let draft = ctx.run(write_mail(lead.clone(), findings)).await?;
    ctx.run(save_draft(lead.id, draft.clone())).await?;

    let approved = match ctx.receive(DECISION).timeout(days(7)).await? {
        Some(Decision::Approve) => draft,
        Some(Decision::Edit(edited)) => edited,
        Some(Decision::Reject) => return Ok(Outcome::Rejected),
        None => return Ok(Outcome::Expired),
    };

    let pace = ctx.run(current_pace()).await?;
    for mail in approved.with_follow_ups(pace.follow_ups) {
        let receipt = ctx.run(send_mail(lead.clone(), mail.clone())).await?;
        ctx.run(record_mail(lead.id, mail, receipt)).await?;
        ctx.sleep(pace.follow_up_after).await?;
        if ctx.run(has_engaged(lead.id)).await? {
            return Ok(Outcome::Engaged);
        }
    }
    Ok(Outcome::NoAnswer)
}

// Steps that talk to the world: they may be tried again.

#[step(retry(max_attempts = 6, first = "200ms", factor = 2.0, max = "1m"), timeout = "30s")]
async fn research(step: &StepCtx, source: Source) -> Result<Finding> {
    note(step).await?;
    step.state::<Reader>().read(&source).await
}

#[step(retry(max_attempts = 6, first = "500ms", factor = 2.0, max = "1m"), timeout = "90s")]
async fn write_mail(step: &StepCtx, lead: Lead, findings: Vec<Finding>) -> Result<Mail> {
    note(step).await?;
    model::write_mail(step.state::<Model>(), &lead, &findings).await
}

#[step(retry(max_attempts = 8, first = "200ms", factor = 2.0, max = "5m"), timeout = "30s")]
async fn send_mail(step: &StepCtx, lead: Lead, mail: Mail) -> Result<Receipt> {
    note(step).await?;
    // The same key on every attempt, in whichever process: the mail service sends it once.
    step.state::<Mailer>().send(&lead, &mail, step.key()).await
}

/// A step, although it only reads memory: its answer is recorded, so a lead keeps the pace it
/// began with when the setting changes in a later deploy.
#[step]
async fn current_pace(step: &StepCtx) -> Result<Pace> {
    note(step).await?;
    Ok(*step.state::<Pace>())
}

// Steps of the database: what they write commits together with the fact that they are done.

#[step(tx)]
async fn load_lead(tx: &mut PgConnection, step: &StepCtx, lead: i64) -> Result<Lead> {
    note(step).await?;
    leads::find(tx, lead).await
}

#[step(tx)]
async fn save_draft(tx: &mut PgConnection, step: &StepCtx, lead: i64, draft: Mail) -> Result<i64> {
    note(step).await?;
    leads::insert_draft(tx, lead, &draft).await
}

#[step(tx)]
async fn record_mail(tx: &mut PgConnection, step: &StepCtx, lead: i64, mail: Mail, receipt: Receipt) -> Result<()> {
    note(step).await?;
    leads::insert_mail(tx, lead, &mail, &receipt.message_id).await
}

#[step(tx)]
async fn has_engaged(tx: &mut PgConnection, step: &StepCtx, lead: i64) -> Result<bool> {
    note(step).await?;
    leads::has_engaged(tx, lead).await
}

#[step(tx)]
async fn record_outcome(tx: &mut PgConnection, step: &StepCtx, lead: i64, outcome: Option<Outcome>) -> Result<()> {
    note(step).await?;
    leads::set_outcome(tx, lead, outcome).await
}
