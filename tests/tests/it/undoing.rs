//! Undo steps: run in reverse when a workflow fails, once each, whatever happens meanwhile.

use anyhow::{Result, bail, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{
    Builder, Ctx, Durable, FailureKind, PgConnection, Retry, StepCtx, Topic, days, hours, minutes, step, terminal,
    workflow,
};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, Log, gated, work};
use durable_tests::soon::Soon;
use sqlx::PgPool;

const GO: Topic<bool> = Topic::new("go");
const HOURLY: Retry = Retry { max_attempts: 5, first: hours(1), factor: 1.0, max: hours(1), jitter: 0.0 };

/// Note what is undone.
#[step]
async fn undo(step: &StepCtx, name: String) -> Result<()> {
    step.state::<Log>().note(format!("undo {name}"));
    Ok(())
}

#[step]
async fn refuse(step: &StepCtx, name: String) -> Result<()> {
    step.state::<Log>().note(format!("refuse {name}"));
    Err(terminal(anyhow::anyhow!("no {name} left")).into())
}

#[derive(Clone, Default)]
struct Travel {
    kit: Kit,
}

impl Travel {
    fn worker(&self, builder: Builder) -> Builder {
        builder.state(self.kit.clone()).state(self.kit.log.clone())
    }
}

#[workflow]
async fn travel(ctx: &Ctx, end: String) -> Result<String> {
    for part in ["flight", "hotel", "car"] {
        ctx.undo(undo(part.into())).await;
        ctx.run(work(part.into())).await?;
    }
    match end.as_str() {
        "well" => Ok("there".to_owned()),
        "panic" => panic!("lost the tickets"),
        "step" => {
            ctx.undo(undo("boat".into())).await;
            ctx.run(refuse("boat".into())).await?;
            bail!("the boat was not refused")
        }
        other => bail!("{other}"),
    }
}

#[tokio::test]
async fn what_was_done_is_undone_in_reverse_when_the_workflow_fails() -> Result<()> {
    for (end, kind, message, undone) in [
        ("rain", FailureKind::Error, "rain", &["undo car", "undo hotel", "undo flight"][..]),
        ("panic", FailureKind::Panic, "panicked: lost the tickets", &["undo car", "undo hotel", "undo flight"]),
        (
            "step",
            FailureKind::Error,
            "no boat left",
            &["refuse boat", "undo boat", "undo car", "undo hotel", "undo flight"],
        ),
    ] {
        let db = Db::new().await;
        let on = Travel::default();
        let durable = on.worker(db.builder().register(travel)).start().await?;
        let error = durable.start(travel(end.into())).id("t").await?.soon().await.unwrap_err();
        let failure = error.failure().expect("a failure");
        assert_eq!((failure.kind(), &*failure.message()), (kind, message));
        assert_eq!(on.kit.log.entries()[3..], *undone, "{end}");
    }
    Ok(())
}

#[tokio::test]
async fn a_workflow_that_completes_undoes_nothing() -> Result<()> {
    let db = Db::new().await;
    let on = Travel::default();
    let durable = on.worker(db.builder().register(travel)).start().await?;
    assert_eq!(durable.start(travel("well".into())).await?.soon().await?, "there");
    assert_eq!(on.kit.log.entries(), ["flight", "hotel", "car"]);
    Ok(())
}

#[workflow]
async fn stubborn(ctx: &Ctx) -> Result<()> {
    ctx.undo(undo("first".into())).await;
    ctx.undo(refuse("second".into())).await;
    ctx.undo(undo("third".into())).await;
    bail!("rain")
}

#[tokio::test]
async fn an_undo_step_that_fails_keeps_no_other_from_being_run() -> Result<()> {
    let db = Db::new().await;
    let on = Travel::default();
    let durable = on.worker(db.builder().register(stubborn)).start().await?;
    let error = durable.start(stubborn()).await?.soon().await.unwrap_err();
    let failure = error.failure().expect("a failure").message();
    assert_eq!(failure, "rain: and could not be undone: step \"refuse\" failed: no second left");
    assert_eq!(on.kit.log.entries(), ["undo third", "refuse second", "undo first"]);
    Ok(())
}

/// Fails at first, and then not.
#[step]
async fn busy(step: &StepCtx) -> Result<()> {
    step.state::<Log>().note(format!("attempt {}", step.attempt()));
    if step.attempt() < 3 { bail!("busy") } else { Ok(()) }
}

#[workflow]
async fn patient(ctx: &Ctx) -> Result<()> {
    ctx.undo(undo("first".into())).await;
    ctx.undo(busy()).retry(HOURLY).await;
    ctx.run(work("x".into())).await?;
    bail!("rain")
}

/// P6: it waits for its next attempt as one row, like every step.
#[tokio::test]
async fn an_undo_step_waits_for_its_next_attempt_without_a_worker() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let on = Travel::default();
    let builder = || on.worker(db.builder().register(patient));
    let mut worker = Island::start(builder()).await;
    worker.durable().start(patient()).id("p").await?;
    for _ in 0..2 {
        db.until_status("p", "suspended").await;
        worker.sink().await;
        clock.advance(hours(1)).await?;
        worker = Island::start(builder()).await;
        db.until("select status <> 'suspended' or due_at > durable.now() from durable.workflow").await;
    }
    let error = worker.durable().workflow::<()>("p").soon().await.unwrap_err();
    assert_eq!(error.failure().expect("a failure").message(), "rain");
    assert_eq!(on.kit.log.entries(), ["x", "attempt 1", "attempt 2", "attempt 3", "undo first"]);
    worker.sink().await;
    Ok(())
}

#[workflow]
async fn parallel(ctx: &Ctx) -> Result<()> {
    ctx.undo(undo("before".into())).await;
    let part = |name: &'static str| {
        ctx.branch(async move |ctx: &Ctx| {
            ctx.undo(undo(format!("{name} 1"))).await;
            ctx.undo(undo(format!("{name} 2"))).await;
            ctx.run(work(name.into())).await
        })
    };
    let (a, b) = tokio::join!(part("a"), part("b"));
    a?;
    b?;
    let won = ctx.race().or(async |ctx: &Ctx| {
        ctx.undo(undo("loser".into())).await;
        ctx.run(gated("never".into())).await
    });
    let won = won.or(async |ctx: &Ctx| {
        ctx.undo(undo("winner".into())).await;
        ctx.run(work("won".into())).await
    });
    won.await?;
    ctx.undo(undo("after".into())).await;
    bail!("rain")
}

#[tokio::test]
async fn branches_are_undone_where_they_stand_and_losers_of_races_not_at_all() -> Result<()> {
    let db = Db::new().await;
    let on = Travel::default();
    let durable = on.worker(db.builder().register(parallel)).start().await?;
    durable.start(parallel()).await?.soon().await.unwrap_err();
    let log = on.kit.log.entries();
    let undone: Vec<_> = log.iter().filter_map(|entry| entry.strip_prefix("undo ")).collect();
    assert_eq!(undone, ["after", "winner", "b 2", "b 1", "a 2", "a 1", "before"]);
    Ok(())
}

/// P15: the registrations are part of the history.
#[workflow(name = "travel")]
async fn travel_without_undo(ctx: &Ctx, end: String) -> Result<String> {
    for part in ["flight", "hotel", "car"] {
        ctx.run(work(part.into())).await?;
    }
    Ok(end)
}

#[workflow(name = "travel")]
async fn travel_and_wait(ctx: &Ctx, end: String) -> Result<String> {
    ctx.undo(undo("flight".into())).await;
    ctx.receive(GO).await?;
    Ok(end)
}

#[tokio::test]
async fn code_that_has_lost_an_undo_step_is_blocked() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let on = Travel::default();
    let first = Island::start(on.worker(db.builder().register(travel_and_wait))).await;
    first.durable().start(travel_and_wait("x".into())).id("t").await?;
    db.until_status("t", "suspended").await;
    first.sink().await;
    clock.advance(minutes(1)).await?;
    let second = on.worker(db.builder().register(travel_without_undo)).start().await?;
    second.send("t", GO, true).await?;
    db.until_status("t", "blocked").await;
    let failure = second.workflow::<String>("t").info().await?.failure.expect("a failure").message();
    assert_eq!(failure, r#"at position 0 the history has undo "undo", the code asks for step "work""#);
    Ok(())
}

#[step(tx)]
async fn add(tx: &mut PgConnection, account: i64, cents: i64) -> Result<()> {
    let update = sqlx::query("update account set cents = cents + $2 where id = $1");
    update.bind(account).bind(cents).execute(tx).await?;
    Ok(())
}

#[step]
async fn tell(step: &StepCtx, text: String) -> Result<()> {
    let insert = sqlx::query("insert into letter values ($1, $2)").bind(step.key()).bind(text);
    insert.execute(step.state::<PgPool>()).await?;
    Ok(())
}

/// Takes the money from both, and gives it back when nobody agrees.
#[workflow]
async fn collect(ctx: &Ctx) -> Result<()> {
    for account in [1, 2] {
        ctx.run(add(account, -300)).await?;
        ctx.undo(add(account, 300)).await;
        ctx.undo(tell(format!("{account} has it back"))).await;
    }
    if ctx.receive(GO).timeout(days(1)).await? != Some(true) {
        bail!("nobody agreed");
    }
    Ok(())
}

async fn bank(server: &Db) -> Result<TestDatabase> {
    let tables = |pool: PgPool| async move {
        let tables = "create table account (id bigint primary key, cents bigint not null);
                      create table letter (key text not null, text text not null);
                      insert into account values (1, 1000), (2, 1000)";
        sqlx::raw_sql(tables).execute(&pool).await?;
        Ok(())
    };
    Ok(TestDatabase::create(&server.pool, tables).await?)
}

/// P2, P5: undo steps are as exact as the steps that they undo.
#[tokio::test]
async fn undoing_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let worker = |builder: Builder, pool: PgPool| builder.register(collect).state(pool);
    let begin = |durable: Durable| async move {
        durable.start(collect()).id("c").await?;
        durable.send("c", GO, false).key("no").await?;
        Ok(())
    };
    let check = |pool: PgPool| async move {
        let cents: Vec<i64> = sqlx::query_scalar("select cents from account order by id").fetch_all(&pool).await?;
        ensure!(cents == [1000, 1000], "the accounts are {cents:?}");
        let keys: Vec<String> =
            sqlx::query_scalar("select distinct key from letter order by key").fetch_all(&pool).await?;
        ensure!(keys == ["c/2.0", "c/5.0"], "letters went out under {keys:?}");
        Ok(())
    };
    let report = every_crash(bank(&server).await?, worker, begin, check).await?;
    report.assert_clean();
    let count = |point: &str| report.points.iter().filter(|at| **at == point).count();
    assert_eq!(count("before the body of a step: add"), 4, "{:#?}", report.points);
    Ok(())
}

/// A registration rides along with what is written anyway.
#[tokio::test]
async fn a_registration_is_written_with_the_outcome_before_it() -> Result<()> {
    let db = Db::new().await;
    let on = Travel::default();
    let durable = on.worker(db.builder().register(travel)).start().await?;
    durable.start(travel("well".into())).await?.soon().await?;
    // Three registrations, three steps: the first one alone, two with the step before, the last step with the end.
    let writes = db.count("select count(distinct xmin::text) from durable.step").await;
    assert_eq!(writes, 4);
    Ok(())
}
