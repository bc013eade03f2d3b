//! W6: a process with many workflows, ten steps done each, is killed; another one takes them over.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, Durable, StepCtx, step, workflow};
use sqlx::PgPool;

use super::processes::{Child, Role, order, say};
use super::until;
use crate::bench::Bench;
use crate::workflows::work;

const WORKFLOWS: usize = 1_000;
/// How long the victim's workflows stay with it after its death; not part of what is measured.
const LEASE: Duration = Duration::from_secs(2);

/// Workflows that reached their last step, in this process.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Whether the last step never returns.
struct Hold(bool);

#[step]
async fn last(step: &StepCtx) -> Result<u32> {
    HELD.fetch_add(1, Ordering::Relaxed);
    if step.state::<Hold>().0 {
        std::future::pending::<()>().await;
    }
    Ok(1)
}

#[workflow]
async fn held(ctx: &Ctx, bytes: usize) -> Result<u32> {
    let mut sum = 0;
    for n in 0..10 {
        sum += ctx.run(work(n, bytes)).await?.n;
    }
    Ok(sum + ctx.run(last()).await?)
}

/// Seconds until the last workflow is complete, by the database's clock.
pub(crate) struct Takeover {
    /// From the moment that the dead worker is fenced: the giving back, the claims, the histories, the last steps and
    /// the ends are in it.
    pub(crate) from_fence: f64,
    /// From the first claim of the worker that takes over.
    pub(crate) from_claim: f64,
}

pub(crate) async fn measure(bench: &Bench) -> Result<Takeover> {
    bench.fresh().await?;
    let victim = Child::start(&Role::Victim { url: bench.url.clone(), workflows: WORKFLOWS }).await?;
    let survivor = worker(&bench.url, false).await?;
    victim.kill().await?;
    let all = "select count(*) = $1 from durable.workflow where status = 'completed'";
    until(&bench.pool, all, WORKFLOWS as i64).await?;
    survivor.shutdown(Duration::from_secs(10)).await;
    let took = "
        select extract(epoch from max(w.finished_at) - (select min(fenced_at) from durable.worker))::float8,
               extract(epoch from max(w.finished_at) - min(w.claimed_at))::float8
        from durable.workflow w";
    let (from_fence, from_claim) = sqlx::query_as(took).fetch_one(&bench.pool).await?;
    Ok(Takeover { from_fence, from_claim })
}

/// Start the workflows, and hold all of them in their last step until killed.
pub(crate) async fn victim(url: &str, workflows: usize) -> Result<()> {
    let durable = worker(url, true).await?;
    durable.start_many((0..workflows).map(|n| (format!("held-{n:08}"), held(200)))).await?;
    while HELD.load(Ordering::Relaxed) < workflows {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    say("ready");
    while order().await.is_some() {}
    Ok(())
}

async fn worker(url: &str, hold: bool) -> Result<Durable> {
    let builder = Durable::builder(PgPool::connect_lazy(url)?).migrate(false).lease(LEASE).concurrency(2 * WORKFLOWS);
    Ok(builder.register(held).state(Hold(hold)).start().await?)
}
