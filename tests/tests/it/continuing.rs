//! Continuing as new: the same workflow with a fresh history, once for each time that its body asks, whatever happens meanwhile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{
    Builder, Ctx, Durable, FailureKind, IfExists, PgConnection, Status, StepCtx, Topic, hours, minutes, step, workflow,
};
use durable_dev::ServerOptions;
use durable_tests::db::{APPLICATION_TABLES, Db};
use durable_tests::island::Island;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use sqlx::{AssertSqlSafe, PgPool};

use super::faults::{Cutter, Own, hang_commits, let_commits_go};

const WORD: Topic<String> = Topic::new("word");

/// Note the key in the application's table, exactly once.
#[step(tx)]
async fn book(tx: &mut PgConnection, step: &StepCtx, round: i64) -> Result<i64> {
    let insert = sqlx::query("insert into application_row values ($1, $2)").bind(round.to_string()).bind(step.key());
    insert.execute(tx).await?;
    Ok(round)
}

#[step]
async fn note_key(step: &StepCtx) -> Result<String> {
    step.state::<Kit>().log.note(step.key());
    Ok(step.key().to_owned())
}

/// What each generation drew and saw, and what it was sent.
#[workflow]
async fn mailbox(ctx: &Ctx, mut seen: Vec<(f64, i64, String)>, rounds: usize) -> Result<Vec<(f64, i64, String)>> {
    let (drawn, now) = (ctx.random(), ctx.now().timestamp_micros());
    ctx.run(note_key()).await?;
    let word = ctx.receive(WORD).await?;
    seen.push((drawn, now, word));
    if seen.len() < rounds {
        ctx.continue_as_new(mailbox(seen, rounds)).await;
    }
    Ok(seen)
}

/// P7: what was sent before waits for the generation that reads it; and whoever waits for the result waits for the last one.
#[tokio::test]
async fn a_workflow_continues_with_a_fresh_history_and_its_unread_messages() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(mailbox).state(kit.clone()).start().await?;
    let handle = durable.start(mailbox(Vec::new(), 3)).id("m").await?;
    let born = handle.info().await?.created_at;
    for word in ["one", "two", "three"] {
        durable.send("m", WORD, word.into()).await?;
    }
    let seen = handle.soon().await?;

    assert_eq!(seen.iter().map(|(.., word)| &**word).collect::<Vec<_>>(), ["one", "two", "three"]);
    assert_eq!(kit.log.entries(), ["m/0", "m/g1.0", "m/g2.0"], "the keys of the steps");
    assert!(seen[0].0 != seen[1].0 && seen[1].0 != seen[2].0 && seen[0].0 != seen[2].0, "draws: {seen:?}");
    assert!(seen[0].1 < seen[1].1 && seen[1].1 < seen[2].1, "times: {seen:?}");
    let info = handle.info().await?;
    assert_eq!((info.created_at, info.status), (born, Status::Completed));
    let lanes = db.text("select string_agg(distinct lane, ',') from durable.step").await;
    assert_eq!(lanes, "g2", "the history of the last generation alone");
    // Received messages would grow for ever as well.
    assert_eq!(db.count("select count(*) from durable.message").await, 1);
    assert_eq!(db.count("select generation::bigint from durable.generation").await, 2);
    Ok(())
}

/// P4: it is known by what it was started with.
#[tokio::test]
async fn a_repeated_start_finds_a_workflow_that_has_continued() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(mailbox).state(kit.clone()).start().await?;
    let first = durable.start(mailbox(Vec::new(), 2)).id("m").await?;
    durable.send("m", WORD, "one".into()).key("k").await?;
    db.until("select count(*) = 1 from durable.generation").await;
    db.until_status("m", "suspended").await;

    let again = durable.start(mailbox(Vec::new(), 2)).id("m").if_exists(IfExists::ReturnSameInput).await?;
    assert_eq!(again.id(), first.id());
    let other = durable.start(mailbox(Vec::new(), 7)).id("m").if_exists(IfExists::ReturnSameInput).await;
    assert!(other.unwrap_err().is_conflict(), "another input is another workflow");
    // A received message with a key refuses its repeat, in every generation.
    durable.send("m", WORD, "one".into()).key("k").await?;
    durable.send("m", WORD, "two".into()).await?;
    let words: Vec<String> = again.soon().await?.into_iter().map(|(.., word)| word).collect();
    assert_eq!(words, ["one", "two"]);
    Ok(())
}

#[workflow]
async fn three_rounds(ctx: &Ctx, round: i64, sum: i64) -> Result<i64> {
    let sum = sum + ctx.run(book(round)).await?;
    ctx.sleep(hours(1)).await?;
    if round == 2 {
        // Sent before the first round began.
        let word = ctx.receive(WORD).timeout(minutes(1)).await?;
        ensure!(word.as_deref() == Some("kept"), "{word:?}");
    }
    ctx.run(work_in_database(round)).await?;
    if round < 3 { ctx.continue_as_new(three_rounds(round + 1, sum)).await } else { Ok(sum) }
}

/// At least once, with the same key for each try.
#[step]
async fn work_in_database(step: &StepCtx, round: i64) -> Result<()> {
    let insert = sqlx::query("insert into effect values ($1, 'work', $2, 1, 0, $3)");
    insert.bind(step.workflow_id()).bind(step.key()).bind(round.to_string()).execute(step.state::<PgPool>()).await?;
    Ok(())
}

async fn rounds_are_right(pool: PgPool) -> Result<()> {
    let booked: Vec<(String, String)> =
        sqlx::query_as("select name, value from application_row order by name").fetch_all(&pool).await?;
    let expected = [("1", "r/0"), ("2", "r/g1.0"), ("3", "r/g2.0")].map(|(n, key)| (n.to_owned(), key.to_owned()));
    ensure!(booked == expected, "booked: {booked:?}");
    let keys: Vec<String> = sqlx::query_scalar("select distinct key from effect order by key").fetch_all(&pool).await?;
    ensure!(keys == ["r/2", "r/g1.3", "r/g2.2"], "worked under {keys:?}");
    let left: i64 = sqlx::query_scalar("select count(*) from durable.step where lane <> 'g2'").fetch_one(&pool).await?;
    ensure!(left == 0, "{left} records of earlier generations are left");
    Ok(())
}

/// P1, P2, P3, P7: each round is booked once, and nothing of a generation shows in the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_outlive_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql(APPLICATION_TABLES).execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let worker = |builder: Builder, pool: PgPool| builder.register(three_rounds).state(pool);
    let begin = |durable: Durable| async move {
        durable.start(three_rounds(1, 0)).id("r").await?;
        durable.send("r", WORD, "kept".into()).key("k").await?;
        Ok(())
    };
    let report = every_crash(db, worker, begin, rounds_are_right).await?;
    report.assert_clean();
    for place in ["before", "after"] {
        let point = format!("{place} a call: continue a workflow as new");
        assert_eq!(report.points.iter().filter(|at| **at == point).count(), 2, "{point} in {:#?}", report.points);
    }
    Ok(())
}

/// P1, P3: no reply to any commit ever comes, so each write is sent twice. A generation is skipped or repeated by none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_none_of_whose_commits_is_answered_come_once_each() -> Result<()> {
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    let builder = own.builder().register(two_short_rounds).short_wait(Duration::from_secs(5));
    // No takeover may help: what the worker does not find out by itself, nobody finds out.
    let durable = builder.lease(Duration::from_secs(3_600)).start().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);
    for n in 0..3 {
        durable.start(two_short_rounds(1, 4)).id(format!("r-{n}")).await?;
    }
    let mut ends = Vec::new();
    for n in 0..3 {
        ends.push(durable.workflow::<i64>(format!("r-{n}")).soon().await);
    }
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;
    for end in ends {
        assert_eq!(end?, 4);
    }
    assert!(cuts > 20, "{cuts} commits without an answer");
    let booked: Vec<(String, i64)> =
        sqlx::query_as("select name, count(*) from application_row where name <> 'probe' group by name order by name")
            .fetch_all(&own.outside)
            .await?;
    assert_eq!(booked, [1, 2, 3, 4].map(|n: i64| (n.to_string(), 3)));
    let generations: Vec<i32> =
        sqlx::query_scalar("select generation from durable.generation").fetch_all(&own.outside).await?;
    assert_eq!(generations, [3, 3, 3]);
    Ok(())
}

#[workflow]
async fn two_short_rounds(ctx: &Ctx, round: i64, rounds: i64) -> Result<i64> {
    ctx.run(book(round)).await?;
    if round < rounds { ctx.continue_as_new(two_short_rounds(round + 1, rounds)).await } else { Ok(round) }
}

#[workflow]
async fn counter(ctx: &Ctx, count: i64) -> Result<String> {
    ctx.run(work(format!("count {count}"))).await?;
    ctx.continue_as_new(counter_2((count + 1).to_string())).await
}

#[workflow(name = "counter", version = 2)]
async fn counter_2(ctx: &Ctx, count: String) -> Result<String> {
    Ok(ctx.run(work(format!("{count}, as version 2"))).await?)
}

/// An old version retires: its workflows go on as the new one, once a worker has that.
#[tokio::test]
async fn a_workflow_continues_as_another_version_on_the_workers_that_have_it() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let old = db.builder().register(counter).state(kit.clone()).start().await?;
    let handle = old.start(counter(1)).id("c").await?;
    db.until("select version = 2 and status = 'queued' from durable.workflow").await;
    let new = db.builder().register(counter_2).state(kit.clone()).start().await?;
    assert_eq!(handle.soon().await?, "2, as version 2");
    // Started as version 1, known as version 1; and as what it is now.
    assert_eq!(new.start(counter(1)).id("c").await?.soon().await?, "2, as version 2");
    assert_eq!(new.start(counter_2("2".into())).id("c").await?.soon().await?, "2, as version 2");
    Ok(())
}

#[workflow]
async fn wrong(ctx: &Ctx, how: String) -> Result<()> {
    ctx.undo(work("undone".to_owned())).await;
    match &*how {
        "in a branch" => ctx.branch(async |ctx: &Ctx| ctx.continue_as_new(wrong("well".into())).await).await,
        "as another" => ctx.continue_as_new(counter(1)).await,
        "beside a call" => {
            tokio::select! {
                biased;
                slept = ctx.sleep(hours(1)) => slept?,
                never = async { ctx.continue_as_new(wrong("well".into())).await } => never,
            }
        }
        "with a bad input" => ctx.continue_as_new(wrong("nul \0".repeat(8 * 1024 * 1024))).await,
        "well" => ctx.run(work("well".to_owned())).await.map(drop)?,
        "as it should" => ctx.continue_as_new(wrong("well".into())).await,
        how => anyhow::bail!("nobody said how to do it {how}"),
    }
    Ok(())
}

/// P15: what would depend on timing, or mean nothing, is loud; and can be mended by a deploy.
#[tokio::test]
async fn continuing_in_the_wrong_place_blocks_the_workflow_with_advice() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(wrong).state(kit.clone()).start().await?;
    for (how, advice) in [
        ("in a branch", "let the branch or the arm of the race return"),
        ("as another", "start that one"),
        ("beside a call", "while another durable call of the same lane was still under way"),
    ] {
        let handle = durable.start(wrong(how.into())).id(how).await?;
        db.until_status(how, "blocked").await;
        let failure = handle.info().await?.failure.expect("a failure");
        assert_eq!(failure.kind(), FailureKind::Mismatch);
        assert!(failure.message().contains(advice), "{how}: {failure}");
    }
    assert!(kit.log.entries().is_empty(), "{:?}", kit.log);

    let bad = durable.start(wrong("with a bad input".into())).id("bad").await?.soon().await.unwrap_err();
    assert_eq!(bad.failure().map(durable::Failure::kind), Some(FailureKind::Panic), "{bad}");
    assert!(bad.to_string().contains("the input to continue with"), "{bad}");
    assert_eq!(kit.log.entries(), ["undone"]);

    // Undo steps are forgotten with the history.
    durable.start(wrong("as it should".into())).id("good").await?.soon().await?;
    assert_eq!(kit.log.entries(), ["undone", "well"]);
    Ok(())
}

#[workflow]
async fn drops(ctx: &Ctx, round: i64) -> Result<i64> {
    if round > 0 {
        return Ok(round);
    }
    let first = durable::select! { ctx,
        name = ctx.run(gated("held".to_owned())) => name?,
        word = ctx.receive(WORD) => word?,
    };
    ensure!(first == "go on", "{first}");
    ctx.continue_as_new(drops(round + 1)).await
}

/// A step whose arm has lost goes on until it notices: the next generation does not begin beside it.
#[tokio::test]
async fn what_the_body_has_dropped_is_over_before_the_next_generation_begins() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(drops).state(kit.clone()).start().await?;
    let handle = durable.start(drops(0)).id("d").await?;
    kit.gate.reached().await;
    durable.send("d", WORD, "go on".into()).await?;
    assert_eq!(handle.soon().await?, 1);
    assert_eq!(kit.log.entries(), ["held"]);
    assert_eq!(db.count("select count(*) from durable.step").await, 0);
    Ok(())
}

#[workflow]
async fn held_rounds(ctx: &Ctx, round: i64) -> Result<i64> {
    let name = ctx.run(gated(format!("round {round}"))).await?;
    ctx.run(work(name)).await?;
    if round == 0 { ctx.continue_as_new(held_rounds(1)).await } else { Ok(round) }
}

/// P9: its statements name an owner and a claim that are not the row's any more; and what it recorded before, in a transaction
/// that commits too late, has the lanes of its generation.
#[tokio::test]
async fn a_stale_owner_neither_continues_the_workflow_nor_writes_into_its_next_generation() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(held_rounds).state(kit.clone()).start().await?;
    let handle = durable.start(held_rounds(0)).id("h").await?;
    kit.gate.reached().await;
    // A transactional step of a former owner: its record is written, and its COMMIT has not come through.
    let late = "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
                select bucket, id, l.lane, l.seq, 'step', l.name, '\"late\"', now()
                from durable.workflow, (values ('', 1, 'work'), ('5.0', 0, 'x'), ('g', 0, 'x'), ('g11', 0, 'x'))
                    l (lane, seq, name)";
    let mut straggler = db.pool.begin().await?;
    let (old_owner, old_claims): (uuid::Uuid, i32) =
        sqlx::query_as("select owner, claims from durable.workflow").fetch_one(&mut *straggler).await?;
    sqlx::query(AssertSqlSafe(late.replace("('', 1, 'work'), ", ""))).execute(&mut *straggler).await?;
    kit.gate.open();
    db.until("select count(*) = 1 from durable.generation").await;
    kit.gate.reached().await;
    straggler.commit().await?;
    sqlx::query(AssertSqlSafe(late.replace(", ('5.0', 0, 'x'), ('g', 0, 'x'), ('g11', 0, 'x')", "")))
        .execute(&db.pool)
        .await?;

    // The statement itself, again, as it would come from the claim that has continued, and from a dead owner.
    let statement =
        super::statements::statements().into_iter().find(|s| s.name == "continue_as_new").expect("it is there");
    for (owner, claims) in [(old_owner, old_claims), (uuid::Uuid::nil(), old_claims + 1)] {
        let rows = sqlx::query(AssertSqlSafe(statement.text.clone()))
            .bind(owner)
            .bind(bucket(&db).await)
            .bind("h")
            .bind(claims)
            .bind(1)
            .bind("[9]")
            .bind(100_i64)
            .fetch_all(&db.pool)
            .await?;
        assert!(rows.is_empty(), "{owner} {claims}");
    }
    assert_eq!(db.count("select generation::bigint from durable.generation").await, 1);

    // A crash, so that the next owner reads all that is there: nothing is adopted, nothing is left over.
    kit.gate.open();
    assert_eq!(handle.soon().await?, 1);
    assert_eq!(kit.log.entries(), ["round 0", "round 0", "round 1", "round 1"]);
    Ok(())
}

async fn bucket(db: &Db) -> i16 {
    sqlx::query_scalar("select bucket from durable.workflow").fetch_one(&db.pool).await.expect("a bucket")
}

/// The same, read by another owner, with its history.
#[tokio::test]
async fn what_earlier_generations_have_left_is_not_read_by_a_later_owner() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let first = Island::start(db.builder().register(held_rounds).state(kit.clone())).await;
    first.durable().start(held_rounds(0)).id("h").await?;
    kit.gate.reached().await;
    kit.gate.open();
    kit.gate.reached().await;
    let late = "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
                select bucket, id, l.lane, l.seq, 'step', l.name, '\"late\"', now()
                from durable.workflow, (values ('', 0, 'gated'), ('', 1, 'work'), ('3.0', 0, 'x'), ('g10', 0, 'x'))
                    l (lane, seq, name)";
    sqlx::query(late).execute(&db.pool).await?;
    first.sink().await;
    let second = db.builder().register(held_rounds).state(kit.clone()).start().await?;
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(second.workflow::<i64>("h").soon().await?, 1);
    assert_eq!(kit.log.entries(), ["round 0", "round 0", "round 1", "round 1", "round 1"]);
    Ok(())
}

#[workflow]
async fn long(ctx: &Ctx, steps: usize) -> Result<usize> {
    for n in 0..steps {
        ctx.run(work(n.to_string())).await?;
    }
    if steps > 1 { ctx.continue_as_new(long(1)).await } else { Ok(steps) }
}

/// One statement forgets ten thousand records; what is left counts as nothing, and goes with the next ones.
#[tokio::test]
async fn a_long_history_is_forgotten_part_by_part() -> Result<()> {
    const STEPS: usize = 25_000;
    let (db, kit) = (Db::new().await, Kit::default());
    let script = format!(
        "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
         select durable.bucket('l'), 'l', '', n, 'step', 'work', to_json(n::text), now()
         from generate_series(0, {STEPS} - 1) n;
         insert into durable.workflow (bucket, id, name, version, queue, status, due_at, claims, input)
         values (durable.bucket('l'), 'l', 'long', 1, 'default', 'queued', now(), 1, '{STEPS}')"
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&db.pool).await?;
    let durable = db.builder().register(long).state(kit.clone()).start().await?;
    assert_eq!(durable.workflow::<usize>("l").soon().await?, 1);
    assert_eq!(kit.log.entries(), ["0"]);
    db.until("select count(*) = 1 from durable.step").await;
    Ok(())
}

#[workflow(name = "long", version = 1)]
async fn long_without_a_step(ctx: &Ctx, _steps: usize) -> Result<usize> {
    ctx.continue_as_new(long_without_a_step(1)).await
}

/// P15: a step that the code has lost shows before the history is gone.
#[tokio::test]
async fn code_that_has_lost_a_step_does_not_continue() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let first = db.builder().register(held_rounds).state(kit.clone()).start().await?;
    first.start(held_rounds(0)).id("h").await?;
    kit.gate.reached().await;
    kit.gate.open();
    kit.gate.reached().await;
    first.shutdown(Duration::ZERO).await;
    sqlx::query("update durable.workflow set name = 'long', input = '5'").execute(&db.pool).await?;
    sqlx::query(
        "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
         select bucket, id, 'g1', 0, 'step', 'work', '\"0\"', now() from durable.workflow",
    )
    .execute(&db.pool)
    .await?;
    let second = db.builder().register(long_without_a_step).start().await?;
    db.until_status("h", "blocked").await;
    let failure = second.workflow::<usize>("h").info().await?.failure.expect("a failure");
    assert!(failure.message().contains("position g1.0"), "{failure}");
    assert_eq!(db.count("select count(*) from durable.step").await, 1);
    Ok(())
}

/// P13: a cancellation reaches whichever generation there is.
#[tokio::test]
async fn a_workflow_that_has_continued_is_cancelled_like_others() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(mailbox).state(kit.clone()).start().await?;
    let handle = durable.start(mailbox(Vec::new(), 5)).id("m").await?;
    durable.send("m", WORD, "one".into()).await?;
    db.until("select count(*) = 1 from durable.generation").await;
    durable.cancel("m").await?;
    assert_eq!(handle.status().await?, Status::Cancelled);
    assert!(handle.soon().await.is_err());
    Ok(())
}

#[workflow]
async fn undoing_rounds(ctx: &Ctx, round: i64) -> Result<()> {
    ctx.undo(work(format!("undo {round}"))).await;
    if ctx.patched("noted").await {
        ctx.run(work(format!("round {round}"))).await?;
    }
    ctx.receive(WORD).await?;
    ctx.continue_as_new(undoing_rounds(round + 1)).await
}

/// What an earlier generation has registered is forgotten with its history.
#[tokio::test]
async fn a_cancelled_workflow_undoes_what_its_present_generation_has_registered() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(undoing_rounds).state(kit.clone()).start().await?;
    durable.start(undoing_rounds(0)).id("u").await?;
    durable.send("u", WORD, "on".into()).await?;
    db.until("select count(*) = 1 from durable.step where lane = 'g1' and name = 'work' and kind = 'step'").await;
    db.until_status("u", "suspended").await;
    durable.cancel("u").await?;
    db.until_status("u", "cancelled").await;
    assert_eq!(kit.log.entries(), ["round 0", "round 1", "undo 1"]);
    Ok(())
}

#[workflow]
async fn waits_for_ever(ctx: &Ctx) -> Result<()> {
    ctx.receive(WORD).await?;
    Ok(())
}

#[workflow]
async fn leaves_a_child(ctx: &Ctx, round: i64) -> Result<i64> {
    if round > 0 {
        return Ok(round);
    }
    durable::select! { ctx,
        waited = ctx.run(waits_for_ever()) => waited?,
        word = ctx.receive(WORD) => drop(word?),
    };
    ctx.continue_as_new(leaves_a_child(1)).await
}

/// Which they are stands in the history: they are cancelled before that is forgotten.
#[tokio::test]
async fn children_of_arms_that_have_lost_are_cancelled_before_the_next_generation_begins() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(leaves_a_child).register(waits_for_ever).start().await?;
    let handle = durable.start(leaves_a_child(0)).id("l").await?;
    db.until("select count(*) = 2 from durable.workflow where status = 'suspended'").await;
    durable.send("l", WORD, "go on".into()).await?;
    assert_eq!(handle.soon().await?, 1);
    assert_eq!(db.text("select status from durable.workflow where id <> 'l'").await, "cancelled");
    Ok(())
}

#[workflow]
async fn parent(ctx: &Ctx, round: i64) -> Result<Vec<i64>> {
    let mut ends = Vec::new();
    for _ in 0..2 {
        ends.push(ctx.run(two_short_rounds(1, 2)).await?);
    }
    if round < 2 { ctx.continue_as_new(parent(round + 1)).await } else { Ok(ends) }
}

/// P6: one child for each position of each generation; and a child that continues is still its parent's.
#[tokio::test]
async fn parents_and_children_continue_as_new() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(parent).register(two_short_rounds).start().await?;
    assert_eq!(durable.start(parent(1)).id("p").await?.soon().await?, [2, 2]);
    let ids = db.text("select string_agg(id, ' ' order by id) from durable.child").await;
    assert_eq!(ids, "p/0 p/2 p/g1.0 p/g1.2");
    Ok(())
}

#[workflow]
async fn forked_round(ctx: &Ctx, round: i64) -> Result<(i64, f64, f64, i64)> {
    let (drawn, now) = (ctx.random(), ctx.now().timestamp_micros());
    ctx.run(work(format!("first of {round}"))).await?;
    let branched = ctx.branch(async |ctx: &Ctx| ctx.run(work("branched".to_owned())).await).await?;
    ensure!(branched == "branched");
    ctx.run(gated("held".to_owned())).await?;
    if round == 0 { ctx.continue_as_new(forked_round(1)).await } else { Ok((round, drawn, ctx.random(), now)) }
}

/// A fork takes over the present generation, and so what that drew and saw.
#[tokio::test]
async fn a_workflow_that_has_continued_is_forked_as_it_is_now() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(forked_round).state(kit.clone()).start().await?;
    let source = durable.start(forked_round(0)).id("s").await?;
    for _ in 0..2 {
        kit.gate.reached().await;
        kit.gate.open();
    }
    let told = source.soon().await?;
    let before = kit.log.entries().len();
    let fork = durable.fork::<(i64, f64, f64, i64)>("s", 2).id("f").await?;
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(fork.soon().await?, told);
    assert_eq!(kit.log.entries()[before..], ["held"], "nothing before its position is done again");
    Ok(())
}

/// What never continues has no row more, and nobody waits for a gate that a test forgot.
#[tokio::test]
async fn a_workflow_that_does_not_continue_has_no_generation() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(long).state(kit).start().await?;
    durable.start(long(1)).await?.soon().await?;
    assert_eq!(db.count("select count(*) from durable.generation").await, 0);
    Ok(())
}
