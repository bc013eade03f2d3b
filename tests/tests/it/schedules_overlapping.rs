//! P12: what becomes of a tick while a workflow of one before has not ended, by policy; decided right also by many at once.

use anyhow::Result;
use durable::{
    CatchUp, Ctx, ErrorKind, Overlap, Schedule, Status, StepCtx, Topic, days, hours, minutes, seconds, step, workflow,
};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated};
use durable_tests::soon::Soon;
use futures::future::join_all;

use super::schedules::Lab;

const GO: Topic<bool> = Topic::new("go");

#[step]
async fn undo(step: &StepCtx, what: String) -> Result<()> {
    step.state::<Kit>().log.note(what);
    Ok(())
}

/// Waits until it may end; if it is cancelled, it says so, an hour later.
#[workflow]
async fn long(ctx: &Ctx) -> Result<()> {
    ctx.undo(undo("undone".into())).await;
    ctx.receive(GO).await?;
    Ok(())
}

fn hourly(overlap: Overlap) -> Schedule {
    Schedule::new("h", long()).cron("0 0 * * * *", "UTC").overlap(overlap)
}

/// A tick of the 1st of January 2027.
fn tick(hour: u32) -> String {
    format!("h/2027-01-01T{hour:02}:00:00Z")
}

/// A lab at half past eight with an hourly schedule, after so many ticks.
async fn lab(overlap: Overlap, ticks: u32) -> Result<(Lab, Kit)> {
    let kit = Kit::default();
    let lab = Lab::new(|builder| builder.register(long).state(kit.clone())).await?;
    lab.move_to("2027-01-01T08:30:00Z").await?;
    lab.durable.set_schedule(hourly(overlap)).await?;
    lab.db.live_through(hours(ticks.into())).await?;
    Ok((lab, kit))
}

impl Lab {
    async fn let_go(&self, id: &str) -> Result<()> {
        self.durable.send(id, GO, true).await?;
        self.durable.workflow::<()>(id).soon().await?;
        self.db.run_until_idle().await.map_err(Into::into)
    }

    /// How often it has started, skipped, and what waits.
    async fn counts(&self) -> Result<(u64, u64, u32)> {
        let info = self.info("h").await?;
        assert_eq!(info.missed, 0);
        Ok((info.started, info.skipped, info.waiting))
    }
}

#[tokio::test]
async fn skipped_is_what_comes_while_one_is_open_blocked_ones_too() -> Result<()> {
    let (lab, _) = lab(Overlap::Skip, 3).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![tick(9)], (1, 2, 0)));
    lab.durable.pause(tick(9)).await?;
    lab.db.live_through(hours(1)).await?;
    assert_eq!(lab.counts().await?, (1, 3, 0));
    lab.durable.resume(tick(9)).await?;
    lab.let_go(&tick(9)).await?;
    // Nothing of the past is made up for.
    assert_eq!(lab.counts().await?, (1, 3, 0));
    lab.db.live_through(hours(1)).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![tick(9), tick(13)], (2, 3, 0)));
    Ok(())
}

#[tokio::test]
async fn one_that_has_ended_and_is_restarted_is_open_again() -> Result<()> {
    let (lab, _) = lab(Overlap::Skip, 1).await?;
    lab.let_go(&tick(9)).await?;
    lab.durable.restart(tick(9)).await?;
    lab.db.live_through(hours(2)).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![tick(9)], (1, 2, 0)));
    Ok(())
}

#[tokio::test]
async fn queue_one_starts_the_first_that_came_meanwhile() -> Result<()> {
    let (lab, _) = lab(Overlap::QueueOne, 4).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![tick(9)], (1, 2, 1)));
    lab.let_go(&tick(9)).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![tick(9), tick(10)], (2, 2, 0)));
    lab.db.live_through(hours(1)).await?;
    lab.let_go(&tick(10)).await?;
    assert_eq!(lab.ids().await?, [9, 10, 13].map(tick));
    Ok(())
}

#[tokio::test]
async fn queue_all_starts_them_one_after_the_other() -> Result<()> {
    let (lab, _) = lab(Overlap::QueueAll, 4).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![tick(9)], (1, 0, 3)));
    for hour in 9..12 {
        lab.let_go(&tick(hour)).await?;
        assert_eq!(lab.ids().await?, (9..=hour + 1).map(tick).collect::<Vec<_>>());
    }
    assert_eq!(lab.counts().await?, (4, 0, 0));
    Ok(())
}

#[tokio::test]
async fn allow_starts_them_beside_each_other() -> Result<()> {
    let (lab, _) = lab(Overlap::Allow, 30).await?;
    assert_eq!(lab.counts().await?, (30, 0, 0));
    let open = "select count(*)::text from durable.workflow where status = 'suspended'";
    assert_eq!(lab.sql(open).await?, "30");
    // All that are open are known, and of the others the latest twenty.
    assert_eq!(lab.sql("select count(*)::text from durable.tick").await?, "30");
    let ids = lab.ids().await?;
    join_all(ids.iter().map(|id| lab.durable.send(id, GO, true).into_future())).await;
    lab.db.live_through(hours(1)).await?;
    assert_eq!(lab.sql("select count(*)::text from durable.tick").await?, "21");
    Ok(())
}

#[tokio::test]
async fn cancel_running_undoes_the_one_before_and_then_starts() -> Result<()> {
    let (lab, kit) = lab(Overlap::CancelRunning, 3).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), ((9..12).map(tick).collect(), (3, 0, 0)));
    assert_eq!(kit.log.entries(), ["undone", "undone"]);
    for (hour, status) in [(9, Status::Cancelled), (10, Status::Cancelled), (11, Status::Suspended)] {
        assert_eq!(lab.durable.workflow::<()>(tick(hour)).status().await?, status);
    }
    let error = lab.durable.workflow::<()>(tick(9)).soon().await.unwrap_err();
    assert_eq!(error.to_string(), format!("workflow {} was cancelled: the next tick of schedule h has come", tick(9)));
    // The end of the undoing came before the next start.
    let order = "select bool_and(b.created_at >= a.finished_at)::text
                 from durable.workflow a, durable.workflow b where a.status = 'cancelled' and b.id > a.id";
    assert_eq!(lab.sql(order).await?, "true");
    Ok(())
}

/// Held in a step.
#[workflow]
async fn busy(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(gated("held".into())).await?)
}

#[tokio::test]
async fn cancel_running_stops_the_one_before_and_then_starts() -> Result<()> {
    let kit = Kit::default();
    let lab = Lab::new(|builder| builder.register(busy).state(kit.clone())).await?;
    lab.move_to("2027-01-01T08:30:00Z").await?;
    let schedule = Schedule::new("h", busy()).cron("0 0 * * * *", "UTC").overlap(Overlap::CancelRunning);
    lab.durable.set_schedule(schedule).await?;
    lab.db.live_through(minutes(1)).await?;
    for hour in 9..12 {
        lab.db.advance(hours(1)).await?;
        lab.until_started(&tick(hour)).await?;
        kit.gate.reached().await;
    }
    // In the act itself, before any worker has heard of it: the next one waits for that.
    let mut tx = lab.db.pool().begin().await?;
    let act = "select what from durable.ask_schedule('h', 'trigger', null, '{h/x}', null)";
    assert_eq!(sqlx::query_scalar::<_, String>(act).fetch_all(&mut *tx).await?, ["cancelled", "waits"]);
    tx.rollback().await?;
    kit.gate.open();
    assert_eq!(lab.durable.workflow::<String>(tick(11)).soon().await?, "held");
    let cancelled = "select count(*)::text from durable.workflow where status = 'cancelled' and stopping is null";
    assert_eq!((lab.sql(cancelled).await?, lab.counts().await?), ("2".to_owned(), (3, 0, 0)));
    Ok(())
}

#[tokio::test]
async fn cancel_running_starts_the_last_of_those_that_came_while_the_one_before_is_undone() -> Result<()> {
    let (lab, _) = lab(Overlap::CancelRunning, 1).await?;
    // Nobody is there to undo it.
    lab.durable.shutdown(seconds(10)).await;
    let kit = Kit::default();
    let other = lab.db.builder().queue("other").register(super::schedules::report).start().await?;
    lab.db.advance(hours(1)).await?;
    other.schedule("h").info().await?;
    let waits = "select (waiting = 1 and last_at < passed_until)::text from durable.schedule";
    let until = async |truth: &'static str| {
        let began_at = std::time::Instant::now();
        while lab.sql(truth).await? != "true" {
            anyhow::ensure!(began_at.elapsed() < durable_tests::db::PATIENCE, "never came true: {truth}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    until(waits).await?;
    lab.db.advance(hours(1)).await?;
    until("select (waiting = 1 and skipped = 1)::text from durable.schedule").await?;
    let lab = Lab { durable: lab.db.builder().register(long).state(kit.clone()).start().await?, ..lab };
    lab.db.run_until_idle().await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![tick(9), tick(11)], (2, 1, 0)));
    assert_eq!(kit.log.entries(), ["undone"]);
    Ok(())
}

#[tokio::test]
async fn a_tick_that_waits_is_started_when_the_other_ends_elsewhere() -> Result<()> {
    let (lab, _) = lab(Overlap::QueueOne, 2).await?;
    // By psql: no hint of it comes to the worker.
    lab.sql("select count(*)::text from durable.workflow w, durable.cancel(w.id)").await?;
    lab.until_started(&tick(10)).await?;
    Ok(())
}

#[tokio::test]
async fn a_trigger_goes_by_the_policy_too() -> Result<()> {
    let (lab, kit) = lab(Overlap::Skip, 1).await?;
    let schedule = lab.durable.schedule("h");
    let error = schedule.trigger().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error.to_string().contains("could not trigger schedule h: h/2027-01-01T09:00:00Z has not ended"),
        "{error}"
    );
    let error = lab.sql("select durable.trigger_schedule('h')").await.unwrap_err();
    assert!(error.to_string().contains("schedule h does not start another workflow now"), "{error}");
    assert_eq!(lab.counts().await?, (1, 0, 0));

    lab.durable.set_schedule(hourly(Overlap::QueueOne)).await?;
    let waits = schedule.trigger().await?;
    assert_eq!(schedule.trigger().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(lab.counts().await?, (1, 0, 1));
    lab.let_go(&tick(9)).await?;
    assert_eq!(lab.durable.workflow::<()>(&waits).status().await?, Status::Suspended);

    lab.durable.set_schedule(hourly(Overlap::CancelRunning)).await?;
    let last = schedule.trigger().await?;
    lab.until_started(&last).await?;
    lab.db.run_until_idle().await?;
    assert_eq!(lab.durable.workflow::<()>(&waits).status().await?, Status::Cancelled);
    assert_eq!(kit.log.entries(), ["undone"]);
    Ok(())
}

/// The look at what is open and the start are one act: of many triggers at once one starts.
#[tokio::test]
async fn of_many_triggers_at_once_one_starts() -> Result<()> {
    for isolation in ["read committed", "repeatable read"] {
        let db = Db::new().await;
        let durable = db.builder().register(long).state(Kit::default()).start().await?;
        let far = Schedule::new("h", long()).cron("0 0 0 1 1 *", "UTC");
        let schedule = durable.set_schedule(far).await?;
        let in_a_transaction = async || {
            let mut tx = db.pool.begin().await?;
            let set = sqlx::AssertSqlSafe(format!("set transaction isolation level {isolation}"));
            sqlx::raw_sql(set).execute(&mut *tx).await?;
            // Their snapshots are older than whoever is first.
            sqlx::query("select from durable.schedule").execute(&mut *tx).await?;
            schedule.trigger().in_tx(&mut tx).await?;
            Ok::<_, anyhow::Error>(tx.commit().await?)
        };
        let alone = join_all((0..10).map(async |_| schedule.trigger().await.is_ok()));
        let within = join_all((0..4).map(async |_| in_a_transaction().await.is_ok()));
        let (alone, within) = tokio::join!(alone, within);
        let started = alone.into_iter().chain(within).filter(|started| *started).count();
        assert_eq!((started, db.count("select count(*) from durable.workflow").await), (1, 1), "{isolation}");
    }
    Ok(())
}

#[tokio::test]
async fn what_was_missed_goes_by_the_policy_one_by_one() -> Result<()> {
    let (lab, kit) = lab(Overlap::QueueAll, 1).await?;
    lab.durable.set_schedule(hourly(Overlap::QueueAll).catch_up(CatchUp::all(100))).await?;
    lab.let_go(&tick(9)).await?;
    lab.durable.shutdown(seconds(10)).await;
    lab.db.advance(hours(3)).await?;
    let lab = Lab { durable: lab.db.builder().register(long).state(kit).start().await?, ..lab };
    for hour in 10..=12 {
        lab.until_started(&tick(hour)).await?;
        lab.db.run_until_idle().await?;
        assert_eq!(lab.ids().await?, (9..=hour).map(tick).collect::<Vec<_>>());
        lab.let_go(&tick(hour)).await?;
    }
    assert_eq!(lab.counts().await?, (4, 0, 0));
    Ok(())
}

#[tokio::test]
async fn what_waits_goes_on_waiting_while_it_is_paused() -> Result<()> {
    let (lab, _) = lab(Overlap::QueueOne, 2).await?;
    let schedule = lab.durable.schedule("h");
    schedule.pause().await?;
    lab.let_go(&tick(9)).await?;
    lab.db.live_through(hours(2)).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![tick(9)], (1, 0, 1)));
    schedule.resume().await?;
    lab.db.live_through(minutes(1)).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![tick(9), tick(10)], (2, 0, 0)));
    Ok(())
}

#[tokio::test]
async fn a_backfill_waits_for_what_is_open_and_goes_one_by_one() -> Result<()> {
    let (lab, _) = lab(Overlap::Skip, 1).await?;
    let schedule = lab.durable.schedule("h");
    let range = "2026-12-31T20:00:00Z".parse()?.."2026-12-31T22:00:00Z".parse()?;
    assert_eq!(schedule.backfill(range).await?, 2);
    assert_eq!(lab.counts().await?, (1, 0, 2));
    let past = |hour: u32| format!("h/2026-12-31T{hour}:00:00Z");
    lab.let_go(&tick(9)).await?;
    assert_eq!(lab.ids().await?, [past(20), tick(9)]);
    lab.let_go(&past(20)).await?;
    assert_eq!(lab.ids().await?, [past(20), past(21), tick(9)]);
    lab.let_go(&past(21)).await?;
    lab.db.live_through(hours(1)).await?;
    assert_eq!(lab.counts().await?, (4, 0, 0));

    // Where overlaps are allowed, all at once.
    lab.durable.set_schedule(hourly(Overlap::Allow)).await?;
    let range = "2026-12-30T00:00:00Z".parse()?.."2026-12-31T00:00:00Z".parse()?;
    assert_eq!(schedule.backfill(range).await?, 24);
    lab.db.run_until_idle().await?;
    assert_eq!(lab.counts().await?, (28, 0, 0));
    lab.db.advance(days(1)).await?;
    Ok(())
}

/// A worker that looks at a paused schedule because of them leaves its ticks alone.
#[tokio::test]
async fn a_backfill_of_a_paused_schedule_starts_nothing_else() -> Result<()> {
    let (lab, _) = lab(Overlap::QueueAll, 1).await?;
    let schedule = lab.durable.schedule("h");
    schedule.pause().await?;
    lab.db.live_through(hours(3)).await?;
    let range = "2026-12-31T20:00:00Z".parse()?.."2026-12-31T22:00:00Z".parse()?;
    assert_eq!(schedule.backfill(range).await?, 2);
    let past = |hour: u32| format!("h/2026-12-31T{hour}:00:00Z");
    lab.let_go(&tick(9)).await?;
    lab.let_go(&past(20)).await?;
    lab.let_go(&past(21)).await?;
    assert_eq!((lab.ids().await?, lab.counts().await?), (vec![past(20), past(21), tick(9)], (3, 0, 0)));
    schedule.resume().await?;
    lab.db.live_through(hours(1)).await?;
    assert_eq!((lab.ids().await?[3..].to_vec(), lab.counts().await?), (vec![tick(13)], (4, 0, 0)));
    Ok(())
}
