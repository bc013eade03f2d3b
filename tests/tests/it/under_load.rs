//! The promises with as many workflows in flight as a worker has room for, whose writes go through the committer
//! together: workers that are killed and frozen, commits without an answer, a server that dies.
//!
//! The same faults for single journeys are in `crash`, `takeover` and `faults`; what has to be true afterwards is
//! `durable_tests::checker`, and that it would see a committer that is wrong is shown in `sabotage`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use durable_dev::ServerOptions;
use durable_tests::crowd::{self, CROWD, until_amid, until_over};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::victim::{Orders, Victim};

use super::faults::{Cutter, Own, hang_commits, let_commits_go};
use super::takeover::until_second_incarnation;

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");
const LEASE: Duration = Duration::from_secs(2);

fn orders(db: &Db) -> Orders {
    Orders { lease: LEASE, ..Orders::new(db.url()) }
}

/// P1, P2, P3, P7: workers are killed one after the other, each with the whole crowd in flight; and one more while the
/// first are suspended, receive and end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_amid_a_crowd_lose_and_repeat_nothing() -> Result<()> {
    let (db, clean) = (Db::new().await, crowd::clean_errand().await?);
    let ids = crowd::depart(&db.client().await).await?;
    for kill in 1..=3 {
        let victim = Victim::begin(VICTIM, &orders(&db)).at_work().await;
        until_amid(&db.pool, kill * CROWD * 3 / 2).await?;
        victim.kill().await;
    }
    let victim = Victim::begin(VICTIM, &orders(&db)).at_work().await;
    let progress = crowd::until(&db.pool, |progress| progress.over >= 8).await?;
    victim.kill().await;
    assert!(progress.over < CROWD as i64, "{progress:?}");

    let _last = Victim::begin(VICTIM, &orders(&db)).at_work().await;
    until_over(&db.pool).await?;
    assert_eq!(crowd::check(&db.pool, &ids, &clean, None).await?, Vec::<String>::new());
    Ok(())
}

/// P1, P2, P9: a worker is frozen past its lease with the whole crowd in flight, and goes on while another one runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_frozen_amid_a_crowd_changes_nothing_when_it_goes_on() -> Result<()> {
    let (db, clean) = (Db::new().await, crowd::clean_errand().await?);
    let ids = crowd::depart(&db.client().await).await?;
    let frozen = Victim::begin(VICTIM, &orders(&db)).at_work().await;
    until_amid(&db.pool, CROWD * 3 / 2).await?;
    frozen.freeze().await;
    let _other = Victim::begin(VICTIM, &orders(&db)).at_work().await;
    until_amid(&db.pool, CROWD * 4).await?;
    frozen.thaw().await;

    until_second_incarnation(&db, &frozen).await;
    until_over(&db.pool).await?;
    assert_eq!(crowd::check(&db.pool, &ids, &clean, Some(frozen.pid())).await?, Vec::<String>::new());
    Ok(())
}

/// P1, P2, P3, P7: no reply to any commit of a crowd's life ever comes: not of the starts, the batches, the messages.
/// Each stands, once, and no body runs again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_none_of_whose_commits_is_answered_happens_once() -> Result<()> {
    let clean = crowd::clean_errand().await?;
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    // No takeover may help: what the worker does not find out by itself, nobody finds out.
    let durable = own.builder().lease(Duration::from_secs(3_600)).start().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);

    let amid = async { Ok(until_amid(&own.outside, CROWD).await?) };
    let (ids, ()) = tokio::try_join!(crowd::depart(&durable), amid)?;
    until_over(&own.outside).await?;
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;

    println!("commits without an answer: {cuts}");
    assert!(cuts > 30, "{cuts} commits without an answer");
    assert_eq!(crowd::check(&own.outside, &ids, &clean, None).await?, Vec::<String>::new());
    let twice = "select count(*) from (select from effect group by key having count(*) > 1) as repeated";
    assert_eq!(sqlx::query_scalar::<_, i64>(twice).fetch_one(&own.outside).await?, 0, "a body ran again");
    Ok(())
}

/// P1, P2, P3, P7, P17: the server is killed and recovers, twice, with the whole crowd in flight in two processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_amid_a_crowd_loses_nothing_that_was_acknowledged() -> Result<()> {
    let clean = crowd::clean_errand().await?;
    let mut own = Own::start(ServerOptions::new()).await?;
    let ids = crowd::depart(&own.builder().client().await?).await?;
    let lease = LEASE * 2;
    let durable = own.builder().lease(lease).start().await?;
    let victim = Victim::begin(VICTIM, &Orders { lease, ..Orders::new(&own.url) }).at_work().await;
    for crash in 1..=2 {
        until_amid(&own.outside, crash * CROWD * 2).await?;
        own.crash().await?;
    }

    until_over(&own.outside).await?;
    assert_eq!(crowd::check(&own.outside, &ids, &clean, None).await?, Vec::<String>::new());
    victim.shut_down().await;
    durable.shutdown(PATIENCE).await;
    Ok(())
}
