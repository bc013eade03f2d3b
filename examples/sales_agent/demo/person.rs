//! The person at the web page: reads drafts, approves most, edits some, rejects a few.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use tokio::time::sleep;

use super::client::Visitor;
use crate::{dice::Dice, leads::Mail};

/// How often the person looks at the list.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Approved,
    Edited,
    Rejected,
}

/// The subject that the person writes when editing.
pub(super) const EDITED_SUBJECT: &str = "A question, in my own words";

/// Decides on one draft for each of `leads` leads, and remembers how.
pub(super) async fn decide(visitor: &Visitor, seed: u64, leads: i64) -> Result<BTreeMap<i64, Verdict>> {
    let mut verdicts = BTreeMap::new();
    while (verdicts.len() as i64) < leads {
        for lead in visitor.waiting().await? {
            let Some(draft) = visitor.draft_of(lead).await? else {
                continue;
            };
            if verdicts.contains_key(&lead) {
                bail!("lead {lead} asks for a second decision");
            }
            let mut dice = Dice::new(seed, &format!("person {lead}"));
            sleep(Duration::from_millis(dice.between(100, 600))).await;
            verdicts.insert(lead, press(visitor, draft, &mut dice).await?);
        }
        sleep(LOOK).await;
    }
    Ok(verdicts)
}

async fn press(visitor: &Visitor, draft: i64, dice: &mut Dice) -> Result<Verdict> {
    let (verdict, button) = match dice.between(0, 99) {
        0..15 => (Verdict::Rejected, "reject"),
        15..40 => (Verdict::Edited, "edit"),
        _ => (Verdict::Approved, "approve"),
    };
    let words = "Hello,\n\nwould you show me how you plan a week? I would rather ask than guess.\n\nBest wishes\nTern";
    let mail = Mail { subject: EDITED_SUBJECT.to_owned(), body: words.to_owned() };
    if !visitor.press(draft, button, &mail).await? {
        bail!("draft {draft} was decided by somebody else");
    }
    // Some people click twice; the second time must not count.
    if dice.percent(20) && visitor.press(draft, "approve", &mail).await? {
        bail!("draft {draft} took a second decision");
    }
    Ok(verdict)
}
