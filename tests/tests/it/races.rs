//! Races: the first one wins, whatever happens then it stays the winner, and the losers leave nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{Builder, Ctx, Durable, FailureKind, Status, StepCtx, Topic, days, hours, minutes, step, workflow};
use durable_tests::db::Db;
use durable_tests::gate::Gate;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, Log, work};
use durable_tests::soon::Soon;
use sqlx::PgPool;

const WORD: Topic<String> = Topic::new("word");
const NUMBER: Topic<i64> = Topic::new("number");

/// A gate for each name.
#[derive(Clone, Default)]
struct Gates(Arc<Mutex<HashMap<String, Gate>>>);

impl Gates {
    fn of(&self, name: &str) -> Gate {
        self.0.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }
}

/// Note that the body began, wait at the gate of this name, and give the name back.
#[step]
async fn held(step: &StepCtx, name: String) -> Result<String> {
    step.state::<Log>().note(name.clone());
    step.state::<Gates>().of(&name).pass().await;
    Ok(name)
}

#[derive(Clone, Default)]
struct Hold {
    log: Log,
    gates: Gates,
}

impl Hold {
    fn worker(&self, builder: Builder) -> Builder {
        builder.state(self.log.clone()).state(self.gates.clone())
    }
}

/// A word or a week; and then whatever else was sent.
#[workflow]
async fn word_or_week(ctx: &Ctx) -> Result<String> {
    let first = durable::select! { ctx,
        word = ctx.receive(WORD) => word?,
        slept = ctx.sleep(days(7)) => { slept?; "a week".to_owned() }
    };
    let then = ctx.receive(WORD).timeout(days(1)).await?;
    Ok(format!("{first}, then {then:?}"))
}

/// P6: what waits for several things is one row, due at the earliest.
#[tokio::test]
async fn a_race_that_waits_is_one_row_due_at_the_earliest_time() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(word_or_week).start().await?;
    let handle = durable.start(word_or_week()).id("w").await?;
    db.until_status("w", "suspended").await;
    let due = "select count(*) from durable.workflow where owner is null and due_at - durable.now()
               between interval '6 days 23 hours' and interval '7 days'";
    assert_eq!(db.count(due).await, 1);
    assert_eq!(db.count("select json_array_length(waits)::bigint from durable.workflow").await, 2);

    durable.send("w", WORD, "tea".into()).await?;
    db.until("select count(*) = 1 from durable.step where kind = 'race'").await;
    db.until_status("w", "suspended").await;
    // Nothing is left of the week.
    assert_eq!(db.count("select json_array_length(waits)::bigint from durable.workflow").await, 1);
    clock.advance(days(1)).await?;
    assert_eq!(handle.soon().await?, "tea, then None");
    Ok(())
}

/// P7: a message that comes too late for a race is still there.
#[tokio::test]
async fn a_message_that_lost_to_the_time_is_received_later() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(word_or_week).start().await?;
    let handle = durable.start(word_or_week()).id("w").await?;
    db.until_status("w", "suspended").await;
    clock.advance(days(7)).await?;
    db.until("select count(*) = 1 from durable.step where kind = 'race'").await;
    durable.send("w", WORD, "late".into()).await?;
    assert_eq!(handle.soon().await?, "a week, then Some(\"late\")");
    Ok(())
}

#[workflow]
async fn week_or_word(ctx: &Ctx) -> Result<String> {
    let first = durable::select! { ctx,
        slept = ctx.sleep(days(7)) => { slept?; "a week".to_owned() }
        word = ctx.receive(WORD) => word?,
    };
    let then = ctx.receive(WORD).timeout(days(1)).await?;
    Ok(format!("{first}, then {then:?}"))
}

/// P7: both are there when the body comes back, and the time stands first in the code.
#[tokio::test]
async fn a_message_that_has_come_beats_a_time_that_is_over() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let first = Island::start(db.builder().register(week_or_word)).await;
    first.durable().start(week_or_word()).id("w").await?;
    db.until_status("w", "suspended").await;
    first.sink().await;
    clock.advance(days(8)).await?;
    db.client().await.send("w", WORD, "tea".into()).await?;

    let second = db.builder().register(week_or_word).start().await?;
    let handle = second.workflow::<String>("w");
    db.until("select count(*) = 1 from durable.step where kind = 'race'").await;
    db.until_status("w", "suspended").await;
    clock.advance(days(1)).await?;
    assert_eq!(handle.soon().await?, "tea, then None");
    Ok(())
}

#[workflow]
async fn word_or_number(ctx: &Ctx) -> Result<String> {
    let first = durable::select! { ctx,
        number = ctx.receive(NUMBER) => number?.to_string(),
        word = ctx.receive(WORD) => word?,
    };
    let (number, word) = (ctx.receive(NUMBER).timeout(hours(1)), ctx.receive(WORD).timeout(hours(1)));
    let (number, word) = tokio::join!(number, word);
    Ok(format!("{first}, then {:?} and {:?}", number?, word?))
}

/// P7: a loser takes no message with it.
#[tokio::test]
async fn of_two_messages_that_are_there_one_is_taken_and_the_other_stays() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.client().await;
    for n in 0..20 {
        let id = format!("w{n}");
        durable.start(word_or_number()).id(&id).await?;
        durable.send(&id, WORD, "tea".into()).await?;
        durable.send(&id, NUMBER, 7).await?;
    }
    let worker = db.builder().register(word_or_number).start().await?;
    db.until("select count(*) = 40 from durable.message where received_at is not null").await;
    clock.advance(hours(2)).await?;
    for n in 0..20 {
        assert_eq!(worker.workflow::<String>(format!("w{n}")).soon().await?, "7, then None and Some(\"tea\")");
    }
    Ok(())
}

/// Two chains against each other, and one more step.
#[workflow]
async fn chains(ctx: &Ctx) -> Result<String> {
    let won = ctx.race().or(async |ctx: &Ctx| {
        ctx.run(held("left 1".into())).await?;
        ctx.run(held("left 2".into())).await
    });
    let won = won.or(async |ctx: &Ctx| {
        ctx.run(held("right 1".into())).await?;
        ctx.run(held("right 2".into())).await
    });
    let won = won.await?;
    Ok(won + ", " + &ctx.run(held("end".into())).await?)
}

/// P2, P5: the winner and its record are one write, and a recovery comes to the same without running a loser.
#[tokio::test]
async fn the_winner_stays_the_winner_after_the_worker_was_lost() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let hold = Hold::default();
    let builder = || hold.worker(db.builder().register(chains));
    let first = Island::start(builder()).await;
    first.durable().start(chains()).id("c").await?;
    hold.gates.of("left 1").reached().await;
    hold.gates.of("left 1").open();
    hold.gates.of("left 2").reached().await;
    hold.gates.of("right 1").open();
    hold.gates.of("right 2").reached().await;
    hold.gates.of("right 2").open();
    hold.gates.of("end").reached().await;
    let together = "select count(*) from durable.step a join durable.step b on a.xmin = b.xmin
                    where a.kind = 'race' and b.output #>> '{}' = 'right 2'";
    assert_eq!(db.count(together).await, 1);
    let race = db.text("select lane || '/' || seq || ' ' || output::text from durable.step where kind = 'race'");
    assert_eq!(race.await, r#"/0 {"winner":1}"#);
    first.sink().await;
    clock.advance(minutes(1)).await?;

    hold.gates.of("end").open();
    let second = builder().start().await?;
    assert_eq!(second.workflow::<String>("c").soon().await?, "right 2, end");
    for name in ["left 1", "left 2", "right 1", "right 2"] {
        assert_eq!(hold.log.count(name), 1, "{name} ran again");
    }
    // The loser was dropped in its second step, which left no record.
    assert_eq!(db.count("select count(*) from durable.step where lane = '0.0'").await, 1);
    Ok(())
}

/// P5: a race that was not decided goes on where it was: what the arms have recorded answers, also of a later loser.
#[tokio::test]
async fn an_undecided_race_goes_on_after_the_worker_was_lost() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let hold = Hold::default();
    let builder = || hold.worker(db.builder().register(chains));
    let first = Island::start(builder()).await;
    first.durable().start(chains()).id("c").await?;
    for (done, next) in [("left 1", "left 2"), ("right 1", "right 2")] {
        hold.gates.of(done).open();
        hold.gates.of(next).reached().await;
    }
    db.until("select count(*) = 2 from durable.step").await;
    first.sink().await;
    clock.advance(minutes(1)).await?;

    let second = builder().start().await?;
    hold.gates.of("left 2").reached().await;
    hold.gates.of("left 2").open();
    hold.gates.of("end").open();
    assert_eq!(second.workflow::<String>("c").soon().await?, "left 2, end");
    for (name, ran) in [("left 1", 1), ("right 1", 1), ("left 2", 2), ("right 2", 2)] {
        assert_eq!(hold.log.count(name), ran, "{name}");
    }
    Ok(())
}

/// Races in races and beside others, arms of several types, and an arm that is there at once.
#[workflow]
async fn nest(ctx: &Ctx) -> Result<String> {
    let inner = ctx.branch(async |ctx: &Ctx| {
        let won = durable::select! { ctx,
            number = async {
                durable::select! { ctx,
                    number = ctx.receive(NUMBER) => Ok::<_, anyhow::Error>(number?),
                    _ = ctx.sleep(days(2)) => Ok(2),
                }
            } => format!("number {}", number?),
            _ = ctx.sleep(days(3)) => "three days".to_owned(),
            word = ctx.receive(WORD) => { word? }
        };
        anyhow::Ok(won + &ctx.run(work("!".into())).await?)
    });
    let beside = ctx.race().or(async |_: &Ctx| 1).or(async |ctx: &Ctx| ctx.sleep(days(1)).await.map_or(0, |()| 2));
    let (inner, beside) = tokio::join!(inner, beside);
    Ok(format!("{} {beside}", inner?))
}

#[tokio::test]
async fn races_nest_and_stand_beside_others() -> Result<()> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
    let durable = db.builder().register(nest).state(Kit::default()).start().await?;
    for id in ["time", "word", "number"] {
        durable.start(nest()).id(id).await?;
    }
    db.run_until_idle().await?;
    durable.send("word", WORD, "tea".into()).await?;
    durable.send("number", NUMBER, 7).await?;
    db.run_through_waits().await?;
    for (id, output) in [("time", "number 2! 1"), ("word", "tea! 1"), ("number", "number 7! 1")] {
        assert_eq!(durable.workflow::<String>(id).result().await?, output);
    }
    Ok(())
}

#[workflow]
async fn changing(ctx: &Ctx, code: usize) -> Result<String> {
    let race = ctx.race().or(async |ctx: &Ctx| ctx.run(held("a".into())).await);
    let won = match code {
        0 => race.or(async |ctx: &Ctx| ctx.run(held("b".into())).await).await?,
        1 => race.await?,
        _ => unreachable!("no such code"),
    };
    Ok(won + &ctx.run(held("end".into())).await?)
}

#[workflow(name = "changing")]
async fn without_race(ctx: &Ctx, _code: usize) -> Result<String> {
    Ok(ctx.run(held("a".into())).await? + &ctx.run(held("end".into())).await?)
}

/// P15: a race is part of the history like everything else.
#[tokio::test]
async fn a_race_that_is_not_the_recorded_one_blocks() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let hold = Hold::default();
    let first = Island::start(hold.worker(db.builder().register(changing))).await;
    for id in ["fewer arms", "no race"] {
        first.durable().start(changing(0)).id(id).await?;
        hold.gates.of("b").open();
    }
    for _ in 0..2 {
        hold.gates.of("end").reached().await;
    }
    first.sink().await;
    sqlx::query("update durable.workflow set input = '1'").execute(&db.pool).await?;
    clock.advance(minutes(1)).await?;

    let second = Island::start(hold.worker(db.builder().register(changing))).await;
    db.until("select count(*) = 2 from durable.workflow where status = 'blocked'").await;
    let failure = second.durable().workflow::<String>("fewer arms").info().await?.failure.expect("a failure");
    assert_eq!(failure.kind(), FailureKind::Mismatch);
    assert!(failure.message().contains("arm 1 has won the race at 0, the code has 1"), "{failure}");
    second.sink().await;

    let third = hold.worker(db.builder().register(without_race).resume_mismatches(false)).start().await?;
    third.resume("no race").await?;
    db.until(
        "select status = 'blocked' and failure::text like '%code asks%' from durable.workflow where id = 'no race'",
    )
    .await;
    let failure = third.workflow::<String>("no race").info().await?.failure.expect("a failure");
    assert!(
        failure.message().contains("at position 0 the history has race \"race\", the code asks for step \"held\""),
        "{failure}"
    );
    Ok(())
}

#[workflow]
async fn no_arms(ctx: &Ctx) -> Result<String> {
    Ok(ctx.race::<String>().await)
}

#[tokio::test]
async fn a_race_without_an_arm_fails_and_says_so() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(no_arms).start().await?;
    let error = durable.start(no_arms()).await?.soon().await.unwrap_err().to_string();
    assert!(error.contains("add at least one with .or(..)"), "{error}");
    Ok(())
}

/// A loser that has recorded more than a page.
#[workflow]
async fn busy_loser(ctx: &Ctx, steps: usize) -> Result<String> {
    let won = durable::select! { ctx,
        all = async {
            for _ in 0..steps {
                ctx.run(work("x".into())).await?;
            }
            ctx.run(held("never".into())).await
        } => all?,
        name = ctx.run(held("b".into())) => name?,
    };
    ctx.run(work("after".into())).await?;
    Ok(won + &ctx.run(held("end".into())).await?)
}

#[tokio::test]
async fn a_loser_with_a_long_history_counts_as_nothing() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let (hold, kit) = (Hold::default(), Kit::default());
    let builder = || hold.worker(db.builder().register(busy_loser)).state(kit.clone());
    let first = Island::start(builder()).await;
    first.durable().start(busy_loser(2_500)).id("b").await?;
    hold.gates.of("never").reached().await;
    hold.gates.of("b").open();
    hold.gates.of("end").reached().await;
    first.sink().await;
    clock.advance(minutes(1)).await?;
    hold.gates.of("end").open();
    let second = builder().start().await?;
    assert_eq!(second.workflow::<String>("b").soon().await?, "bend");
    assert_eq!((kit.log.count("x"), kit.log.count("after"), hold.log.count("b")), (2_500, 1, 1));
    Ok(())
}

#[step]
async fn pay(step: &StepCtx, what: String) -> Result<()> {
    let insert = sqlx::query("insert into paid (key, what) values ($1, $2)").bind(step.key()).bind(what);
    insert.execute(step.state::<PgPool>()).await?;
    Ok(())
}

#[workflow]
async fn decides(ctx: &Ctx) -> Result<()> {
    let decided = durable::select! { ctx,
        _ = ctx.sleep(days(1)) => "expired".to_owned(),
        number = ctx.receive(NUMBER) => format!("number {}", number?),
        word = ctx.receive(WORD) => format!("word {}", word?),
    };
    ctx.run(pay(decided)).await?;
    let word = ctx.receive(WORD).timeout(days(1)).await?;
    ctx.run(pay(format!("then {word:?}"))).await?;
    Ok(())
}

async fn table(pool: PgPool) -> Result<()> {
    sqlx::raw_sql("create table paid (key text not null, what text not null)").execute(&pool).await?;
    Ok(())
}

async fn begin(durable: Durable) -> Result<()> {
    durable.start(decides()).id("d").await?;
    durable.send("d", NUMBER, 7).key("number").await?;
    durable.send("d", WORD, "tea".into()).key("word").await?;
    Ok(())
}

/// Whatever wins at first, it has won for good, and no message is lost.
async fn decided_once(pool: PgPool) -> Result<()> {
    let paid: Vec<(String, String)> =
        sqlx::query_as("select distinct key, what from paid order by key").fetch_all(&pool).await?;
    let paid: Vec<_> = paid.iter().map(|(key, what)| (&**key, &**what)).collect();
    ensure!(paid == [("d/1", "number 7"), ("d/3", "then Some(\"tea\")")], "paid: {paid:?}");
    Ok(())
}

#[tokio::test]
async fn a_race_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, table).await?;
    let worker = |builder: Builder, pool: PgPool| builder.register(decides).state(pool);
    every_crash(db, worker, begin, decided_once).await?.assert_clean();
    Ok(())
}

#[workflow]
async fn listens(ctx: &Ctx) -> Result<String> {
    Ok(ctx.receive(WORD).await?)
}

/// An hour, or the first of three children; one was there before, one may outlive it, and one is the race's own.
#[workflow]
async fn impatient(ctx: &Ctx) -> Result<String> {
    let before = ctx.start(listens()).id("before").await?;
    let first = durable::select! { ctx,
        word = ctx.result(&before) => word?,
        word = ctx.run(listens()).id("own") => word?,
        word = ctx.run(listens()).id("detached").detached() => word?,
        _ = ctx.sleep(hours(1)) => "an hour".to_owned(),
    };
    let word = ctx.receive(WORD).timeout(hours(1)).await?;
    Ok(format!("{first}, then {word:?}"))
}

/// P6, P13: what a loser has started is stopped; what was there before, or goes its own way, is not.
#[tokio::test]
async fn children_of_losers_are_cancelled_and_others_go_on() -> Result<()> {
    let server = Db::new().await;
    for winner in ["own", "time"] {
        let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
        let durable = db.builder().register(impatient).register(listens).start().await?;
        let handle = durable.start(impatient()).id("p").await?;
        db.run_until_idle().await?;
        let (status, output) = if winner == "own" {
            durable.send("own", WORD, "tea".into()).await?;
            (Status::Completed, "tea, then None")
        } else {
            (Status::Cancelled, "an hour, then None")
        };
        db.run_through_waits().await?;
        assert_eq!(handle.result().await?, output);
        for (id, status) in [("own", status), ("before", Status::Suspended), ("detached", Status::Suspended)] {
            assert_eq!(durable.workflow::<String>(id).status().await?, status, "{winner}: {id}");
        }
        if winner == "time" {
            let error = durable.workflow::<String>("own").result().await.unwrap_err().to_string();
            assert_eq!(error, "workflow own was cancelled: it lost a race");
        }
    }
    Ok(())
}

#[workflow]
async fn ends_with_a_race(ctx: &Ctx) -> Result<String> {
    Ok(durable::select! { ctx,
        word = ctx.run(listens()).id("loser") => word?,
        _ = ctx.sleep(hours(1)) => "an hour".to_owned(),
    })
}

/// Also when nothing follows the race, and wherever the worker dies.
#[tokio::test]
async fn children_of_losers_are_cancelled_whatever_crashes() -> Result<()> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, table).await?;
    let worker = |builder: Builder, _| builder.register(ends_with_a_race).register(listens);
    let begin = |durable: Durable| async move {
        durable.start(ends_with_a_race()).id("p").await?;
        Ok(())
    };
    let check = |pool: PgPool| async move {
        let told: Vec<String> =
            sqlx::query_scalar("select id || ' ' || status from durable.workflow order by id").fetch_all(&pool).await?;
        ensure!(told == ["loser cancelled", "p completed"], "{told:?}");
        Ok(())
    };
    every_crash(db, worker, begin, check).await?.assert_clean();
    Ok(())
}

/// Cancelled while it waits, and while its arms run.
#[tokio::test]
async fn a_cancelled_race_ends_like_everything_else() -> Result<()> {
    let db = Db::new().await;
    let hold = Hold::default();
    let durable = hold.worker(db.builder().register(chains).register(word_or_week)).start().await?;
    let (waits, runs) = (durable.start(word_or_week()).id("w").await?, durable.start(chains()).id("c").await?);
    db.until_status("w", "suspended").await;
    hold.gates.of("left 1").reached().await;
    for handle in [&waits, &runs] {
        durable.cancel(handle.id()).await?;
        assert_eq!(handle.status().await?, Status::Cancelled);
    }
    Ok(())
}
