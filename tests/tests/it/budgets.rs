//! What things cost in statements and round trips, counted on the wire. The plan behind the numbers is in
//! `ARCHITECTURE.md`; what the statements cost the server is `plans`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use durable::{Builder, Ctx, Durable, Handle, PgConnection, Schedule, StepCtx, Topic, hours, step, workflow};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::gate::Gate;
use durable_tests::soon::Soon;
use durable_tests::wire::{Flight, Prepares, Wire};

use super::statements::statements;

const STEPS: usize = 10;
const STATEMENTS: usize = 4;
pub(super) const NUDGE: Topic<i64> = Topic::new("nudge");

#[step]
async fn add(n: i64) -> Result<i64> {
    Ok(n + 1)
}

#[step(tx)]
async fn write_rows(tx: &mut PgConnection, rows: usize) -> Result<()> {
    for n in 0..rows {
        let insert = sqlx::query("insert into application_row (name) values ($1)");
        insert.bind(n.to_string()).execute(&mut *tx).await?;
    }
    Ok(())
}

#[step]
async fn hold(step: &StepCtx) -> Result<()> {
    step.state::<Gate>().pass().await;
    Ok(())
}

#[workflow]
pub(super) async fn ten_steps(ctx: &Ctx) -> Result<i64> {
    let mut n = 0;
    for _ in 0..STEPS {
        n = ctx.run(add(n)).await?;
    }
    Ok(n)
}

#[workflow]
async fn one_transaction(ctx: &Ctx) -> Result<()> {
    Ok(ctx.run(write_rows(STATEMENTS)).await?)
}

#[workflow]
pub(super) async fn ask(ctx: &Ctx) -> Result<i64> {
    Ok(ctx.receive(NUDGE).await?)
}

#[workflow]
async fn nap(ctx: &Ctx) -> Result<()> {
    Ok(ctx.sleep(hours(1)).await?)
}

#[workflow]
async fn nap_for(ctx: &Ctx, how_long: Duration) -> Result<()> {
    Ok(ctx.sleep(how_long).await?)
}

#[workflow]
async fn fails(ctx: &Ctx) -> Result<()> {
    let _ = ctx.now();
    anyhow::bail!("out of stock")
}

#[workflow]
async fn held(ctx: &Ctx) -> Result<i64> {
    let mut n = 0;
    for _ in 0..3 {
        n = ctx.run(add(n)).await?;
    }
    ctx.run(hold()).await?;
    Ok(n)
}

/// A database whose every connection but the test's own is counted.
pub(super) struct Lab {
    pub(super) db: Db,
    pub(super) wire: Wire,
    names: HashMap<String, String>,
}

impl Lab {
    pub(super) async fn new() -> Self {
        let db = Db::new().await;
        let wire = Wire::to(&db);
        let names = statements().into_iter().map(|statement| (statement.text, statement.name)).collect();
        Self { db, wire, names }
    }

    /// A worker that looks for work only when told, so that what is counted is what the workflow costs. What it says
    /// to other processes is counted in `hints`.
    pub(super) fn builder(&self) -> Builder {
        let quiet = Duration::from_secs(60);
        Durable::builder(self.wire.pool()).migrate(false).lease(quiet).poll_every(quiet).hints(false)
    }

    /// Start a worker, and let it look for work once, as it does when it begins.
    pub(super) async fn worker(&self, builder: Builder) -> Result<Durable> {
        self.wire.forget();
        let durable = builder.start().await?;
        let began_at = Instant::now();
        while count(&self.spent(), "claim") == 0 {
            assert!(began_at.elapsed() < PATIENCE, "the worker never looked for work");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(durable)
    }

    /// The round trips since the wire last forgot, each by the names of its statements; without the heartbeat and the
    /// looks around, which are the worker's and not the workflow's, and without what sets up a connection and
    /// prepares it for a statement, once.
    pub(super) fn spent(&self) -> Vec<String> {
        let flights = self.wire.flights();
        let named = flights.iter().map(|flight| (flight.fresh, self.name(flight)));
        let counted = named.filter(|(fresh, name)| match name.as_str() {
            "fence" | "heartbeat" | "owned" | "prepare" => false,
            "server" | "fenced" | "set search_path" | "do $$" => !fresh,
            _ => true,
        });
        counted.map(|(_, name)| name).collect()
    }

    fn name(&self, flight: &Flight) -> String {
        match (flight.statements.is_empty(), flight.prepares) {
            (true, Some(Prepares::First)) => return "prepare".to_owned(),
            (true, Some(Prepares::Again)) => return "prepare again".to_owned(),
            (true, None) => return "nothing".to_owned(),
            (false, _) => {}
        }
        let name = |text: &String| self.names.get(text).cloned().unwrap_or_else(|| first_words(text));
        flight.statements.iter().map(name).collect::<Vec<_>>().join(" + ")
    }

    /// What a workflow costs from its start until it has this status.
    pub(super) async fn cost<T>(
        &self,
        start: impl IntoFuture<Output = Result<Handle<T>, durable::Error>>,
        until: &str,
    ) -> Result<Vec<String>> {
        self.wire.forget();
        let handle = start.await?;
        self.db.until_status(handle.id(), until).await;
        Ok(self.spent())
    }
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ").trim_end_matches(';').to_lowercase()
}

pub(super) fn count(names: &[String], name: &str) -> usize {
    names.iter().filter(|n| *n == name).count()
}

#[tokio::test]
async fn a_workflow_of_ten_steps_alone_takes_eleven_round_trips() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.worker(lab.builder().register(ten_steps)).await?;
    lab.cost(durable.start(ten_steps()).id("warm-up"), "completed").await?;

    let spent = lab.cost(durable.start(ten_steps()).id("counted"), "completed").await?;

    println!("{STEPS} steps: {} round trips: {spent:?}", spent.len());
    assert_eq!(spent.first().map(String::as_str), Some("start_new"));
    assert_eq!(count(&spent, "record"), STEPS - 1);
    // The last step's outcome and the end are one write.
    assert_eq!(spent.last().map(String::as_str), Some("settle"));
    // So there is no claim, no look at the history and no question whether a step was done.
    assert_eq!(spent.len(), STEPS + 1, "{spent:?}");
    Ok(())
}

#[tokio::test]
async fn the_result_of_what_ends_in_this_process_asks_the_database_nothing() -> Result<()> {
    let lab = Lab::new().await;
    // Longer than any pause between two looks, and in memory.
    let (long, memory) = (Duration::from_millis(1_500), Duration::from_secs(60));
    let worker = lab.builder().short_wait(memory).register(ten_steps).register(nap_for).register(fails);
    let durable = lab.worker(worker).await?;
    durable.start(ten_steps()).id("warm-up").await?.soon().await?;

    lab.wire.forget();
    let counted = durable.start(ten_steps()).id("counted").await?;
    assert_eq!(counted.soon().await?, 10);
    assert_eq!(counted.clone().soon().await?, 10, "the answer is the same however often it is asked");
    let late = durable.start(ten_steps()).id("late").await?;
    lab.db.until_status("late", "completed").await;
    assert_eq!(late.soon().await?, 10);
    let failed = durable.start(fails()).id("failed").await?.soon().await.unwrap_err();
    assert!(failed.to_string().contains("out of stock"), "{failed}");
    durable.start(nap_for(long)).id("long").await?.soon().await?;
    let crowd = (0..200).map(|n| (format!("crowd-{n}"), ten_steps()));
    for handle in durable.start_many(crowd).await? {
        assert_eq!(handle.soon().await?, 10);
    }

    let spent = lab.spent();
    assert_eq!(count(&spent, "inspect"), 0, "{spent:?}");
    let starts = count(&spent, "start_all") + count(&spent, "start_new");
    assert_eq!(starts, 5, "the counter has seen what was asked");
    Ok(())
}

#[tokio::test]
async fn a_transactional_step_takes_three_round_trips_more_than_its_statements() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.worker(lab.builder().register(one_transaction)).await?;
    lab.cost(durable.start(one_transaction()).id("warm-up"), "completed").await?;

    let spent = lab.cost(durable.start(one_transaction()).id("counted"), "completed").await?;

    println!("{STATEMENTS} statements in a step: {spent:?}");
    let mut expected = vec!["start_new", "begin; set"];
    expected.extend(["insert into"; STATEMENTS]);
    // One COMMIT, which is the one flush; no ping before or after.
    expected.extend(["transact", "commit", "settle"]);
    assert_eq!(spent, expected);
    Ok(())
}

#[tokio::test]
async fn a_start_in_the_callers_transaction_is_one_round_trip() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.builder().client().await?;
    let pool = lab.wire.pool();
    let mut connection = pool.acquire().await?;
    for id in ["warm-up", "counted"] {
        let mut tx = sqlx::Connection::begin(&mut *connection).await?;
        lab.wire.forget();
        durable.start(nap()).id(id).in_tx(&mut tx).await?;
        let spent = lab.spent();
        tx.commit().await?;
        if id == "counted" {
            assert_eq!(spent, ["start"]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_start_is_one_statement_and_one_more_where_the_id_exists() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.builder().client().await?;
    durable.start(nap()).id("there").await?;

    lab.wire.forget();
    assert!(!durable.start(nap()).id("new").await?.existed());
    assert_eq!(lab.spent(), ["start_new"]);

    lab.wire.forget();
    assert!(durable.start(nap()).id("there").await?.existed());
    assert_eq!(lab.spent(), ["start_new", "start"]);
    Ok(())
}

#[tokio::test]
async fn a_thousand_starts_are_one_statement() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.builder().client().await?;
    let thousand = |label: &'static str| (0..1_000).map(move |n| (format!("{label}-{n}"), nap()));
    durable.start_many(thousand("warm-up")).await?;

    lab.wire.forget();
    durable.start_many(thousand("alone")).await?;
    assert_eq!(lab.spent(), ["start_all"]);
    lab.wire.forget();
    durable.start_many(thousand("alone")).await?;
    assert_eq!(lab.spent(), ["start_all", "start"], "those that exist are found by a second one");

    let mut connection = lab.wire.pool().acquire().await?;
    for label in ["warm-up-in-tx", "in-tx"] {
        let mut tx = sqlx::Connection::begin(&mut *connection).await?;
        lab.wire.forget();
        durable.start_many(thousand(label)).in_tx(&mut tx).await?;
        let spent = lab.spent();
        tx.commit().await?;
        if label == "in-tx" {
            assert_eq!(spent, ["start"]);
        }
    }
    assert_eq!(lab.db.count("select count(*) from durable.workflow").await, 4_000);
    Ok(())
}

#[tokio::test]
async fn waiting_and_sending_and_receiving_are_one_statement_each() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.worker(lab.builder().register(ask)).await?;
    lab.cost(durable.start(ask()).id("warm-up"), "suspended").await?;
    durable.send("warm-up", NUDGE, 1).await?;
    lab.db.until_status("warm-up", "completed").await;

    let waits = lab.cost(durable.start(ask()).id("counted"), "suspended").await?;
    lab.wire.forget();
    durable.send("counted", NUDGE, 1).await?;
    lab.db.until_status("counted", "completed").await;
    let goes_on = lab.spent();

    println!("to wait for a message: {waits:?}; to get it: {goes_on:?}");
    assert_eq!(waits, ["start_new", "commit"]);
    // Before it is received, somebody has to take the workflow up again.
    assert_eq!(goes_on, ["send", "claim", "history", "receive", "settle"]);
    Ok(())
}

#[tokio::test]
async fn cancelling_what_waits_is_one_statement() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.worker(lab.builder().register(nap)).await?;
    for id in ["warm-up", "counted"] {
        lab.cost(durable.start(nap()).id(id), "suspended").await?;
        lab.wire.forget();
        durable.cancel(id).await?;
    }
    assert_eq!(lab.spent(), ["cancel"]);
    assert_eq!(lab.db.count("select count(*) from durable.workflow where status = 'cancelled'").await, 2);
    Ok(())
}

#[tokio::test]
async fn a_long_sleep_costs_one_write_and_its_end_none() -> Result<()> {
    let lab = Lab::new().await;
    let clock = lab.db.clock().await;
    let first = lab.worker(lab.builder().register(nap)).await?;
    lab.cost(first.start(nap()).id("warm-up"), "suspended").await?;
    let falls_asleep = lab.cost(first.start(nap()).id("counted"), "suspended").await?;
    first.shutdown(Duration::from_secs(10)).await;
    clock.advance(hours(2)).await?;

    // Another worker, because the leap of the clock ended the lease of the first.
    lab.wire.forget();
    let _second = lab.builder().register(nap).start().await?;
    lab.db.until("select count(*) = 2 from durable.workflow where status = 'completed'").await;
    let mut wakes = lab.spent();

    // What a new worker says first is not what waking costs.
    wakes.drain(..wakes.iter().position(|name| name == "claim").expect("a claim"));
    println!("to fall asleep: {falls_asleep:?}; two that wake: {wakes:?}");
    assert_eq!(falls_asleep, ["start_new", "commit"]);
    wakes.retain(|name| name != "claim");
    // The ends of the two are written together, or one after the other.
    assert!(wakes[0] == "history" && (2..=3).contains(&wakes.len()), "{wakes:?}");
    assert!(wakes[1..].iter().all(|name| ["commit", "settle"].contains(&&**name)), "{wakes:?}");
    // The records of the sleeps rode along.
    assert_eq!(lab.db.count("select count(*) from durable.step where kind = 'sleep'").await, 2);
    Ok(())
}

#[tokio::test]
async fn a_recovery_reads_every_history_in_one_statement() -> Result<()> {
    const WORKFLOWS: usize = 20;
    let lab = Lab::new().await;
    let gate = Gate::default();
    let first = lab.db.builder().lease(Duration::from_secs(60)).register(held).state(gate.clone()).start().await?;
    first.start_many((0..WORKFLOWS).map(|n| (format!("w-{n}"), held()))).await?;
    for _ in 0..WORKFLOWS {
        gate.reached().await;
    }
    first.shutdown(Duration::ZERO).await;

    let second = lab.builder().register(held).state(gate.clone()).start().await?;
    for _ in 0..WORKFLOWS {
        gate.reached().await;
    }

    let spent = lab.spent();
    println!("{WORKFLOWS} workflows recovered: {spent:?}");
    assert_eq!((count(&spent, "claim") >= 1, count(&spent, "history")), (true, 1));
    let about_steps = ["record", "recorded", "steps", "transact", "receive", "commit", "settle"];
    assert!(about_steps.iter().all(|name| count(&spent, name) == 0), "{spent:?}");
    for _ in 0..WORKFLOWS {
        gate.open();
    }
    lab.db.until("select count(*) = 20 from durable.workflow where status = 'completed'").await;
    assert_eq!(lab.db.count("select count(*) from durable.step where name = 'add'").await, 3 * 20);
    drop(second);
    Ok(())
}

#[tokio::test]
async fn only_claims_and_leases_commit_without_waiting_for_the_disk() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.builder().lease(Duration::from_secs(2)).register(ask).register(one_transaction).start().await?;
    durable.start(one_transaction()).id("t").await?;
    durable.start(ask()).id("a").await?;
    lab.db.until_status("a", "suspended").await;
    durable.send("a", NUDGE, 1).await?;
    lab.db.until_status("a", "completed").await;
    lab.db.until_status("t", "completed").await;
    let renewed = "select max(lease_until) > min(started_at) + interval '2.5 s' from durable.worker";
    lab.db.until(renewed).await;
    durable.shutdown(Duration::from_secs(10)).await;

    let mut asynchronous: Vec<String> =
        lab.wire.flights().iter().filter(|f| f.asynchronous).map(|f| lab.name(f)).collect();
    // What only reads does not commit.
    let reads = ["owned", "server", "fenced"];
    asynchronous.retain(|name| !reads.contains(&name.as_str()) && lab.names.values().any(|known| known == name));
    asynchronous.sort();
    asynchronous.dedup();
    assert_eq!(asynchronous, ["claim", "hand_back", "heartbeat", "register"]);
    Ok(())
}

#[tokio::test]
async fn an_idle_worker_asks_less_than_twice_a_second_however_many_sleep() -> Result<()> {
    let (alone, crowded, scheduled) = tokio::try_join!(idle(0, 0), idle(2_000, 0), idle(0, 500))?;
    for (sleepers, (asked, seconds)) in [(0, alone), (2_000, crowded), (0, scheduled)] {
        println!(
            "idle with {sleepers} sleepers: {asked} statements in {seconds:.2} s, {:.2}/s",
            asked as f64 / seconds
        );
        // Four things recur, each of which may have its turn at either edge of the time that was looked at.
        assert!((asked as f64) < 2.0 * seconds + 4.0, "{asked} statements in {seconds} s");
    }
    Ok(())
}

/// Statements of an idle worker with its usual options, and the seconds in which it made them.
async fn idle(sleepers: usize, schedules: usize) -> Result<(usize, f64)> {
    let lab = Lab::new().await;
    let durable = Durable::builder(lab.wire.pool()).migrate(false).register(nap).start().await?;
    durable.start_many((0..sleepers).map(|n| (format!("s-{n}"), nap()))).await?;
    for n in 0..schedules {
        durable.set_schedule(Schedule::new(format!("s-{n}"), nap()).cron("0 0 0 1 1 *", "UTC")).await?;
    }
    lab.db.until("select count(*) = 0 from durable.schedule where next_at is null").await;
    let busy = "select count(*) = 0 from durable.workflow where status <> 'suspended'";
    lab.db.until(busy).await;

    lab.wire.forget();
    let began_at = Instant::now();
    // Not a wait for something: it is the time over which a rate is taken.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let seconds = began_at.elapsed().as_secs_f64();
    // Preparing happens once per connection, whatever the time.
    Ok((lab.wire.flights().iter().map(|flight| flight.statements.len()).sum(), seconds))
}
