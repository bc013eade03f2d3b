//! The worker as a child process: started, killed, and never left behind.

use std::{
    collections::VecDeque,
    env,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{self, ChildStdin, Command},
    task::JoinHandle,
    time::{Duration, timeout},
};

use crate::worker::{DATABASE, INTERNET};

/// Lines of the child's log that are kept.
const LOG_MAX: usize = 200;

/// How long a child may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Child {
    number: i32,
    process: process::Child,
    /// The child works as long as this is open, so it ends with this process, however that ends.
    stdin: ChildStdin,
    log: Arc<Mutex<VecDeque<String>>>,
    reading: JoinHandle<()>,
}

impl Child {
    /// Starts this program again as worker `number`, and waits until it works.
    pub(super) async fn start(number: i32, database: &str, internet: &str) -> Result<Child> {
        let mut process = Command::new(env::current_exe()?)
            .args(["--worker", &number.to_string()])
            .env(DATABASE, database)
            .env(INTERNET, internet)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("could not start a worker")?;
        let stdin = process.stdin.take().context("the worker has no standard input")?;
        let stdout = process.stdout.take().context("the worker has no standard output")?;
        let stderr = process.stderr.take().context("the worker has no standard error")?;
        let log = Arc::new(Mutex::default());
        let reading = tokio::spawn(keep_log(stderr, Arc::clone(&log)));
        let mut child = Child { number, process, stdin, log, reading };

        let ready = timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await;
        match ready.context("the worker does not start")?? {
            Some(_) => Ok(child),
            None => Err(child.died().await),
        }
    }

    pub(super) fn number(&self) -> i32 {
        self.number
    }

    /// The end of what the child wrote to its log.
    pub(super) fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().map(|line| format!("    {line}\n")).collect()
    }

    /// An error if the child has ended by itself.
    pub(super) async fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(_) => Err(self.died().await),
            None => Ok(()),
        }
    }

    /// SIGKILL: no destructor, no goodbye.
    pub(super) async fn kill(&mut self) -> Result<()> {
        self.check().await?;
        self.process.kill().await.context("could not kill the worker")
    }

    /// Lets it end by itself.
    pub(super) async fn end(self) -> Result<()> {
        let Child { number, mut process, stdin, log, .. } = self;
        drop(stdin);
        let status = timeout(PATIENCE, process.wait()).await.context("the worker does not end")??;
        if !status.success() {
            let log: Vec<String> = log.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
            bail!("worker {number} ended with {status}:\n{}", log.join("\n"));
        }
        Ok(())
    }

    async fn died(&mut self) -> anyhow::Error {
        let status = self.process.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        // The last words are still in the pipe.
        _ = timeout(PATIENCE, &mut self.reading).await;
        anyhow::anyhow!("worker {} ended by itself with {status}; its log:\n{}", self.number, self.log())
    }
}

async fn keep_log(stderr: impl AsyncRead + Unpin, log: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_MAX {
            log.pop_front();
        }
        log.push_back(line);
    }
}
