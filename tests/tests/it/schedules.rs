//! P12: schedules start what they should, once for each tick, by the clock that the test moves.
//!
//! Policies for overlaps are `schedules_overlapping`, crashes and lost answers `schedules_faults`, what cannot be `schedules_refused`.

use anyhow::Result;
use chrono::{DateTime, Utc};
use durable::testing::TestDatabase;
use durable::{
    Builder, CatchUp, Ctx, Durable, Overlap, Schedule, ScheduleInfo, days, hours, minutes, seconds, workflow,
};
use durable_tests::db::Db;
use durable_tests::soon::Soon;

/// Says what it is for.
#[workflow]
pub(super) async fn report(ctx: &Ctx, what: String) -> Result<String> {
    Ok(match ctx.scheduled_at() {
        Some(tick) => format!("{what} of {}", tick.format("%m-%d %H:%M:%S")),
        None => format!("{what} of nothing"),
    })
}

/// A database whose clock is moved, and a worker on it.
pub(super) struct Lab {
    pub(super) db: TestDatabase,
    pub(super) durable: Durable,
    pub(super) _server: Db,
}

impl Lab {
    pub(super) async fn new(with: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let server = Db::new().await;
        let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
        let durable = with(db.builder().register(report)).start().await?;
        Ok(Self { db, durable, _server: server })
    }

    /// The time of the database.
    pub(super) async fn now(&self) -> Result<DateTime<Utc>> {
        Ok(sqlx::query_scalar("select durable.now()").fetch_one(self.db.pool()).await?)
    }

    /// Move the clock forward to a time, in one go.
    pub(super) async fn move_to(&self, time: &str) -> Result<()> {
        let by = time.parse::<DateTime<Utc>>()? - self.now().await?;
        self.db.advance(by.to_std()?).await?;
        Ok(())
    }

    /// Live until a time.
    pub(super) async fn live_until(&self, time: &str) -> Result<()> {
        let by = time.parse::<DateTime<Utc>>()? - self.now().await?;
        self.db.live_through(by.to_std()?).await?;
        Ok(())
    }

    /// All workflows there are, in the order of their ids.
    pub(super) async fn ids(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar("select id from durable.workflow order by id").fetch_all(self.db.pool()).await?)
    }

    pub(super) async fn info(&self, name: &str) -> Result<ScheduleInfo> {
        self.durable.schedule(name).info().await?.ok_or_else(|| anyhow::anyhow!("no schedule {name}"))
    }

    /// Run SQL as a person with psql would.
    pub(super) async fn sql(&self, sql: &'static str) -> Result<String> {
        let said: Option<String> = sqlx::query_scalar(sql).fetch_one(self.db.pool()).await?;
        Ok(said.unwrap_or_default())
    }
}

pub(super) fn nightly() -> Schedule {
    Schedule::new("nightly", report("all".into())).cron("0 30 2 * * *", "Europe/Berlin")
}

fn at(time: &str) -> Option<DateTime<Utc>> {
    Some(time.parse().expect("a time"))
}

#[tokio::test]
async fn a_month_of_nights_is_started_night_by_night_over_the_end_of_summer_time() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-10-10T12:00:00Z").await?;
    lab.durable.set_schedule(nightly()).await?;
    lab.live_until("2027-11-09T12:00:00Z").await?;

    // Until the 30th summer time holds; on the 31st half past two comes twice, and the first of it counts.
    let night = |day: i64| {
        let time = if day <= 21 { "00:30:00" } else { "01:30:00" };
        let date = chrono::NaiveDate::from_ymd_opt(2027, 10, 10).expect("a date") + chrono::TimeDelta::days(day);
        format!("nightly/{date}T{time}Z")
    };
    let nights: Vec<String> = (1..=30).map(night).collect();
    assert_eq!(lab.ids().await?, nights);
    assert_eq!(nights[20], "nightly/2027-10-31T00:30:00Z");
    let last = lab.durable.workflow::<String>(&nights[29]).soon().await?;
    assert_eq!(last, "all of 11-09 01:30:00");

    let info = lab.info("nightly").await?;
    assert_eq!((info.started, info.missed, info.skipped, info.waiting), (30, 0, 0, 0));
    assert_eq!((info.last_at, info.last_id), (at("2027-11-09T01:30:00Z"), Some(nights[29].clone())));
    assert_eq!(info.next_at, at("2027-11-10T01:30:00Z"));
    Ok(())
}

#[tokio::test]
async fn a_night_without_half_past_two_is_started_when_the_gap_is_over() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-03-27T12:00:00Z").await?;
    lab.durable.set_schedule(nightly()).await?;
    lab.live_until("2027-03-29T12:00:00Z").await?;
    assert_eq!(lab.ids().await?, ["nightly/2027-03-28T01:00:00Z", "nightly/2027-03-29T00:30:00Z"]);
    Ok(())
}

#[tokio::test]
async fn an_interval_counts_in_absolute_time() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-03-27T22:10:00Z").await?;
    let every = Schedule::new("six", report("it".into())).every_from(hours(6), minutes(5));
    lab.durable.set_schedule(every).await?;
    lab.live_until("2027-03-28T13:00:00Z").await?;
    assert_eq!(lab.ids().await?, ["six/2027-03-28T00:05:00Z", "six/2027-03-28T06:05:00Z", "six/2027-03-28T12:05:00Z"]);
    Ok(())
}

#[tokio::test]
async fn what_is_set_comes_with_the_workflow() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T00:00:00Z").await?;
    let schedule = nightly().queue("elsewhere").partition("north").priority(-3).deadline(hours(2));
    lab.durable.set_schedule(schedule.attribute("kind", "report")).await?;
    lab.db.advance(days(1)).await?;
    let id = "nightly/2027-01-01T01:30:00Z";
    lab.until_started(id).await?;
    let told =
        "select concat_ws(' ', w.queue, p.partition, w.priority, d.at - w.created_at, w.created_at = a.created_at,
                                 a.name, a.value, w.input)
                from durable.workflow w join durable.deadline d using (bucket, id)
                join durable.attribute a using (bucket, id) join durable.place p using (bucket, id)";
    assert_eq!(lab.sql(told).await?, "elsewhere north -3 02:00:00 t kind \"report\" \"all\"");
    let found = lab.durable.workflows().attribute("kind", "report").await?;
    assert_eq!(found.workflows.iter().map(|w| &*w.id).collect::<Vec<_>>(), [id]);
    Ok(())
}

impl Lab {
    /// Wait until a workflow is there.
    pub(super) async fn until_started(&self, id: &str) -> Result<()> {
        let began_at = std::time::Instant::now();
        while self.durable.workflow::<String>(id).status().await.is_err() {
            anyhow::ensure!(began_at.elapsed() < durable_tests::db::PATIENCE, "{id} was never started");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_worker_that_was_away_for_a_week_catches_up_by_the_policy() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    let policies = [
        ("none", CatchUp::skip()),
        ("last", CatchUp::last()),
        ("late", CatchUp::last().within(hours(1))),
        ("all", CatchUp::all(100)),
        ("some", CatchUp::all(3)),
        ("lately", CatchUp::all(100).within(days(2))),
    ];
    for (name, policy) in policies {
        let nightly = Schedule::new(name, report("all".into())).cron("0 0 3 * * *", "UTC");
        lab.durable.set_schedule(nightly.catch_up(policy).overlap(Overlap::Allow)).await?;
    }
    lab.live_until("2027-01-02T12:00:00Z").await?;
    lab.durable.shutdown(seconds(10)).await;
    lab.db.advance(days(7)).await?;
    let lab = Lab { durable: lab.db.builder().register(report).start().await?, ..lab };
    lab.db.run_until_idle().await?;

    let mut expected: Vec<String> = policies.iter().map(|(name, _)| format!("{name}/2027-01-02T03:00:00Z")).collect();
    let mut and = |name: &str, days: std::ops::RangeInclusive<u32>| {
        expected.extend(days.map(|day| format!("{name}/2027-01-{day:02}T03:00:00Z")));
    };
    and("last", 9..=9);
    and("all", 3..=9);
    and("some", 7..=9);
    and("lately", 8..=9);
    expected.sort();
    assert_eq!(lab.ids().await?, expected);
    for (name, missed) in [("none", 7), ("last", 6), ("late", 7), ("all", 0), ("some", 4), ("lately", 5)] {
        let info = lab.info(name).await?;
        assert_eq!((name, info.missed, info.next_at), (name, missed, at("2027-01-10T03:00:00Z")));
    }
    Ok(())
}

#[tokio::test]
async fn a_clock_that_goes_back_starts_nothing_twice() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    lab.durable.set_schedule(nightly().catch_up(CatchUp::all(100)).overlap(Overlap::Allow)).await?;
    lab.live_until("2027-01-04T12:00:00Z").await?;
    let before = lab.ids().await?;
    assert_eq!(before.len(), 3);
    sqlx::query("update durable.test_clock set moved = moved - interval '2 days 11 hours'")
        .execute(lab.db.pool())
        .await?;
    lab.live_until("2027-01-04T12:00:00Z").await?;
    assert_eq!(lab.ids().await?, before);
    lab.live_until("2027-01-05T12:00:00Z").await?;
    assert_eq!(lab.ids().await?.len(), 4);
    assert_eq!(lab.info("nightly").await?.started, 4);
    Ok(())
}

#[tokio::test]
async fn a_declared_schedule_is_set_once_and_changed_where_the_code_was() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    let declare = async |schedule: Schedule| lab.db.builder().register(report).schedule(schedule).start().await;
    let first = declare(nightly()).await?;
    first.shutdown(seconds(10)).await;
    lab.durable.shutdown(seconds(10)).await;
    let before = lab.sql("select row_to_json(s)::text from durable.schedule s").await?;
    assert!(before.contains(r#""name":"nightly""#), "{before}");

    // Away for three nights, and declared again: nothing of that is forgotten.
    lab.db.advance(days(3)).await?;
    let second = declare(nightly()).await?;
    lab.db.run_until_idle().await?;
    assert_eq!(lab.ids().await?, ["nightly/2027-01-04T01:30:00Z"]);
    assert_eq!(lab.info("nightly").await?.missed, 2);

    // Another input keeps its ticks; another rule counts from now; a pause stays.
    let revision = "select revision::text from durable.schedule";
    assert_eq!(lab.sql(revision).await?, "0");
    let other = Schedule::new("nightly", report("some".into())).cron("0 30 2 * * *", "Europe/Berlin");
    let third = declare(other.clone()).await?;
    lab.live_until("2027-01-05T12:00:00Z").await?;
    let some = lab.durable.workflow::<String>("nightly/2027-01-05T01:30:00Z").soon().await?;
    assert_eq!(some, "some of 01-05 01:30:00");
    second.schedule("nightly").pause().reason("moving house").await?;
    let fourth = declare(other.cron("0 0 4 * * *", "UTC")).await?;
    assert_eq!(lab.sql(revision).await?, "3");
    lab.live_until("2027-01-07T12:00:00Z").await?;
    assert_eq!(lab.ids().await?.len(), 2);
    let info = lab.info("nightly").await?;
    assert_eq!((info.is_paused(), info.paused_for.as_deref(), info.next_at), (true, Some("moving house"), None));
    assert_eq!(info.cron, Some(("0 0 4 * * *".to_owned(), "UTC".to_owned())));
    third.schedule("nightly").resume().await?;
    lab.live_until("2027-01-08T12:00:00Z").await?;
    assert_eq!(lab.ids().await?[2..], ["nightly/2027-01-08T04:00:00Z"]);
    drop(fourth);
    Ok(())
}

#[tokio::test]
async fn a_schedule_is_set_if_and_only_if_the_callers_transaction_commits() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    let mut tx = lab.db.pool().begin().await?;
    lab.durable.set_schedule(nightly()).in_tx(&mut tx).await?;
    tx.rollback().await?;
    assert_eq!(lab.durable.schedule("nightly").info().await?, None);
    lab.move_to("2027-01-01T12:00:00Z").await?;
    let mut tx = lab.db.pool().begin().await?;
    lab.durable.set_schedule(nightly()).in_tx(&mut tx).await?;
    tx.commit().await?;
    // As far as anybody can tell before a worker has noticed.
    assert_eq!(lab.info("nightly").await?.next_at, at("2027-01-02T01:30:00Z"));
    lab.live_until("2027-01-02T12:00:00Z").await?;
    assert_eq!(lab.ids().await?, ["nightly/2027-01-02T01:30:00Z"]);
    Ok(())
}

#[tokio::test]
async fn what_is_paused_starts_nothing_and_goes_on_with_the_next_tick() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    let nightly = lab.durable.set_schedule(nightly().catch_up(CatchUp::all(100))).await?;
    for _ in 0..2 {
        nightly.pause().await?;
    }
    lab.live_until("2027-01-03T12:00:00Z").await?;
    assert_eq!(lab.ids().await?, [""; 0]);
    for _ in 0..2 {
        nightly.resume().await?;
    }
    lab.live_until("2027-01-05T12:00:00Z").await?;
    let two = ["nightly/2027-01-04T01:30:00Z", "nightly/2027-01-05T01:30:00Z"];
    assert_eq!(lab.ids().await?, two);
    assert_eq!(lab.info("nightly").await?.missed, 0);

    // In a transaction: nobody acts on it before that has ended.
    let mut tx = lab.db.pool().begin().await?;
    nightly.pause().in_tx(&mut tx).await?;
    lab.db.advance(days(1)).await?;
    tx.commit().await?;
    lab.db.run_until_idle().await?;
    assert_eq!(lab.ids().await?, two);
    // From psql.
    lab.sql("select durable.resume_schedule('nightly')::text").await?;
    lab.live_until("2027-01-07T12:00:00Z").await?;
    assert_eq!(lab.ids().await?[2..], ["nightly/2027-01-07T01:30:00Z"]);
    lab.sql("select durable.pause_schedule('nightly', 'why not')::text").await?;
    lab.live_until("2027-01-09T12:00:00Z").await?;
    assert_eq!(lab.ids().await?.len(), 3);
    assert_eq!(lab.info("nightly").await?.paused_for.as_deref(), Some("why not"));
    Ok(())
}

#[tokio::test]
async fn a_trigger_starts_one_more_at_once() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    let nightly = lab.durable.set_schedule(nightly()).await?;
    nightly.pause().await?;
    let id = nightly.trigger().await?;
    assert!(id.starts_with("nightly/"), "{id}");
    assert_eq!(lab.durable.workflow::<String>(&id).soon().await?, "all of nothing");

    let mut tx = lab.db.pool().begin().await?;
    let undone = nightly.trigger().in_tx(&mut tx).await?;
    tx.rollback().await?;
    let mut tx = lab.db.pool().begin().await?;
    let done = nightly.trigger().in_tx(&mut tx).await?;
    tx.commit().await?;
    lab.durable.workflow::<String>(&done).soon().await?;
    assert!(lab.durable.workflow::<String>(&undone).status().await.is_err());

    let by_hand = lab.sql("select durable.trigger_schedule('nightly')").await?;
    assert_eq!(lab.durable.workflow::<String>(&by_hand).soon().await?, "all of nothing");
    let info = lab.info("nightly").await?;
    assert_eq!((info.started, info.last_id), (3, Some(by_hand)));
    Ok(())
}

#[tokio::test]
async fn a_backfill_starts_the_ticks_of_a_range_one_after_the_other_and_none_twice() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    let nightly = lab.durable.set_schedule(nightly()).await?;
    lab.live_until("2027-01-02T12:00:00Z").await?;
    nightly.pause().await?;
    lab.live_until("2027-01-06T12:00:00Z").await?;
    let range = || Ok::<_, anyhow::Error>("2027-01-01T01:30:00Z".parse()?.."2027-01-05T01:30:00Z".parse()?);
    assert_eq!(nightly.backfill(range()?).await?, 4);
    lab.db.run_until_idle().await?;
    let nights = [1, 2, 3, 4].map(|day| format!("nightly/2027-01-{day:02}T01:30:00Z"));
    assert_eq!(lab.ids().await?, nights);
    let third = lab.durable.workflow::<String>(&nights[2]).soon().await?;
    assert_eq!(third, "all of 01-03 01:30:00");
    // Again, and nothing happens.
    assert_eq!(nightly.backfill(range()?).await?, 4);
    lab.db.run_until_idle().await?;
    assert_eq!(lab.ids().await?, nights);
    assert_eq!((lab.info("nightly").await?.started, lab.info("nightly").await?.waiting), (4, 0));
    Ok(())
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_what_it_started_goes_on() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    let nightly = lab.durable.set_schedule(nightly()).await?;
    lab.live_until("2027-01-02T12:00:00Z").await?;
    nightly.delete().await?;
    lab.live_until("2027-01-04T12:00:00Z").await?;
    assert_eq!(lab.ids().await?, ["nightly/2027-01-02T01:30:00Z"]);
    assert_eq!(nightly.info().await?, None);
    assert_eq!(lab.sql("select count(*)::text from durable.tick").await?, "0");
    Ok(())
}

#[tokio::test]
async fn schedules_are_listed_page_by_page_and_read_well_in_sql() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    for name in ["c", "a", "b", "a/b"] {
        let every = Schedule::new(name, report(name.into())).every(hours(1)).jitter(minutes(5)).queue("slow");
        lab.durable.set_schedule(every).await?;
    }
    let names = |page: Vec<ScheduleInfo>| page.into_iter().map(|info| info.name).collect::<Vec<_>>();
    assert_eq!(names(lab.durable.schedules().await?), ["a", "a/b", "b", "c"]);
    assert_eq!(names(lab.durable.schedules().limit(2).await?), ["a", "a/b"]);
    assert_eq!(names(lab.durable.schedules().limit(2).after("a").await?), ["a/b", "b"]);
    let info = lab.info("b").await?;
    assert_eq!((info.every, info.cron), (Some((hours(1), hours(0))), None));
    assert_eq!((info.jitter, &*info.queue, info.overlap), (minutes(5), "slow", Overlap::Skip));
    assert_eq!((info.catch_up, info.workflow, info.version), (CatchUp::last(), "report".to_owned(), 1));
    lab.db.run_until_idle().await?;
    let line = "select concat_ws(' ', name, workflow, every, next_at, overlap) from durable.schedule where name = 'a'";
    assert_eq!(lab.sql(line).await?, "a report 01:00:00 2027-01-01 13:00:00+00 skip");
    Ok(())
}

#[tokio::test]
async fn a_jitter_starts_later_and_keeps_the_tick() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    for name in ["a", "b", "c"] {
        let schedule = Schedule::new(name, report("all".into())).cron("0 0 3 * * *", "UTC").jitter(hours(2));
        lab.durable.set_schedule(schedule).await?;
    }
    lab.live_until("2027-01-02T12:00:00Z").await?;
    assert_eq!(lab.ids().await?, ["a", "b", "c"].map(|name| format!("{name}/2027-01-02T03:00:00Z")));
    let late = "select (count(distinct date_trunc('minute', created_at)) = 3
                        and min(created_at) >= '2027-01-02T03:00:00Z' and max(created_at) < '2027-01-02T05:00:00Z')::text
                from durable.workflow";
    assert_eq!(lab.sql(late).await?, "true");
    Ok(())
}

/// Whoever comes second finds that it was dealt with: nothing is counted twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_workers_that_come_back_at_once_one_counts_what_was_missed() -> Result<()> {
    const SCHEDULES: u64 = 20;
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    for n in 0..SCHEDULES {
        let nightly = Schedule::new(format!("s-{n}"), report("all".into())).cron("0 0 3 * * *", "UTC");
        lab.durable.set_schedule(nightly.catch_up(CatchUp::skip())).await?;
    }
    let others = (0..3).map(|_| lab.db.builder().register(report).schedule(nightly()).start());
    let _others = futures::future::try_join_all(others).await?;
    lab.db.run_until_idle().await?;
    lab.db.advance(days(7)).await?;
    lab.db.run_until_idle().await?;
    assert_eq!(
        lab.sql("select string_agg(distinct missed::text, ' ') from durable.schedule where name like 's-%'").await?,
        "7"
    );
    assert_eq!(lab.ids().await?, ["nightly/2027-01-08T01:30:00Z"]);
    Ok(())
}
