//! The demonstration: a day of the sales agent in a minute, with its worker killed again and again.
//!
//! This process serves the web application and the small internet; the worker is a child that gets
//! `kill -9` at random moments. `person` decides on drafts over HTTP, `facts` reads afterwards what
//! really happened, and `report` prints it.

mod child;
mod client;
mod facts;
mod person;
mod progress;
mod report;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use durable::Durable;
use durable_dev::Database;
use sqlx::{PgConnection, PgPool};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};

use crate::{
    agent::{Outcome, Pace, workflow_id},
    database::{self, DEMO},
    dice::Dice,
    internet::Internet,
    web::{self, App},
};
use child::Child;
use client::Visitor;
use progress::Progress;

/// Short, so that a takeover takes a second. An application keeps the default of fifteen.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// Seconds instead of days.
pub(crate) const PACE: Pace = Pace { follow_up_after: Duration::from_secs(4), follow_ups: 2 };

const KILLS: usize = 6;

/// Time that a worker gets at least: time enough to take over what the one before it left.
const REPRIEVE: Duration = Duration::from_millis(2_500);

/// A demonstration that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(180);

const TICK: Duration = Duration::from_millis(50);

/// Everything that runs beside the worker.
struct Stage {
    database: Database,
    pool: PgPool,
    durable: Durable,
    internet: Arc<Internet>,
    visitor: Visitor,
    /// Holds the lock that keeps other demonstrations out until this process ends.
    _lock: PgConnection,
}

/// A worker that was killed.
struct Kill {
    worker: i32,
    at: DateTime<Utc>,
}

pub(crate) async fn run(seed: u64) -> Result<ExitCode> {
    let started = Instant::now();
    let stage = Stage::set(seed).await?;
    let leads = stage.load_leads().await?;
    let person = async { person::decide(&stage.visitor, seed, leads).await.context("the person had a problem") };
    let (kills, verdicts) = tokio::try_join!(stage.play(seed, leads, started), person)?;

    let facts = facts::gather(&stage, &kills).await?;
    report::print(&facts, started.elapsed());
    let wrong = facts.wrong(leads, &verdicts, KILLS);
    for fact in &wrong {
        println!("WRONG: {fact}");
    }
    if wrong.is_empty() {
        println!("Every lead has one draft and every approved mail left once, after {KILLS} kills.");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

impl Stage {
    async fn set(seed: u64) -> Result<Stage> {
        println!("Seed {seed}. Finding a database.");
        let database = tokio::task::spawn_blocking(|| Database::dev("sales_agent_demo")).await??;
        let pool = database::connect(database.url(), DEMO, 10).await?;
        let mut conn = pool.acquire().await?.detach();
        database::reset(&mut conn, DEMO).await?;
        database::create(&mut conn, DEMO).await?;
        let durable = Durable::builder(pool.clone()).schema(DEMO.library).client().await?;

        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let internet = Internet::start(seed, format!("{address}/webhooks/mail")).await?;
        let app = web::router(App { pool: pool.clone(), durable: durable.clone() });
        tokio::spawn(async move { axum::serve(listener, app).await });
        println!(
            "Schemas {} and {} are fresh, the web application is at {address}, the lease is {LEASE:?}.",
            DEMO.application, DEMO.library
        );
        Ok(Stage { database, pool, durable, internet, visitor: Visitor::new(address)?, _lock: conn })
    }

    /// Posts a spoiled file, the good file and one lead by hand. How many leads there are now.
    async fn load_leads(&self) -> Result<i64> {
        let good = include_str!("../../leads.csv");
        let spoiled = good.replace("siri@", "siri at ").replace(",Tomas Brandt,", ",,");
        let complaints = self.visitor.upload(&spoiled).await?.context("a spoiled file was taken")?;
        println!("A spoiled leads.csv is refused:");
        complaints.lines().for_each(|line| println!("    {line}"));
        if let Some(complaints) = self.visitor.upload(good).await? {
            bail!("leads.csv was refused: {complaints}");
        }
        self.visitor.add_lead().await?;
        let leads = sqlx::query_scalar("select count(*) from lead").fetch_one(&self.pool).await?;
        println!("{leads} leads are in, each with a workflow.");
        Ok(leads)
    }

    /// Keeps a worker alive, kills it at random moments, until every lead has its outcome.
    async fn play(&self, seed: u64, leads: i64, started: Instant) -> Result<Vec<Kill>> {
        let mut moments = moments(seed, leads).into_iter().peekable();
        let mut progress = Progress::new(started, leads);
        let mut kills = Vec::new();
        let mut born = Instant::now();
        let mut seen = 0;
        let mut child = Child::start(1, self.database.url(), self.internet.url()).await?;
        loop {
            child.check().await?;
            if started.elapsed() > PATIENCE {
                bail!("not done after {PATIENCE:?}; the worker's log:\n{}", child.log());
            }
            let now = progress::look(&self.pool).await?;
            progress.show(&now, child.number());
            // Right after a step began, for a kill of an idle worker shows little.
            let busy = now.started > seen && born.elapsed() > REPRIEVE;
            seen = now.started;
            let ripe = |moment: &Moment| busy && now.started >= moment.after_starts;
            if let Some(moment) = moments.next_if(ripe) {
                sleep(moment.then).await;
                kills.push(self.kill(&mut child, &progress).await?);
                born = Instant::now();
            } else if now.closed == leads {
                break;
            }
            sleep(TICK).await;
        }
        progress.end();
        let results = timeout(PATIENCE, self.results()).await;
        results.with_context(|| format!("not all workflows end; the worker's log:\n{}", child.log()))??;
        child.end().await?;
        Ok(kills)
    }

    /// Asks for the result of every workflow, as a caller would; a failed one is an error here.
    async fn results(&self) -> Result<()> {
        let leads: Vec<i64> = sqlx::query_scalar("select id from lead").fetch_all(&self.pool).await?;
        for lead in leads {
            let outcome: Outcome = self.durable.workflow(workflow_id(lead)).result().await?;
            tracing::debug!(lead, ?outcome);
        }
        Ok(())
    }

    async fn kill(&self, child: &mut Child, progress: &Progress) -> Result<Kill> {
        let worker = child.number();
        child.kill().await?;
        // The database's clock, because the journal is written by it.
        let at = sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await?;
        progress.say(&format!("kill -9 worker {worker}, start worker {}", worker + 1));
        *child = Child::start(worker + 1, self.database.url(), self.internet.url()).await?;
        Ok(Kill { worker, at })
    }
}

/// When to kill: once so many steps have begun, and a moment later.
struct Moment {
    after_starts: i64,
    then: Duration,
}

/// Random moments, spread over the work so that early and late steps are hit.
fn moments(seed: u64, leads: i64) -> Vec<Moment> {
    // Rejected leads have seven steps, the others at least eleven: the last kill comes before the end.
    let starts = leads.unsigned_abs() * 8;
    let stretch = starts / KILLS as u64;
    let mut dice = Dice::new(seed, "kills");
    (0..KILLS as u64)
        .map(|kill| Moment {
            after_starts: (kill * stretch + dice.between(4, stretch)) as i64,
            then: Duration::from_millis(dice.between(0, 200)),
        })
        .collect()
}
