//! Two releases of an application, as worker processes: what each has registered, and how a test begins and ends them.
//!
//! Every effect is a transactional step's, so each has to be there exactly once, whatever happens to the processes. The process
//! itself is `bin/fleet`.

use std::process::Stdio;

use anyhow::Result;
use durable::{Builder, Ctx, PgConnection, StepCtx, step, workflow};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::db::PATIENCE;
use crate::effects;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// Everything as it was at first.
    First,
    /// With a second version of the order beside the first, a visit that is patched, and a ticker that has retired.
    Second,
}

impl Release {
    /// What its workers have.
    pub fn register(self, builder: Builder) -> Builder {
        match self {
            Release::First => builder.register(first::order).register(first::visit).register(first::ticker),
            Release::Second => builder
                .register(first::order)
                .register(second::order)
                .register(second::visit)
                .register(second::ticker)
                .register(second::ticker_2),
        }
    }
}

#[step(tx)]
async fn act(tx: &mut PgConnection, step: &StepCtx, name: String) -> Result<()> {
    Ok(effects::write(tx, step, &name, "").await?)
}

async fn pause(ctx: &Ctx) -> Result<()> {
    Ok(ctx.sleep(std::time::Duration::from_millis(40)).await?)
}

/// The code of the first release.
pub mod first {
    use super::*;

    /// An order, version 1.
    #[workflow]
    pub async fn order(ctx: &Ctx) -> Result<i32> {
        ctx.run(act("reserve".to_owned())).await?;
        pause(ctx).await?;
        ctx.run(act("charge".to_owned())).await?;
        Ok(1)
    }

    /// Gives whether it was greeted.
    #[workflow]
    pub async fn visit(ctx: &Ctx) -> Result<bool> {
        ctx.run(act("arrive".to_owned())).await?;
        pause(ctx).await?;
        ctx.run(act("leave".to_owned())).await?;
        Ok(false)
    }

    /// Ticks for ever.
    #[workflow]
    pub async fn ticker(ctx: &Ctx, round: i64) -> Result<i64> {
        ctx.run(act(format!("tick {round}"))).await?;
        pause(ctx).await?;
        ctx.continue_as_new(ticker(round + 1)).await
    }
}

/// What the second release has instead, or beside it.
pub mod second {
    use super::*;

    /// An order, version 2: checked before it is charged, with a receipt.
    #[workflow(version = 2)]
    pub async fn order(ctx: &Ctx) -> Result<i32> {
        for name in ["reserve", "check"] {
            ctx.run(act(name.to_owned())).await?;
        }
        pause(ctx).await?;
        for name in ["charge", "receipt"] {
            ctx.run(act(name.to_owned())).await?;
        }
        Ok(2)
    }

    /// The same version as before, with something new in the middle.
    #[workflow]
    pub async fn visit(ctx: &Ctx) -> Result<bool> {
        ctx.run(act("arrive".to_owned())).await?;
        pause(ctx).await?;
        let greeted = ctx.patched("greet").await;
        if greeted {
            ctx.run(act("greet".to_owned())).await?;
        }
        ctx.run(act("leave".to_owned())).await?;
        Ok(greeted)
    }

    /// Version 1 retires: it ticks once more, and goes on as version 2.
    #[workflow]
    pub async fn ticker(ctx: &Ctx, round: i64) -> Result<i64> {
        ctx.run(act(format!("tick {round}"))).await?;
        pause(ctx).await?;
        ctx.continue_as_new(ticker_2(round + 1)).await
    }

    /// Ticks for the last time.
    #[workflow(name = "ticker", version = 2)]
    pub async fn ticker_2(ctx: &Ctx, round: i64) -> Result<i64> {
        ctx.run(act(format!("tick {round}"))).await?;
        Ok(round)
    }
}

/// A worker process of a release. It dies with the value, and when the test's process is gone.
#[derive(Debug)]
pub struct FleetWorker {
    child: Child,
    /// Open for as long as it is to live: waiting for the process would close it.
    stdin: ChildStdin,
}

impl FleetWorker {
    /// Start a process from the fleet's program, which only the integration tests know the place of, and wait until it is at
    /// work.
    pub async fn begin(program: &str, url: &str, release: Release) -> Self {
        let mut child = Command::new(program)
            .args([url, &format!("{release:?}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let stdin = child.stdin.take().expect("its standard input is ours");
        let stdout = child.stdout.take().expect("its standard output is ours");
        let line = tokio::time::timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await;
        let line = line.expect("it says something in time").expect("its output can be read");
        assert_eq!(line.as_deref(), Some("at work"), "the worker never came to work");
        Self { child, stdin }
    }

    /// Tell it to end, as whoever deploys does, and wait until it has handed its work back.
    pub async fn terminate(mut self) {
        let pid = self.child.id().expect("it lives").to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(sent.expect("kill runs").success(), "could not tell it to end");
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends in time");
        drop(self.stdin);
        assert!(status.expect("its status").success(), "it did not end in order");
    }

    /// Kill it, in the middle of whatever it does.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }
}
