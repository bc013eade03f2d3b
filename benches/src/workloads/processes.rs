//! Workers in processes of their own: this program again, with orders on its standard input.
//!
//! A child says `ready`, and then answers each line with a line. It ends with its input, so that none is left when
//! the benchmark is gone.

use std::io::BufRead;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};

use super::closed::{self, Load};
use super::lines::{self, Line};
use super::{limited, sleepers, takeover};
use crate::bench::{Bench, Pace};

/// The first argument of a child; the second is its role, the third its orders.
pub(crate) const CHILD: &str = "--child";

/// What a child is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Runs W1 when told, and answers with its steps per second.
    Loop { url: String, in_flight: usize, warm_up_ms: u64, ours_ms: u64 },
    /// Drains a queue until it is told to end.
    Drainer { url: String, line: Line },
    /// Makes calls within a limit until it is told to end.
    Caller { url: String },
    /// Puts workflows to sleep, and tells its memory.
    Sleepers { url: String },
    /// Holds workflows in their last step, to be killed.
    Victim { url: String, workflows: usize },
}

/// A child, from its parent's side.
pub(crate) struct Child {
    process: Process,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Start a child and wait until it is ready.
    pub(crate) async fn start(role: &Role) -> Result<Self> {
        let program = std::env::current_exe().context("could not find this program")?;
        let mut command = Command::new(program);
        command.arg(CHILD).arg(serde_json::to_string(role)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn().context("could not start this program again")?;
        let input = process.stdin.take().context("the child has no input")?;
        let output = process.stdout.take().context("the child has no output")?;
        let mut child = Self { process, input, output: BufReader::new(output).lines() };
        child.answer().await?;
        Ok(child)
    }

    /// Give an order, without waiting for the answer.
    pub(crate) async fn order(&mut self, order: &str) -> Result<()> {
        Ok(self.input.write_all(format!("{order}\n").as_bytes()).await?)
    }

    pub(crate) async fn answer(&mut self) -> Result<String> {
        self.output.next_line().await?.context("a child ended without an answer; its error is above")
    }

    pub(crate) async fn ask(&mut self, order: &str) -> Result<String> {
        self.order(order).await?;
        self.answer().await
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }
}

/// Steps per second of so many processes together, each with so many workflows in flight.
pub(crate) async fn steps(bench: &Bench, processes: usize, in_flight: usize) -> Result<f64> {
    bench.fresh().await?;
    together(&mut loops(bench, processes, in_flight).await?).await
}

/// Processes that are ready to run W1, each with so many workflows in flight.
pub(crate) async fn loops(bench: &Bench, processes: usize, in_flight: usize) -> Result<Vec<Child>> {
    let role = Role::Loop {
        url: bench.url.clone(),
        in_flight,
        warm_up_ms: bench.pace.warm_up.as_millis() as u64,
        ours_ms: bench.pace.ours.as_millis() as u64,
    };
    let mut children = Vec::new();
    for _ in 0..processes {
        children.push(Child::start(&role).await?);
    }
    Ok(children)
}

/// The steps per second of all of them, once.
pub(crate) async fn together(children: &mut [Child]) -> Result<f64> {
    for child in children.iter_mut() {
        child.order("go").await?;
    }
    let mut sum = 0.0;
    for child in children {
        sum += child.answer().await?.parse::<f64>()?;
    }
    Ok(sum)
}

/// The life of a child.
pub(crate) async fn child(orders: &str) -> Result<()> {
    match serde_json::from_str(orders).context("this argument is for the benchmark's own use")? {
        Role::Loop { url, in_flight, warm_up_ms, ours_ms } => {
            let [warm_up, ours] = [warm_up_ms, ours_ms].map(Duration::from_millis);
            let pace = Pace { warm_up, ours, ..Pace::FULL };
            let worker = closed::worker(&url, in_flight).await?;
            say("ready");
            while order().await.is_some() {
                let load = Load::Plain { bytes: 200 };
                let (measured, ()) = closed::measure(&worker, pace, in_flight, load, || ()).await?;
                say(&measured.steps_per_s.to_string());
            }
        }
        Role::Drainer { url, line } => lines::child(&url, line).await?,
        Role::Caller { url } => limited::child(&url).await?,
        Role::Sleepers { url } => sleepers::child(&url).await?,
        Role::Victim { url, workflows } => takeover::victim(&url, workflows).await?,
    }
    Ok(())
}

/// A line for the parent.
pub(crate) fn say(answer: &str) {
    println!("{answer}");
}

/// The next order; `None` when the parent is gone or has no more.
pub(crate) async fn order() -> Option<String> {
    // On a thread, because a read of standard input cannot be given up.
    let line = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().next()).await;
    line.ok().flatten().and_then(Result::ok)
}

/// The kilobytes that this process holds in memory.
pub(crate) fn resident_kb() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("memory is measured on Linux only")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    match line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()) {
        Some(kb) => Ok(kb),
        None => bail!("no VmRSS in /proc/self/status"),
    }
}
