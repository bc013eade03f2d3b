//! What waiting costs the process that waits: nothing that grows with the number of workflows.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use durable::{Ctx, days, workflow};
use durable_tests::db::{Db, PATIENCE};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const SLEEPERS: usize = 10_000;
const WARM_UP: usize = 500;
const GROWTH_MAX_KB: u64 = 10 * 1024;
/// What each one carries: together more than the growth that is allowed, so that keeping them would show.
const LUGGAGE_BYTES: usize = 2 * 1024;

/// Asked again and again, so it looks at two small indexes only.
const NOBODY_IS_UP: &str = "
    select not exists (select from durable.workflow where status = 'queued')
       and not exists (select from durable.workflow where owner is not null)";

/// Started here, run by the sleeper, which has it under the same name.
#[workflow]
async fn long_sleep(ctx: &Ctx, luggage: String) -> Result<usize> {
    ctx.sleep(days(30)).await?;
    Ok(luggage.len())
}

/// The process whose workflows sleep.
struct Sleeper {
    _process: Child,
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Sleeper {
    fn start(db: &Db) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sleeper"));
        command.arg(db.url()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let ask = process.stdin.take().context("the sleeper's input")?;
        let answers = BufReader::new(process.stdout.take().context("the sleeper's output")?).lines();
        Ok(Self { _process: process, ask, answers })
    }

    /// Its memory in KB, and its tasks.
    async fn holds(&mut self) -> Result<(u64, usize)> {
        self.ask.write_all(b"\n").await?;
        let answer = self.answers.next_line().await?.context("the sleeper has ended")?;
        let (kb, tasks) = answer.split_once(' ').context("two numbers")?;
        Ok((kb.parse()?, tasks.parse()?))
    }

    /// Its memory, once it has no more than `tasks` tasks: those that wrote the last suspensions end in a moment.
    async fn settled(&mut self, tasks: usize) -> Result<u64> {
        let began_at = Instant::now();
        loop {
            let (kb, alive) = self.holds().await?;
            if alive <= tasks {
                return Ok(kb);
            }
            assert!(began_at.elapsed() < PATIENCE, "{alive} tasks are alive, {tasks} were before");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn ten_thousand_sleeping_workflows_cost_their_process_no_memory_and_no_task() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let mut sleeper = Sleeper::start(&db)?;
    let (_, tasks) = sleeper.holds().await?;
    let some = |label: &'static str, count| {
        (0..count).map(move |n| (format!("{label}-{n}"), long_sleep("x".repeat(LUGGAGE_BYTES))))
    };

    client.start_many(some("warm-up", WARM_UP)).await?;
    db.until(NOBODY_IS_UP).await;
    let before = sleeper.settled(tasks).await?;

    let began_at = Instant::now();
    // In four parts, so that each has the test's whole patience on a busy machine.
    for part in ["a", "b", "c", "d"] {
        client.start_many(some(part, SLEEPERS / 4)).await?;
        db.until(NOBODY_IS_UP).await;
    }
    let after = sleeper.settled(tasks).await?;
    assert_eq!(db.count("select count(*) from durable.workflow where status = 'suspended'").await, 10_500);

    println!(
        "{SLEEPERS} asleep after {:.1} s: {tasks} tasks as before, {before} KB before, {after} KB after",
        began_at.elapsed().as_secs_f64()
    );
    assert!(after < before + GROWTH_MAX_KB, "the process grew from {before} KB to {after} KB");
    Ok(())
}
