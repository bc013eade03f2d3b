//! Worker processes of two releases of an application: what these have in common, and how a test begins and ends them.
//!
//! Each release is a program of its own with its own code, `bin/fleet_first` and `bin/fleet_second`. Every effect is a transactional
//! step's, so each has to be there exactly once, whatever happens to the processes.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use durable::{Builder, Ctx, Durable, PgConnection, StepCtx, step};
use sqlx::postgres::PgPoolOptions;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::db::PATIENCE;
use crate::effects;

/// Leave an effect.
#[step(tx)]
pub async fn act(tx: &mut PgConnection, step: &StepCtx, name: String) -> Result<()> {
    Ok(effects::write(tx, step, &name, "").await?)
}

/// Long enough to be suspended.
pub async fn pause(ctx: &Ctx) -> Result<()> {
    Ok(ctx.sleep(Duration::from_millis(40)).await?)
}

/// Be a worker process with this code, on the database of the first argument. It ends in order when it is terminated, and at once
/// when its standard input closes, so that none is left when a test is gone.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub async fn work(register: fn(Builder) -> Builder) -> Result<()> {
    crate::db::log_if_asked();
    let url = std::env::args().nth(1).context("usage: a program of a release, and the URL of a database")?;
    let mut told_to_end = signal(SignalKind::terminate())?;
    std::thread::spawn(|| {
        // Its end is what counts.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(1);
    });
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&url)?;
    let builder = Durable::builder(pool)
        .lease(Duration::from_secs(1))
        .poll_every(Duration::from_millis(50))
        .short_wait(Duration::from_millis(10))
        .concurrency(16)
        .migrate(false);
    let durable = register(builder).start().await?;
    println!("at work");
    told_to_end.recv().await.context("the signal")?;
    durable.shutdown(PATIENCE).await;
    std::process::exit(0)
}

/// A worker process of a release. It dies with the value, and when the test's process is gone.
#[derive(Debug)]
pub struct FleetWorker {
    child: Child,
    /// Open for as long as it is to live: waiting for the process would close it.
    stdin: ChildStdin,
}

impl FleetWorker {
    /// Start a process from a release's program, which only the integration tests know the place of, and wait until it is at
    /// work.
    pub async fn begin(program: &str, url: &str) -> Self {
        let mut child = Command::new(program)
            .arg(url)
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
