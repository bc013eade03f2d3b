//! Forks: a new workflow goes on from a position in the history of another one, and nothing before it is done again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use durable::{Ctx, Durable, ErrorKind, Status, StepCtx, step, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, work};
use durable_tests::soon::Soon;

/// Whether what failed has been mended.
#[derive(Clone, Default)]
struct Mended(Arc<AtomicBool>);

#[step]
async fn charge(step: &StepCtx, cents: i64) -> Result<i64> {
    let (kit, mended) = (step.state::<Kit>(), step.state::<Mended>());
    kit.log.note(format!("charge {cents} as {}", step.key()));
    ensure!(mended.0.load(Ordering::SeqCst), "declined");
    Ok(cents)
}

/// What the body drew and saw before its first step, what its steps gave, and what it drew after them.
type Told = (f64, i64, Vec<String>, i64, f64);

#[workflow]
async fn order(ctx: &Ctx, item: String, cents: i64) -> Result<Told> {
    let (drawn, seen) = (ctx.random(), ctx.now().timestamp_micros());
    let mut notes = vec![ctx.run(work(format!("reserve {item}"))).await?];
    let packed = tokio::join!(
        ctx.branch(async |ctx: &Ctx| {
            ctx.run(work("box".to_owned())).await?;
            ctx.run(work("label".to_owned())).await
        }),
        ctx.run(work("invoice".to_owned())),
    );
    notes.extend([packed.0?, packed.1?]);
    let charged = ctx.run(charge(cents)).retry(1).await?;
    Ok((drawn, seen, notes, charged, ctx.random()))
}

/// The position of the charge, after the reservation, the branch and the invoice.
const CHARGE: u32 = 3;

#[workflow(name = "order", version = 2)]
async fn order_2(ctx: &Ctx, item: String, cents: i64) -> Result<String> {
    let reserved = ctx.run(work(format!("reserve {item}"))).await?;
    Ok(format!("{reserved} for {cents}, as version 2"))
}

struct Shop {
    db: Db,
    durable: Durable,
    kit: Kit,
    mended: Mended,
}

impl Shop {
    /// With an order that has failed at its charge.
    async fn new() -> Result<Self> {
        let (db, kit, mended) = (Db::new().await, Kit::default(), Mended::default());
        let builder = db.builder().register(order).register(order_2).state(kit.clone()).state(mended.clone());
        let durable = builder.start().await?;
        durable.start(order("tea".into(), 500)).id("order-1").await?;
        db.until_status("order-1", "failed").await;
        Ok(Self { db, durable, kit, mended })
    }

    fn mend(&self) {
        self.mended.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_fork_goes_on_from_its_position_and_does_nothing_before_it_again() -> Result<()> {
    let shop = Shop::new().await?;
    let before = shop.kit.log.entries();
    shop.mend();

    let again = shop.durable.fork::<Told>("order-1", CHARGE).id("order-1-again").await?;
    let (.., notes, charged, _) = again.soon().await?;

    assert_eq!((notes, charged), (["reserve tea", "label", "invoice"].map(str::to_owned).into(), 500));
    let since = shop.kit.log.entries().split_off(before.len());
    assert_eq!(since, ["charge 500 as order-1-again/3"], "with a key of its own");
    // The source is left as it is.
    let source = shop.durable.workflow::<()>("order-1");
    assert_eq!((source.status().await?, source.steps().await?.len()), (Status::Failed, 5));
    assert_eq!(again.info().await?.forked_from.as_deref(), Some("order-1"));
    Ok(())
}

/// P15: what a body drew decides which way it went; so it has to come out as it did, however often it is forked.
#[tokio::test]
async fn a_fork_of_a_fork_draws_and_sees_what_the_first_one_did() -> Result<()> {
    let shop = Shop::new().await?;
    shop.mend();
    let first = shop.durable.fork::<Told>("order-1", CHARGE).id("first").await?.soon().await?;
    let second = shop.durable.fork::<Told>("first", CHARGE).id("second").await?.soon().await?;
    let all_of_it = shop.durable.fork::<Told>("second", CHARGE + 1).id("third").await?.soon().await?;
    assert_eq!((first.clone(), second.clone()), (second, all_of_it));

    let another = shop.durable.start(order("tea".into(), 500)).id("order-2").await?.soon().await?;
    assert_ne!((first.0, first.1), (another.0, another.1), "draws and times of another order");
    Ok(())
}

#[tokio::test]
async fn what_is_given_takes_the_place_of_what_was_recorded() -> Result<()> {
    let shop = Shop::new().await?;
    // The charge has failed for good; it is taken for paid, and the reservation for another one.
    let fork = shop.durable.fork::<Told>("order-1", CHARGE + 1);
    let told = fork.output(CHARGE, &7).output(0, &"reserve coffee".to_owned()).await?.soon().await?;
    assert_eq!((told.2[0].as_str(), told.3), ("reserve coffee", 7));

    shop.mend();
    let told = shop.durable.fork::<Told>("order-1", 1).input(order("milk".into(), 90)).await?.soon().await?;
    assert_eq!((told.2[0].as_str(), told.3), ("reserve tea", 90), "the input is new, the reservation stands");

    let told = shop.durable.fork::<String>("order-1", 1).version(2).await?.soon().await?;
    assert_eq!(told, "reserve tea for 500, as version 2");
    let told = shop.durable.fork::<String>("order-1", 0).input(order_2("milk".into(), 90)).await?.soon().await?;
    assert_eq!(told, "reserve milk for 90, as version 2");
    Ok(())
}

/// P4: the same fork is made once, however often it is asked for; and takes nobody's id.
#[tokio::test]
async fn one_fork_per_id() -> Result<()> {
    let shop = Shop::new().await?;
    let fork = || shop.durable.fork::<Told>("order-1", 1).id("again");
    let forks = futures::future::join_all((0..8).map(|_| fork().into_future())).await;
    for fork in forks {
        assert_eq!(fork?.id(), "again");
    }
    assert_eq!(shop.db.count("select count(*) from durable.workflow where id = 'again'").await, 1);

    let taken = shop.durable.fork::<Told>("order-1", 2).id("again").await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict, "{taken}");
    let itself = shop.durable.fork::<Told>("order-1", 1).id("order-1").await.unwrap_err();
    assert_eq!(itself.kind(), ErrorKind::Conflict, "{itself}");
    Ok(())
}

/// P5.
#[tokio::test]
async fn a_fork_in_a_transaction_is_there_if_and_only_if_it_commits() -> Result<()> {
    let shop = Shop::new().await?;
    shop.mend();
    for commits in [false, true] {
        let mut tx = shop.db.pool.begin().await?;
        let fork = shop.durable.fork::<Told>("order-1", CHARGE).id("again");
        let handle = fork.in_tx(&mut tx).await?;
        if commits {
            tx.commit().await?;
            assert_eq!(handle.soon().await?.3, 500);
        } else {
            tx.rollback().await?;
            assert_eq!(shop.db.count("select count(*) from durable.workflow where id = 'again'").await, 0);
            assert_eq!(shop.db.count("select count(*) from durable.step where workflow_id = 'again'").await, 0);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_fork_that_cannot_be_says_why_and_writes_nothing() -> Result<()> {
    #[workflow]
    async fn refund(ctx: &Ctx) -> Result<i64> {
        Ok(ctx.now().timestamp())
    }
    let shop = Shop::new().await?;
    let fork = |id: &str, from| shop.durable.fork::<()>(id, from).id("new");
    for (refused, kind, told) in [
        (fork("order-9", 0), ErrorKind::NotFound, "no such workflow"),
        (fork("order-1", 5), ErrorKind::Usage, "ends before 4: fork from 0 to 4"),
        (fork("order-1", u32::MAX), ErrorKind::Usage, "fork from 0 to 4"),
        (fork("order-1", 1).output(1, &1), ErrorKind::Usage, "output is given for position 1"),
        (fork("order-1", 3).output(1, &1), ErrorKind::Usage, "for position 1, where nothing is taken over"),
        (fork("order-1", 1).output(0, &f64::NAN), ErrorKind::Usage, "the output at 0 does not survive"),
        (fork("order-1", 0).input(refund()), ErrorKind::Usage, r#"for workflow "refund", this one is "order""#),
        (fork("", 0), ErrorKind::Usage, "empty"),
    ] {
        let error = refused.await.unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(told), "{error}");
    }
    assert_eq!(shop.db.count("select count(*) from durable.workflow").await, 1);
    Ok(())
}
