//! What really happened, read from the tables, the journal and the mail service, and compared with
//! what was promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, PgPool};

use super::{Kill, PACE, Stage, person::EDITED_SUBJECT, person::Verdict};
use crate::{database::DEMO, internet::Delivery};

pub(super) struct Facts {
    pub(super) leads: Vec<LeadFacts>,
    pub(super) steps: StepFacts,
    pub(super) takeovers: Vec<Takeover>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) weather: BTreeMap<&'static str, u32>,
}

/// One lead in the application's tables.
pub(super) struct LeadFacts {
    pub(super) id: i64,
    pub(super) company: String,
    pub(super) outcome: String,
    pub(super) decision: String,
    pub(super) drafts: i64,
    pub(super) mails: i64,
    pub(super) bodies: i64,
    pub(super) recorded: i64,
}

/// All steps of all leads.
pub(super) struct StepFacts {
    pub(super) bodies: i64,
    pub(super) recorded: i64,
    pub(super) never_begun: i64,
    pub(super) after_kill: i64,
    pub(super) after_failure: i64,
    pub(super) arrivals: i64,
    pub(super) reread: i64,
    pub(super) repeated: i64,
}

/// What a kill cut off, and how long it took until somebody else went on with it.
pub(super) struct Takeover {
    pub(super) worker: i32,
    pub(super) cut_off: i64,
    pub(super) first: Option<Duration>,
    pub(super) last: Option<Duration>,
}

pub(super) async fn gather(stage: &Stage, kills: &[Kill]) -> Result<Facts> {
    let mut takeovers = Vec::new();
    for kill in kills {
        takeovers.push(takeover(&stage.pool, kill).await.context("could not read a takeover")?);
    }
    Ok(Facts {
        leads: leads(&stage.pool).await.context("could not read the leads")?,
        steps: steps(&stage.pool).await.context("could not read the steps")?,
        takeovers,
        deliveries: stage.internet.deliveries(),
        weather: stage.internet.counts(),
    })
}

type LeadRow = (i64, String, String, String, i64, i64, i64, i64);

async fn leads(pool: &PgPool) -> Result<Vec<LeadFacts>> {
    let sql = format!(
        "select lead.id, lead.company, coalesce(lead.outcome, ''), coalesce(lead.decision, ''),
                (select count(*) from draft where draft.lead_id = lead.id),
                (select count(*) from mail where mail.lead_id = lead.id),
                (select count(*) from body_started b where b.workflow_id = 'lead-' || lead.id),
                (select count(*) from {}.step s where s.workflow_id = 'lead-' || lead.id and s.kind in ('step', 'transaction'))
         from lead_overview lead order by lead.id",
        DEMO.library
    );
    let rows: Vec<LeadRow> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(pool).await?;
    let facts = |(id, company, outcome, decision, drafts, mails, bodies, recorded)| LeadFacts {
        id,
        company,
        outcome,
        decision,
        drafts,
        mails,
        bodies,
        recorded,
    };
    Ok(rows.into_iter().map(facts).collect())
}

async fn steps(pool: &PgPool) -> Result<StepFacts> {
    let sql = include_str!("steps.sql").replace("{library}", DEMO.library);
    let (bodies, recorded, never_begun, after_kill, after_failure, arrivals, reread, repeated) =
        sqlx::query_as(AssertSqlSafe(sql)).fetch_one(pool).await?;
    Ok(StepFacts { bodies, recorded, never_begun, after_kill, after_failure, arrivals, reread, repeated })
}

/// A step was cut off if the killed worker began it and a later one began it again.
async fn takeover(pool: &PgPool, kill: &Kill) -> Result<Takeover> {
    let (cut_off, first, last): (i64, Option<f64>, Option<f64>) = sqlx::query_as(
        "select count(*), min(after), max(after) from (
             select extract(epoch from min(later.started_at) - $2)::float8 as after
             from body_started mine join body_started later using (key)
             where mine.worker = $1 and later.worker > $1 and mine.started_at <= $2
             group by key) again",
    )
    .bind(kill.worker)
    .bind(kill.at)
    .fetch_one(pool)
    .await?;
    let duration = |seconds: Option<f64>| seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    Ok(Takeover { worker: kill.worker, cut_off, first: duration(first), last: duration(last) })
}

impl Facts {
    /// Every promise that was not kept, in words.
    pub(super) fn wrong(&self, leads: i64, verdicts: &BTreeMap<i64, Verdict>, kills: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut expect = |holds: bool, says: String| {
            if !holds {
                wrong.push(says);
            }
        };
        expect(self.leads.len() as i64 == leads, format!("{} leads instead of {leads}", self.leads.len()));
        expect(self.takeovers.len() == kills, format!("{} kills instead of {kills}", self.takeovers.len()));
        expect(self.steps.repeated == 0, format!("{} recorded steps were done again", self.steps.repeated));
        expect(
            self.steps.never_begun == 0,
            format!("{} recorded steps are not in the journal", self.steps.never_begun),
        );
        let keys: BTreeSet<&str> = self.deliveries.iter().map(|delivery| delivery.key.as_str()).collect();
        expect(keys.len() == self.deliveries.len(), "a mail was delivered twice under one key".to_owned());
        for lead in &self.leads {
            let mails: Vec<&Delivery> = self.deliveries.iter().filter(|delivery| delivery.lead == lead.id).collect();
            for says in lead.wrong(verdicts.get(&lead.id).copied(), &mails) {
                expect(false, format!("lead {}, {}: {says}", lead.id, lead.company));
            }
        }
        wrong
    }
}

impl LeadFacts {
    fn wrong(&self, verdict: Option<Verdict>, delivered: &[&Delivery]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mails_max = 1 + PACE.follow_ups;
        let (outcomes, mails, decision): (&[&str], _, _) = match verdict {
            Some(Verdict::Rejected) => (&["rejected"], 0..=0, "rejected"),
            Some(Verdict::Approved) => (&["engaged", "no answer"], 1..=mails_max, "approved"),
            Some(Verdict::Edited) => (&["engaged", "no answer"], 1..=mails_max, "edited"),
            None => return vec!["nobody decided".to_owned()],
        };
        if self.drafts != 1 {
            wrong.push(format!("{} drafts", self.drafts));
        }
        if self.decision != decision {
            wrong.push(format!("decided as \"{}\" instead of {decision}", self.decision));
        }
        if !outcomes.contains(&self.outcome.as_str()) {
            wrong.push(format!("outcome \"{}\" after it was {decision}", self.outcome));
        }
        if !mails.contains(&delivered.len()) {
            wrong.push(format!("{} mails were delivered after it was {decision}", delivered.len()));
        }
        if self.mails != delivered.len() as i64 {
            wrong.push(format!("{} mails recorded, {} delivered", self.mails, delivered.len()));
        }
        let firsts = delivered.iter().filter(|delivery| !delivery.subject.starts_with("Re: ")).count();
        if firsts > 1 {
            wrong.push(format!("its first mail was delivered {firsts} times"));
        }
        if self.outcome == "no answer" && delivered.len() != mails_max {
            wrong.push(format!("it did not answer and got {} mails", delivered.len()));
        }
        if decision == "edited" && delivered.iter().any(|delivery| !delivery.subject.ends_with(EDITED_SUBJECT)) {
            wrong.push("the unedited mail was sent".to_owned());
        }
        wrong
    }
}
