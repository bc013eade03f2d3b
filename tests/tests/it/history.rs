//! Code that does not fit its history: the workflow is blocked, says why, and goes on once the code fits.

use std::time::Duration;

use anyhow::Result;
use durable::{Builder, Ctx, Failure, FailureKind, Handle, Status, Topic, WorkflowInfo, hours, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;

const GO: Topic<()> = Topic::new("go");

mod changed {
    use super::*;
    use durable::{PgConnection, StepCtx, step};

    /// Another step than the one in the history.
    #[workflow(name = "order")]
    pub(super) async fn renamed(ctx: &Ctx) -> Result<String> {
        ctx.run(gated("refund".into())).await?;
        Ok(ctx.run(work("after".into())).await?)
    }

    /// It ends without asking for what is recorded.
    #[workflow(name = "order")]
    pub(super) async fn removed(ctx: &Ctx) -> Result<String> {
        Ok(ctx.id().to_owned())
    }

    #[workflow(name = "order")]
    pub(super) async fn sleeps_instead(ctx: &Ctx) -> Result<String> {
        ctx.sleep(hours(1)).await?;
        Ok(ctx.run(work("after".into())).await?)
    }

    #[workflow(name = "order")]
    pub(super) async fn receives_instead(ctx: &Ctx) -> Result<String> {
        ctx.receive(GO).await?;
        Ok(ctx.run(work("after".into())).await?)
    }

    #[workflow(name = "order")]
    pub(super) async fn branches_instead(ctx: &Ctx) -> Result<String> {
        ctx.branch(async |ctx: &Ctx| ctx.run(work("in a branch".into())).await).await?;
        Ok(ctx.run(work("after".into())).await?)
    }

    /// The same name, another type.
    #[step(name = "work")]
    async fn work_of_numbers(step: &StepCtx) -> Result<i64> {
        step.state::<Kit>().log.note("number");
        Ok(7)
    }

    #[workflow(name = "order")]
    pub(super) async fn decodes_otherwise(ctx: &Ctx) -> Result<String> {
        Ok(ctx.run(work_of_numbers()).await?.to_string())
    }

    /// A step that became transactional keeps its outcome.
    #[step(tx, name = "work")]
    async fn work_in_a_transaction(tx: &mut PgConnection, name: String) -> Result<String> {
        sqlx::query("insert into application_row (name) values ($1)").bind(&name).execute(tx).await?;
        Ok(name)
    }

    #[workflow(name = "order")]
    pub(super) async fn became_transactional(ctx: &Ctx) -> Result<String> {
        let before = ctx.run(work_in_a_transaction("not asked".into())).await?;
        ctx.receive(GO).await?;
        Ok(before)
    }

    /// A body that swallows everything it can.
    #[workflow(name = "order")]
    pub(super) async fn swallows(ctx: &Ctx) -> Result<String> {
        let lost = ctx.run(gated("refund".into())).await;
        Ok(format!("{lost:?}"))
    }
}

/// The code that wrote the history.
#[workflow(name = "order")]
async fn original(ctx: &Ctx) -> Result<String> {
    let before = ctx.run(work("before".into())).await?;
    ctx.receive(GO).await?;
    Ok(before + &ctx.run(work("after".into())).await?)
}

/// Bring a workflow to its receive with the code that it began with, and end that worker.
async fn wait_at_the_receive(db: &Db, kit: &Kit) -> Result<()> {
    let first = db.builder().register(original).state(kit.clone()).start().await?;
    first.start(original()).id("o").await?;
    db.until_status("o", "suspended").await;
    first.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

/// Bring a workflow to its receive, then let `second` go on with it until it is blocked.
async fn deploy(db: &Db, kit: &Kit, second: impl FnOnce(Builder) -> Builder) -> Result<(Failure, WorkflowInfo)> {
    wait_at_the_receive(db, kit).await?;

    let second = second(db.builder().state(kit.clone())).start().await?;
    second.send("o", GO, ()).await?;
    db.until_status("o", "blocked").await;
    let info = second.workflow::<String>("o").info().await?;
    second.shutdown(Duration::from_secs(10)).await;
    let failure = info.failure.clone().expect("why it is blocked");
    assert_eq!(failure.kind(), FailureKind::Mismatch);
    assert!(info.finished_at.is_none());
    Ok((failure, info))
}

/// Check what a mismatch says, that nothing ran, and that the right code and a resume complete the workflow.
async fn is_blocked_and_goes_on(second: impl FnOnce(Builder) -> Builder, says: &[&str]) -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let (failure, _) = deploy(&db, &kit, second).await?;
    for part in says {
        assert!(failure.message().contains(part), "{part:?} is not in: {failure}");
    }
    assert_eq!(kit.log.entries(), ["before"], "the wrong code ran something");

    let third = db.builder().register(original).state(kit.clone()).resume_mismatches(false).start().await?;
    let handle: Handle<String> = third.workflow("o");
    // Another one that went through the same worker shows that only a resume sets this one going.
    third.start(original()).id("other").await?;
    db.until_status("other", "suspended").await;
    assert_eq!(handle.status().await?, Status::Blocked);
    third.resume("o").await?;
    assert_eq!(handle.soon().await?, "beforeafter");
    assert!(handle.info().await?.failure.is_none());
    Ok(())
}

/// P15
#[tokio::test]
async fn a_renamed_step_blocks() -> Result<()> {
    is_blocked_and_goes_on(|b| b.register(changed::renamed), &["position 0", "step \"work\"", "step \"gated\""]).await
}

/// P15
#[tokio::test]
async fn a_removed_step_blocks() -> Result<()> {
    is_blocked_and_goes_on(|b| b.register(changed::removed), &["position 0", "step \"work\"", "ended without"]).await
}

/// P15
#[tokio::test]
async fn a_sleep_in_place_of_a_step_blocks() -> Result<()> {
    is_blocked_and_goes_on(|b| b.register(changed::sleeps_instead), &["position 0", "step \"work\"", "sleep"]).await
}

/// P15
#[tokio::test]
async fn a_receive_in_place_of_a_step_blocks() -> Result<()> {
    is_blocked_and_goes_on(
        |b| b.register(changed::receives_instead),
        &["position 0", "step \"work\"", "receive \"go\""],
    )
    .await
}

/// P15
#[tokio::test]
async fn a_branch_in_place_of_a_step_blocks() -> Result<()> {
    is_blocked_and_goes_on(|b| b.register(changed::branches_instead), &["position 0", "step \"work\"", "a branch"])
        .await
}

/// P15: a recorded output that is no longer what the code expects is not guessed at.
#[tokio::test]
async fn an_output_that_no_longer_decodes_blocks() -> Result<()> {
    let says = ["output of step \"work\" at 0", "does not decode as i64"];
    is_blocked_and_goes_on(|b| b.register(changed::decodes_otherwise), &says).await
}

/// P15: the body cannot swallow a mismatch.
#[tokio::test]
async fn a_body_that_swallows_failures_cannot_swallow_a_mismatch() -> Result<()> {
    is_blocked_and_goes_on(|b| b.register(changed::swallows), &["step \"gated\""]).await
}

/// A recorded plain step answers for a transactional one of the same name: it is not run again.
#[tokio::test]
async fn a_step_that_became_transactional_keeps_its_outcome() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    wait_at_the_receive(&db, &kit).await?;
    let second = db.builder().register(changed::became_transactional).start().await?;
    second.send("o", GO, ()).await?;
    assert_eq!(second.workflow::<String>("o").soon().await?, "before");
    assert_eq!(db.count("select count(*) from application_row").await, 0);
    Ok(())
}

/// P13, P14: a blocked workflow can be cancelled, and stays so.
#[tokio::test]
async fn a_blocked_workflow_can_be_cancelled() -> Result<()> {
    let db = Db::new().await;
    deploy(&db, &Kit::default(), |b| b.register(changed::renamed)).await?;
    let client = db.client().await;
    client.cancel("o").await?;
    assert!(client.pause("o").await.unwrap_err().is_conflict());
    assert_eq!(client.workflow::<()>("o").status().await?, Status::Cancelled);
    Ok(())
}

/// A blocked workflow keeps the mail that comes meanwhile.
#[tokio::test]
async fn a_message_to_a_blocked_workflow_waits_for_it() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    wait_at_the_receive(&db, &kit).await?;
    // Woken by a message of a topic that nobody reads, so that the one that counts comes while it is blocked.
    let wrong = db.builder().register(changed::renamed).state(kit.clone()).start().await?;
    wrong.send("o", Topic::<()>::new("nudge"), ()).await?;
    db.until_status("o", "blocked").await;
    wrong.send("o", GO, ()).await?;
    wrong.shutdown(Duration::from_secs(10)).await;

    let right = db.builder().register(original).state(kit.clone()).resume_mismatches(false).start().await?;
    right.resume("o").await?;
    assert_eq!(right.workflow::<String>("o").soon().await?, "beforeafter");
    Ok(())
}
