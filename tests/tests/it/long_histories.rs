//! Histories that do not fit into memory at once: they are read page by page, where the body asks for them, and a
//! body that no longer fits them is blocked wherever that shows.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Context, Result};
use durable::{Builder, Ctx, Durable, FailureKind, StepCtx, step, workflow};
use durable_tests::db::Db;
use durable_tests::wire::Wire;
use sqlx::AssertSqlSafe;

use super::statements::statements;

/// Records in one page.
const PAGE: usize = 1_000;

/// How many steps were run, not answered from a history.
#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[step]
async fn count(step: &StepCtx, n: usize) -> Result<usize> {
    step.state::<Runs>().0.fetch_add(1, Ordering::SeqCst);
    Ok(n)
}

/// Steps one after the other.
#[workflow]
async fn chain(ctx: &Ctx, steps: usize) -> Result<usize> {
    let mut sum = 0;
    for n in 0..steps {
        sum += ctx.run(count(n)).await?;
    }
    Ok(sum)
}

/// A lane with some steps for each item, many at a time.
#[workflow]
async fn fan(ctx: &Ctx, lanes: usize, steps: usize, at_once: usize) -> Result<usize> {
    let sums = ctx.fan_out(0..lanes, at_once, async move |ctx: &Ctx, n: usize| -> Result<usize> {
        let mut sum = 0;
        for _ in 0..steps {
            sum += ctx.run(count(n)).await?;
        }
        Ok(sum)
    });
    let sum: usize = sums.await.into_iter().sum::<Result<usize>>()?;
    Ok(sum + ctx.run(count(1)).await?)
}

/// All that is recorded of a workflow which a worker has given up, written as that worker would have.
async fn remembered(db: &Db, id: &str, name: &str, input: &str, records: &str) -> Result<()> {
    let bucket = format!("(get_byte(sha256(convert_to('{id}', 'UTF8')), 0) % 64)::smallint");
    let script = format!(
        "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
         select {bucket}, '{id}', lane, seq, 'step', step, output, now()
         from ({records}) as r (lane, seq, step, output);
         insert into durable.workflow (bucket, id, name, version, queue, status, due_at, claims, input)
         values ({bucket}, '{id}', '{name}', 1, 'default', 'queued', now(), 1, '{input}')"
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&db.pool).await?;
    Ok(())
}

/// A worker behind a wire, and what it asked about histories.
struct Lab {
    db: Db,
    wire: Wire,
    runs: Runs,
}

impl Lab {
    async fn new() -> Self {
        let db = Db::new().await;
        let wire = Wire::to(&db);
        Self { db, wire, runs: Runs::default() }
    }

    fn builder(&self) -> Builder {
        Durable::builder(self.wire.pool()).migrate(false).poll_every(Duration::from_millis(50)).state(self.runs.clone())
    }

    /// How often a statement was sent.
    fn sent(&self, name: &str) -> usize {
        let statement = statements().into_iter().find(|statement| statement.name == name).expect("a statement").text;
        self.wire.flights().iter().flat_map(|flight| &flight.statements).filter(|text| **text == statement).count()
    }
}

#[tokio::test]
async fn a_long_history_is_read_page_by_page_and_nothing_is_run_again() -> Result<()> {
    const RECORDED: usize = 20 * PAGE;
    let lab = Lab::new().await;
    let records = format!("select '', n, 'count', n::text::json from generate_series(0, {RECORDED} - 1) n");
    remembered(&lab.db, "w", "chain", &(RECORDED + 7).to_string(), &records).await?;
    let durable = lab.builder().register(chain).start().await?;

    let sum = durable.workflow::<usize>("w").result().await?;

    assert_eq!(sum, (0..RECORDED + 7).sum::<usize>());
    assert_eq!(lab.runs.count(), 7);
    assert_eq!(lab.sent("history"), RECORDED / PAGE);
    Ok(())
}

/// Goes on whatever fails.
#[workflow]
async fn careless(ctx: &Ctx, steps: usize) -> Result<usize> {
    let mut failed = 0;
    for n in 0..steps {
        failed += usize::from(ctx.run(count(n)).await.is_err());
    }
    Ok(failed)
}

/// What failed has no output, and takes no more room in a page than it has.
#[tokio::test]
async fn failures_are_read_as_many_at_a_time_as_everything_else() -> Result<()> {
    const RECORDED: usize = PAGE / 2;
    let lab = Lab::new().await;
    let records = format!("select '', n, 'count', null::json from generate_series(0, {RECORDED} - 1) n");
    remembered(&lab.db, "w", "careless", &(RECORDED + 1).to_string(), &records).await?;
    let failed =
        "update durable.step set failure = json_build_object('kind', 'error', 'messages', json_build_array('no'))";
    sqlx::raw_sql(failed).execute(&lab.db.pool).await?;
    let durable = lab.builder().register(careless).start().await?;

    assert_eq!(durable.workflow::<usize>("w").result().await?, RECORDED);
    assert_eq!((lab.runs.count(), lab.sent("history")), (1, 1));
    assert_eq!(durable.workflow::<()>("w").history().limit(1_000).await?.steps.len(), RECORDED + 1);
    Ok(())
}

#[tokio::test]
async fn a_wide_fan_out_is_recovered_in_few_statements() -> Result<()> {
    const LANES: usize = 10_000;
    let lab = Lab::new().await;
    let records = format!("select '0.' || n, 0, 'count', n::text::json from generate_series(0, {LANES} - 4) n");
    remembered(&lab.db, "w", "fan", &format!("[{LANES}, 1, 64]"), &records).await?;
    let durable = lab.builder().register(fan).start().await?;

    let sum = durable.workflow::<usize>("w").result().await?;

    assert_eq!(sum, (0..LANES).sum::<usize>() + 1);
    // Three lanes, and what follows them.
    assert_eq!(lab.runs.count(), 4);
    let sent = lab.sent("history");
    // Neighbours in the key are far apart for a fan-out: it goes through the key once for each number of digits.
    assert!(sent <= 4 * LANES / PAGE, "{sent} statements");
    Ok(())
}

#[tokio::test]
async fn lanes_of_many_steps_are_recovered_side_by_side() -> Result<()> {
    const LANES: usize = 40;
    const STEPS: usize = 300;
    let lab = Lab::new().await;
    let records = format!(
        "select '0.' || n, s, 'count', n::text::json
         from generate_series(0, {LANES} - 1) n, generate_series(0, {STEPS} - 1) s where s < {STEPS} - n % 3"
    );
    remembered(&lab.db, "w", "fan", &format!("[{LANES}, {STEPS}, 16]"), &records).await?;
    let durable = lab.builder().register(fan).start().await?;

    let sum = durable.workflow::<usize>("w").result().await?;

    assert_eq!(sum, (0..LANES).map(|n| n * STEPS).sum::<usize>() + 1);
    assert_eq!(lab.runs.count(), (0..LANES).map(|n| n % 3).sum::<usize>() + 1);
    let sent = lab.sent("history");
    assert!(sent <= 3 * LANES * STEPS / PAGE, "{sent} statements");
    Ok(())
}

/// P15
#[tokio::test]
async fn a_step_that_the_code_has_lost_blocks_beyond_the_first_page_too() -> Result<()> {
    let lab = Lab::new().await;
    let records = "select '', n, 'count', n::text::json from generate_series(0, 2500) n";
    for (id, asked) in [("last", 2_500), ("page", 1_000), ("all", 0)] {
        remembered(&lab.db, id, "chain", &asked.to_string(), records).await?;
    }
    let durable = lab.builder().register(chain).start().await?;
    for (id, asked) in [("last", 2_500), ("page", 1_000), ("all", 0)] {
        lab.db.until_status(id, "blocked").await;
        let failure = durable.workflow::<usize>(id).info().await?.failure.context("why it is blocked")?;
        assert_eq!(failure.kind(), FailureKind::Mismatch);
        let says = format!("at position {asked} the history has step \"count\", the code ended without");
        assert!(failure.message().contains(&says), "{failure}");
    }
    assert_eq!(lab.runs.count(), 0);
    Ok(())
}

/// P15
#[tokio::test]
async fn other_code_blocks_beyond_the_first_page_too() -> Result<()> {
    let lab = Lab::new().await;
    let steps = "select '', n, 'count', '1'::json from generate_series(0, 1499) n union all";
    // Where the code runs a step: another step, or a fan-out of other code.
    remembered(&lab.db, "step", "chain", "2000", &format!("{steps} select '', 1500, 'refund', '1'::json")).await?;
    remembered(&lab.db, "lane", "chain", "2000", &format!("{steps} select '1500.3', 0, 'count', '1'::json")).await?;
    // Where the code opens a fan-out: a step.
    remembered(&lab.db, "fan", "fan", "[9, 1, 9]", "select '', 0, 'count', '1'::json").await?;
    let durable = lab.builder().register(chain).register(fan).start().await?;
    for (id, says) in [
        ("step", "at position 1500 the history has step \"refund\", the code asks for step \"count\""),
        ("lane", "at position 1500 the history has a branch, the code asks for step \"count\""),
        ("fan", "at position 0 the history has step \"count\", the code opens a branch"),
    ] {
        lab.db.until_status(id, "blocked").await;
        let failure = durable.workflow::<usize>(id).info().await?.failure.context("why it is blocked")?;
        assert!(failure.message().contains(says), "{failure}");
    }
    assert_eq!(lab.runs.count(), 0);
    Ok(())
}

/// The text of a value of so many bytes that hardly compresses.
fn random_text(bytes: usize) -> String {
    format!("(select to_json(string_agg(md5(random()::text || i), '')) from generate_series(1, {} / 32) i)", bytes)
}

#[step]
async fn text() -> Result<String> {
    anyhow::bail!("what was recorded is not run again")
}

#[workflow]
async fn texts(ctx: &Ctx, steps: usize) -> Result<Vec<usize>> {
    let mut lengths = Vec::new();
    for _ in 0..steps {
        lengths.push(ctx.run(text()).await?.len());
    }
    Ok(lengths)
}

#[tokio::test]
async fn large_values_come_one_by_one() -> Result<()> {
    const LARGE: usize = 30 * 1024 * 1024;
    let lab = Lab::new().await;
    let large = random_text(LARGE);
    let records = format!("select '', n, 'text', {large} from generate_series(0, 2) n");
    remembered(&lab.db, "large", "texts", "3", &records).await?;
    // Of half a page each, many of which compress well.
    let records = format!(
        "select '', n, 'text', case when n % 2 = 0 then {} else to_json(repeat('x', 512 * 1024)) end
         from generate_series(0, 9) n",
        random_text(512 * 1024)
    );
    remembered(&lab.db, "half", "texts", "10", &records).await?;
    let durable = lab.builder().register(texts).start().await?;

    assert_eq!(durable.workflow::<Vec<usize>>("large").result().await?, vec![LARGE; 3]);
    assert_eq!(durable.workflow::<Vec<usize>>("half").result().await?, vec![512 * 1024; 10]);

    let sent = lab.sent("history");
    // One for both, which has nothing of the large ones; each of those alone; the others by twos or threes.
    assert!((7..=11).contains(&sent), "{sent} statements");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_takes_memory_for_a_page_not_for_the_history() -> Result<()> {
    const STEPS: usize = 20_000;
    const EACH: usize = 8 * 1024;
    let db = Db::new().await;
    // Said by the column, so that the sizes in the table are those in memory.
    sqlx::raw_sql("alter table durable.step alter output set storage external").execute(&db.pool).await?;
    let records =
        format!("select '', n, 'page_of_text', to_json(repeat('x', {EACH})) from generate_series(0, {STEPS} - 1) n");
    remembered(&db, "w", "read_all", &STEPS.to_string(), &records).await?;
    // The worker finds nothing before it has told what it takes by itself.
    sqlx::raw_sql("update durable.workflow set due_at = now() + interval '1 day'").execute(&db.pool).await?;

    let mut rememberer = Command::new(env!("CARGO_BIN_EXE_rememberer"))
        .arg(db.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut says = BufReader::new(rememberer.stdout.take().context("its output")?).lines();
    let mut line = || says.next().context("the end of its output")?.context("its output");
    let before: u64 = line()?.parse()?;
    sqlx::raw_sql("update durable.workflow set due_at = now()").execute(&db.pool).await?;
    writeln!(rememberer.stdin.take().context("its input")?, "w")?;
    let told = tokio::task::block_in_place(line)?;
    rememberer.wait()?;

    let (after, length) = told.split_once(' ').context("two numbers")?;
    assert_eq!(length.parse::<usize>()?, STEPS * EACH);
    let grown = after.parse::<u64>()? - before;
    println!("a history of {} kB grew the worker by {grown} kB", STEPS * EACH / 1024);
    assert!(grown < 32 * 1024, "{grown} kB for a history of {} kB", STEPS * EACH / 1024);
    Ok(())
}

/// In the middle of the first page the body of the next test waits here, and then again: for the test alone, so by
/// blocking its thread.
static HALFWAY: Barrier = Barrier::new(2);

#[workflow]
async fn paused_chain(ctx: &Ctx, steps: usize) -> Result<usize> {
    let mut sum = 0;
    for n in 0..steps {
        sum += ctx.run(count(n)).await?;
        if n == PAGE / 2 {
            HALFWAY.wait();
            HALFWAY.wait();
        }
    }
    Ok(sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_cut_off_is_done_again() -> Result<()> {
    let lab = Lab::new().await;
    let records = "select '', n, 'count', n::text::json from generate_series(0, 2499) n";
    remembered(&lab.db, "w", "paused_chain", "2500", records).await?;
    let durable = lab.builder().register(paused_chain).start().await?;
    tokio::task::block_in_place(|| HALFWAY.wait());
    let mut locked = lab.db.pool.begin().await?;
    sqlx::raw_sql("lock table durable.step in access exclusive mode").execute(&mut *locked).await?;
    tokio::task::block_in_place(|| HALFWAY.wait());

    let cut_off = "select coalesce(bool_or(pg_terminate_backend(pid)), false) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock' and query like '%with ordinality%'";
    lab.db.until(cut_off).await;
    locked.rollback().await?;

    assert_eq!(durable.workflow::<usize>("w").result().await?, (0..2_500).sum::<usize>());
    assert_eq!(lab.runs.count(), 0);
    assert_eq!(lab.sent("history"), 4);
    Ok(())
}

#[tokio::test]
async fn a_dead_workers_thousands_are_taken_over_in_a_few_statements() -> Result<()> {
    const WORKFLOWS: usize = 2_500;
    let lab = Lab::new().await;
    let script = format!(
        "insert into durable.worker (id, lease_until, host, pid, queue)
         values (md5('dead')::uuid, now() - interval '1 s', 'dead', 1, 'default');
         insert into durable.workflow (bucket, id, name, version, queue, status, owner, claims, claimed_at, input)
         select get_byte(sha256(convert_to('w-' || n, 'UTF8')), 0) % 64, 'w-' || n, 'chain', 1, 'default', 'running',
                md5('dead')::uuid, 1, now(), '10'
         from generate_series(1, {WORKFLOWS}) n;
         insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
         select w.bucket, w.id, '', s, 'step', 'count', s::text::json, now()
         from durable.workflow w, generate_series(0, 9) s"
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&lab.db.pool).await?;
    let _durable = lab.builder().concurrency(WORKFLOWS).register(chain).start().await?;

    lab.db.until("select count(*) = 2500 from durable.workflow where status = 'completed'").await;

    assert_eq!(lab.runs.count(), 0);
    let (claims, histories) = (lab.sent("claim"), lab.sent("history"));
    println!("{WORKFLOWS} workflows: {} rounds of reaping, {claims} claims, {histories} looks", lab.sent("reap"));
    // One look for each claim that brought something, none for a workflow of its own.
    assert!(histories <= claims && histories <= 25, "{histories} for {claims} claims");
    Ok(())
}
