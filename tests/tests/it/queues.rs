//! Queues with limits: how many run, and who is next. What is done to them while they are at work is `queues_operating`, what faults do
//! is `queues_faults`.

use std::time::Duration;

use anyhow::Result;
use durable::testing::TestDatabase;
use durable::{Builder, Ctx, Durable, ErrorKind, Queue, Status, Topic, hours, minutes, seconds, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use durable_tests::wire::Wire;

const GO: Topic<()> = Topic::new("go");

/// Comes to the gate under its id.
#[workflow]
pub(super) async fn call(ctx: &Ctx) -> Result<()> {
    ctx.run(gated(ctx.id().to_owned())).await?;
    Ok(())
}

/// Notes its id.
#[workflow]
pub(super) async fn note(ctx: &Ctx) -> Result<()> {
    ctx.run(work(ctx.id().to_owned())).await?;
    Ok(())
}

/// Comes to the gate, waits for a word, and comes there again.
#[workflow]
async fn waits(ctx: &Ctx) -> Result<()> {
    ctx.run(gated(format!("{} begins", ctx.id()))).await?;
    ctx.receive(GO).await?;
    ctx.run(gated(format!("{} goes on", ctx.id()))).await?;
    Ok(())
}

pub(super) fn everything(builder: Builder, kit: &Kit, queue: Queue) -> Builder {
    builder.register(call).register(note).register(waits).state(kit.clone()).serve(queue)
}

pub(super) async fn worker(db: &Db, kit: &Kit, queue: Queue) -> Result<Durable> {
    Ok(everything(db.builder(), kit, queue).start().await?)
}

pub(super) const RUNNING: &str = "select count(*) from durable.workflow where status = 'running'";

/// Wait until those who may run do, and see that nobody else begins.
pub(super) async fn settles_at(db: &Db, kit: &Kit, many: usize) {
    db.until_count(RUNNING, |running| running >= i64::try_from(many).expect("a small number")).await;
    for _ in 0..many {
        kit.gate.reached().await;
    }
    // Several polls.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(db.count(RUNNING).await, i64::try_from(many).expect("a small number"));
}

/// Let everything through that comes.
pub(super) async fn drain(db: &Db, kit: &Kit, ids: impl Iterator<Item = String>) -> Result<()> {
    let client = db.client().await;
    for _ in 0..1_000 {
        kit.gate.open();
    }
    for id in ids {
        client.workflow::<()>(id).soon().await?;
    }
    Ok(())
}

pub(super) fn ids(many: usize) -> impl Iterator<Item = String> {
    (0..many).map(|n| format!("w-{n}"))
}

/// P21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_at_once_than_the_queue_allows_over_all_workers() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let queue = || Queue::new("calls").concurrency(3);
    let one = worker(&db, &kit, queue()).await?;
    let _other = worker(&db, &kit, queue()).await?;
    for id in ids(10) {
        one.start(call()).queue("calls").id(id).await?;
    }
    settles_at(&db, &kit, 3).await;
    let queues = one.queues().await?;
    assert_eq!((queues.len(), queues[0].running, queues[0].waiting), (1, 3, 7), "{queues:?}");
    assert_eq!((&queues[0].queue, queues[0].is_paused), (&queue(), false));
    // One ends, one begins.
    kit.gate.open();
    kit.gate.reached().await;
    assert_eq!(db.count(RUNNING).await, 3);
    drain(&db, &kit, ids(10)).await
}

/// P21: whoever has a queue with limits as its own does not run what it starts at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_that_is_started_where_it_would_run_waits_for_its_turn() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let queue = || Queue::new("calls").concurrency(2);
    let durable = everything(db.builder().queue("calls"), &kit, queue()).start().await?;
    // It does not know of the limits.
    let other = db.builder().queue("calls").register(call).state(kit.clone()).start().await?;
    for (n, id) in ids(8).enumerate() {
        let by = if n % 2 == 0 { &durable } else { &other };
        by.start(call()).id(id).await?;
    }
    settles_at(&db, &kit, 2).await;
    drain(&db, &kit, ids(8)).await
}

/// P21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_at_once_in_one_worker_than_the_queue_allows() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let queue = || Queue::new("calls").concurrency_per_worker(2);
    let one = worker(&db, &kit, queue()).await?;
    for id in ids(10) {
        one.start(call()).queue("calls").id(id).await?;
    }
    settles_at(&db, &kit, 2).await;
    let _other = worker(&db, &kit, queue()).await?;
    for _ in 0..2 {
        kit.gate.reached().await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(db.count(RUNNING).await, 4);
    drain(&db, &kit, ids(10)).await
}

/// P21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_a_partition_run_at_once_than_the_queue_allows() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, Queue::new("calls").concurrency_per_partition(2)).await?;
    for n in 0..5 {
        for partition in ["a", "b", "c"] {
            durable.start(call()).queue("calls").partition(partition).id(format!("{partition}-{n}")).await?;
        }
        durable.start(call()).queue("calls").id(format!("none-{n}")).await?;
    }
    settles_at(&db, &kit, 8).await;
    let of_each = "select string_agg(left(id, -2) || ' ' || n, ', ' order by id)
                   from (select min(id) as id, count(*) as n from durable.workflow where status = 'running'
                         group by left(id, -2)) as w";
    assert_eq!(db.text(of_each).await, "a 2, b 2, c 2, none 2");
    drain(&db, &kit, ["a", "b", "c", "none"].into_iter().flat_map(|p| (0..5).map(move |n| format!("{p}-{n}")))).await
}

pub(super) async fn kit_database(kit: &Kit, queue: Queue) -> Result<(Db, TestDatabase, Durable)> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
    let durable = everything(db.builder(), kit, queue).start().await?;
    Ok((server, db, durable))
}

/// P21: in no minute more than five begin, wherever it begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_begin_in_a_time_than_the_rate_allows() -> Result<()> {
    let kit = Kit::default();
    let (_server, db, durable) = kit_database(&kit, Queue::new("calls").rate(5, minutes(1))).await?;
    let begun = || kit.log.entries().len();
    for id in ids(3) {
        durable.start(note()).queue("calls").id(id).await?;
    }
    db.run_until_idle().await?;
    assert_eq!(begun(), 3);
    db.advance(seconds(40)).await?;
    for n in 3..20 {
        durable.start(note()).queue("calls").id(format!("w-{n}")).await?;
    }
    db.run_until_idle().await?;
    assert_eq!(begun(), 5);
    // The first three are over a minute ago, the other two are not.
    db.advance(seconds(21)).await?;
    db.run_until_idle().await?;
    assert_eq!(begun(), 8);
    db.advance(seconds(40)).await?;
    db.run_until_idle().await?;
    assert_eq!(begun(), 10);
    for _ in 0..2 {
        db.advance(seconds(61)).await?;
        db.run_until_idle().await?;
    }
    assert_eq!(begun(), 20);
    Ok(())
}

/// P21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_a_partition_begin_in_a_time_than_the_rate_allows() -> Result<()> {
    let kit = Kit::default();
    let queue = Queue::new("calls").rate_per_partition(2, minutes(1)).rate(5, minutes(1));
    let (_server, db, durable) = kit_database(&kit, queue).await?;
    for n in 0..6 {
        for partition in ["a", "b", "c"] {
            durable.start(note()).queue("calls").partition(partition).id(format!("{partition}-{n}")).await?;
        }
    }
    let of_each = || ["a", "b", "c"].map(|of| kit.log.entries().iter().filter(|id| id.starts_with(of)).count());
    let mut before = [0; 3];
    for _ in 0..3 {
        db.run_until_idle().await?;
        let now = of_each();
        let more = [0, 1, 2].map(|n| now[n] - before[n]);
        assert_eq!(more.iter().sum::<usize>(), 5, "{more:?}");
        assert!(more.iter().all(|more| *more <= 2), "{more:?}");
        before = now;
        db.advance(seconds(61)).await?;
    }
    // Whoever got less had its turn first the next time.
    assert_eq!(before, [5; 3]);
    // What was a period ago is forgotten, with the next claim.
    db.run_until_idle().await?;
    db.advance(hours(1)).await?;
    assert_eq!(of_each(), [6; 3]);
    durable.start(note()).queue("calls").partition("d").id("d-0").await?;
    db.run_until_idle().await?;
    let known: String =
        sqlx::query_scalar("select string_agg(partition, ' ') from durable.partition").fetch_one(db.pool()).await?;
    assert_eq!(known, "d");
    Ok(())
}

/// Many of one partition do not keep another one waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_partition_gets_its_turn_whatever_others_have_waiting() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let client = db.client().await;
    client.set_queue(Queue::new("calls").concurrency(2)).await?;
    let many = (0..2_000).map(|n| (format!("a-{n}"), note()));
    client.start_many(many).queue("calls").partition("a").await?;
    for partition in ["b", "c"] {
        client.start(note()).queue("calls").partition(partition).id(partition).await?;
    }
    let _worker = worker(&db, &kit, Queue::new("calls").concurrency(2)).await?;
    for id in ["b", "c"] {
        client.workflow::<()>(id).soon().await?;
    }
    // They are entered 500 at a time; then each has its turn at once.
    let before = kit.log.entries().iter().position(|id| id == "c").expect("c has begun");
    println!("{before} began before the last of three partitions");
    assert!(before < 300, "{before} of partition a began before c");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_partition_they_go_by_priority_and_age() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let client = db.client().await;
    client.set_queue(Queue::new("calls").concurrency(1)).await?;
    for (id, priority) in [("later", 5), ("first", -3), ("last", i16::MAX), ("second", 0), ("third", 0)] {
        client.start(note()).queue("calls").priority(priority).id(id).await?;
    }
    assert_eq!(client.queues().await?[0].waiting, 5);
    let _worker = worker(&db, &kit, Queue::new("calls").concurrency(1)).await?;
    client.workflow::<()>("last").soon().await?;
    assert_eq!(kit.log.entries(), ["first", "second", "third", "later", "last"]);
    let priorities = "select string_agg(priority::text, ' ' order by priority) from durable.workflow";
    assert_eq!(db.text(priorities).await, "-3 0 0 5 32767");
    Ok(())
}

/// A workflow that is suspended leaves its place to another one, and gets its turn before those who have not begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_workflow_does_not_count_and_goes_on_before_new_ones() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, Queue::new("calls").concurrency(1)).await?;
    for id in ids(3) {
        durable.start(waits()).queue("calls").id(id).await?;
    }
    kit.gate.reached().await;
    kit.gate.open();
    db.until_status("w-0", "suspended").await;
    // The next one runs.
    kit.gate.reached().await;
    durable.send("w-0", GO, ()).await?;
    db.until_status("w-0", "queued").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(db.count(RUNNING).await, 1);
    kit.gate.open();
    kit.gate.reached().await;
    assert_eq!(kit.log.entries(), ["w-0 begins", "w-1 begins", "w-0 goes on"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_workflow_counts_where_the_queue_says_so() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, Queue::new("calls").concurrency(1).suspended_count(true)).await?;
    for id in ids(2) {
        durable.start(waits()).queue("calls").id(id).await?;
    }
    kit.gate.reached().await;
    kit.gate.open();
    db.until_status("w-0", "suspended").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(db.count(RUNNING).await, 0);
    durable.send("w-0", GO, ()).await?;
    for _ in 0..2 {
        kit.gate.reached().await;
        kit.gate.open();
    }
    assert_eq!(kit.log.entries(), ["w-0 begins", "w-0 goes on", "w-1 begins"]);
    Ok(())
}

/// P21: who keeps a place while it is suspended goes on in this worker only once this worker has room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_kept_a_place_waits_for_room_in_the_worker() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let queue = Queue::new("calls").concurrency(5).concurrency_per_worker(1).suspended_count(true);
    let durable = worker(&db, &kit, queue).await?;
    durable.start(waits()).queue("calls").id("w-0").await?;
    kit.gate.reached().await;
    kit.gate.open();
    db.until_status("w-0", "suspended").await;
    durable.start(call()).queue("calls").id("w-1").await?;
    kit.gate.reached().await;
    durable.send("w-0", GO, ()).await?;
    db.until_status("w-0", "queued").await;
    // Several polls.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(db.count(RUNNING).await, 1);
    kit.gate.open();
    kit.gate.reached().await;
    assert_eq!(kit.log.entries(), ["w-0 begins", "w-1", "w-0 goes on"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_takes_only_what_it_has_and_serves() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let client = db.client().await;
    client.set_queue(Queue::new("calls").concurrency(1)).await?;
    client.start(call()).queue("calls").id("unknown").await?;
    client.start(note()).queue("calls").id("known").await?;
    let _other = db.builder().register(call).state(kit.clone()).start().await?;
    let queue = Queue::new("calls").concurrency(1);
    let _worker = db.builder().register(note).state(kit.clone()).serve(queue).start().await?;
    client.workflow::<()>("known").soon().await?;
    assert_eq!(client.workflow::<()>("unknown").status().await?, Status::Queued);
    Ok(())
}

/// Neither whose code no worker has nor who is full keeps others out, however many of them come first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_in_which_nobody_can_run_are_passed_over() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let client = db.client().await;
    client.set_queue(Queue::new("calls").concurrency(1)).await?;
    for n in 0..45 {
        client.start(call()).queue("calls").partition(format!("a-{n:02}")).await?;
    }
    client.start(note()).queue("calls").partition("b").id("known").await?;
    let queue = Queue::new("calls").concurrency(1);
    let _worker = db.builder().register(note).state(kit.clone()).serve(queue).start().await?;
    client.workflow::<()>("known").soon().await?;
    Ok(())
}

/// Also where the rate lets no new one begin: those go on that have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_begun_goes_on_whatever_the_rate_says() -> Result<()> {
    let kit = Kit::default();
    let (_server, db, durable) = kit_database(&kit, Queue::new("calls").concurrency(1).rate(1, hours(1))).await?;
    durable.start(waits()).queue("calls").partition("a").id("w-0").await?;
    kit.gate.open();
    db.run_until_idle().await?;
    durable.start(note()).queue("calls").partition("b").id("new").await?;
    db.run_until_idle().await?;
    durable.send("w-0", GO, ()).await?;
    kit.gate.open();
    db.run_until_idle().await?;
    assert_eq!(durable.workflow::<()>("w-0").status().await?, Status::Completed);
    assert_eq!(durable.workflow::<()>("new").status().await?, Status::Queued);
    db.run_through_waits().await?;
    assert_eq!(durable.workflow::<()>("new").status().await?, Status::Completed);
    Ok(())
}

/// `plans` does not see the statements inside of a function, so what they read is counted: a claim reads what it takes, not what lies
/// beside that, also while nobody has analysed the tables.
#[tokio::test]
async fn a_claim_does_not_read_what_is_not_due() -> Result<()> {
    const READ: &str = "select coalesce(sum(idx_tup_fetch + seq_tup_read), 0)::bigint from pg_stat_xact_user_tables
                        where schemaname = 'durable' and relname in ('workflow', 'place')";
    let db = Db::new().await;
    let mut tx = db.pool.begin().await?;
    sqlx::raw_sql(
        "insert into durable.worker (id, lease_until, host, pid, queue)
         values ('00000000-0000-0000-0000-000000000001', durable.now() + interval '1 h', 'h', 1, 'default');
         insert into durable.queue (name, concurrency) values ('calls', 50);
         insert into durable.workflow (bucket, id, name, version, queue, status, due_at, input)
         select durable.bucket('w-' || n), 'w-' || n, 'note', 1, 'calls', 'queued',
                durable.now() + case when n > 1000 then interval '1 d' else '0' end, 'null'
         from generate_series(1, 20000) n;
         set local plan_cache_mode = force_generic_plan; set local enable_seqscan = off;
         set local enable_hashjoin = off; set local enable_mergejoin = off;",
    )
    .execute(&mut *tx)
    .await?;
    for _ in 0..2 {
        let before: i64 = sqlx::query_scalar(READ).fetch_one(&mut *tx).await?;
        let claim = "select count(id) from durable.claim_limited('00000000-0000-0000-0000-000000000001', '{calls}', '{note}', '{1}', 50)";
        assert_eq!(sqlx::query_scalar::<_, i64>(claim).fetch_one(&mut *tx).await?, 50);
        let read = sqlx::query_scalar::<_, i64>(READ).fetch_one(&mut *tx).await? - before;
        println!("a claim of 50 has read {read} rows");
        // Each of the fifty is looked at a few times on its way.
        assert!(read < 1_000, "{read} rows");
        sqlx::query("update durable.workflow set status = 'completed', owner = null where status = 'running'")
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_no_queue_can_be_is_refused_with_the_fix() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    for (queue, says) in [
        (Queue::new(""), "the queue is empty"),
        (
            Queue::new("q").concurrency(0),
            "queue \"q\": a concurrency of 0 would never run anything: give at least 1, or pause",
        ),
        (Queue::new("q").concurrency_per_worker(0), "a concurrency per worker of 0"),
        (Queue::new("q").concurrency_per_partition(0), "a concurrency per partition of 0"),
        (Queue::new("q").rate(0, minutes(1)), "a rate of 0"),
        (Queue::new("q").rate(1, Duration::ZERO), "give a period from 1 ms to 366 days"),
        (Queue::new("q").rate_per_partition(1, hours(24 * 400)), "give a period from 1 ms to 366 days"),
    ] {
        let error = worker(&db, &kit, queue.clone()).await.unwrap_err();
        assert_eq!(error.downcast_ref::<durable::Error>().map(durable::Error::kind), Some(ErrorKind::Usage));
        assert!(error.to_string().contains(says), "{error}");
        let error = db.client().await.set_queue(queue).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let twice = everything(db.builder(), &kit, Queue::new("q")).serve(Queue::new("q").concurrency(1)).start().await;
    assert!(twice.unwrap_err().to_string().contains("queue \"q\" is served twice"));
    let error = db.client().await.start(note()).queue("q").partition("a\nb").await.unwrap_err();
    assert!(error.to_string().contains("the partition holds the control character"), "{error}");
    let error =
        sqlx::query("insert into durable.queue (name, rate) values ('q', 1)").execute(&db.pool).await.unwrap_err();
    assert!(error.to_string().contains("rate_has_a_period"), "{error}");
    Ok(())
}

/// An idle worker asks as much with a hundred queues as with none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_queues_cost_an_idle_worker_no_more_statements_than_one() -> Result<()> {
    let db = Db::new().await;
    let asked = async |queues: usize| {
        let wire = Wire::to(&db);
        let mut builder = Durable::builder(wire.pool()).migrate(false).register(note).state(Kit::default());
        for n in 0..queues {
            builder = builder.serve(Queue::new(format!("queue-{n}")).concurrency(1));
        }
        let durable = builder.start().await?;
        tokio::time::sleep(seconds(1)).await;
        wire.forget();
        tokio::time::sleep(seconds(6)).await;
        let asked: usize = wire.flights().iter().map(|flight| flight.statements.len()).sum();
        durable.shutdown(Duration::ZERO).await;
        Ok::<_, anyhow::Error>(asked)
    };
    let (none, hundred) = (asked(0).await?, asked(100).await?);
    println!("statements of an idle worker in 6 s: {none} without such queues, {hundred} with a hundred");
    assert!(hundred <= none + 2 && hundred < 13, "{none} and {hundred}");
    Ok(())
}
