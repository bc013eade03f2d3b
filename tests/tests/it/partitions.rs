//! Into the partition of a queue from everywhere: as a child, from SQL. What partitions do is `queues`.

use anyhow::Result;
use durable::{Ctx, Queue, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated};
use durable_tests::soon::Soon;

use super::from_sql::{refusal, run, text};
use super::queues::{RUNNING, drain, settles_at};

#[workflow]
async fn call(ctx: &Ctx) -> Result<()> {
    ctx.run(gated(ctx.id().to_owned())).await?;
    Ok(())
}

#[workflow]
async fn calls_for(ctx: &Ctx, customers: Vec<String>) -> Result<usize> {
    let mut children = Vec::new();
    for (n, customer) in customers.iter().enumerate() {
        let child = ctx.start(call()).id(format!("{customer}-{n}")).queue("calls").partition(customer);
        children.push(child.await?);
    }
    // By the other way to start a child.
    ctx.run(call()).id("last").queue("calls").partition("last").await?;
    for child in children {
        ctx.result(&child).await?;
    }
    Ok(customers.len())
}

#[workflow]
async fn calls_nowhere(ctx: &Ctx) -> Result<()> {
    Ok(ctx.run(call()).partition("").await?)
}

/// P21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_go_into_the_partitions_that_they_are_given() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let builder = db.builder().register(call).register(calls_for).register(calls_nowhere).state(kit.clone());
    let durable = builder.serve(Queue::new("calls").concurrency_per_partition(2)).start().await?;
    let customers: Vec<String> = ["a", "b", "a", "a", "b", "a", "a"].into_iter().map(str::to_owned).collect();
    let parent = durable.start(calls_for(customers)).id("p").await?;
    // Two of a, two of b, and the last one.
    let held = "select count(*) from durable.place where is_held";
    db.until_count(held, |held| held == 5).await;
    for _ in 0..5 {
        kit.gate.reached().await;
    }
    let waiting = "select count(*) from durable.place where not is_held";
    assert_eq!((db.count(held).await, db.count(waiting).await), (5, 3));
    for _ in 0..8 {
        kit.gate.open();
    }
    assert_eq!(parent.soon().await?, 7);
    let error = durable.start(calls_nowhere()).id("q").await?.soon().await.unwrap_err();
    assert!(error.to_string().contains("the partition is empty"), "{error}");
    Ok(())
}

/// A parent's start of children that is sent again (its id is taken by a child of its own) places them once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_beside_one_whose_id_is_taken_is_in_its_partition() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let builder = db.builder().register(call).register(tries).state(kit.clone());
    let durable = builder.serve(Queue::new("calls").concurrency(9)).start().await?;
    let client = db.client().await;
    client.start(call()).id("taken").queue("nobody's").await?;
    let parent = durable.start(tries()).id("p").await?;
    kit.gate.reached().await;
    kit.gate.open();
    let told = parent.soon().await?;
    assert!(told.contains("its id belongs to workflow"), "{told}");
    let placed =
        "select string_agg(id || ' ' || queue || ' ' || partition, ', ') from durable.place where partition > ''";
    assert_eq!(db.text(placed).await, "free calls acme");
    Ok(())
}

#[workflow]
async fn tries(ctx: &Ctx) -> Result<String> {
    let place = |id: &str| ctx.start(call()).id(id.to_owned()).queue("calls").partition("acme");
    let (taken, free) = (place("taken"), place("free"));
    // Together, so that they are one statement, which fails and is taken apart.
    let (taken, free) = tokio::join!(taken, free);
    ctx.result(&free?).await?;
    Ok(taken.err().map(|failure| failure.to_string()).unwrap_or_default())
}

/// P21: from SQL, and what called the function of before still means what it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_starts_into_a_partition() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let builder =
        db.builder().register(call).state(kit.clone()).serve(Queue::new("calls").concurrency_per_partition(1));
    let _durable = builder.start().await?;
    for n in 0..3 {
        let start = format!("select durable.start('call', id => 'a{n}', queue => 'calls', partition => 'a')");
        assert_eq!(text(&db.pool, &start).await?, format!("a{n}"));
        assert_eq!(text(&db.pool, &start).await?, format!("a{n}"), "again");
    }
    // By place, as it was called before there were partitions, and with one.
    run(&db.pool, "select durable.start('call', 'null', 'b', 1, 'calls', -3, '0')").await?;
    run(&db.pool, "select durable.start('call', 'null', 'c', 1, 'calls', 0, '0', 'c')").await?;
    run(&db.pool, "select durable.start_without_partition('call', 'null', 'd', 1, 'elsewhere')").await?;
    settles_at(&db, &kit, 3).await;
    let placed = "select string_agg(id || ' ' || partition || ' ' || priority, ', ' order by id) from durable.place";
    assert_eq!(db.text(placed).await, "a0 a 0, a1 a 0, a2 a 0, b  -3, c c 0");
    for (wrong, code, told) in [
        ("durable.start('call', partition => '')", "22023", "the partition is empty"),
        ("durable.start('call', partition => repeat('x', 513))", "22023", "the partition has 513 bytes"),
    ] {
        let (is, message, _) = refusal(&text(&db.pool, &format!("select {wrong}")).await.unwrap_err())?;
        assert!(is == code && message.contains(told), "{wrong}: {is} {message}");
    }
    assert_eq!(db.count(RUNNING).await, 3);
    drain(&db, &kit, ["a0", "a1", "a2", "b", "c"].map(str::to_owned).into_iter()).await
}

/// What held the function of before by its number goes on, and who was denied it is denied the new one.
#[tokio::test]
async fn a_view_a_grant_and_a_prepared_statement_outlive_the_migration() -> Result<()> {
    let db = super::from_sql_schema::of_the_first_migration().await?;
    run(&db.pool, include_str!("../../../migrations/0002_from_sql.sql")).await?;
    run(&db.pool, "insert into durable.migration (version, name) values (2, 'from_sql')").await?;
    run(&db.pool, "create view public.viewed as select durable.start('listens', id => 'viewed') as id").await?;
    run(
        &db.pool,
        "create role starts_nothing_here; revoke all on function durable.start from public; \
                   grant execute on function durable.start to starts_nothing_here with grant option",
    )
    .await?;
    let mut session = db.pool.acquire().await?;
    run(&mut *session, "prepare old as select durable.start('listens', 'null', 'old', 1, 'default', 0, '0')").await?;
    run(&mut *session, "execute old").await?;

    durable::migrate(&db.pool, "durable").await?;

    assert_eq!(text(&db.pool, "select id from public.viewed").await?, "viewed");
    run(&mut *session, "execute old").await?;
    assert_eq!(db.count("select count(*) from durable.workflow where id in ('viewed', 'old')").await, 2);
    let rights = "select string_agg(proacl::text, ' ') from pg_proc where pronamespace = 'durable'::regnamespace
                  and proname in ('start', 'start_without_partition')";
    let rights = text(&db.pool, rights).await?;
    assert_eq!(rights.matches("starts_nothing_here=X*/").count(), 2, "{rights}");
    assert!(!rights.contains("{=X") && !rights.contains(",=X"), "{rights}");
    run(&mut *session, "drop owned by starts_nothing_here; drop role starts_nothing_here").await?;
    Ok(())
}
