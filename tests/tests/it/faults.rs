//! A database that breaks connections, dies, and does not answer: nothing is lost, nothing is done twice, and
//! workflow code never hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use durable::{Builder, Ctx, Durable, Handle, PgConnection, StepCtx, step, workflow};
use durable_dev::{Server, ServerOptions};
use durable_tests::checker::{Seen, violations};
use durable_tests::db::{APPLICATION_TABLES, Db, PATIENCE};
use durable_tests::effects;
use durable_tests::gate::Gate;
use durable_tests::journey::{self, Arrival, JOURNEY_OUTPUT, WORD, WORDS};
use durable_tests::soon::Soon;
use durable_tests::victim::{Orders, Victim};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// A server of the test's own, with production's durability, that it may mistreat.
pub(super) struct Own {
    server: Option<Server>,
    pub(super) url: String,
    /// The application's pool.
    pool: PgPool,
    /// For what is outside the system under test: its commits wait for no standby.
    pub(super) outside: PgPool,
}

impl Own {
    pub(super) async fn start(options: ServerOptions) -> Result<Self> {
        durable_tests::db::log_if_asked();
        let server = tokio::task::spawn_blocking(|| Server::start(options)).await??;
        let url = server.url("postgres");
        let pool = PgPoolOptions::new().max_connections(5).connect(&url).await?;
        let local = url.parse::<PgConnectOptions>()?.options([("synchronous_commit", "local")]);
        let outside = PgPoolOptions::new().max_connections(5).connect_with(local).await?;
        sqlx::raw_sql(AssertSqlSafe(durable::testing::schema_script())).execute(&outside).await?;
        sqlx::raw_sql(APPLICATION_TABLES).execute(&outside).await?;
        Ok(Self { server: Some(server), url, pool, outside })
    }

    pub(super) fn builder(&self) -> Builder {
        let builder = Durable::builder(self.pool.clone())
            .lease(Duration::from_secs(2))
            .poll_every(Duration::from_millis(50))
            .migrate(false);
        journey::register(builder, self.outside.clone())
    }

    /// Kill the server in the middle of whatever it does, and let it recover.
    pub(super) async fn crash(&mut self) -> Result<()> {
        let mut server = self.server.take().expect("the server is there");
        let server = tokio::task::spawn_blocking(move || {
            server.kill()?;
            server.restart()?;
            Ok::<Server, durable_dev::Error>(server)
        });
        self.server = Some(server.await??);
        Ok(())
    }
}

/// The journey without faults, on another database.
async fn clean_journey() -> Result<Seen> {
    let db = Db::new().await;
    let durable = journey::register(db.builder(), db.pool.clone()).start().await?;
    depart(&durable, "clean").await?;
    durable.workflow::<Arrival>("clean").soon().await?;
    let seen = Seen::look(&db.pool, "clean").await?;
    assert_eq!(seen.output.as_deref(), Some(JOURNEY_OUTPUT));
    Ok(seen)
}

async fn depart(durable: &Durable, id: &str) -> Result<(), durable::Error> {
    durable.start(journey::journey(0)).id(id).await?;
    for word in WORDS {
        durable.send(id, WORD, word.to_owned()).key(word).await?;
    }
    Ok(())
}

/// Start and send until both were acknowledged, as a caller does whose database is down for a while.
async fn depart_surely(durable: &Durable, id: &str) -> Result<()> {
    let began_at = Instant::now();
    loop {
        match depart(durable, id).await {
            Ok(()) => return Ok(()),
            Err(error) => assert!(error.is_transient() && began_at.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// Wait for journeys, and check each of them.
async fn all_arrive(durable: &Durable, pool: &PgPool, ids: &[String], clean: &Seen) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for id in ids {
        let arrival = async {
            loop {
                match durable.workflow::<Arrival>(id).soon().await {
                    Err(error) if error.is_transient() => {}
                    answer => break answer,
                }
            }
        };
        if let Ok(arrived) = tokio::time::timeout(PATIENCE, arrival).await {
            arrived?;
        } else {
            let row = "select row_to_json(w)::text from durable.workflow w where id = $1";
            let row: String = sqlx::query_scalar(row).bind(id).fetch_one(pool).await?;
            anyhow::bail!("{id} never arrives: {row} {:#?}", Seen::look(pool, id).await?);
        }
        found.extend(violations(id, &Seen::look(pool, id).await?, clean));
    }
    Ok(found)
}

/// What reached workflow code: failures of steps, and failed attempts of steps that do not fail by themselves.
const TOLD: &str = "select count(*) from durable.step
                    where failure is not null or attempts is not null and name not in ('flaky', 'patient')";

/// P1, P2, P7, P17: every connection is cut, again and again, while workflows run. They do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_reach_no_workflow() -> Result<()> {
    let (db, clean) = (Db::new().await, clean_journey().await?);
    let durable = journey::register(db.builder(), db.pool.clone()).start().await?;
    let ids: Vec<String> = (0..50).map(|n| format!("w-{n}")).collect();
    let mut cuts = 0;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()";
    for (n, id) in ids.iter().enumerate() {
        depart_surely(&durable, id).await?;
        if n % 6 == 5 {
            cuts += sqlx::query_scalar::<_, i64>(cut).fetch_one(&db.pool).await?;
        }
    }
    while db.count("select count(*) from durable.workflow where status = 'completed'").await < 25 {
        cuts += sqlx::query_scalar::<_, i64>(cut).fetch_one(&db.pool).await?;
        // Some time between the cuts, or nothing would ever go on.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let found = all_arrive(&durable, &db.pool, &ids, &clean).await?;
    println!("connections cut: {cuts}; violations: {}", found.len());
    assert!(cuts > 40, "{cuts} connections were cut");
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(db.count(TOLD).await, 0);
    Ok(())
}

/// P1, P2, P3, P7, P17: the server is killed and recovers, twice, while workflows are started and run in two
/// processes. What was acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_was_acknowledged() -> Result<()> {
    let clean = clean_journey().await?;
    let mut own = Own::start(ServerOptions::new()).await?;
    let durable = own.builder().start().await?;
    let victim = Victim::begin(VICTIM, &Orders { lease: Duration::from_secs(2), ..Orders::new(&own.url) });
    let victim = victim.at_work().await;
    let ids: Vec<String> = (0..40).map(|n| format!("w-{n}")).collect();

    let starts = tokio::spawn({
        let (durable, ids) = (durable.clone(), ids.clone());
        async move {
            for id in &ids {
                depart_surely(&durable, id).await?;
            }
            Ok::<(), anyhow::Error>(())
        }
    });
    for _ in 0..2 {
        // In the middle: some steps are recorded, by the first server or since the last crash.
        let steps: i64 = sqlx::query_scalar("select count(*) from durable.step").fetch_one(&own.outside).await?;
        let began_at = Instant::now();
        while sqlx::query_scalar::<_, i64>("select count(*) from durable.step").fetch_one(&own.outside).await?
            < steps + 100
        {
            assert!(began_at.elapsed() < PATIENCE, "nothing goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        own.crash().await?;
    }
    starts.await??;

    let found = all_arrive(&durable, &own.outside, &ids, &clean).await?;
    println!("violations: {}", found.len());
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(sqlx::query_scalar::<_, i64>(TOLD).fetch_one(&own.outside).await?, 0);
    victim.shut_down().await;
    durable.shutdown(PATIENCE).await;
    Ok(())
}

/// Let every commit that flushes hang, as if it waited for a standby that is gone.
pub(super) async fn hang_commits(own: &Own) -> Result<()> {
    sqlx::query("alter system set synchronous_standby_names = 'nobody'").execute(&own.outside).await?;
    sqlx::query("select pg_reload_conf()").execute(&own.outside).await?;
    let began_at = Instant::now();
    // The server heeds it once a commit hangs.
    loop {
        let probe = own.pool.clone();
        let probe = tokio::spawn(async move {
            sqlx::query("insert into application_row (name) values ('probe')").execute(&probe).await
        });
        while !probe.is_finished() {
            if cut_hanging(own).await? > 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(began_at.elapsed() < PATIENCE, "commits do not hang");
    }
}

/// Cut the connections whose commit hangs. The commit stands, but its caller hears of an error.
async fn cut_hanging(own: &Own) -> Result<i64> {
    let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'";
    Ok(sqlx::query_scalar(sql).fetch_one(&own.outside).await?)
}

/// Cuts every commit that hangs, until told to end.
pub(super) struct Cutter {
    over: Arc<AtomicBool>,
    cutting: tokio::task::JoinHandle<Result<i64>>,
}

impl Cutter {
    pub(super) fn begin(own: &Arc<Own>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (own, told) = (own.clone(), over.clone());
        let cutting = tokio::spawn(async move {
            let mut cuts = 0;
            while !told.load(Ordering::Acquire) {
                cuts += cut_hanging(&own).await?;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(cuts)
        });
        Self { over, cutting }
    }

    /// How many it has cut.
    pub(super) async fn end(self) -> Result<i64> {
        self.over.store(true, Ordering::Release);
        self.cutting.await?
    }
}

pub(super) async fn let_commits_go(own: &Own) -> Result<()> {
    sqlx::query("alter system reset synchronous_standby_names").execute(&own.outside).await?;
    sqlx::query("select pg_reload_conf()").execute(&own.outside).await?;
    Ok(())
}

async fn until_second_word_is_awaited(pool: &PgPool, id: &str) -> Result<()> {
    let sql = "select exists (select from durable.step where workflow_id = $1 and name = 'patient')
               and exists (select from durable.waiting where id = $1 and waits_for = 'receive')";
    let began_at = Instant::now();
    while !sqlx::query_scalar::<_, bool>(sql).bind(id).fetch_one(pool).await? {
        assert!(began_at.elapsed() < PATIENCE, "{id} never waits for its second word");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// P1, P2, P3, P7: no reply to any commit of a workflow's life ever comes: not of its start, its steps, its
/// suspensions, its messages, its end. Each stands, once, and no body runs again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_none_of_whose_commits_is_answered_happens_once() -> Result<()> {
    let clean = clean_journey().await?;
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    // No takeover may help: what the worker does not find out by itself, nobody finds out.
    let durable = own.builder().lease(Duration::from_secs(3_600)).start().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);

    let ids: Vec<String> = (0..3).map(|n| format!("w-{n}")).collect();
    // Each word comes alone: while another message waits, a repeated receive locks that one, and its commit
    // would hang for as long as commits do.
    for id in &ids {
        durable.start(journey::journey(0)).id(id).await?;
        durable.send(id, WORD, WORDS[0].to_owned()).key(WORDS[0]).await?;
    }
    for id in &ids {
        until_second_word_is_awaited(&own.outside, id).await?;
        durable.send(id, WORD, WORDS[1].to_owned()).key(WORDS[1]).await?;
    }
    let arrived = all_arrive(&durable, &own.outside, &ids, &clean).await;
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;
    println!("commits without an answer: {cuts}; {arrived:?}");

    assert_eq!(arrived?, Vec::<String>::new());
    assert!(cuts > 30, "{cuts} commits without an answer");
    assert_eq!(sqlx::query_scalar::<_, i64>(TOLD).fetch_one(&own.outside).await?, 0);
    let twice = "select count(*) from (select from effect group by key, attempt having count(*) > 1) as repeated";
    assert_eq!(sqlx::query_scalar::<_, i64>(twice).fetch_one(&own.outside).await?, 0, "a body ran again");
    Ok(())
}

#[step(tx)]
async fn gated_write(tx: &mut PgConnection, step: &StepCtx) -> Result<u32> {
    effects::write(tx, step, "gated_write", "").await?;
    step.state::<Gate>().pass().await;
    Ok(step.attempt())
}

#[workflow]
async fn gated(ctx: &Ctx) -> Result<u32> {
    Ok(ctx.run(gated_write()).await?)
}

/// P1: the connection breaks while the transaction is open. It is gone, so the body runs again, and its
/// effect is there once; that is no failed attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_was_cut_before_its_commit_happens_once() -> Result<()> {
    let db = Db::new().await;
    let gate = Gate::default();
    let durable = db.builder().register(gated).state(gate.clone()).start().await?;
    let handle = durable.start(gated()).id("a").await?;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and state = 'idle in transaction'";
    for _ in 0..3 {
        gate.reached().await;
        assert_eq!(sqlx::query_scalar::<_, i64>(cut).fetch_one(&db.pool).await?, 1);
        gate.open();
    }
    gate.reached().await;
    gate.open();

    assert_eq!(handle.soon().await?, 1);
    assert_eq!(db.count("select count(*) from effect").await, 1);
    assert_eq!(db.count(TOLD).await, 0);
    Ok(())
}

#[step]
async fn noted(step: &StepCtx, name: String) -> Result<()> {
    // Outside the database, as far as its flushes go: none of them must make the claim durable.
    let mut unflushed = step.state::<journey::Outside>().0.acquire().await?;
    sqlx::query("set synchronous_commit = off").execute(&mut *unflushed).await?;
    effects::write(&mut unflushed, step, &name, "").await?;
    Ok(())
}

#[step]
async fn at_the_gate(step: &StepCtx) -> Result<()> {
    step.state::<Gate>().pass().await;
    Ok(())
}

#[workflow]
async fn between_gates(ctx: &Ctx) -> Result<()> {
    ctx.run(at_the_gate()).await?;
    ctx.run(noted("between".into())).await?;
    Ok(ctx.run(at_the_gate()).await?)
}

/// When workflow "a" was claimed last, if the server answers.
async fn claimed_at(own: &Own) -> Option<DateTime<Utc>> {
    let claimed_at = "select claimed_at from durable.workflow where id = 'a' and claimed_at is not null";
    sqlx::query_scalar(claimed_at).fetch_optional(&own.outside).await.ok().flatten()
}

/// A worker whose server has died and lost the claim of workflow "a", and that has claimed it anew.
async fn lose_a_claim() -> Result<(Own, Gate, Durable, Handle<()>)> {
    for _ in 0..5 {
        // Nothing is flushed but by those who wait for it; and every ten seconds. When that was just then, no claim was lost.
        let mut own = Own::start(ServerOptions::new().set("wal_writer_delay", "10s")).await?;
        let gate = Gate::default();
        let builder = own.builder().register(between_gates).state(gate.clone()).lease(Duration::from_secs(60));
        let client = own.builder().client().await?;
        let durable = builder.start().await?;
        let handle = client.start(between_gates()).id("a").await?;
        gate.reached().await;
        let lost = claimed_at(&own).await.context("it was claimed")?;
        own.crash().await?;
        let again = async {
            while claimed_at(&own).await.is_none_or(|again| again == lost) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), again).await.is_ok() {
            return Ok((own, gate, durable, handle));
        }
        durable.shutdown(Duration::ZERO).await;
    }
    anyhow::bail!("no claim was lost by five crashes, or none was made anew")
}

/// P2: the server dies and loses a claim, which was not flushed. The same worker claims the workflow anew,
/// while what it began under the lost claim still runs: nothing is attempted after its record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_the_server_lost_does_not_run_twice_in_one_worker() -> Result<()> {
    let (own, gate, durable, handle) = lose_a_claim().await?;
    gate.reached().await;
    // Two bodies stand at the first gate, unless the worker gave up the first one. One goes through, and on
    // to the second gate; then the other one.
    gate.open();
    gate.reached().await;
    for _ in 0..4 {
        gate.open();
    }
    handle.soon().await?;
    durable.shutdown(PATIENCE).await;

    let between = sqlx::query_scalar::<_, i64>("select count(*) from effect where step = 'between'");
    assert_eq!(between.fetch_one(&own.outside).await?, 1, "a step ran twice in one worker");
    Ok(())
}

/// Which worker a body runs in, for workers of one process.
struct Who(&'static str);

#[step]
async fn says_who(step: &StepCtx) -> Result<String> {
    let came_at = Utc::now();
    step.state::<Gate>().pass().await;
    let who = step.state::<Who>().0;
    effects::note(&step.state::<journey::Outside>().0, step, "says_who", who, came_at).await?;
    Ok(who.to_owned())
}

#[workflow]
async fn asked_who(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(says_who()).await?)
}

/// A worker that has room for one workflow, and the gate of its bodies.
async fn one_at_a_time(own: &Own, who: &'static str) -> Result<(Durable, Gate)> {
    let gate = Gate::default();
    let builder = own.builder().register(asked_who).state(gate.clone()).state(Who(who));
    Ok((builder.concurrency(1).lease(Duration::from_secs(60)).start().await?, gate))
}

/// P2, P9: the server dies and loses a claim, which was not flushed. Another worker claims the workflow and records the
/// step whose body still runs in the first one: that body's outcome counts for nothing, and nobody begins it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_the_server_lost_and_another_worker_makes_is_the_other_ones() -> Result<()> {
    for _ in 0..5 {
        let mut own = Own::start(ServerOptions::new().set("wal_writer_delay", "10s")).await?;
        let client = own.builder().client().await?;
        let (first, first_gate) = one_at_a_time(&own, "first").await?;
        let handle = client.start(asked_who()).id("a").await?;
        first_gate.reached().await;
        own.crash().await?;
        if claimed_at(&own).await.is_some() {
            // It was just then that the server flushed by itself.
            first.shutdown(Duration::ZERO).await;
            continue;
        }
        let (second, second_gate) = one_at_a_time(&own, "second").await?;
        second_gate.reached().await;
        second_gate.open();
        assert_eq!(handle.soon().await?, "second");
        first_gate.open();
        first.shutdown(PATIENCE).await;
        second.shutdown(PATIENCE).await;

        let said = "select string_agg(value, ',' order by at) from effect";
        let said: String = sqlx::query_scalar(said).fetch_one(&own.outside).await?;
        assert_eq!(said, "first,second", "each worker's body began once, before the record");
        let seen = Seen::look(&own.outside, "a").await?;
        assert_eq!(violations("a", &seen, &seen), Vec::<String>::new());
        return Ok(());
    }
    anyhow::bail!("no claim was lost by five crashes")
}
