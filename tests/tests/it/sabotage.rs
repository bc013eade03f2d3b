//! What the tests under load are worth: committers that are wrong, each in its way, under the fault that makes it
//! matter. The checker must see every one of them, and nothing where none is.

use std::time::Duration;

use anyhow::Result;
use durable::testing::Sabotage;
use durable_tests::crowd::{self, CROWD, crossing, until_amid, until_over};
use durable_tests::db::Db;
use durable_tests::victim::{Orders, Victim};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// Longer than a test.
const LONG: Duration = Duration::from_secs(600);

/// What a scenario comes to with a sound committer, and with one that is wrong.
fn compare(sound: &[String], wrong: &[String]) {
    println!("violations: {}, first of them {:?}", wrong.len(), wrong.first());
    assert_eq!(sound, Vec::<String>::new());
    assert!(!wrong.is_empty(), "the checker does not see it");
}

/// Nothing can be recorded for a while, and then the worker is killed. What the checker finds after the recovery.
async fn killed_before_its_commit(sabotage: Option<Sabotage>) -> Result<Vec<String>> {
    let (db, clean) = (Db::new().await, crowd::clean_errand().await?);
    let ids = crowd::depart(&db.client().await).await?;
    let lease = Duration::from_secs(2);
    let orders = Orders { lease, sabotage, ..Orders::new(db.url()) };
    let victim = Victim::begin(VICTIM, &orders).at_work().await;
    until_amid(&db.pool, CROWD).await?;
    let mut lock = db.pool.begin().await?;
    sqlx::query("lock table durable.step in exclusive mode").execute(&mut *lock).await?;
    // Every workflow has an outcome that it waits to see written; unless it does not wait.
    let ahead = "select (select count(distinct key) from effect) - (select count(*) from durable.step)";
    let all = if sabotage.is_some() { CROWD * 3 / 2 } else { CROWD };
    db.until_count(ahead, |count| count >= all as i64).await;
    victim.kill().await;
    // What it had sent would be written once the lock is gone, by servers that do not know yet that nobody listens.
    let sent = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
    db.until_count(sent, |count| count == 0).await;
    lock.rollback().await?;

    let _sound = Victim::begin(VICTIM, &Orders { sabotage: None, ..orders }).at_work().await;
    until_over(&db.pool).await?;
    Ok(crowd::check(&db.pool, &ids, &clean, None).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_sees_a_committer_that_acknowledges_before_its_commit() -> Result<()> {
    let (sound, wrong) =
        tokio::try_join!(killed_before_its_commit(None), killed_before_its_commit(Some(Sabotage::AcknowledgesEarly)))?;
    compare(&sound, &wrong);
    Ok(())
}

/// A worker is frozen, and its workflows are given to another one, which stands in the same bodies when the first goes on.
/// They are given back by hand: a takeover ends the sessions of the worker first, and then nothing that its committer
/// forgets can do harm. Here only the owner in each row stands between the two. What the checker finds.
async fn overtaken_without_knowing(sabotage: Option<Sabotage>) -> Result<Vec<String>> {
    const CAME: &str = "select count(*) from effect where step = 'came'";
    const WENT: &str = "select count(*) from effect where step = 'went'";
    let (db, clean, all) = (Db::new().await, crowd::clean_crossing().await?, CROWD as i64);
    let ids = crowd::ids();
    let client = db.client().await;
    client.start_many(ids.iter().map(|id| (id.clone(), crossing(id.clone())))).await?;
    let orders = Orders { lease: LONG, sabotage, ..Orders::new(db.url()) };
    let frozen = Victim::begin(VICTIM, &orders).at_work().await;
    db.until_count(CAME, |count| count == all).await;
    frozen.freeze().await;
    let given_back = "update durable.workflow set status = 'queued', owner = null, due_at = durable.now()
                      where owner is not null";
    assert_eq!(sqlx::query(given_back).execute(&db.pool).await?.rows_affected(), CROWD as u64);
    let other = Victim::begin(VICTIM, &Orders { sabotage: None, ..orders }).at_work().await;
    db.until_count(CAME, |count| count == 2 * all).await;
    frozen.thaw().await;

    crowd::open_for(&db.pool, frozen.pid()).await?;
    db.until_count(WENT, |count| count == all).await;
    if sabotage.is_some() {
        let written = "select count(*) from durable.step where name = 'stand'";
        db.until_count(written, |count| count == all).await;
    }
    crowd::open_for(&db.pool, other.pid()).await?;
    db.until_count(WENT, |count| count == 2 * all).await;
    until_over(&db.pool).await?;
    Ok(crowd::check(&db.pool, &ids, &clean, None).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_sees_a_committer_that_forgets_the_owner() -> Result<()> {
    let (sound, wrong) =
        tokio::try_join!(overtaken_without_knowing(None), overtaken_without_knowing(Some(Sabotage::ForgetsTheOwner)))?;
    compare(&sound, &wrong);
    Ok(())
}

/// Nothing goes wrong but the committer. What the checker finds.
async fn plain_load(sabotage: Option<Sabotage>) -> Result<Vec<String>> {
    let (db, clean) = (Db::new().await, crowd::clean_errand().await?);
    let ids = crowd::depart(&db.client().await).await?;
    let orders = Orders { lease: LONG, sabotage, ..Orders::new(db.url()) };
    let _worker = Victim::begin(VICTIM, &orders).at_work().await;
    until_over(&db.pool).await?;
    Ok(crowd::check(&db.pool, &ids, &clean, None).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_sees_a_committer_that_drops_a_row() -> Result<()> {
    let (sound, wrong) = tokio::try_join!(plain_load(None), plain_load(Some(Sabotage::DropsARow)))?;
    compare(&sound, &wrong);
    Ok(())
}
