//! Worker processes that tests kill, stop and let die at a crash point.
//!
//! What such a process does is `bin/victim`; the workflows that it runs are `journey`.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use durable::testing::Sabotage;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::db::PATIENCE;

const SABOTAGES: [Sabotage; 3] = [Sabotage::AcknowledgesEarly, Sabotage::ForgetsTheOwner, Sabotage::DropsARow];

/// What a victim is told through its environment.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The database.
    pub url: String,
    /// The queue that it works on.
    pub queue: String,
    /// Whether it serves the queue of `calls`, too.
    pub serves_calls: bool,
    /// Its lease.
    pub lease: Duration,
    /// How many lost workers park a workflow.
    pub max_recoveries: u32,
    /// Die at this crash point; 0 for never.
    pub crash_at: u64,
    /// Start this journey, send it its words and see it through.
    pub journey: Option<String>,
    /// What is wrong with its committer, to prove that it would show.
    pub sabotage: Option<Sabotage>,
}

impl Orders {
    /// A worker on the default queue that goes on until it is killed.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            queue: "default".to_owned(),
            serves_calls: false,
            lease: Duration::from_secs(1),
            max_recoveries: 1_000,
            crash_at: 0,
            journey: None,
            sabotage: None,
        }
    }

    /// The orders that the test gave to this process.
    ///
    /// # Panics
    ///
    /// When it was not started by a test.
    pub fn from_env() -> Self {
        let text = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let number = |name: &str| text(name).parse().unwrap_or_else(|_| panic!("{name} is not a number"));
        Self {
            url: text("VICTIM_URL"),
            queue: text("VICTIM_QUEUE"),
            serves_calls: text("VICTIM_SERVES_CALLS") == "true",
            lease: Duration::from_millis(number("VICTIM_LEASE_MS")),
            max_recoveries: u32::try_from(number("VICTIM_MAX_RECOVERIES")).expect("a small number"),
            crash_at: number("VICTIM_CRASH_AT"),
            journey: Some(text("VICTIM_JOURNEY")).filter(|id| !id.is_empty()),
            sabotage: SABOTAGES.into_iter().find(|s| format!("{s:?}") == text("VICTIM_SABOTAGE")),
        }
    }
}

/// A victim that lives. It dies with the value, and when the test's process is gone.
pub struct Victim {
    child: Child,
    stdin: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

/// How a victim ended.
#[derive(Debug)]
pub struct Ended {
    /// What the system says.
    pub status: ExitStatus,
    /// The place of the crash point at which it died, if it did.
    pub crashed_at: Option<String>,
    /// How many crash points it had passed when its journey had ended.
    pub points: u64,
    /// What it said on standard error.
    pub stderr: String,
}

impl Victim {
    /// Start a process from the victim's program, which only the integration tests know the place of.
    pub fn begin(program: &str, orders: &Orders) -> Self {
        let mut child = Command::new(program)
            .env("VICTIM_URL", &orders.url)
            .env("VICTIM_QUEUE", &orders.queue)
            .env("VICTIM_SERVES_CALLS", orders.serves_calls.to_string())
            .env("VICTIM_LEASE_MS", orders.lease.as_millis().to_string())
            .env("VICTIM_MAX_RECOVERIES", orders.max_recoveries.to_string())
            .env("VICTIM_CRASH_AT", orders.crash_at.to_string())
            .env("VICTIM_JOURNEY", orders.journey.clone().unwrap_or_default())
            .env("VICTIM_SABOTAGE", orders.sabotage.map(|s| format!("{s:?}")).unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the victim's program starts");
        let stdin = child.stdin.take().expect("its standard input is ours");
        let stdout = child.stdout.take().expect("its standard output is ours");
        Self { child, stdin, said: BufReader::new(stdout).lines() }
    }

    /// Wait until it is at work.
    pub async fn at_work(mut self) -> Self {
        assert_eq!(self.next_word().await.as_deref(), Some("at work"), "the victim never came to work");
        self
    }

    async fn next_word(&mut self) -> Option<String> {
        let line = tokio::time::timeout(PATIENCE, self.said.next_line()).await;
        line.expect("the victim says something in time").expect("its output can be read")
    }

    /// Its process.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn pid(&self) -> i32 {
        self.child.id().expect("the victim lives").cast_signed()
    }

    /// Kill it, in the middle of whatever it does.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("the victim can be killed");
    }

    /// Freeze it.
    pub async fn freeze(&self) {
        self.signal("-STOP").await;
    }

    /// Let it go on.
    pub async fn thaw(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.pid().to_string()).status().await;
        assert!(sent.expect("kill runs").success(), "could not send {signal}");
    }

    /// Tell it to shut down in order, and wait until it is gone.
    pub async fn shut_down(mut self) {
        self.stdin.write_all(b"shut down\n").await.expect("the victim listens");
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it shuts down in time");
        assert!(status.expect("its status").success(), "the victim did not shut down in order");
    }

    /// Wait until it ends by itself: at its crash point, or with its journey.
    pub async fn ended(mut self) -> Ended {
        let mut points = 0;
        while let Some(word) = self.next_word().await {
            points = word.strip_prefix("arrived after ").and_then(|n| n.parse().ok()).unwrap_or(points);
        }
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().expect("its standard error is ours");
        pipe.read_to_string(&mut stderr).await.expect("its standard error is text");
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends in time");
        let crashed_at = stderr.lines().find_map(|line| line.strip_prefix("crash point ")).map(str::to_owned);
        Ended { status: status.expect("its status"), crashed_at, points, stderr }
    }
}
