//! Schedules that cannot be: refused at once, with what is wrong and what to do, and nothing written.

use anyhow::Result;
use durable::{CatchUp, Ctx, Durable, ErrorKind, Schedule, seconds, workflow};
use durable_tests::db::Db;
use durable_tests::soon::Soon;

use super::schedules::{Lab, nightly, report};

fn of(name: &str) -> Schedule {
    Schedule::new(name, report("it".into()))
}

#[tokio::test]
async fn a_schedule_that_cannot_be_says_what_is_wrong() -> Result<()> {
    let db = Db::new().await;
    let durable = db.client().await;
    let hourly = || of("s").cron("0 0 * * * *", "UTC");
    for (schedule, told) in [
        (
            of("s"),
            "could not set schedule s: it has no ticks: give it .cron(\"0 0 3 * * *\", \"Europe/Berlin\") or .every(..)",
        ),
        (
            of("s").cron("0 0 25 * * *", "UTC"),
            "\"0 0 25 * * *\" is wrong in field 3, the hour \"25\": it takes 0 to 23",
        ),
        (of("s").cron("often", "UTC"), "\"often\" has 1 field, it takes 6"),
        (of("s").cron("0 0 0 30 2 *", "UTC"), "\"0 0 0 30 2 *\" in UTC never comes"),
        (of("s").cron("0 0 3 * * *", "Europe/Berlun"), "no time zone \"Europe/Berlun\": is it Europe/Berlin"),
        (of("s").every(seconds(0)), "it ticks every 0ns, which has to be 1 s or more"),
        (of("s").every(std::time::Duration::from_millis(999)), "has to be 1 s or more"),
        (hourly().jitter(seconds(3_600)), "its jitter of 3600s has to be shorter than the 3600s between two"),
        (of("s").every(seconds(60)).jitter(seconds(61)), "its jitter of 61s has to be shorter than the 60s"),
        (hourly().catch_up(CatchUp::all(0)), "it catches up on 0 ticks, which has to be 1 to 1000"),
        (hourly().catch_up(CatchUp::all(1_001)), "it catches up on 1001 ticks"),
        (hourly().catch_up(CatchUp::last().within(seconds(0))), "it catches up within 0ns"),
        (hourly().queue(""), "queue is empty"),
        (hourly().attribute("", 1), "the name of an attribute is empty"),
        (of("").cron("0 0 * * * *", "UTC"), "schedule's name is empty"),
        (of("a\nb").cron("0 0 * * * *", "UTC"), "control character"),
        (of(&"s".repeat(401)).cron("0 0 * * * *", "UTC"), "401 bytes, at most 400"),
    ] {
        let declared = db.builder().register(report).schedule(schedule.clone()).start().await.unwrap_err();
        let error = durable.set_schedule(schedule).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!((declared.kind(), declared.to_string()), (ErrorKind::Usage, error.to_string()));
    }
    assert_eq!(db.count("select count(*) from durable.schedule").await, 0);
    // What just fits.
    durable.set_schedule(of(&"s".repeat(400)).cron("0 0 * * * *", "UTC").jitter(seconds(3_599))).await?;
    Ok(())
}

#[tokio::test]
async fn a_declared_schedule_needs_its_workflow_and_a_name_of_its_own() -> Result<()> {
    #[workflow]
    async fn stranger(ctx: &Ctx) -> Result<String> {
        Ok(ctx.now().to_string())
    }
    let db = Db::new().await;
    let strange = || Schedule::new("s", stranger()).every(seconds(60));
    let start = async |schedules: Vec<Schedule>| {
        let builder = schedules.into_iter().fold(db.builder().register(report), |builder, s| builder.schedule(s));
        builder.start().await.map(drop).unwrap_err().to_string()
    };
    let told = start(vec![strange()]).await;
    assert_eq!(
        told,
        "schedule s starts workflow \"stranger\" version 1, which is not registered: add .register(stranger)"
    );
    let told = start(vec![nightly(), of("nightly").every(seconds(60))]).await;
    assert_eq!(told, "the schedule nightly is declared twice");
    assert_eq!(db.count("select count(*) from durable.schedule").await, 0);

    // A process that only talks to others may declare what it does not have: who has it will run it.
    let client: Durable = db.builder().schedule(strange()).client().await?;
    let id = client.schedule("s").trigger().await?;
    let _without = db.builder().register(report).start().await?;
    let with = db.builder().register(stranger).start().await?;
    with.workflow::<String>(id).soon().await?;
    Ok(())
}

#[tokio::test]
async fn a_schedule_that_is_not_there_is_not_found() -> Result<()> {
    let db = Db::new().await;
    let durable = db.client().await;
    let none = durable.schedule("none");
    let range = || Ok::<_, anyhow::Error>("2026-01-01T00:00:00Z".parse()?.."2026-01-02T00:00:00Z".parse()?);
    assert_eq!(none.info().await?, None);
    let errors = [
        none.pause().await.unwrap_err(),
        none.resume().await.unwrap_err(),
        none.delete().await.unwrap_err(),
        none.trigger().await.map(drop).unwrap_err(),
        none.backfill(range()?).await.map(drop).unwrap_err(),
    ];
    for (error, act) in errors.iter().zip(["pause", "resume", "delete", "trigger", "backfill"]) {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("could not {act} schedule none: there is no such schedule"));
    }
    for act in ["pause_schedule", "resume_schedule", "delete_schedule", "trigger_schedule"] {
        let call = sqlx::AssertSqlSafe(format!("select durable.{act}('none')::text"));
        let error = sqlx::query(call).execute(&db.pool).await.unwrap_err();
        assert!(error.to_string().contains("there is no schedule none"), "{error}");
    }
    assert_eq!(durable.schedules().limit(0).await.unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(durable.schedules().limit(1_001).await.unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(durable.schedule("").pause().await.unwrap_err().kind(), ErrorKind::Usage);
    let long = durable.schedule("none").pause().reason("r".repeat(1_001)).await.unwrap_err();
    assert!(long.to_string().contains("1001 bytes, at most 1000"), "{long}");
    Ok(())
}

#[tokio::test]
async fn a_backfill_that_cannot_be_says_why() -> Result<()> {
    let lab = Lab::new(|builder| builder).await?;
    lab.move_to("2027-01-10T12:00:00Z").await?;
    let schedule = lab.durable.set_schedule(of("s").every(seconds(60))).await?;
    for (from, to, told) in [
        (
            "2027-01-02T00:00:00Z",
            "2027-01-01T00:00:00Z",
            "2027-01-02 00:00:00 UTC is not before 2027-01-01 00:00:00 UTC",
        ),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "is not before"),
        ("2027-01-10T11:59:00Z", "2027-01-10T12:59:00Z", "2027-01-10 12:59:00 UTC has yet to come"),
        ("2027-01-09T00:00:00Z", "2027-01-10T00:00:00Z", "more than 1000 ticks in that time: take it in parts"),
    ] {
        let error = schedule.backfill(from.parse()?..to.parse()?).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
    // No tick in it, and so nothing to do.
    assert_eq!(schedule.backfill("2027-01-09T00:00:01Z".parse()?.."2027-01-09T00:00:59Z".parse()?).await?, 0);
    assert_eq!(lab.info("s").await?.waiting, 0);
    Ok(())
}

/// An id of a tick that somebody has given to another workflow starts nothing, and holds up no later tick.
#[tokio::test]
async fn an_id_that_is_taken_costs_one_tick() -> Result<()> {
    #[workflow]
    async fn other(ctx: &Ctx) -> Result<String> {
        Ok(format!("{:?}", ctx.scheduled_at().map(|tick| tick.to_string())))
    }
    let lab = Lab::new(|builder| builder.register(other)).await?;
    lab.move_to("2027-01-01T12:00:00Z").await?;
    lab.durable.set_schedule(nightly()).await?;
    let taken = lab.durable.start(other()).id("nightly/2027-01-02T01:30:00Z").await?;
    assert_eq!(taken.soon().await?, "Some(\"2027-01-02 01:30:00 UTC\")");
    let same = lab.durable.start(report("mine".into())).id("nightly/2027-01-03T01:30:00Z").await?;
    lab.live_until("2027-01-04T12:00:00Z").await?;
    assert_eq!(lab.ids().await?.len(), 3);
    assert_eq!(same.soon().await?, "mine of 01-03 01:30:00");
    let info = lab.info("nightly").await?;
    assert_eq!((info.started, info.last_id.as_deref()), (1, Some("nightly/2027-01-04T01:30:00Z")));
    Ok(())
}
