//! Things side by side: joins, branches and fan-outs keep their order, their bound and their history.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use durable::{Ctx, FailureKind, StepCtx, Topic, hours, minutes, step, workflow};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use futures::future::join_all;
use uuid::Uuid;

const GO: Topic<()> = Topic::new("go");

#[workflow]
async fn joins(ctx: &Ctx) -> Result<Vec<String>> {
    let (a, b) = tokio::join!(ctx.run(work("a".into())), ctx.run(work("b".into())));
    let (c, d) = tokio::try_join!(ctx.run(work("c".into())), ctx.run(work("d".into())))?;
    let mut all = vec![a?, b?, c, d];
    for e in join_all((0..5).map(|n| ctx.run(work(format!("e{n}"))))).await {
        all.push(e?);
    }
    Ok(all)
}

#[tokio::test]
async fn steps_that_are_begun_together_keep_their_positions() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(joins).state(Kit::default()).start().await?;
    let handle = durable.start(joins()).id("j").await?;
    assert_eq!(handle.soon().await?, ["a", "b", "c", "d", "e0", "e1", "e2", "e3", "e4"]);
    let recorded = db
        .text("select string_agg(seq || '=' || (output #>> '{}'), ' ' order by seq) from durable.step where lane = ''");
    assert_eq!(recorded.await, "0=a 1=b 2=c 3=d 4=e0 5=e1 6=e2 7=e3 8=e4");
    Ok(())
}

/// Two chains in one lane: which second step comes first would depend on timing.
#[workflow]
async fn chains_in_one_lane(ctx: &Ctx) -> Result<()> {
    let chain = async |name: &str| {
        ctx.run(work(format!("{name}1"))).await?;
        ctx.run(work(format!("{name}2"))).await
    };
    let (a, b) = tokio::join!(chain("a"), chain("b"));
    a?;
    b?;
    Ok(())
}

/// P15: an order that depends on timing is refused at once, with the way out.
#[tokio::test]
async fn a_step_begun_beside_one_under_way_blocks_with_advice() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = db.builder().register(chains_in_one_lane).state(kit.clone()).start().await?;
    let handle = durable.start(chains_in_one_lane()).id("c").await?;
    db.until_status("c", "blocked").await;
    let failure = handle.info().await?.failure.context("a failure")?;
    assert_eq!(failure.kind(), FailureKind::Mismatch);
    assert!(failure.message().contains("ctx.branch"), "{failure}");
    assert!(kit.log.entries().iter().all(|e| e.ends_with('1')), "{:?}", kit.log.entries());
    Ok(())
}

/// Branches of several steps, one in another, beside a step; one part of each is held by the gate.
#[workflow]
async fn tree(ctx: &Ctx) -> Result<Vec<String>> {
    let left = ctx.branch(async |ctx: &Ctx| {
        let first = ctx.run(work("left 1".into())).await?;
        let (inner, beside) = tokio::join!(
            ctx.branch(async |ctx: &Ctx| {
                ctx.run(work("inner 1".into())).await?;
                ctx.run(gated("inner 2".into())).await
            }),
            ctx.run(work("beside".into())),
        );
        anyhow::Ok(vec![first, inner?, beside?])
    });
    let right = ctx.branch(async |ctx: &Ctx| {
        let first = ctx.run(work("right 1".into())).await?;
        anyhow::Ok(vec![first, ctx.run(work("right 2".into())).await?])
    });
    let (left, right) = tokio::try_join!(left, right)?;
    let end = ctx.run(work("end".into())).await?;
    Ok(left.into_iter().chain(right).chain([end]).collect())
}

const TREE: &str = "0/0=left 1, 0/2=beside, 0.1/0=inner 1, 0.1/1=inner 2, 1/0=right 1, 1/1=right 2, /2=end";

/// P2: after a loss in the middle every recorded step answers from its lane, and only the open one runs again.
#[tokio::test]
async fn branches_find_their_records_after_the_worker_was_lost() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let kit = Kit::default();
    let builder = || db.builder().register(tree).state(kit.clone());
    let first = Island::start(builder()).await;
    first.durable().start(tree()).id("t").await?;
    kit.gate.reached().await;
    db.until("select count(*) = 5 from durable.step").await;
    first.sink().await;
    clock.advance(minutes(1)).await?;

    let second = builder().start().await?;
    kit.gate.reached().await;
    kit.gate.open();
    let output = second.workflow::<Vec<String>>("t").soon().await?;
    assert_eq!(output, ["left 1", "inner 2", "beside", "right 1", "right 2", "end"]);

    let recorded = db.text(
        "select string_agg(lane || '/' || seq || '=' || (output #>> '{}'), ', ' order by (lane = '')::int, lane, seq)
         from durable.step",
    );
    let mut recorded: Vec<_> = recorded.await.split(", ").map(str::to_owned).collect();
    let mut expected: Vec<_> = TREE.split(", ").map(str::to_owned).collect();
    recorded.sort();
    expected.sort();
    assert_eq!(recorded, expected);
    for name in ["left 1", "inner 1", "beside", "right 1", "right 2", "end"] {
        assert_eq!(kit.log.count(name), 1, "{name} ran again");
    }
    assert_eq!(kit.log.count("inner 2"), 2);
    Ok(())
}

/// Counts how many bodies are at work, and the most there ever were.
#[derive(Clone, Default)]
struct Crowd(Arc<(AtomicUsize, AtomicUsize)>);

#[step]
async fn in_a_crowd(step: &StepCtx, n: usize) -> Result<usize> {
    let Crowd(crowd) = step.state();
    let now = crowd.0.fetch_add(1, Ordering::SeqCst) + 1;
    crowd.1.fetch_max(now, Ordering::SeqCst);
    // Let the others come, in a different order each time.
    for _ in 0..(n * 7) % 11 {
        tokio::task::yield_now().await;
    }
    crowd.0.fetch_sub(1, Ordering::SeqCst);
    Ok(n * 10)
}

#[workflow]
async fn fans_out(ctx: &Ctx, at_once: usize) -> Result<Vec<usize>> {
    let all = ctx.fan_out(0..30_usize, at_once, async |ctx: &Ctx, n: usize| {
        let first = ctx.run(in_a_crowd(n)).await?;
        ctx.run(in_a_crowd(first)).await
    });
    Ok(all.await.into_iter().collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn a_fan_out_keeps_its_bound_and_the_order_of_its_items() -> Result<()> {
    let db = Db::new().await;
    for at_once in [1, 4] {
        let crowd = Crowd::default();
        let queue = format!("q{at_once}");
        let durable = db.builder().queue(queue).register(fans_out).state(crowd.clone()).start().await?;
        let output = durable.start(fans_out(at_once)).await?.soon().await?;
        assert_eq!(output, (0..30).map(|n| n * 100).collect::<Vec<_>>());
        let most = crowd.0.1.load(Ordering::SeqCst);
        assert!(most <= at_once, "{most} at once, {at_once} were allowed");
        durable.shutdown(std::time::Duration::from_secs(10)).await;
    }
    assert_eq!(db.count("select count(distinct lane) from durable.step").await, 30);
    Ok(())
}

#[workflow]
async fn fans_out_over_nothing(ctx: &Ctx, at_once: usize) -> Result<usize> {
    Ok(ctx.fan_out(Vec::<u8>::new(), at_once, async |_: &Ctx, _| ()).await.len())
}

#[tokio::test]
async fn a_fan_out_of_nothing_is_empty_and_a_bound_of_zero_fails() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(fans_out_over_nothing).start().await?;
    assert_eq!(durable.start(fans_out_over_nothing(3)).await?.soon().await?, 0);
    let error = durable.start(fans_out_over_nothing(0)).await?.soon().await.unwrap_err();
    let failure = error.failure().context("a failure")?;
    assert_eq!(failure.kind(), FailureKind::Panic);
    assert!(failure.message().contains("at_once = 0"), "{failure}");
    Ok(())
}

/// The time, the bits of a random number, and a UUID.
type Drawn = Vec<(DateTime<Utc>, u64, Uuid)>;

fn draw(ctx: &Ctx, drawn: &mut Drawn) {
    drawn.push((ctx.now(), ctx.random().to_bits(), ctx.uuid()));
}

#[step]
async fn keep(step: &StepCtx, drawn: Drawn) -> Result<Drawn> {
    step.state::<Kit>().log.note(serde_json::to_string(&drawn)?);
    Ok(drawn)
}

/// Draws before and after every kind of thing, and notes what it drew on each of its runs.
#[workflow]
async fn draws(ctx: &Ctx) -> Result<(Drawn, Drawn)> {
    let mut drawn = Drawn::new();
    draw(ctx, &mut drawn);
    draw(ctx, &mut drawn);
    ctx.run(work("a".into())).await?;
    draw(ctx, &mut drawn);
    let branches = ctx.fan_out(0..3, 2, async |ctx: &Ctx, _| {
        let mut drawn = Drawn::new();
        draw(ctx, &mut drawn);
        ctx.run(work("b".into())).await?;
        draw(ctx, &mut drawn);
        anyhow::Ok(drawn)
    });
    for branch in branches.await {
        drawn.extend(branch?);
    }
    ctx.sleep(hours(1)).await?;
    draw(ctx, &mut drawn);
    let recorded = ctx.run(keep(drawn.clone())).await?;
    ctx.receive(GO).await?;
    Ok((recorded, drawn))
}

/// The clock and the dice of a body show the same on every run, and never the same twice.
#[tokio::test]
async fn time_and_dice_are_the_same_on_replay_and_differ_from_each_other() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(draws).state(Kit::default()).start().await?;
    let handle = durable.start(draws()).id("d").await?;
    db.until_status("d", "suspended").await;
    clock.advance(hours(2)).await?;
    db.until("select status = 'suspended' and due_at is null from durable.workflow").await;
    durable.send("d", GO, ()).await?;
    let (recorded, replayed) = handle.soon().await?;
    assert_eq!(recorded, replayed);

    let mut uuids: Vec<_> = recorded.iter().map(|(_, _, uuid)| *uuid).collect();
    let count = uuids.len();
    uuids.sort();
    uuids.dedup();
    assert_eq!((uuids.len(), count), (10, 10));
    assert!(recorded.iter().all(|(_, random, _)| (0.0..1.0).contains(&f64::from_bits(*random))));
    assert!(recorded.windows(2).all(|w| w[0].1 != w[1].1));
    let created_at = handle.info().await?.created_at;
    assert_eq!(recorded[0].0, created_at);
    assert!(recorded[9].0 - created_at >= chrono::TimeDelta::hours(1), "the sleep shows");
    Ok(())
}
