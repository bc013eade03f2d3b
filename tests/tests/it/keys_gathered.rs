//! P12: starts of one key that make one workflow together: the last of many inputs, or all of them. Also from SQL.

use std::time::Duration;

use anyhow::Result;
use durable::testing::TestDatabase;
use durable::{Batch, Builder, Ctx, Debounce, Durable, Handle, Queue, Status, hours, minutes, seconds, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, work};
use durable_tests::soon::Soon;
use futures::future::try_join_all;
use sqlx::PgPool;

use super::keys_deduplicated::list;

/// Notes what it was given.
#[workflow]
async fn index(ctx: &Ctx, text: String) -> Result<String> {
    ctx.run(work(text.clone())).await?;
    Ok(text)
}

/// A database whose clock is moved, and a worker on it.
struct Lab {
    db: TestDatabase,
    durable: Durable,
    kit: Kit,
    _server: Db,
}

impl Lab {
    async fn new() -> Result<Self> {
        Self::with(|builder| builder).await
    }

    async fn with(more: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let (server, kit) = (Db::new().await, Kit::default());
        let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
        let durable = more(db.builder().register(index).register(list)).state(kit.clone()).start().await?;
        Ok(Self { db, durable, kit, _server: server })
    }

    async fn type_text(&self, text: &str) -> Result<Handle<String>> {
        let debounce = Debounce::new(seconds(5)).max_wait(seconds(12));
        Ok(self.durable.start(index(text.to_owned())).debounce("document", debounce).await?)
    }

    async fn add(&self, inputs: Vec<u64>) -> Result<Handle<Vec<u64>>> {
        Ok(self.durable.start(list(inputs)).batch("tenant", Batch::new(5, seconds(10))).await?)
    }

    async fn pass(&self, time: Duration) -> Result<()> {
        self.db.live_through(time).await?;
        Ok(())
    }
}

async fn scalar(pool: &PgPool, sql: &'static str) -> Result<String> {
    let told: Option<String> = sqlx::query_scalar(sql).fetch_one(pool).await?;
    Ok(told.unwrap_or_default())
}

#[tokio::test]
async fn of_starts_that_come_to_rest_the_last_input_is_run_once() -> Result<()> {
    let lab = Lab::new().await?;
    let first = lab.type_text("h").await?;
    for text in ["he", "hel"] {
        lab.pass(seconds(4)).await?;
        let next = lab.type_text(text).await?;
        assert_eq!((next.id(), first.existed(), next.existed()), (first.id(), false, true));
    }
    assert!(lab.kit.log.entries().is_empty());
    lab.pass(seconds(5)).await?;
    assert_eq!(first.soon().await?, "hel");
    // What comes then is another one.
    let next = lab.type_text("hell").await?;
    assert!(!next.existed());
    lab.pass(seconds(5)).await?;
    assert_eq!(lab.kit.log.entries(), ["hel", "hell"]);
    Ok(())
}

#[tokio::test]
async fn starts_that_never_rest_wait_no_longer_than_the_maximum() -> Result<()> {
    let lab = Lab::new().await?;
    for n in 0..8 {
        lab.type_text(&n.to_string()).await?;
        lab.pass(seconds(4)).await?;
    }
    lab.pass(minutes(1)).await?;
    // After 12 s, in which 0 to 2 came; 3 came at that very moment, when it was due already.
    let entries = lab.kit.log.entries();
    assert_eq!(entries.last().map(String::as_str), Some("7"));
    assert_eq!((entries.len(), &*entries[0]), (3, "2"), "{entries:?}");
    Ok(())
}

/// It is due and waits for its turn: it has not begun.
#[tokio::test]
async fn one_that_waits_for_its_turn_still_takes_a_later_input() -> Result<()> {
    let lab = Lab::with(|builder| builder.serve(Queue::new("slow").concurrency(1))).await?;
    lab.durable.pause_queue("slow").await?;
    let debounce = Debounce::new(seconds(5));
    let put =
        |text: &'static str| lab.durable.start(index(text.into())).queue("slow").debounce("k", debounce).into_future();
    let first = put("early").await?;
    lab.pass(minutes(5)).await?;
    assert_eq!(first.status().await?, Status::Queued);
    assert_eq!(put("late").await?.id(), first.id());
    lab.durable.resume_queue("slow").await?;
    // At once: it is not put off any more.
    lab.db.run_until_idle().await?;
    assert_eq!(lab.kit.log.entries(), ["late"]);
    Ok(())
}

/// Whatever the moment at which one is claimed, the last input is run, and none is run twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_and_later_inputs_miss_nothing() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let builder = || db.builder().poll_every(Duration::from_millis(10)).register(index).state(kit.clone());
    let workers = try_join_all((0..2).map(|_| builder().start())).await?;
    let debounce = Debounce::new(Duration::from_millis(3));
    let mut last = None;
    for n in 0..200 {
        last = Some(workers[n % 2].start(index(n.to_string())).debounce("k", debounce).await?);
    }
    last.expect("the last one").soon().await?;
    let mut numbers: Vec<u32> = kit.log.entries().iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    println!("200 starts, {} workflows", numbers.len());
    // Two workers run them beside each other.
    numbers.sort_unstable();
    assert!(numbers.len() > 1 && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&199));
    Ok(())
}

#[tokio::test]
async fn a_batch_begins_with_as_many_inputs_as_it_takes_or_when_it_has_waited() -> Result<()> {
    let lab = Lab::new().await?;
    let (a, b) = (lab.add(vec![1, 2]).await?, lab.add(vec![3]).await?);
    assert_eq!((a.existed(), b.existed(), a.id()), (false, true, b.id()));
    lab.db.run_until_idle().await?;
    assert_eq!(a.status().await?, Status::Queued);
    // Full: at once.
    let c = lab.add(vec![4, 5]).await?;
    lab.db.run_until_idle().await?;
    assert_eq!((c.soon().await?, b.soon().await?), (vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4, 5]));

    // After the time, from the first on.
    let d = lab.add(vec![6]).await?;
    lab.pass(seconds(6)).await?;
    let e = lab.add(vec![7]).await?;
    assert_eq!((d.id(), d.existed()), (e.id(), false));
    lab.pass(seconds(4)).await?;
    assert_eq!(e.soon().await?, [6, 7]);

    // Those of one start stay together.
    let f = lab.add(vec![8, 9, 10]).await?;
    let g = lab.add(vec![11, 12, 13]).await?;
    lab.db.run_until_idle().await?;
    assert_eq!((f.soon().await?, g.status().await?), (vec![8, 9, 10], Status::Queued));
    lab.pass(seconds(10)).await?;
    assert_eq!(g.soon().await?, [11, 12, 13]);
    assert_eq!(scalar(lab.db.pool(), "select count(*)::text from durable.held_start").await?, "0");
    Ok(())
}

/// Of any kind, as they were written.
#[tokio::test]
async fn inputs_come_as_they_were_given() -> Result<()> {
    #[workflow]
    async fn words(_ctx: &Ctx, of: Vec<Option<String>>) -> Result<Vec<Option<String>>> {
        Ok(of)
    }
    let lab = Lab::with(|builder| builder.register(words)).await?;
    let given: Vec<Option<String>> =
        ["a,b", "[]", "\"", "\\", "ß🦀\u{0001}", "", "{\"a\": [1, 2]}"].map(|text| Some(text.to_owned())).into();
    let handles = try_join_all(given.chunks(3).map(|some| {
        let call = words(some.iter().cloned().chain([None]).collect());
        lab.durable.start(call).batch("k", Batch::new(100, seconds(1))).into_future()
    }));
    let handles = handles.await?;
    lab.pass(seconds(1)).await?;
    let mut came = handles[0].soon().await?;
    assert_eq!(came.len(), given.len() + 3);
    came.retain(Option::is_some);
    came.sort();
    let mut given = given;
    given.sort();
    assert_eq!(came, given);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_each_input_is_in_one_batch_and_none_has_too_many() -> Result<()> {
    let db = Db::new().await;
    let _worker = db.builder().register(list).start().await?;
    let clients = [db.client().await, db.client().await];
    let batch = Batch::new(10, Duration::from_millis(200));
    let starts = (0..120_u64).map(|n| {
        let inputs = (0..=n % 3).map(|k| n * 10 + k).collect();
        clients[usize::from(n % 2 == 0)].start(list(inputs)).batch("k", batch).into_future()
    });
    let handles = try_join_all(starts).await?;
    let mut batches: Vec<&str> = handles.iter().map(Handle::id).collect();
    batches.sort_unstable();
    batches.dedup();
    let mut came = Vec::new();
    for id in &batches {
        let of_one = clients[0].workflow::<Vec<u64>>(*id).soon().await?;
        assert!((1..=10).contains(&of_one.len()), "{of_one:?}");
        came.extend(of_one);
    }
    println!("120 starts with 240 inputs, {} batches", batches.len());
    came.sort_unstable();
    let mut given: Vec<u64> = (0..120).flat_map(|n| (0..=n % 3).map(move |k| n * 10 + k)).collect();
    given.sort_unstable();
    assert_eq!(came, given);
    Ok(())
}

/// The id is that of the inputs, also when their batch is long over.
#[tokio::test]
async fn inputs_with_an_id_are_in_one_batch_once() -> Result<()> {
    let lab = Lab::new().await?;
    let put =
        |id: &'static str, n| lab.durable.start(list(vec![n])).id(id).batch("k", Batch::new(2, hours(1))).into_future();
    let first = put("document-1", 1).await?;
    assert_eq!(put("document-1", 1).await?.id(), first.id());
    let full = put("document-2", 2).await?;
    assert_eq!(full.soon().await?, [1, 2]);
    put("document-3", 3).await?;
    let again = put("document-1", 1).await?;
    assert_eq!((again.id(), again.existed()), (first.id(), true));
    assert_eq!(scalar(lab.db.pool(), "select count(*)::text from durable.workflow").await?, "2");
    Ok(())
}

#[tokio::test]
async fn a_batch_that_is_cancelled_or_paused_gets_no_more_and_loses_nothing() -> Result<()> {
    let lab = Lab::new().await?;
    let cancelled = lab.add(vec![1]).await?;
    lab.durable.cancel(cancelled.id()).await?;
    let paused = lab.add(vec![2]).await?;
    assert!(!paused.existed());
    lab.durable.pause(paused.id()).await?;
    let third = lab.add(vec![3]).await?;
    assert!(!third.existed());
    lab.pass(minutes(1)).await?;
    assert_eq!(third.soon().await?, [3]);
    assert_eq!(paused.status().await?, Status::Blocked);
    lab.durable.resume(paused.id()).await?;
    assert_eq!(paused.soon().await?, [2]);
    // What was in it has not gone.
    lab.durable.restart(cancelled.id()).await?;
    assert_eq!(cancelled.soon().await?, [1]);
    Ok(())
}

/// Before its time there is nothing that it could be run with.
#[tokio::test]
async fn a_batch_that_is_cancelled_and_resumed_before_its_time_fails_and_can_be_restarted_after_it() -> Result<()> {
    let lab = Lab::new().await?;
    let batch = lab.add(vec![1]).await?;
    lab.durable.cancel(batch.id()).await?;
    lab.durable.resume(batch.id()).await?;
    let error = batch.soon().await.unwrap_err();
    assert!(error.to_string().contains("its input"), "{error}");
    lab.pass(seconds(10)).await?;
    lab.durable.restart(batch.id()).await?;
    assert_eq!(batch.soon().await?, [1]);
    Ok(())
}

/// A process that only starts; the worker of another one finds out when the batch's time has come.
#[tokio::test]
async fn what_another_process_holds_back_is_let_go_in_time() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let _worker = db.builder().register(index).register(list).state(kit).start().await?;
    let client = db.client().await;
    let batch = client.start(list(vec![1])).batch("k", Batch::new(5, Duration::from_millis(300))).await?;
    let text = client.start(index("a".into())).debounce("k", Debounce::new(Duration::from_millis(300))).await?;
    assert_eq!((batch.soon().await?, text.soon().await?), (vec![1], "a".to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_batch_has_the_partition_the_priority_and_the_attributes_of_its_first_start() -> Result<()> {
    let lab = Lab::with(|builder| builder.serve(Queue::new("model").concurrency_per_partition(1))).await?;
    let put = |n: u64, tenant: &'static str| {
        let start =
            lab.durable.start(list(vec![n])).queue("model").partition(tenant).priority(7).attribute("tenant", tenant);
        start.deadline(hours(1)).batch("k", Batch::new(2, seconds(5))).into_future()
    };
    let batch = put(1, "a").await?;
    put(2, "b").await?;
    assert_eq!(batch.soon().await?, [1, 2]);
    let told = "select concat_ws(' ', w.queue, w.priority, p.partition, a.value, d.at - w.created_at)
                from durable.workflow w join durable.place p using (bucket, id) join durable.attribute a using (bucket, id)
                join durable.deadline d using (bucket, id)";
    assert_eq!(scalar(lab.db.pool(), told).await?, "model 7 a \"a\" 01:00:00");
    Ok(())
}

#[tokio::test]
async fn sql_starts_with_keys_also_from_a_trigger() -> Result<()> {
    let lab = Lab::new().await?;
    let pool = lab.db.pool();
    let once = "select durable.start_deduplicated('index', 'k', '\"a\"', id => 'x')";
    assert_eq!((scalar(pool, once).await?, scalar(pool, once).await?), ("x".to_owned(), "x".to_owned()));
    lab.db.run_until_idle().await?;
    let debounced = scalar(pool, "select durable.start_debounced('index', 'k', '\"b\"', '5 s', '1 min')").await?;
    assert_eq!(scalar(pool, "select durable.start_debounced('index', 'k', '\"c\"', '5 s', '1 min')").await?, debounced);
    sqlx::raw_sql(
        "create table document (id integer primary key);
         create function added() returns trigger language plpgsql as $$ begin
             perform durable.start_batched('list', 'documents', json_build_array(new.id), 3, '10 s', id => 'document-' || new.id);
             return null;
         end $$;
         create trigger added after insert on document for each row execute function added();
         insert into document select generate_series(1, 7);",
    )
    .execute(pool)
    .await?;
    lab.db.run_until_idle().await?;
    let batches = "select string_agg(output::text, ' ' order by id) from durable.workflow where name = 'list' and status = 'completed'";
    assert_eq!(scalar(pool, batches).await?, "[1,2,3] [4,5,6]");
    lab.pass(seconds(10)).await?;
    assert_eq!(scalar(pool, batches).await?, "[1,2,3] [4,5,6] [7]");
    assert_eq!(lab.kit.log.entries(), ["a", "c"]);
    Ok(())
}

#[tokio::test]
async fn sql_says_what_is_wrong_with_a_key_and_starts_nothing() -> Result<()> {
    let lab = Lab::new().await?;
    let pool = lab.db.pool();
    sqlx::query("select durable.start_deduplicated('index', 'open', '\"a\"', id => 'x', delay => '1 h')")
        .execute(pool)
        .await?;
    for (call, told) in [
        ("start_deduplicated('', 'k')", "the workflow name is empty"),
        ("start_deduplicated('index', null)", "the key is null"),
        ("start_deduplicated('index', 'k', if_open => 'cancel')", "if_open is \"cancel\""),
        (
            "start_deduplicated('index', 'open', '\"b\"', if_open => 'refuse')",
            "workflow x of \"index\" is open with this key",
        ),
        ("start_deduplicated('list', 'other', '[]', id => 'x')", "the id x belongs to workflow \"index\""),
        ("start_deduplicated('index', 'k', delay => '-1 s')", "the delay is -00:00:01"),
        ("start_deduplicated('index', 'k', priority => 40000)", "the priority is 40000"),
        ("start_deduplicated('index', 'k', version => 0)", "the version is 0"),
        ("start_debounced('index', 'k', null, '1 s')", "the input is null"),
        ("start_debounced('index', 'k', '1', '0')", "the wait is 00:00:00, it has to be 00:00:00.001 or more"),
        ("start_debounced('index', 'k', '1', '5 s', '1 s')", "the max_wait is 00:00:01"),
        ("start_batched('list', 'k', '{}', 5, '1 s')", "the input of a batch is a JSON object"),
        ("start_batched('list', 'k', '[]', 5, '1 s')", "0 inputs in one call for a batch of at most 5"),
        ("start_batched('list', 'k', '[1,2,3]', 2, '1 s')", "3 inputs in one call for a batch of at most 2"),
        ("start_batched('list', 'k', '[1]', 0, '1 s')", "a batch of at most 0"),
    ] {
        let sql = sqlx::AssertSqlSafe(format!("select durable.{call}"));
        let error = sqlx::query(sql).execute(pool).await.expect_err(call).to_string();
        assert!(error.contains(told), "{call}: {error}");
    }
    assert_eq!(scalar(pool, "select count(*)::text from durable.workflow").await?, "1");
    Ok(())
}
