//! Many children of one parent: started together in few statements, awaited all, the first, and as they end.

use std::time::Duration;

use anyhow::{Result, ensure};
use durable::{Child, Children, Ctx, Durable, Topic, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use futures::future::try_join_all;

use super::budgets::Lab;

const MANY: i64 = 1_000;
const END: Topic<()> = Topic::new("end");

#[workflow]
async fn square(_ctx: &Ctx, n: i64) -> Result<i64> {
    Ok(n * n)
}

async fn start_squares(ctx: &Ctx, many: i64) -> Result<Vec<Child<i64>>> {
    Ok(try_join_all((0..many).map(|n| ctx.start(square(n)))).await?)
}

#[workflow]
async fn all_of(ctx: &Ctx, many: i64) -> Result<i64> {
    let children = start_squares(ctx, many).await?;
    let squares = try_join_all(children.iter().map(|child| ctx.result(child))).await?;
    Ok(squares.into_iter().sum())
}

#[workflow]
async fn run_all(ctx: &Ctx, many: i64) -> Result<i64> {
    let squares = try_join_all((0..many).map(|n| ctx.run(square(n)))).await?;
    Ok(squares.into_iter().sum())
}

/// The ids in the order in which they came, with their results.
#[workflow]
async fn as_they_end(ctx: &Ctx, many: i64) -> Result<Vec<(String, i64)>> {
    let mut children: Children<i64> = start_squares(ctx, many).await?.into_iter().collect();
    let mut came = Vec::new();
    while let Some((child, square)) = ctx.next(&mut children).await {
        came.push((child.id().to_owned(), square?));
    }
    ensure!(ctx.next(&mut children).await.is_none(), "nothing is left");
    Ok(came)
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    let builder = db.builder().register(square).register(all_of).register(run_all).register(as_they_end);
    let builder = builder.register(first_of).register(held_square).register(first_of_many).register(patient_square);
    Ok(builder.state(kit.clone()).start().await?)
}

fn sum_of_squares(many: i64) -> i64 {
    (0..many).map(|n| n * n).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_children_are_awaited_all_together() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    assert_eq!(durable.start(all_of(MANY)).id("p").await?.soon().await?, sum_of_squares(MANY));
    assert_eq!(durable.start(run_all(MANY)).id("q").await?.soon().await?, sum_of_squares(MANY));
    assert_eq!(db.count("select count(*) from durable.workflow where status = 'completed'").await, 2 * MANY + 2);
    assert_eq!(db.count("select count(*) from durable.child").await, 2 * MANY);
    assert_eq!(db.count("select count(*) from durable.step where kind = 'child'").await, 2 * MANY);
    Ok(())
}

/// Not a thousand round trips. The worker has room for all of them, and none ends before all have begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_children_are_started_in_few_statements() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.worker(lab.builder().register(all_of)).await?;
    let parent = durable.start(all_of(MANY)).id("p").await?;
    lab.db.until_status("p", "suspended").await;
    let mut spent = lab.spent();
    // What the worker does of itself: when it begins, and because something may be due.
    spent.retain(|name| !["migrated", "applied", "register", "note_code", "unknown", "claim"].contains(&&**name));
    let starts = spent.iter().filter(|name| name.starts_with("start_children")).count();
    println!("{MANY} children started: {spent:?}");
    assert!((3..=8).contains(&starts), "{spent:?}");
    // The parent's own start, and its suspension; nothing was looked at, because none can have ended unseen.
    assert_eq!(spent.len(), starts + 2, "{spent:?}");
    // One wait stands for all of them.
    let waits = "select json_array_length(waits)::bigint from durable.workflow where id = 'p'";
    assert_eq!(lab.db.count(waits).await, 1);
    drop(parent);
    Ok(())
}

/// What a child costs in statements, all in all.
#[tokio::test]
async fn one_child_costs_a_start_a_suspension_and_a_look_beside_its_own_life() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.worker(lab.builder().register(run_all).register(square)).await?;
    durable.start(run_all(1)).id("warm-up").await?.soon().await?;
    lab.wire.forget();
    durable.start(run_all(1)).id("p").await?.soon().await?;
    let mut spent = lab.spent();
    println!("parent and child: {spent:?}");
    let claims = spent.iter().filter(|name| *name == "claim").count();
    spent.retain(|name| name != "claim");
    spent.sort();
    // The end of the child wakes the parent (commit_apart); the end of the parent has no parent (settle). A child that ends before the
    // suspension of the parent is written keeps it from that: then it finds out (commit_apart), and has no history to read.
    let suspended = ["commit", "commit_apart", "ended_children", "history", "settle", "start_children", "start_new"];
    let raced = ["commit", "commit_apart", "commit_apart", "ended_children", "settle", "start_children", "start_new"];
    assert!(spent == suspended || spent == raced, "{spent:?}");
    assert!((1..=5).contains(&claims), "{claims} claims");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_children_come_as_they_end() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let mut came = durable.start(as_they_end(MANY)).id("p").await?.soon().await?;
    came.sort();
    let mut all: Vec<_> = (0..MANY).map(|n| (format!("p/{n}"), n * n)).collect();
    all.sort();
    assert_eq!(came, all);
    assert_eq!(db.count("select count(*) from durable.step where kind = 'child' and name = 'next'").await, MANY);
    Ok(())
}

#[workflow]
async fn told(ctx: &Ctx, n: i64) -> Result<i64> {
    ctx.receive(END).await?;
    Ok(n)
}

/// The numbers of its children in the order in which they came. It is held once three have.
#[workflow]
async fn in_order(ctx: &Ctx) -> Result<Vec<i64>> {
    let started = try_join_all((0..6).map(|n| ctx.start(told(n)).id(format!("c-{n}")))).await?;
    let mut children: Children<i64> = started.into_iter().collect();
    let mut came = Vec::new();
    while let Some((_, n)) = ctx.next(&mut children).await {
        came.push(n?);
        if came.len() == 3 {
            ctx.run(gated("three".into())).await?;
        }
    }
    Ok(came)
}

/// The worker dies when some have come: what came stays in its order, and not in that of any key, though all have ended by
/// the time that its successor reads the history.
#[tokio::test]
async fn the_order_in_which_children_came_is_the_same_after_a_recovery() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let worker = async || db.builder().register(told).register(in_order).state(kit.clone()).start().await;
    let first = worker().await?;
    first.start(in_order()).id("p").await?;
    db.until("select count(*) = 6 from durable.child").await;
    let came = async |n: i64| {
        first.send(format!("c-{n}"), END, ()).await?;
        db.until_status(&format!("c-{n}"), "completed").await;
        Ok::<(), durable::Error>(())
    };
    for (n, before) in [(4, 0), (1, 1), (3, 2)] {
        db.until_count("select count(*) from durable.step where name = 'next'", |count| count == before).await;
        came(n).await?;
    }
    kit.gate.reached().await;
    for n in [5, 2, 0] {
        came(n).await?;
    }
    first.shutdown(Duration::ZERO).await;

    let second = worker().await?;
    kit.gate.reached().await;
    kit.gate.open();
    let told = second.workflow::<Vec<i64>>("p").soon().await?;
    assert_eq!(told, [4, 1, 3, 0, 2, 5], "those that were learned at once come in the order of their ids");
    Ok(())
}

/// The same of a thousand. It is held when half of them have come.
#[workflow]
async fn many_in_order(ctx: &Ctx) -> Result<Vec<i64>> {
    let started = try_join_all((0..MANY).map(|n| ctx.start(told(n)).id(format!("c-{n}")))).await?;
    let mut children: Children<i64> = started.into_iter().collect();
    let mut came = Vec::new();
    while let Some((_, n)) = ctx.next(&mut children).await {
        came.push(n?);
        if came.len() as i64 == MANY / 2 {
            ctx.run(gated("half".into())).await?;
        }
    }
    Ok(came)
}

/// The worker is lost in the middle, and all have ended before another one goes on: what has come before comes in the order that was
/// recorded, and nothing comes twice or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_in_which_a_thousand_children_came_is_the_same_after_a_recovery() -> Result<()> {
    const ORDER: &str = "select array_agg((output::json -> 'output')::text::bigint order by seq) from durable.step
                         where workflow_id = 'p' and lane = '' and name = 'next'";
    let (db, kit) = (Db::new().await, Kit::default());
    let worker = async || db.builder().register(told).register(many_in_order).state(kit.clone()).start().await;
    let first = worker().await?;
    first.start(many_in_order()).id("p").await?;
    db.until("select count(*) = 1000 from durable.child").await;
    // The later ones first, a hundred at a time.
    let send = async |from: i64| {
        let send = "select count(durable.send('c-' || n, 'end', 'null')) from generate_series($1, $1 + 99) n";
        sqlx::query_scalar::<_, i64>(send).bind(from).fetch_one(&db.pool).await
    };
    for (n, from) in [900, 700, 500, 300, 100].into_iter().enumerate() {
        send(from).await?;
        let before = 100 * (n as i64 + 1);
        db.until_count("select count(*) from durable.step where name = 'next'", |came| came == before).await;
    }
    kit.gate.reached().await;
    for from in [0, 200, 400, 600, 800] {
        send(from).await?;
    }
    db.until("select count(*) = 1000 from durable.workflow where status = 'completed'").await;
    let before: Vec<i64> = sqlx::query_scalar(ORDER).fetch_one(&db.pool).await?;
    // Fenced, as one that was lost. Somebody else takes the parent, or it gives the parent up when it hears of it.
    let claims = db.count("select claims::bigint from durable.workflow where id = 'p'").await;
    sqlx::query("update durable.worker set fenced_at = durable.now()").execute(&db.pool).await?;
    let second = worker().await?;
    db.until_count("select claims::bigint from durable.workflow where id = 'p'", |now| now > claims).await;
    first.shutdown(Duration::ZERO).await;
    kit.gate.reached().await;
    for _ in 0..8 {
        kit.gate.open();
    }

    let came = second.workflow::<Vec<i64>>("p").soon().await?;
    assert_eq!(before.len() as i64, MANY / 2);
    assert_eq!(came[..before.len()], before[..], "as they came before");
    assert!(before[0] >= 900 && before[499] < 200, "and not in the order of their ids");
    assert_eq!(came, sqlx::query_scalar::<_, Vec<i64>>(ORDER).fetch_one(&db.pool).await?, "as it is recorded");
    let mut all = came;
    all.sort_unstable();
    assert_eq!(all, (0..MANY).collect::<Vec<_>>());
    Ok(())
}

/// A text of two megabytes that does not compress.
#[workflow]
async fn large(ctx: &Ctx) -> Result<String> {
    Ok((0..65_536).map(|_| ctx.uuid().simple().to_string()).collect())
}

#[workflow]
async fn takes_large(ctx: &Ctx, many: usize) -> Result<usize> {
    let started = try_join_all((0..many).map(|_| ctx.start(large()))).await?;
    // All have ended by then.
    ctx.run(gated("before".into())).await?;
    let texts = try_join_all(started.iter().take(many / 2).map(|child| ctx.result(child))).await?;
    let mut bytes: usize = texts.iter().map(String::len).sum();
    let mut rest: Children<String> = started.into_iter().skip(many / 2).collect();
    while let Some((_, text)) = ctx.next(&mut rest).await {
        bytes += text?.len();
    }
    Ok(bytes)
}

/// A look brings some megabytes and not the whole: what did not fit into it comes with the next ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_outputs_come_a_few_at_a_time() -> Result<()> {
    const CHILDREN: usize = 10;
    let (lab, kit) = (Lab::new().await, Kit::default());
    let durable = lab.worker(lab.builder().register(large).register(takes_large).state(kit.clone())).await?;
    let parent = durable.start(takes_large(CHILDREN)).id("p").await?;
    kit.gate.reached().await;
    lab.db.until("select count(*) = 10 from durable.workflow where status = 'completed'").await;
    kit.gate.open();
    assert_eq!(parent.soon().await?, CHILDREN * 65_536 * 32);
    let spent = lab.spent();
    let looks = spent.iter().filter(|name| *name == "ended_children").count();
    println!("looks at {CHILDREN} outputs of 2 MiB: {looks}");
    assert!((CHILDREN / 2..=CHILDREN).contains(&looks), "{spent:?}");
    Ok(())
}

#[workflow]
async fn held_square(ctx: &Ctx, n: i64) -> Result<i64> {
    ctx.run(gated(format!("{n}"))).await?;
    Ok(n * n)
}

/// The first of two, while the other goes on; then work, then the other.
#[workflow]
async fn first_of(ctx: &Ctx) -> Result<(String, String)> {
    let mut children = Children::default();
    children.push(ctx.start(held_square(1)).await?);
    children.push(ctx.start(square(2)).await?);
    let (first, _) = ctx.next(&mut children).await.expect("two were started");
    ctx.run(work("after the first".into())).await?;
    let (second, _) = ctx.next(&mut children).await.expect("one is left");
    Ok((first.id().to_owned(), second.id().to_owned()))
}

#[tokio::test]
async fn the_first_of_several_is_given_while_the_others_go_on() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let parent = durable.start(first_of()).id("p").await?;
    kit.gate.reached().await;
    db.until("select exists (select from durable.step where name = 'work')").await;
    assert_eq!(db.text("select status from durable.workflow where id = 'p/0'").await, "running");
    kit.gate.open();
    assert_eq!(parent.soon().await?, ("p/1".to_owned(), "p/0".to_owned()));
    Ok(())
}

/// All but one of them wait for somebody.
#[workflow]
async fn patient_square(ctx: &Ctx, n: i64) -> Result<i64> {
    if n != 700 {
        ctx.receive(END).await?;
    }
    Ok(n * n)
}

/// The first of many, work, and then all the others as they end.
#[workflow]
async fn first_of_many(ctx: &Ctx, many: i64) -> Result<(String, i64)> {
    let started = try_join_all((0..many).map(|n| ctx.start(patient_square(n)))).await?;
    let mut children: Children<i64> = started.into_iter().collect();
    let (first, square) = ctx.next(&mut children).await.expect("many were started");
    let mut sum = square?;
    ctx.run(work("after the first".into())).await?;
    while let Some((_, square)) = ctx.next(&mut children).await {
        sum += square?;
    }
    Ok((first.id().to_owned(), sum))
}

/// The parent and the others are rows meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_children_the_first_is_given_while_the_others_wait() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let parent = durable.start(first_of_many(MANY)).id("p").await?;
    db.until("select exists (select from durable.step where name = 'work')").await;
    db.until_count("select count(*) from durable.workflow where status = 'suspended'", |count| count == MANY).await;
    assert_eq!(db.count("select count(*) from durable.workflow where status = 'completed'").await, 1);
    let go =
        "select count(durable.send(id, 'end', 'null')) from durable.workflow where status = 'suspended' and id <> 'p'";
    assert_eq!(db.count(go).await, MANY - 1);
    assert_eq!(parent.soon().await?, ("p/700".to_owned(), sum_of_squares(MANY)));
    Ok(())
}

#[workflow]
async fn fails(ctx: &Ctx, n: i64) -> Result<i64> {
    anyhow::bail!("{} fails with {n}", ctx.id())
}

#[workflow]
async fn takes_failures(ctx: &Ctx, many: i64) -> Result<i64> {
    let started = try_join_all((0..many).map(|n| ctx.start(fails(n)))).await?;
    // All have ended by then.
    ctx.run(gated("before".into())).await?;
    let ended = futures::future::join_all(started.iter().map(|child| ctx.result(child))).await;
    Ok(ended.into_iter().filter(Result::is_err).count() as i64)
}

/// A failure takes no more room in a look than it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_children_come_together() -> Result<()> {
    let (lab, kit) = (Lab::new().await, Kit::default());
    let durable = lab.worker(lab.builder().register(fails).register(takes_failures).state(kit.clone())).await?;
    let parent = durable.start(takes_failures(50)).id("p").await?;
    kit.gate.reached().await;
    lab.db.until("select count(*) = 50 from durable.workflow where status = 'failed'").await;
    kit.gate.open();
    assert_eq!(parent.soon().await?, 50);
    let spent = lab.spent();
    let looks = spent.iter().filter(|name| *name == "ended_children").count();
    assert!(looks <= 2, "{looks} looks: {spent:?}");
    Ok(())
}
