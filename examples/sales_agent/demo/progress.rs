//! How far it is, while it goes on: one line that is rewritten on a terminal, a line now and then
//! elsewhere.

use std::io::{IsTerminal, Write, stdout};

use anyhow::{Context, Result};
use sqlx::PgPool;
use tokio::time::{Duration, Instant};

/// How often a line is printed where it cannot be rewritten.
const EVERY: Duration = Duration::from_secs(5);

/// What the application's tables say at a moment.
pub(super) struct Now {
    pub(super) started: i64,
    drafts: i64,
    decided: i64,
    mails: i64,
    pub(super) closed: i64,
}

pub(super) async fn look(pool: &PgPool) -> Result<Now> {
    let (started, drafts, decided, mails, closed) = sqlx::query_as(
        "select (select count(distinct key) from body_started), (select count(*) from draft),
                (select count(*) from draft where decision is not null), (select count(*) from mail),
                (select count(*) from lead where outcome is not null)",
    )
    .fetch_one(pool)
    .await
    .context("could not look how far it is")?;
    Ok(Now { started, drafts, decided, mails, closed })
}

pub(super) struct Progress {
    started: Instant,
    leads: i64,
    terminal: bool,
    printed: Option<Instant>,
}

impl Progress {
    pub(super) fn new(started: Instant, leads: i64) -> Self {
        Self { started, leads, terminal: stdout().is_terminal(), printed: None }
    }

    pub(super) fn show(&mut self, now: &Now, worker: i32) {
        let line = format!(
            "{:>4.0} s   worker {worker}   {} steps begun   {}/{} drafts   {} decided   {} mails   {} closed",
            self.started.elapsed().as_secs_f32(),
            now.started,
            now.drafts,
            self.leads,
            now.decided,
            now.mails,
            now.closed,
        );
        if self.terminal {
            print!("\r\x1b[2K{line}");
            // A terminal that is gone is no reason to stop.
            _ = stdout().flush();
        } else if self.printed.is_none_or(|printed| printed.elapsed() >= EVERY) {
            println!("{line}");
            self.printed = Some(Instant::now());
        }
    }

    /// Prints something that stays.
    pub(super) fn say(&self, what: &str) {
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        println!("{clear}{:>4.0} s   {what}", self.started.elapsed().as_secs_f32());
    }

    pub(super) fn end(&self) {
        if self.terminal {
            println!();
        }
    }
}
