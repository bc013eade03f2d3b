//! Workers that die anywhere: at every crash point, and at random moments.
//!
//! What has to be true afterwards is `durable_tests::checker`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use durable::{Durable, Handle};
use durable_tests::checker::{Seen, violations};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::journey::{self, Arrival, JOURNEY_OUTPUT, WORD, WORDS};
use durable_tests::soon::Soon;
use durable_tests::victim::{Ended, Orders, Victim};
use futures::StreamExt;

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// Victims at a time: enough to wait for their time-outs side by side, few enough for two cores.
const AT_ONCE: usize = 10;

/// Start a journey and send it its words. Repeating either does nothing.
async fn depart(durable: &Durable, id: &str) -> Result<Handle<Arrival>> {
    let handle = durable.start(journey::journey(0)).id(id).await?;
    for word in WORDS {
        durable.send(id, WORD, word.to_owned()).key(word).await?;
    }
    Ok(handle)
}

/// Let a victim travel on a queue of its own, where nobody else takes its workflow, until its crash point.
async fn travel(db: &Db, id: &str, crash_at: u64) -> Ended {
    let orders = Orders { queue: id.to_owned(), crash_at, journey: Some(id.to_owned()), ..Orders::new(db.url()) };
    Victim::begin(VICTIM, &orders).ended().await
}

/// A journey without faults, and how many crash points it passed.
async fn clean_journey(db: &Db) -> Result<(Seen, u64)> {
    let ended = travel(db, "clean", 0).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let seen = Seen::look(&db.pool, "clean").await?;
    assert_eq!((&*seen.status, seen.output.as_deref()), ("completed", Some(JOURNEY_OUTPUT)));
    assert_eq!(violations("clean", &seen, &seen), Vec::<String>::new());
    let kinds: Vec<_> = seen.steps.iter().filter(|step| step.lane.is_empty()).map(|step| &*step.kind).collect();
    let plain = ["step", "transaction", "sleep", "step", "receive", "sleep"];
    assert_eq!(kinds, [&plain[..], &["step", "receive", "step", "transaction", "transaction"]].concat());
    assert_eq!(seen.steps.len(), kinds.len() + 6, "three branches of two steps");
    Ok((seen, ended.points))
}

/// P1, P2, P3, P7: a worker dies at each of its crash points in turn, and another one finishes the workflow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_die_at_any_point() -> Result<()> {
    let db = Db::new().await;
    let (clean, points) = clean_journey(&db).await?;

    let deaths: Vec<(String, Ended)> = futures::stream::iter(1..=points)
        .map(async |k| {
            let id = format!("at-{k}");
            let ended = travel(&db, &id, k).await;
            (id, ended)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;

    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, ended) in &deaths {
        // Heartbeats and polls make the number of points vary by a few.
        assert!(ended.crashed_at.is_some() || ended.status.success(), "{id}: {}", ended.stderr);
        let place = ended.crashed_at.as_deref().and_then(|at| at.split(": ").nth(1)).unwrap_or("none");
        *places.entry(place).or_default() += 1;
    }
    // Another worker takes them all. They are moved to its queue only now, so that each victim met its point.
    sqlx::query("update durable.workflow set queue = 'default'").execute(&db.pool).await?;
    let builder = db.builder().lease(Duration::from_secs(1));
    let durable = journey::register(builder, db.pool.clone()).start().await?;
    let mut found = Vec::new();
    for (id, _) in &deaths {
        let handle = depart(&durable, id).await?;
        handle.soon().await?;
        found.extend(violations(id, &Seen::look(&db.pool, id).await?, &clean));
    }
    println!("crash points tried: {points}, by place {places:?}; violations: {}", found.len());

    let died = deaths.len() - places.get("none").copied().unwrap_or(0);
    assert!(died * 4 >= deaths.len() * 3, "only {died} of {} died", deaths.len());
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

/// P1, P2, P3, P7: a workflow whose workers die one after the other goes on from its last record each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_outlives_a_row_of_dying_workers() -> Result<()> {
    const WORKFLOWS: u64 = 8;
    const DEATHS_MAX: u64 = 4;
    let db = Db::new().await;
    let (clean, points) = clean_journey(&db).await?;
    let mut dice = Dice::new();

    let deaths = futures::stream::iter((0..WORKFLOWS).map(|n| (n, dice.another())))
        .map(async |(n, mut dice)| {
            let id = format!("row-{n}");
            let mut deaths = 0;
            // A worker passes some points while it waits for the lease of the one before it.
            while deaths < DEATHS_MAX && !travel(&db, &id, 20 + dice.below(points / 2)).await.status.success() {
                deaths += 1;
            }
            travel(&db, &id, 0).await;
            (id, deaths)
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<(String, u64)>>()
        .await;

    let mut found = Vec::new();
    for (id, _) in &deaths {
        found.extend(violations(id, &Seen::look(&db.pool, id).await?, &clean));
    }
    println!("deaths: {deaths:?}; violations: {}", found.len());
    assert!(deaths.iter().any(|(_, deaths)| *deaths >= 2), "{deaths:?}");
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

/// P1, P2, P3, P7: two workers that share a queue are killed again and again at random moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_at_random_lose_and_repeat_nothing() -> Result<()> {
    const KILLS: usize = 12;
    const DEPART_AT_ONCE: usize = 5;
    let db = Db::new().await;
    let (clean, _) = clean_journey(&db).await?;
    let mut dice = Dice::new();
    let client = db.client().await;
    let orders = Orders { lease: Duration::from_millis(500), ..Orders::new(db.url()) };

    let ids: Vec<String> = (0..KILLS * DEPART_AT_ONCE).map(|n| format!("w-{n}")).collect();
    let mut victims = [Victim::begin(VICTIM, &orders).at_work().await, Victim::begin(VICTIM, &orders).at_work().await];
    for departing in ids.chunks(DEPART_AT_ONCE) {
        let fresh = Victim::begin(VICTIM, &orders).at_work().await;
        // Some before each kill, so that none of them comes too late, however quick the machine is.
        for id in departing {
            depart(&client, id).await?;
        }
        // The moment of death is what is random here; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
        let which = usize::from(dice.below(2) == 1);
        std::mem::replace(&mut victims[which], fresh).kill().await;
    }
    let began_at = Instant::now();
    let mut found = Vec::new();
    for id in &ids {
        let left = PATIENCE.saturating_sub(began_at.elapsed());
        tokio::time::timeout(left, client.workflow::<Arrival>(id).result()).await??;
        found.extend(violations(id, &Seen::look(&db.pool, id).await?, &clean));
    }
    let lost = db.count("select count(*) from durable.workflow where recoveries > 0").await;
    println!(
        "kills: {KILLS}; workflows that lost a worker after their last suspension: {lost}; violations: {}",
        found.len()
    );
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

/// Dice whose seed is printed, and can be given through `SEED`.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        println!("SEED={seed}");
        Self(seed | 1)
    }

    fn another(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
    }

    /// Marsaglia's xorshift: the quality does not matter, that it can be repeated does.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
