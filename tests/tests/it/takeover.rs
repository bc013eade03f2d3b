//! When a worker is gone, frozen, poisoned or shut down, another one goes on: in time, and alone.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::Result;
use durable::{Ctx, Durable, Handle, PgConnection, StepCtx, step, workflow};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::effects;
use durable_tests::gate::Gate;
use durable_tests::island::Island;
use durable_tests::journey;
use durable_tests::soon::Soon;
use durable_tests::victim::{Orders, Victim};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// Wait until another process than `pid` has come to a place in a body.
async fn until_body_of_another(db: &Db, place: &str, pid: i32) {
    until_effects(db, "step = $1 and pid <> $2", place, pid).await;
}

/// Wait until process `pid` has come to a place in a body.
async fn until_body_of(db: &Db, place: &str, pid: i32) {
    until_effects(db, "step = $1 and pid = $2", place, pid).await;
}

async fn until_effects(db: &Db, which: &str, place: &str, pid: i32) {
    let sql = format!("select exists (select from effect where {which})");
    let began_at = Instant::now();
    while !sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(sql.clone()))
        .bind(place)
        .bind(pid)
        .fetch_one(&db.pool)
        .await
        .expect("the effects")
    {
        assert!(began_at.elapsed() < PATIENCE, "no body came to {place}: {which} {pid}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Everything that is stored about workflows, as one text.
async fn everything(db: &Db) -> String {
    db.text(
        "select concat((select json_agg(w order by w.id) from durable.workflow w),
                       (select json_agg(s order by s.workflow_id, s.lane, s.seq) from durable.step s),
                       (select json_agg(m order by m.workflow_id, m.n) from durable.message m),
                       (select json_agg(e order by e.at) from effect e where step <> 'came'))",
    )
    .await
}

/// A frozen worker in the middle of two steps, another one that has begun them anew, and the two workflows.
struct Rivals {
    frozen: Victim,
    other: Victim,
    plain: Handle<u32>,
    transactional: Handle<u32>,
}

/// Let a worker begin a plain and a transactional step that are held at their gates, freeze it past its lease,
/// and wait until another one stands at the same gates.
async fn rivals(db: &Db, client: &Durable) -> Result<Rivals> {
    let frozen = Victim::begin(VICTIM, &Orders::new(db.url())).at_work().await;
    let plain = client.start(journey::held()).id("plain").await?;
    let transactional = client.start(journey::held_transaction()).id("transactional").await?;
    until_body_of(db, "hold", frozen.pid()).await;
    until_body_of(db, "came", frozen.pid()).await;

    frozen.freeze().await;
    let other = Victim::begin(VICTIM, &Orders::new(db.url())).at_work().await;
    until_body_of_another(db, "hold", frozen.pid()).await;
    until_body_of_another(db, "came", frozen.pid()).await;
    Ok(Rivals { frozen, other, plain, transactional })
}

/// P9: a worker that was frozen past its lease while another one took over changes nothing when it goes on,
/// and then works again under a new owner id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_changes_nothing_when_it_goes_on() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let Rivals { frozen, other, plain, transactional } = rivals(&db, &client).await?;
    journey::open(&db.pool, "plain").await?;
    journey::open(&db.pool, "transactional").await?;
    assert_eq!(plain.soon().await?.cast_signed(), other.pid());
    assert_eq!(transactional.soon().await?.cast_signed(), other.pid());

    let before = everything(&db).await;
    frozen.thaw().await;
    // Its bodies go through their open gates meanwhile, and find that they are fenced.
    until_second_incarnation(&db, &frozen).await;
    other.shut_down().await;
    assert_eq!(everything(&db).await, before);
    assert_eq!(db.count("select count(*) from effect where step = 'hold_transaction'").await, 1);
    assert_eq!(db.count("select count(*) from effect where step = 'transactional'").await, 2);

    let again = client.start(journey::modest(0)).id("again").await?;
    assert_eq!(again.soon().await?, 22);
    let own = format!("select count(*) from effect where workflow_id = 'again' and pid <> {}", frozen.pid());
    assert_eq!(sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(own)).fetch_one(&db.pool).await?, 0);
    Ok(())
}

/// P9: a worker that goes on after it was fenced cannot record a step whose body the new owner has begun, and
/// not ended: the outcome is the new owner's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_worker_cannot_record_before_the_new_owner_does() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let Rivals { frozen, other, plain, transactional } = rivals(&db, &client).await?;
    // The new owner stands still at its gate while the old one goes through.
    other.freeze().await;
    journey::open(&db.pool, "plain").await?;
    journey::open(&db.pool, "transactional").await?;
    frozen.thaw().await;
    until_second_incarnation(&db, &frozen).await;
    let recorded = "select count(*) from durable.step where name like 'hold%'";
    let by_the_fenced_one = db.count(recorded).await;
    other.thaw().await;

    // It may have been fenced in its turn while it stood still; by then the first one owns the workflows
    // anew, under another owner id, and its bodies began anew.
    plain.soon().await?;
    transactional.soon().await?;
    assert_eq!(by_the_fenced_one, 0, "recorded before anybody's second claim could reach its body's end");
    assert_eq!(db.count(recorded).await, 2);
    assert_eq!(db.count("select count(*) from effect where step = 'hold_transaction'").await, 1);
    assert_eq!(db.count("select count(*) from effect where step = 'transactional'").await, 2);
    Ok(())
}

/// One of two workers in this process, and where its bodies stand.
#[derive(Clone)]
struct Side {
    name: &'static str,
    gate: Gate,
}

/// Where bodies stand before they end, first come first served.
static END: LazyLock<Gate> = LazyLock::new(Gate::default);

#[step]
async fn told_apart(step: &StepCtx) -> Result<String> {
    let side = step.state::<Side>();
    side.gate.pass().await;
    Ok(side.name.to_owned())
}

#[step(tx)]
async fn written_apart(tx: &mut PgConnection, step: &StepCtx) -> Result<String> {
    let side = step.state::<Side>();
    effects::write(tx, step, "written_apart", side.name).await?;
    side.gate.pass().await;
    Ok(side.name.to_owned())
}

#[workflow]
async fn apart(ctx: &Ctx, place: String) -> Result<String> {
    match &*place {
        "plain" => Ok(ctx.run(told_apart()).await?),
        "transactional" => Ok(ctx.run(written_apart()).await?),
        _ => {
            END.pass().await;
            Ok("ended".to_owned())
        }
    }
}

#[workflow]
async fn started_late(_ctx: &Ctx) -> Result<()> {
    Ok(())
}

/// How many were born running under the worker that started them.
const BORN: &str = "select count(*) from durable.workflow where claims > 0 and claimed_at = created_at";

/// P3, P9: what a worker starts after its lease has ended, without knowing it, is not born under it: it would be nobody's
/// until a takeover. Neither alone nor with others.
#[tokio::test]
async fn nothing_is_born_under_a_worker_whose_lease_has_ended() -> Result<()> {
    const TRIES: u32 = 100;
    for together in [false, true] {
        let (db, lease) = (Db::new().await, Duration::from_secs(600));
        let clock = db.clock().await;
        // No poll takes the places, and no heartbeat comes, for as long as this takes.
        let builder = db.builder().lease(lease).poll_every(Duration::from_secs(60)).register(started_late);
        let worker = builder.start().await?;
        // The worker's first look for work has all places for a moment.
        for n in 0..TRIES {
            worker.start(started_late()).id(format!("in-time-{n}")).await?.soon().await?;
            if db.count(BORN).await > 0 {
                break;
            }
        }
        let born = db.count(BORN).await;
        assert!(born > 0, "under a lease something is born here");

        clock.advance(lease * 2).await?;
        let ids: &[&str] = if together { &["a", "b"] } else { &["a"] };
        let calls = ids.iter().map(|id| ((*id).to_owned(), started_late()));
        let handles = worker.start_many(calls).await?;
        assert_eq!(db.count(BORN).await, born, "{ids:?}");

        let _other = db.builder().register(started_late).start().await?;
        for handle in handles {
            handle.soon().await?;
        }
    }
    Ok(())
}

/// P9: a worker that was fenced and has no way to know, its lease being good by its own clock, records no
/// step and ends no workflow: the database refuses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_worker_that_does_not_know_is_refused() -> Result<()> {
    const PLACES: [&str; 3] = ["plain", "transactional", "end"];
    let (db, lease) = (Db::new().await, Duration::from_secs(600));
    let clock = db.clock().await;
    let [old, new] = ["old", "new"].map(|name| Side { name, gate: Gate::default() });
    let worker = |side: &Side| db.builder().lease(lease).register(apart).state(side.clone());
    let first = worker(&old).start().await?;
    for place in PLACES {
        first.start(apart(place.to_owned())).id(place).await?;
    }
    old.gate.reached().await;
    old.gate.reached().await;
    END.reached().await;

    // Its next heartbeat is minutes away.
    clock.advance(lease * 2).await?;
    let second = worker(&new).start().await?;
    new.gate.reached().await;
    new.gate.reached().await;
    END.reached().await;
    old.gate.open();
    old.gate.open();
    END.open();
    first.shutdown(PATIENCE).await;

    assert_eq!(db.count("select count(*) from durable.step").await, 0, "the fenced worker recorded a step");
    assert_eq!(db.count("select count(*) from effect").await, 0, "the fenced worker committed an effect");
    assert_eq!(db.count("select count(*) from durable.workflow where status = 'running'").await, 3);
    new.gate.open();
    new.gate.open();
    END.open();
    for (place, output) in PLACES.into_iter().zip(["new", "new", "ended"]) {
        assert_eq!(second.workflow::<String>(place).soon().await?, output);
    }
    assert_eq!(db.text("select string_agg(value, ',') from effect").await, "new");
    Ok(())
}

pub(super) async fn until_second_incarnation(db: &Db, victim: &Victim) {
    let began_at = Instant::now();
    let sql = "select count(*) from durable.worker where pid = $1";
    while sqlx::query_scalar::<_, i64>(sql).bind(victim.pid()).fetch_one(&db.pool).await.expect("the workers") < 2 {
        assert!(began_at.elapsed() < PATIENCE, "the fenced worker never began again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Kill a worker in a step body, and measure how long it takes until the body begins again elsewhere.
async fn takeover(db: &Db, lease: Duration, poll_every: Duration) -> Result<Duration> {
    let other = journey::register(db.builder().lease(lease).poll_every(poll_every).concurrency(1), db.pool.clone());
    let victim = Victim::begin(VICTIM, &Orders { lease, ..Orders::new(db.url()) }).at_work().await;
    let client = db.client().await;
    client.start(journey::held()).id("held").await?;
    until_body_of(db, "hold", victim.pid()).await;
    let other = other.start().await?;
    let pid = victim.pid();

    let killed_at = Instant::now();
    victim.kill().await;
    until_body_of_another(db, "hold", pid).await;
    let took = killed_at.elapsed();

    println!("taken over after {took:?} with a lease of {lease:?}");
    journey::open(&db.pool, "held").await?;
    client.workflow::<u32>("held").soon().await?;
    other.shutdown(PATIENCE).await;
    Ok(took)
}

/// P10: with the default options, a killed worker's workflow runs again within 17 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_workers_workflow_runs_again_within_17_s() -> Result<()> {
    let took = takeover(&Db::new().await, Duration::from_secs(15), Duration::from_secs(1)).await?;
    assert!(took < Duration::from_secs(17), "{took:?}");
    Ok(())
}

/// P10: with a lease of 1 s and a poll of 50 ms it is lease + poll + 1 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_workers_workflow_runs_again_within_2_s_of_a_short_lease() -> Result<()> {
    let took = takeover(&Db::new().await, Duration::from_secs(1), Duration::from_millis(50)).await?;
    assert!(took < Duration::from_millis(2_050), "{took:?}");
    Ok(())
}

/// P16: a workflow whose body aborts the process each time is parked as blocked, while the others on its
/// queue complete, although each death takes them along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_workflow_is_parked_and_the_others_complete() -> Result<()> {
    const OTHERS: usize = 10;
    const MAX_RECOVERIES: u32 = 4;
    let db = Db::new().await;
    let client = db.client().await;
    let orders = Orders { lease: Duration::from_millis(500), max_recoveries: MAX_RECOVERIES, ..Orders::new(db.url()) };
    client.start(journey::poison()).id("poison").await?;
    for n in 0..OTHERS {
        client.start(journey::modest(0)).id(format!("other-{n}")).await?;
    }

    let mut deaths = 0;
    let over = "select count(*) from durable.workflow where status not in ('completed', 'blocked')";
    while db.count(over).await > 0 {
        assert!(deaths < 50, "the poison workflow is never parked");
        let victim = Victim::begin(VICTIM, &orders);
        tokio::select! {
            ended = victim.ended() => deaths += u32::from(!ended.status.success()),
            () = db.until("select not exists (select from durable.workflow where status not in ('completed', 'blocked'))") => {}
        }
    }

    println!("deaths: {deaths}");
    assert_eq!(db.text("select status from durable.workflow where id = 'poison'").await, "blocked");
    let told = db.text("select failure ->> 'kind' from durable.workflow where id = 'poison'").await;
    assert_eq!(told, "poison");
    let blocked = db.count("select count(*) from durable.workflow where id <> 'poison' and status = 'blocked'").await;
    assert_eq!(blocked, 0, "workflows that did nothing wrong were parked with it");
    assert!(deaths > MAX_RECOVERIES, "{deaths} deaths");
    Ok(())
}

#[step]
async fn through_the_gate(step: &StepCtx) -> Result<u32> {
    step.state::<Gate>().pass().await;
    Ok(step.attempt())
}

#[workflow]
async fn gated(ctx: &Ctx, n: i64) -> Result<i64> {
    ctx.run(through_the_gate()).await?;
    Ok(n + 1)
}

/// P3, P10: a worker that shuts down waits for what runs.
#[tokio::test]
async fn a_shutdown_waits_for_what_runs() -> Result<()> {
    let db = Db::new().await;
    let gate = Gate::default();
    let durable = db.builder().register(gated).state(gate.clone()).start().await?;
    let handle = durable.start(gated(1)).id("a").await?;
    gate.reached().await;

    let shutdown = durable.shutdown(PATIENCE);
    tokio::pin!(shutdown);
    // Asked once, it has begun; it cannot be over.
    assert!(futures::poll!(&mut shutdown).is_pending());
    let late = durable.start(gated(2)).id("late").await?;
    gate.open();
    shutdown.await;

    assert_eq!(handle.status().await?.to_string(), "completed");
    assert_eq!(handle.soon().await?, 2);
    assert_eq!(late.status().await?.to_string(), "queued", "nothing new is begun");
    assert_eq!(db.count("select count(*) from durable.workflow where owner is not null").await, 0);
    assert_eq!(db.count("select count(*) from durable.worker where fenced_at is null").await, 0);
    Ok(())
}

/// P3, P10: a worker that shuts down hands back what it could not end, and another one goes on at once: it
/// does not wait for a lease, which would take an hour here.
#[tokio::test]
async fn a_shutdown_hands_the_rest_back_at_once() -> Result<()> {
    let db = Db::new().await;
    let hour = Duration::from_secs(3_600);
    let (first_gate, second_gate) = (Gate::default(), Gate::default());
    let first = db.builder().lease(hour).register(gated).state(first_gate.clone()).start().await?;
    first.start(gated(1)).id("a").await?;
    first_gate.reached().await;

    first.shutdown(Duration::ZERO).await;
    assert_eq!(db.text("select status from durable.workflow where id = 'a'").await, "queued");
    // The body that the first worker gave up goes nowhere.
    first_gate.open();
    let second = db.builder().lease(hour).register(gated).state(second_gate.clone()).start().await?;
    second_gate.reached().await;
    second_gate.open();

    assert_eq!(second.workflow::<i64>("a").soon().await?, 2);
    assert_eq!(db.count("select recoveries::bigint from durable.workflow where id = 'a'").await, 0, "nobody was lost");
    Ok(())
}

/// P10: the lease goes with the runtime, also in a process that lives on and still has the worker's handle.
#[tokio::test]
async fn a_worker_whose_runtime_is_gone_loses_its_lease() -> Result<()> {
    let db = Db::new().await;
    let gate = Gate::default();
    let builder = || db.builder().lease(Duration::from_secs(1)).register(gated).state(gate.clone());
    let island = Island::start(builder()).await;
    let kept = island.durable().clone();
    kept.start(gated(1)).id("g").await?;
    gate.reached().await;
    island.sink().await;

    let second = builder().start().await?;
    gate.reached().await;
    gate.open();
    second.workflow::<i64>("g").soon().await?;
    drop(kept);
    Ok(())
}
