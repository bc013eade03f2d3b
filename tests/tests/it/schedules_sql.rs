//! Schedules from SQL, and in transactions: setting one, and making up for what has passed.

use anyhow::Result;
use chrono::{DateTime, Utc};
use durable::{Schedule, minutes};
use durable_tests::db::Db;
use durable_tests::soon::Soon;

use super::from_sql::{refusal, run, text};
use super::schedules::{Lab, nightly, report};

/// P12: a schedule of SQL's is one like any other, and what is as it was is left alone.
#[tokio::test]
async fn sql_sets_a_schedule_and_changes_it() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    let set = "select durable.set_schedule('by_sql', 'report', '\"all\"', cron => '0 30 2 * * *', time_zone => 'Europe/Berlin')::text";
    lab.sql(set).await?;
    let stands = "select xmin || ' ' || revision from durable.schedule";
    let before = lab.sql(stands).await?;
    lab.sql(set).await?;
    assert_eq!(lab.sql(stands).await?, before, "nothing was written");
    lab.live_until("2027-01-03T12:00:00Z").await?;
    let nights = [2, 3].map(|day| format!("by_sql/2027-01-{day:02}T01:30:00Z"));
    assert_eq!(lab.ids().await?, nights);
    assert_eq!(lab.durable.workflow::<String>(&nights[1]).soon().await?, "all of 01-03 01:30:00");
    // The same as the library sets it.
    let same = Schedule::new("by_sql", report("all".into())).cron("0 30 2 * * *", "Europe/Berlin");
    let before = lab.sql(stands).await?;
    lab.durable.set_schedule(same).await?;
    assert_eq!(lab.sql(stands).await?.split(' ').next_back(), before.split(' ').next_back(), "the same revision");

    let change = "select durable.set_schedule('by_sql', 'report', '\"q\"', every => '6 hours', overlap => 'allow',
                                             partition => 'acme', priority => 3, deadline => '1 day')::text";
    lab.sql(change).await?;
    lab.live_until("2027-01-03T19:00:00Z").await?;
    let last = "select string_agg(w.id || ' ' || p.partition || ' ' || w.priority, ', ')
                from durable.workflow w join durable.place p using (bucket, id)";
    assert_eq!(lab.sql(last).await?, "by_sql/2027-01-03T18:00:00Z acme 3");
    assert_eq!(lab.sql("select deadline::text || ' ' || overlap from durable.schedule").await?, "1 day allow");
    Ok(())
}

#[tokio::test]
async fn sql_sets_no_schedule_that_cannot_be() -> Result<()> {
    let db = Db::new().await;
    for (wrong, code, told) in [
        ("'', 'w', every => '1 h'", "22023", "the schedule's name is empty"),
        ("repeat('n', 401), 'w', every => '1 h'", "22023", "more than 400 bytes"),
        ("'n', null, every => '1 h'", "22004", "the workflow name is null"),
        ("'n', 'w'", "22023", "it needs either cron or every"),
        ("'n', 'w', cron => '@daily', time_zone => 'UTC', every => '1 h'", "22023", "it needs either cron or every"),
        ("'n', 'w', cron => '@daily'", "22023", "cron and time_zone go together"),
        ("'n', 'w', cron => '@daily', time_zone => 'Mars/Olympus'", "22023", "there is no time zone \"Mars/Olympus\""),
        ("'n', 'w', every => '0.5 s'", "22023", "has to be whole seconds, 1 s to ten years"),
        ("'n', 'w', every => '11 years'", "22023", "has to be whole seconds, 1 s to ten years"),
        ("'n', 'w', every => '1 h', overlap => 'maybe'", "22023", "there is no overlap \"maybe\""),
        ("'n', 'w', every => '1 h', catch_up => 'some'", "22023", "there is no catch_up \"some\""),
        ("'n', 'w', every => '1 h', catch_up_most => 0", "22023", "it catches up on 0 ticks"),
        ("'n', 'w', every => '1 h', version => 0", "22023", "the version is 0"),
        ("'n', 'w', every => '1 h', priority => 40000", "22023", "the priority is 40000"),
        ("'n', 'w', every => '1 h', partition => ''", "22023", "the partition is empty"),
        ("'n', 'w', every => '1 h', deadline => '0'", "22023", "the deadline is 00:00:00"),
        ("'n', 'w', null, every => '1 h'", "22004", "the input is null"),
    ] {
        let error = text(&db.pool, &format!("select durable.set_schedule({wrong})::text")).await.unwrap_err();
        let (is, message, _) = refusal(&error)?;
        assert!(is == code && message.contains(told), "{wrong}: {is} {message}");
    }
    assert_eq!(db.count("select count(*) from durable.schedule").await, 0);
    Ok(())
}

/// One whose expression only a worker can see is wrong starts nothing, stops nobody, and says so where it is looked at.
#[tokio::test]
async fn an_expression_that_no_worker_can_read_keeps_no_other_schedule_waiting() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    lab.sql("select durable.set_schedule('bad', 'report', '\"x\"', cron => 'now and then', time_zone => 'UTC')::text")
        .await?;
    lab.durable.set_schedule(Schedule::new("good", report("good".into())).every(minutes(30))).await?;
    // The bad one is due for ever, so nobody can wait until nothing is.
    lab.move_to("2027-01-01T12:30:05Z").await?;
    let began_at = std::time::Instant::now();
    while lab.ids().await? != ["good/2027-01-01T12:30:00Z"] {
        assert!(began_at.elapsed() < durable_tests::db::PATIENCE, "the good one never ticks: {:?}", lab.ids().await?);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let range = "2027-01-01T10:00:00Z".parse()?.."2027-01-01T11:00:00Z".parse()?;
    let error = lab.durable.schedule("bad").backfill(range).await.unwrap_err();
    assert!(error.to_string().contains("cannot read its rule"), "{error}");
    Ok(())
}

/// P5: in the transaction that sets the schedule, too.
#[tokio::test]
async fn a_backfill_in_a_transaction_happens_if_and_only_if_that_commits() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-05T12:00:00Z").await?;
    let range =
        || Ok::<_, anyhow::Error>("2027-01-01T01:30:00Z".parse::<DateTime<Utc>>()?.."2027-01-03T01:30:00Z".parse()?);
    for commits in [false, true] {
        let mut tx = lab.db.pool().begin().await?;
        let set = lab.durable.set_schedule(nightly()).in_tx(&mut tx).await?;
        assert_eq!(set.backfill(range()?).in_tx(&mut tx).await?, 2);
        assert_eq!(set.backfill(range()?).in_tx(&mut tx).await?, 2, "again");
        match commits {
            true => tx.commit().await?,
            false => tx.rollback().await?,
        }
        lab.db.run_until_idle().await?;
        assert_eq!(lab.ids().await?.len(), if commits { 2 } else { 0 });
    }
    assert_eq!(lab.ids().await?, [1, 2].map(|day| format!("nightly/2027-01-{day:02}T01:30:00Z")));
    let mut tx = lab.db.pool().begin().await?;
    let error = lab.durable.schedule("none").backfill(range()?).in_tx(&mut tx).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    run(&mut *tx, "select 1").await?;
    Ok(())
}
