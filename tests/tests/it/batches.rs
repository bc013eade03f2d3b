//! How few statements many workflows take together, counted on the wire. What one takes alone is `budgets`.

use anyhow::Result;
use durable::{Ctx, step, workflow};
use durable_tests::crowd::CROWD;
use durable_tests::kit::{Kit, gated};
use durable_tests::soon::Soon;
use futures::{StreamExt, TryStreamExt};

use super::budgets::{Lab, NUDGE, ask, count, ten_steps};

#[step]
async fn double(n: i64) -> Result<i64> {
    Ok(2 * n)
}

#[workflow]
async fn fans_out(ctx: &Ctx, items: i64) -> Result<i64> {
    let doubled = ctx.fan_out(0..items, 100, async |ctx: &Ctx, n: i64| ctx.run(double(n)).await).await;
    doubled.into_iter().try_fold(0, |sum, n| Ok(sum + n?))
}

#[workflow]
async fn stands(ctx: &Ctx) -> Result<String> {
    ctx.run(gated("first".into())).await?;
    Ok(ctx.run(gated("second".into())).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_steps_of_many_workflows_take_less_than_a_statement_each() -> Result<()> {
    const WORKFLOWS: usize = 2 * CROWD;
    let lab = Lab::new().await;
    let durable = lab.worker(lab.builder().register(ten_steps)).await?;
    lab.wire.forget();
    durable.start_many((0..WORKFLOWS).map(|n| (format!("w-{n}"), ten_steps()))).await?;
    lab.db.until("select count(*) = 512 from durable.workflow where status = 'completed'").await;

    // All of them: looks around, heartbeats and what sets up a connection as well.
    let spent: usize = lab.wire.flights().iter().map(|flight| flight.statements.len()).sum();
    println!("{WORKFLOWS} workflows of ten steps: {spent} statements");
    assert!(spent < WORKFLOWS, "{spent} statements");
    assert_eq!(lab.db.count("select count(*) from durable.step").await, 10 * WORKFLOWS as i64);
    assert_eq!(lab.db.count("select max(claims)::bigint from durable.workflow").await, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_that_come_together_are_written_together() -> Result<()> {
    let (lab, kit) = (Lab::new().await, Kit::default());
    let durable = lab.worker(lab.builder().register(stands).state(kit.clone())).await?;
    durable.start_many((0..CROWD).map(|n| (format!("w-{n}"), stands()))).await?;
    for _ in 0..CROWD {
        kit.gate.reached().await;
    }
    lab.wire.forget();
    (0..CROWD).for_each(|_| kit.gate.open());
    // All of them come to their second step only after the first was written.
    for _ in 0..CROWD {
        kit.gate.reached().await;
    }

    let spent = lab.spent();
    println!("{CROWD} outcomes: {spent:?}");
    let together = count(&spent, "commit");
    assert!(together >= 1 && spent.len() < CROWD / 8, "{spent:?}");
    // The first to come may have gone alone, at each writer.
    assert!(count(&spent, "record") <= 2 && count(&spent, "record") + together == spent.len(), "{spent:?}");
    (0..CROWD).for_each(|_| kit.gate.open());
    Ok(())
}

/// A message moves the row of the workflow that it is for. Steps look for it where it stood when it was claimed, and still
/// have to find it in the same statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_of_workflows_whose_rows_have_moved_are_written_together() -> Result<()> {
    let (lab, kit) = (Lab::new().await, Kit::default());
    let durable = lab.worker(lab.builder().register(stands).state(kit.clone())).await?;
    let handles = durable.start_many((0..CROWD).map(|n| (format!("w-{n}"), stands()))).await?;
    for _ in 0..CROWD {
        kit.gate.reached().await;
    }
    let row_at = "select string_agg(id || ctid::text, ',' order by id) from durable.workflow";
    let stood = lab.db.text(row_at).await;
    let client = lab.db.client().await;
    for n in 0..CROWD {
        client.send(format!("w-{n}"), NUDGE, 1).await?;
    }
    assert_ne!(lab.db.text(row_at).await, stood);
    lab.wire.forget();
    (0..2 * CROWD).for_each(|_| kit.gate.open());
    for handle in &handles {
        assert_eq!(handle.soon().await?, "second");
    }

    let spent = lab.spent();
    assert!(count(&spent, "commit") >= 1 && count(&spent, "commit_apart") == 0, "{spent:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_steps_begun_together_are_written_in_few_statements() -> Result<()> {
    let lab = Lab::new().await;
    let durable = lab.worker(lab.builder().register(fans_out)).await?;
    lab.cost(durable.start(fans_out(1)).id("warm-up"), "completed").await?;

    let spent = lab.cost(durable.start(fans_out(100)).id("counted"), "completed").await?;

    println!("a hundred steps begun together: {spent:?}");
    assert!(spent.len() < 25, "{spent:?}");
    assert_eq!(lab.db.text("select output::text from durable.workflow where id = 'counted'").await, "9900");
    assert_eq!(lab.db.count("select count(*) from durable.step where workflow_id = 'counted'").await, 100);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_that_get_their_messages_take_few_statements() -> Result<()> {
    const WORKFLOWS: usize = 1_000;
    let lab = Lab::new().await;
    let ids: Vec<String> = (0..WORKFLOWS).map(|n| format!("w-{n}")).collect();
    let first = lab.db.builder().register(ask).start().await?;
    first.start_many(ids.iter().map(|id| (id.clone(), ask()))).await?;
    lab.db.until("select count(*) = 1000 from durable.workflow where status = 'suspended'").await;
    first.shutdown(durable_tests::db::PATIENCE).await;
    let client = lab.db.client().await;
    let sends = futures::stream::iter(0..).zip(futures::stream::iter(&ids));
    sends.map(|(n, id)| client.send(id, NUDGE, n).into_future()).buffer_unordered(8).try_collect::<Vec<_>>().await?;

    lab.wire.forget();
    let _second = lab.builder().register(ask).start().await?;
    lab.db.until("select count(*) = 1000 from durable.workflow where status = 'completed'").await;

    let spent = lab.spent();
    println!("{WORKFLOWS} messages received: {} statements", spent.len());
    assert!(spent.len() < WORKFLOWS / 2, "{spent:?}");
    let own = "select count(*) from durable.workflow where output::text = substr(id, 3)";
    assert_eq!(lab.db.count(own).await, WORKFLOWS as i64, "each has its own message");
    Ok(())
}
