//! Rates with a burst: so many begin at once, and then one after the other. That no crash breaks the rule is `queues_faults`.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use durable::{ErrorKind, Queue, hours, minutes};
use durable_tests::calls::most_in_a_row;
use durable_tests::db::Db;
use durable_tests::kit::Kit;

use super::queues::{everything, kit_database, note};

/// P21: six in an hour, two at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_begins_at_once_and_the_others_are_spread() -> Result<()> {
    let kit = Kit::default();
    let (_server, db, durable) = kit_database(&kit, Queue::new("calls").rate(6, hours(1)).burst(2)).await?;
    for n in 0..20 {
        durable.start(note()).queue("calls").id(format!("n-{n:02}")).await?;
    }
    // So many minutes later so many have begun. The rate itself keeps the seventh back until an hour after the first two.
    for (minute, begun) in [(0, 2), (9, 2), (2, 3), (10, 4), (10, 5), (10, 6), (10, 6), (8, 6), (2, 8), (10, 9)] {
        db.advance(minutes(minute)).await?;
        db.run_until_idle().await?;
        assert_eq!(kit.log.entries().len(), begun, "{minute} minutes later");
    }
    // What was not used is not saved up.
    db.advance(hours(10)).await?;
    db.run_until_idle().await?;
    assert_eq!(kit.log.entries().len(), 11);
    Ok(())
}

/// P21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_partition_has_a_burst_of_its_own() -> Result<()> {
    let kit = Kit::default();
    let queue = Queue::new("calls").rate_per_partition(6, hours(1)).burst_per_partition(1).rate(100, hours(1)).burst(3);
    let (_server, db, durable) = kit_database(&kit, queue).await?;
    for n in 0..4 {
        for partition in ["a", "b"] {
            durable.start(note()).queue("calls").partition(partition).id(format!("{partition}-{n}")).await?;
        }
    }
    let of_each = || ["a", "b"].map(|of| kit.log.entries().iter().filter(|id| id.starts_with(of)).count());
    for (minute, begun) in [(0, 1), (8, 1), (3, 2), (10, 3), (10, 4)] {
        db.advance(minutes(minute)).await?;
        db.run_until_idle().await?;
        assert_eq!(of_each(), [begun; 2], "{minute} minutes later");
    }
    // What is over is forgotten, with the next claim.
    db.advance(hours(1)).await?;
    durable.start(note()).queue("calls").partition("d").id("d-0").await?;
    db.run_until_idle().await?;
    let known = "select string_agg(partition, ' ') from durable.partition_burst";
    assert_eq!(sqlx::query_scalar::<_, String>(known).fetch_one(db.pool()).await?, "d");
    Ok(())
}

/// P21: whatever a claim is asked for, and whenever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_no_span_do_more_begin_than_the_burst_and_its_steps() -> Result<()> {
    const MANY: usize = 60;
    const PERIOD: Duration = Duration::from_millis(600);
    let (db, kit) = (Db::new().await, Kit::default());
    let queue = || Queue::new("calls").rate(30, PERIOD).burst(3);
    let clients = [
        everything(db.builder().poll_every(Duration::from_millis(15)), &kit, queue()).start().await?,
        everything(db.builder().poll_every(Duration::from_millis(10)), &kit, queue()).start().await?,
    ];
    clients[0].start_all((0..MANY).map(|n| (format!("n-{n}"), note()))).queue("calls").await?;
    db.until("select count(*) = 60 from durable.workflow where status = 'completed'").await;
    let began: Vec<DateTime<Utc>> =
        sqlx::query_scalar("select claimed_at from durable.workflow order by 1").fetch_all(&db.pool).await?;
    assert_eq!(began.len(), MANY);
    let most = most_in_a_row(&began, PERIOD / 30);
    println!("at most {most} more than the steps of a span");
    assert!((1..=3).contains(&most), "{most}: {began:?}");
    assert!(began.windows(31).all(|w| (w[30] - w[0]).to_std().is_ok_and(|span| span >= PERIOD)), "{began:?}");
    Ok(())
}

/// P21: however densely they begin, what is remembered of them is about a thousandth of a period each, and no more than a thousand entries; and what
/// is over is forgotten while others begin. So a high rate lets them begin all the time, not all at once in each period.
#[tokio::test]
async fn a_rate_remembers_when_they_began_to_a_thousandth_of_its_period() -> Result<()> {
    const PERIOD_MS: i64 = 1_000;
    let db = Db::new().await;
    let mut connection = db.pool.acquire().await?;
    sqlx::raw_sql("create temp table rate as select '{}'::timestamptz[] as begun_at, '{}'::integer[] as begun")
        .execute(&mut *connection)
        .await?;
    let begin = "update rate set (begun_at, begun) =
                     (select n.begun_at, n.begun from durable.with_begun(begun_at, begun, $1 * interval '1 ms', 1) n)
                 returning durable.now(), begun_at, begun";
    let mut began = Vec::new();
    while began.first().is_none_or(|first| *began.last().expect("one") - first < chrono::Duration::milliseconds(1_200))
    {
        let (now, at, many): (DateTime<Utc>, Vec<DateTime<Utc>>, Vec<i32>) =
            sqlx::query_as(begin).bind(PERIOD_MS).fetch_one(&mut *connection).await?;
        began.push(now);
        assert!(at.len() <= 1_002 && at.is_sorted(), "{} entries", at.len());
        // Nobody is forgotten too early, and nobody later than by a thousandth.
        let after = |ms| now - chrono::Duration::milliseconds(PERIOD_MS + ms);
        let within = |since| i32::try_from(began.iter().filter(|at| **at > since).count()).expect("few");
        let known: i32 = many.iter().sum();
        assert!(within(after(0)) <= known && known <= within(after(2)), "{known} of {}", began.len());
    }
    assert!(began.len() > 100, "only {} began", began.len());
    Ok(())
}

#[tokio::test]
async fn a_burst_is_declared_set_shown_and_taken_away() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let with = || Queue::new("calls").rate(6, hours(1)).burst(2).rate_per_partition(3, hours(1)).burst_per_partition(1);
    let without = || Queue::new("calls").rate(6, hours(1));
    let durable = everything(db.builder(), &kit, with()).start().await?;
    let stands = async |expected: Queue| -> Result<()> {
        assert_eq!(durable.queues().await?[0].queue, expected);
        Ok(())
    };
    stands(with()).await?;
    durable.set_queue(without()).await?;
    stands(without()).await?;
    // What is declared as before changes nothing.
    let _second = everything(db.builder(), &kit, with()).start().await?;
    stands(without()).await?;
    durable.set_queue(with()).await?;
    stands(with()).await?;
    let _third = everything(db.builder(), &kit, without()).start().await?;
    stands(without()).await?;
    // One without a burst is declared as by a release that knows none.
    assert!(!db.text("select declared::text from durable.queue").await.contains("burst"));
    durable.remove_queue("calls").await?;
    assert_eq!(db.count("select count(*) from durable.burst").await, 0);
    for (wrong, told) in [
        (Queue::new("q").burst(2), "a burst is one of a rate: give .rate(..), too"),
        (Queue::new("q").rate(1, hours(1)).burst_per_partition(2), "give .rate_per_partition(..), too"),
        (Queue::new("q").rate(1, hours(1)).burst(0), "a burst of 0"),
    ] {
        let error = durable.set_queue(wrong).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(told), "{error}");
    }
    Ok(())
}
