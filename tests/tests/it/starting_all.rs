//! Starting as many workflows as an iterator or a stream names, in one call: few statements, bounded memory, each once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, ErrorKind, IfExists, Queue, workflow};
use durable_dev::ServerOptions;
use durable_tests::db::Db;
use durable_tests::kit::{Kit, work};
use durable_tests::soon::Soon;
use futures::{StreamExt, stream};

use super::budgets::{Lab, count};
use super::faults::{Cutter, Own, hang_commits, let_commits_go};

const ROWS: &str = "select count(*) from durable.workflow";

#[workflow]
async fn errand(ctx: &Ctx, word: String) -> Result<String> {
    Ok(ctx.run(work(word)).await?)
}

#[workflow]
async fn other(ctx: &Ctx) -> Result<String> {
    Ok(ctx.id().to_owned())
}

/// A hundred thousand take a hundred statements, and what was not yet written is never more than one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_start_in_one_call_by_a_hundred_statements_and_in_bounded_memory() -> Result<()> {
    const MANY: i64 = 100_000;
    let lab = Lab::new().await;
    let client = lab.builder().client().await?;
    let (pool, most) = (lab.db.pool.clone(), Arc::new(AtomicI64::new(0)));
    let asked = most.clone();
    let calls = stream::iter(0..MANY).then(move |n| {
        let (pool, most) = (pool.clone(), asked.clone());
        async move {
            if n % 7_919 == 0 {
                let written: i64 = sqlx::query_scalar(ROWS).fetch_one(&pool).await.expect("a count");
                most.fetch_max(n - written, Ordering::Relaxed);
            }
            (format!("n{n}"), errand(n.to_string()))
        }
    });
    lab.wire.forget();
    let done = client.start_all_from(calls).queue("bulk").priority(3).await?;

    assert_eq!((done.created, done.existed), (100_000, 0));
    let spent = lab.spent();
    println!("{MANY} starts: {} statements, at most {} not written yet", spent.len(), most.load(Ordering::Relaxed));
    assert_eq!(count(&spent, "start_all"), 100, "{spent:?}");
    assert!(spent.len() <= 102, "{spent:?}");
    let most = most.load(Ordering::Relaxed);
    assert!(0 < most && most < 1_000, "{most} were in memory");
    assert_eq!(lab.db.count(ROWS).await, MANY);
    assert_eq!(lab.db.text("select distinct queue || priority || status from durable.workflow").await, "bulk3queued");
    Ok(())
}

/// What is large is sent a MiB at a time.
#[tokio::test]
async fn large_inputs_are_sent_by_their_bytes() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let (pool, most) = (db.pool.clone(), Arc::new(AtomicI64::new(0)));
    let asked = most.clone();
    let calls = stream::iter(0..60).then(move |n| {
        let (pool, most) = (pool.clone(), asked.clone());
        async move {
            let written: i64 = sqlx::query_scalar(ROWS).fetch_one(&pool).await.expect("a count");
            most.fetch_max(n - written, Ordering::Relaxed);
            (format!("n{n}"), errand("x".repeat(if n == 30 { 3 << 20 } else { 100 << 10 })))
        }
    });
    assert_eq!(client.start_all_from(calls).await?.created, 60);
    let most = most.load(Ordering::Relaxed);
    assert!((5..=10).contains(&most), "{most} of 100 KiB were in memory");
    Ok(())
}

/// Every option of a start, in the caller's transaction, is all there or not at all.
#[tokio::test]
async fn in_a_transaction_it_is_all_or_nothing_with_every_option() -> Result<()> {
    const LEFT: &str = "select (select count(*) from durable.workflow) + (select count(*) from durable.place)
                             + (select count(*) from durable.deadline) + (select count(*) from durable.attribute)";
    let db = Db::new().await;
    let durable =
        db.builder().register(errand).state(Kit::default()).serve(Queue::new("slow").concurrency(1)).start().await?;
    let calls = || (0..2_500).map(|n| (format!("n{n}"), errand(n.to_string())));
    for commits in [false, true] {
        let mut tx = db.pool.begin().await?;
        let start = durable.start_all(calls()).queue("slow").partition("acme").priority(-2).attribute("batch", 7);
        let done = start.delay(Duration::from_secs(900)).deadline(Duration::from_secs(1_800)).in_tx(&mut tx).await?;
        assert_eq!((done.created, done.existed, done.total()), (2_500, 0, 2_500));
        let again = durable.start_all(calls().take(10)).in_tx(&mut tx).await?;
        assert_eq!((again.created, again.existed), (0, 10));
        assert_eq!(db.count(LEFT).await, 0, "not before the commit");
        match commits {
            false => tx.rollback().await?,
            true => tx.commit().await?,
        }
        assert_eq!(db.count(LEFT).await, if commits { 10_000 } else { 0 });
    }
    let as_told = "select count(*) from durable.workflow w join durable.place p using (bucket, id)
                   join durable.deadline d using (bucket, id) join durable.attribute a using (bucket, id)
                   where w.queue = 'slow' and w.priority = -2 and p.partition = 'acme' and a.value::text = '7'
                     and w.due_at between w.created_at + interval '899 s' and w.created_at + interval '901 s'
                     and d.at between w.created_at + interval '1799 s' and w.created_at + interval '1801 s'";
    assert_eq!(db.count(as_told).await, 2_500);
    Ok(())
}

/// They run: here at once as far as there is room, and the others by claims.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_them_run_once() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(errand).state(kit.clone()).concurrency(50).start().await?;
    let calls = (0..2_300).map(|n| (format!("n{n}"), errand(n.to_string())));
    assert_eq!(durable.start_all(calls).await?.created, 2_300);
    db.until("select count(*) = 2300 from durable.workflow where status = 'completed'").await;
    let mut ran = kit.log.entries();
    assert_eq!(ran.len(), 2_300);
    ran.sort();
    ran.dedup();
    assert_eq!(ran.len(), 2_300, "each body ran once");
    Ok(())
}

/// In the same chunk and in different ones, an id that comes again counts as there already.
#[tokio::test]
async fn an_id_that_comes_twice_counts_as_there_already_the_second_time() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let calls = || (0..3_000).map(|n| (format!("n{}", n % 1_250), errand((n % 1_250).to_string())));
    let done = client.start_all(calls()).await?;
    assert_eq!((done.created, done.existed), (1_250, 1_750));
    let near =
        || ["a", "b", "a", "a"].into_iter().zip(["1", "2", "3", "1"]).map(|(id, word)| (id, errand(word.into())));
    let done = client.start_all(near()).await?;
    assert_eq!((done.created, done.existed), (2, 2));
    assert_eq!(db.text("select input::text from durable.workflow where id = 'a'").await, "\"1\"", "the first stands");

    for (policy, told) in [(IfExists::ReturnSameInput, "twice in one call"), (IfExists::Refuse, "twice in one call")] {
        let fresh = near().map(|(id, call)| (format!("{policy:?}-{id}"), call));
        let error = client.start_all(fresh).if_exists(policy).await.unwrap_err();
        assert!(error.is_conflict() && error.to_string().contains(told), "{error}");
    }
    let done = client.start_all(calls()).if_exists(IfExists::ReturnSameInput).await?;
    assert_eq!((done.created, done.existed), (0, 3_000));
    assert_eq!(db.count(ROWS).await, 1_252);
    let none = client.start_all(calls().take(0)).await?;
    assert_eq!(none.total(), 0);
    Ok(())
}

/// A wrong one in the middle is named, with what stands of the call; of its own chunk nothing does.
#[tokio::test]
async fn a_wrong_one_in_the_middle_is_named_with_what_stands() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(other()).id("n2345").await?;
    client.start(errand("7".into())).id("n7").await?;
    let calls = || (0..4_000).map(|n| (format!("n{n}"), errand(n.to_string())));
    let error = client.start_all(calls()).await.unwrap_err();
    let told = error.to_string();
    assert!(error.is_conflict() && told.contains("the id n2345 belongs to workflow \"other\""), "{told}");
    assert!(told.contains("the first 2000 of this call were started, 1999 of them new, and stand"), "{told}");
    assert_eq!(db.count(ROWS).await, 2_001);

    let with_a_bad_id = calls().map(|(id, call)| (if id == "n1500" { "n\n".to_owned() } else { id }, call));
    let error = client.start_all(with_a_bad_id).await.unwrap_err();
    let told = error.to_string();
    assert!(error.kind() == ErrorKind::Usage && told.contains("control character"), "{told}");
    assert!(told.contains("the first 1000 of this call were started, 0 of them new, and stand"), "{told}");

    let too_large = [("large", errand("x".repeat(33 << 20)))];
    let told = client.start_all(too_large).await.unwrap_err().to_string();
    assert!(told.contains("could not start workflow large") && told.contains("no chunk of this call"), "{told}");

    let mut tx = db.pool.begin().await?;
    let error = client.start_all(calls()).in_tx(&mut tx).await.unwrap_err();
    assert!(error.is_conflict() && error.to_string().contains("roll it back"), "{error}");
    tx.rollback().await?;
    assert_eq!(db.count(ROWS).await, 2_001);
    Ok(())
}

/// Whoever dies in the middle leaves the chunks that were written; the call is repeated, and each is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_died_in_the_middle_is_repeated_and_each_is_there_once() -> Result<()> {
    let lab = Lab::new().await;
    let dying = lab.builder().client().await?;
    let (reached, mut at) = tokio::sync::mpsc::unbounded_channel();
    let calls = || (0..5_000).map(|n| (format!("n{n}"), errand(n.to_string())));
    let watched = calls().enumerate().map(move |(n, call)| {
        reached.send(n).expect("the test listens");
        call
    });
    let call = tokio::spawn(async move { dying.start_all(watched).await });
    while at.recv().await.expect("it goes on") < 2_100 {}
    // The chunk under way is written or not; nobody hears of it, and nothing else is sent.
    lab.wire.cut();
    call.abort();
    drop(call.await);

    let client = lab.db.client().await;
    let done = client.start_all(calls()).await?;
    assert_eq!(done.total(), 5_000);
    assert!(done.existed >= 2_000, "{done:?}");
    assert_eq!(lab.db.count(ROWS).await, 5_000);
    assert_eq!(
        lab.db.count("select count(*) from durable.workflow where input::text = '\"' || substr(id, 2) || '\"'").await,
        5_000
    );
    Ok(())
}

/// No reply to the commit of any chunk ever comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_replies_are_lost_starts_each_once() -> Result<()> {
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    let client = own.builder().client().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);
    let done = client.start_all((0..5_000).map(|n| (format!("n{n}"), errand(n.to_string())))).await;
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;

    let done = done?;
    assert_eq!((done.created, done.existed), (0, 5_000), "as documented: the first answers were lost");
    assert!(cuts >= 5, "{cuts} commits without an answer");
    let written: i64 = sqlx::query_scalar(ROWS).fetch_one(&own.outside).await?;
    assert_eq!(written, 5_000);
    Ok(())
}

/// Two processes that start the same ones share them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_call_from_several_processes_at_once_starts_each_once() -> Result<()> {
    let db = Db::new().await;
    let clients = [db.client().await, db.client().await, db.client().await];
    let calls = || (0..3_000).map(|n| (format!("n{n}"), errand(n.to_string())));
    let ends = futures::future::join_all(clients.iter().map(|client| client.start_all(calls()).into_future())).await;
    let mut created = 0;
    for end in ends {
        let done = end?;
        assert_eq!(done.total(), 3_000);
        created += done.created;
    }
    assert_eq!(created, 3_000);
    assert_eq!(db.count(ROWS).await, 3_000);
    let kit = Kit::default();
    let durable = db.builder().register(errand).state(kit.clone()).start().await?;
    assert_eq!(durable.workflow::<String>("n42").soon().await?, "42");
    Ok(())
}
