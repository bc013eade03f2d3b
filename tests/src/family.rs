//! A workflow with children, for the tests that crash it, and what must be true of it afterwards.

use anyhow::{Result, ensure};
use durable::{Builder, Children, Ctx, FailureKind, PgConnection, StepCtx, step, workflow};
use futures::future::try_join_all;
use sqlx::PgPool;

use crate::effects;
use crate::journey::{SHORT_WAIT, note};

/// What a family of this number comes to.
pub fn sum_of(n: i64) -> i64 {
    // One that is run, three that come as they end, one in a branch.
    (n + 1) + (1..=3).map(|k| n + k + 1).sum::<i64>() + (n + 5)
}

/// Register what a family needs beside the state of a journey.
pub fn register(builder: Builder) -> Builder {
    builder.register(family).register(member).register(orphan)
}

/// Children run, started together and taken as they end, in a branch, detached and awaited by nobody, and one that fails.
#[workflow]
pub async fn family(ctx: &Ctx, n: i64) -> Result<i64> {
    let mut sum = ctx.run(member(n)).await?;
    let started = try_join_all((1..=3).map(|k| ctx.start(member(n + k)))).await?;
    let mut children: Children<i64> = started.into_iter().collect();
    let mut order = Vec::new();
    while let Some((child, came)) = ctx.next(&mut children).await {
        order.push(child.id().to_owned());
        sum += came?;
    }
    ctx.start(orphan(n)).detached().await?;
    let in_branch = ctx.branch(async |ctx: &Ctx| ctx.run(member(n + 4)).await);
    let (in_branch, failed) = futures::future::join(in_branch, ctx.run(orphan(-1))).await;
    let failed = failed.expect_err("a negative orphan fails");
    ensure!(failed.kind() == FailureKind::Error && failed.child().is_some(), "{failed:?}");
    ctx.run(keep(order.join(" "))).await?;
    Ok(sum + in_branch?)
}

/// A plain and a transactional step, with a wait between them.
#[workflow]
pub async fn member(ctx: &Ctx, n: i64) -> Result<i64> {
    ctx.run(says(n)).await?;
    if n % 2 == 0 {
        ctx.sleep(SHORT_WAIT * 3 / 2).await?;
    }
    Ok(ctx.run(writes(n)).await?)
}

/// Nobody waits for it.
#[workflow]
pub async fn orphan(ctx: &Ctx, n: i64) -> Result<i64> {
    ensure!(n >= 0, "a negative orphan");
    Ok(ctx.run(writes(n)).await?)
}

#[step]
async fn says(step: &StepCtx, n: i64) -> Result<()> {
    note(step, "says", &n.to_string()).await
}

#[step(tx)]
async fn writes(tx: &mut PgConnection, step: &StepCtx, n: i64) -> Result<i64> {
    effects::write(tx, step, "writes", &n.to_string()).await?;
    Ok(n + 1)
}

#[step(tx)]
async fn keep(tx: &mut PgConnection, step: &StepCtx, order: String) -> Result<()> {
    Ok(effects::write(tx, step, "keep", &order).await?)
}

/// What is not true of so many families that have ended: each child is there once, did what it writes once, and came in the
/// order that the body went on with.
pub async fn check(pool: &PgPool, families: i64) -> Result<()> {
    let count = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await;
    // By name and status: five members that completed, an orphan that did, and one that failed.
    let stands: Vec<(String, String, i64)> = sqlx::query_as(
        "select name, status, count(*) from durable.workflow where name in ('family', 'member', 'orphan')
         group by name, status order by name, status",
    )
    .fetch_all(pool)
    .await?;
    let told: Vec<_> = stands.iter().map(|(name, status, count)| (&**name, &**status, *count)).collect();
    let expected = [
        ("family", "completed", families),
        ("member", "completed", 5 * families),
        ("orphan", "completed", families),
        ("orphan", "failed", families),
    ];
    ensure!(told == expected, "{told:?}");
    let children = count("select count(*) from durable.child").await?;
    ensure!(children == 7 * families, "{children} children of {families}");
    let starts = count(
        "select count(*) from durable.child c join durable.step s
         on s.workflow_id = c.parent and s.lane = c.lane and s.seq = c.seq and s.kind = 'start'
            and s.output ->> 'id' = c.id",
    )
    .await?;
    ensure!(starts == children, "{starts} of {children} children have the record of their start");
    let twice = count(
        "select count(*) from (select from effect where step in ('writes', 'keep') group by key having count(*) > 1) as t",
    )
    .await?;
    ensure!(twice == 0, "{twice} writes were made more than once");
    let writes = count("select count(*) from effect where step in ('writes', 'keep')").await?;
    ensure!(writes == 7 * families, "{writes} writes of {families} families");
    let other_order = count(
        "select count(*) from effect e where e.step = 'keep' and e.value <> (
             select string_agg(s.output ->> 'child', ' ' order by s.seq) from durable.step s
             where s.workflow_id = e.workflow_id and s.kind = 'child' and s.name = 'next')",
    )
    .await?;
    ensure!(other_order == 0, "{other_order} families went on with another order than the recorded one");
    Ok(())
}
