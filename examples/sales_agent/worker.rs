//! The worker: where the agent's workflows are done, with everything that its steps need.

use std::{env, io, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use durable::Durable;
use sqlx::PgPool;
use tokio::time::timeout;

use crate::{
    agent::{Pace, sales_agent},
    database::{self, Schemas},
    demo,
    internet::PATIENCE,
    journal::Journal,
    mail::Mailer,
    model::Model,
    research::Reader,
};

/// How long a child tries to hand its work back when it is asked to end.
const GOODBYE: Duration = Duration::from_secs(5);

/// How a worker is set up. The demonstration is in a hurry, life is not.
pub(crate) struct Setup {
    pub(crate) schemas: Schemas,
    pub(crate) number: i32,
    pub(crate) pace: Pace,
    pub(crate) lease: Duration,
}

/// Names of the variables by which a child learns where things are.
pub(crate) const DATABASE: &str = "SALES_AGENT_DATABASE_URL";
pub(crate) const INTERNET: &str = "SALES_AGENT_INTERNET_URL";

/// Starts a worker in this process.
pub(crate) async fn start(pool: PgPool, database: &str, internet: &str, setup: Setup) -> Result<Durable> {
    let journal = database::connect(database, setup.schemas, 2).await?;
    let durable = Durable::builder(pool)
        .schema(setup.schemas.library)
        .register(sales_agent)
        .state(Reader::new(internet, PATIENCE)?)
        .state(Model::from_env(internet, PATIENCE)?)
        .state(Mailer::new(internet, PATIENCE)?)
        .state(Journal::new(journal, setup.number))
        .state(setup.pace)
        .lease(setup.lease)
        .start()
        .await
        .context("could not start the worker")?;
    Ok(durable)
}

/// A child of the demonstration: works until its parent closes its standard input, or is gone.
pub(crate) async fn run_as_child(number: i32) -> Result<ExitCode> {
    let variable = |name| env::var(name).with_context(|| format!("{name} is not set"));
    let (database, internet) = (variable(DATABASE)?, variable(INTERNET)?);
    let pool = database::connect(&database, database::DEMO, 8).await?;
    let setup = Setup { schemas: database::DEMO, number, pace: demo::PACE, lease: demo::LEASE };
    let durable = start(pool, &database, &internet, setup).await?;
    println!("ready");
    tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    // If the parent was killed, its database may be gone too: do not wait for it for ever.
    timeout(GOODBYE * 2, durable.shutdown(GOODBYE)).await?;
    Ok(ExitCode::SUCCESS)
}
