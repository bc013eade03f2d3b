//! Declarations of limits around steps: that disagree, and that are missing.

use std::time::Duration;

use anyhow::Result;
use durable::{Builder, Ctx, Limit, StepCtx, step, workflow};
use durable_tests::db::Db;
use durable_tests::kit::Kit;
use durable_tests::soon::Soon;
use durable_tests::traced::Traced;
use tracing::Level;

#[step(limit = "model")]
async fn ask(step: &StepCtx, secret: String) -> Result<()> {
    let kit: &Kit = step.state();
    kit.log.note(secret);
    Ok(())
}

#[workflow]
async fn agent(ctx: &Ctx, secret: String) -> Result<()> {
    Ok(ctx.run(ask(secret)).await?)
}

fn builder(db: &Db, kit: &Kit) -> Builder {
    db.builder().register(agent).state(kit.clone())
}

fn of(name: &str, most: u32) -> Limit {
    Limit::new(name).concurrency(most)
}

/// Looks only when it starts.
const ONCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn of_two_declarations_that_disagree_the_last_one_counts_and_a_warning_names_both() -> Result<()> {
    let (traced, _guard) = Traced::on_this_thread(Level::WARN);
    let (db, kit) = (Db::new().await, Kit::default());
    let said = || traced.lines_with("declared other limits");
    let model = |most| builder(&db, &kit).lease(ONCE).limit(of("model", most));
    let first = model(5).limit(of("search", 1)).start().await?;
    let same = model(5).start().await?;
    let others = builder(&db, &kit).lease(ONCE).limit(of("search", 1)).start().await?;
    assert!(said().is_empty(), "{}", traced.text());

    let other = model(6).start().await?;
    other.start(agent("hush".into())).await?.soon().await?;
    let lines = said();
    assert_eq!(lines.len(), 1, "{}", traced.text());
    for part in [
        "limit=\"model\"",
        "declared=\"{\\\"concurrency\\\":6",
        "others=\"{\\\"concurrency\\\":5",
        "let all workers declare",
    ] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    assert!(!traced.text().contains("hush"));
    assert_eq!(other.limits().await?[0].limit, of("model", 6));

    // Once no worker has declared it, another one is a deploy.
    for durable in [first, same, others, other] {
        durable.shutdown(Duration::ZERO).await;
    }
    model(7).start().await?;
    assert_eq!(said().len(), 1, "{}", traced.text());
    Ok(())
}

/// As long as they disagree, both say so, at most once an hour.
#[tokio::test]
async fn who_was_replaced_by_another_declaration_says_so_once() -> Result<()> {
    let (traced, _guard) = Traced::on_this_thread(Level::WARN);
    let (db, kit) = (Db::new().await, Kit::default());
    let replaced = builder(&db, &kit).lease(Duration::from_millis(500)).limit(of("model", 5)).limit(of("search", 1));
    let _replaced = replaced.start().await?;
    let _other = builder(&db, &kit).lease(ONCE).limit(of("model", 6)).start().await?;
    let of_the_replaced = "limit=\"model\" declared=\"{\\\"concurrency\\\":5";
    traced.until(of_the_replaced).await;
    // Another one shows that it has looked again since.
    let _another = builder(&db, &kit).lease(ONCE).limit(of("search", 2)).start().await?;
    traced.until("limit=\"search\" declared=\"{\\\"concurrency\\\":1").await;
    assert_eq!(traced.lines_with(of_the_replaced).len(), 1, "{}", traced.text());
    assert_eq!(traced.lines_with("limit=\"model\"").len(), 2, "{}", traced.text());
    Ok(())
}

#[tokio::test]
async fn who_comes_to_a_limit_that_is_not_there_is_blocked_loudly_until_it_is_declared_and_it_is_resumed() -> Result<()>
{
    let (traced, _guard) = Traced::on_this_thread(Level::WARN);
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = builder(&db, &kit).limit(of("model", 1)).start().await?;
    durable.remove_limit("model").await?;
    let handle = durable.start(agent("hush".into())).id("w-0").await?;
    db.until_status("w-0", "blocked").await;
    let failure = db.text("select failure ->> 'messages' from durable.workflow").await;
    for part in [
        "the limit \\\"model\\\", which nobody has declared",
        "step \\\"ask\\\"",
        "Builder::limit",
        "resume the workflow",
    ] {
        assert!(failure.contains(part), "{part}: {failure}");
    }
    let said = traced.lines_with("nobody has declared this limit");
    assert!(said.len() == 1 && said[0].contains("limit=\"model\"") && said[0].contains("Builder::limit"), "{said:?}");
    let blocked = "it has come to a limit that nobody has declared";
    traced.until(&format!("workflow is blocked: {blocked}")).await;
    let noted = db.text("select reason from durable.operation where act = 'block'").await;
    assert_eq!(noted, blocked);
    assert!(!traced.text().contains("hush") && kit.log.entries().is_empty());

    // It was no code that did not fit, so a deploy of the same code with the declaration leaves it to whoever resumes it.
    let _with = builder(&db, &kit).limit(of("model", 1)).start().await?;
    assert_eq!(db.text("select status from durable.workflow").await, "blocked");
    durable.resume("w-0").await?;
    handle.soon().await?;
    assert_eq!(kit.log.entries(), ["hush"]);
    Ok(())
}
