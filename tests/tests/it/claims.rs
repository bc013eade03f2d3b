//! What a claim reads: not what is due later, and not again and again what was claimed before. In pages, as PostgreSQL counts them.

use anyhow::{Context, Result};
use durable::{Durable, Queue, workflow};
use durable_tests::db::Db;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::statements::statements;

const OWNER: &str = "00000000-0000-0000-0000-000000000001";

/// As the engine's connections plan.
const SETTINGS: &str = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_hashjoin = off;
    set enable_mergejoin = off; set jit = off; set search_path = ''; set timezone = 'UTC'";

/// A connection like the engine's, with a claim prepared, and a worker that holds its lease.
async fn claimer(db: &Db) -> Result<PgConnection> {
    let mut connection = PgConnection::connect(db.url()).await?;
    let claim = statements().into_iter().find(|statement| statement.name == "claim").context("the claim")?.text;
    let types = "uuid, text, text[], integer[], bigint, text[], smallint, timestamptz, timestamptz";
    for sql in [
        SETTINGS.to_owned(),
        format!(
            "insert into durable.worker (id, lease_until, host, pid, queue)
             values ('{OWNER}', durable.now() + interval '1 h', 'h', 1, 'default')"
        ),
        format!("prepare claim ({types}) as {claim}"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    }
    Ok(connection)
}

/// Claim up to so many, from a place on: how many it has taken, and the pages that it has looked at.
async fn claim(connection: &mut PgConnection, most: usize, from: &str) -> Result<(u64, u64)> {
    claim_from(connection, "'{}'", most, from).await
}

/// The same, also from these queues with limits.
async fn claim_from(connection: &mut PgConnection, limited: &str, most: usize, from: &str) -> Result<(u64, u64)> {
    let sql = format!(
        "explain (analyze, buffers, timing off, format json)
         execute claim ('{OWNER}', 'default', '{{note}}', '{{1}}', {most}, {limited}, {from})"
    );
    let plan: Value =
        sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?.try_get_unchecked::<String, _>(0)?.parse()?;
    let plan = &plan[0]["Plan"];
    let number = |name: &str| plan[name].as_u64().with_context(|| format!("{name} in {plan}"));
    Ok((number("Actual Rows")?, number("Shared Hit Blocks")? + number("Shared Read Blocks")?))
}

const FROM_THE_BEGINNING: &str = "null, null, null";

async fn put(connection: &mut PgConnection, prefix: &str, many: usize, priority: i16, due: &str) -> Result<()> {
    put_into(connection, "default", prefix, many, priority, due).await
}

async fn put_into(
    connection: &mut PgConnection,
    queue: &str,
    prefix: &str,
    many: usize,
    priority: i16,
    due: &str,
) -> Result<()> {
    let sql = format!(
        "insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
         select durable.bucket('{prefix}-' || n), '{prefix}-' || n, 'note', 1, '{queue}', {priority}, 'queued', durable.now() + n * interval '1 ms' + {due}, 'null'
         from generate_series(1, {many}) n"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

#[tokio::test]
async fn a_claim_does_not_read_what_is_due_later_of_any_priority() -> Result<()> {
    let db = Db::new().await;
    let mut connection = claimer(&db).await?;
    put(&mut connection, "now", 10, 5, "interval '-1 minute'").await?;
    let (claimed, alone) = claim(&mut connection, 100, FROM_THE_BEGINNING).await?;
    assert_eq!(claimed, 10);
    for priority in [-1, 0, 5] {
        put(&mut connection, &format!("later-{priority}"), 20_000, priority, "interval '1 day'").await?;
    }
    put(&mut connection, "more", 10, 5, "interval '-1 minute'").await?;
    let (claimed, beside) = claim(&mut connection, 100, FROM_THE_BEGINNING).await?;
    println!("pages of a claim: {alone}, beside 60,000 that are due later: {beside}");
    assert_eq!(claimed, 10);
    assert!(beside < alone + 100, "{beside} pages, and {alone} without them");
    Ok(())
}

/// Somebody's old snapshot keeps everything in the indexes that was claimed since.
#[tokio::test]
async fn a_claim_that_goes_on_from_the_last_one_does_not_pass_by_what_was_claimed() -> Result<()> {
    let db = Db::new().await;
    let mut connection = claimer(&db).await?;
    let mut reader = PgConnection::connect(db.url()).await?;
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from durable.workflow")
        .execute(&mut reader)
        .await?;
    put(&mut connection, "claimed", 20_000, 0, "interval '-2 hours'").await?;
    sqlx::query("update durable.workflow set status = 'completed'").execute(&mut connection).await?;
    put(&mut connection, "next", 10, 0, "interval '-1 hour'").await?;
    let (claimed, whole) = claim(&mut connection, 5, FROM_THE_BEGINNING).await?;
    assert_eq!(claimed, 5);
    let (claimed, goes_on) =
        claim(&mut connection, 5, "0::smallint, durable.now() - interval '61 minutes', null").await?;
    assert_eq!(claimed, 5);
    println!("pages of a claim: {whole} from the beginning, {goes_on} from where the last one got to");
    assert!(goes_on * 4 < whole, "{goes_on} pages, and {whole} from the beginning");
    reader.close().await?;
    Ok(())
}

const END: &str = "update durable.workflow set status = 'completed', owner = null where status = 'running'";

/// A claim from a queue with this limit, of 10, beside so many more that wait in it, each in this partition: the pages that it has looked at.
async fn pages_of_a_limited_claim(limit: &str, partition: &str, beside: usize) -> Result<u64> {
    let db = Db::new().await;
    let mut connection = claimer(&db).await?;
    let declare = format!("insert into durable.queue (name, {limit}) values ('limited', 10)");
    sqlx::raw_sql(AssertSqlSafe(declare)).execute(&mut connection).await?;
    let place = format!(
        "insert into durable.place (bucket, id, queue, partition, name, version, priority, is_new)
         select bucket, id, queue, {partition}, name, version, priority, true from durable.workflow where status = 'queued'"
    );
    let mut pages = Vec::new();
    // Plans are made by the first claim, while next to nothing waits, and stay. Another one finds everything as it was enqueued.
    for (prefix, many, taken) in [("a", 1, 1), ("b", 40 + beside, 10), ("c", 0, 10), ("d", 0, 10), ("e", 0, 10)] {
        put_into(&mut connection, "limited", prefix, many, 0, "interval '-1 day'").await?;
        if !partition.is_empty() && many > 0 {
            sqlx::raw_sql(AssertSqlSafe(place.clone())).execute(&mut connection).await?;
            // Everybody has come to wait in the own partition.
            for _ in 0..=many / 500 {
                let enter = "select durable.enter_places(q, 500) from durable.queue q";
                sqlx::raw_sql(enter).execute(&mut connection).await?;
            }
        }
        let (claimed, looked_at) = claim_from(&mut connection, "'{limited}'", 10, FROM_THE_BEGINNING).await?;
        assert_eq!(claimed, taken, "of {prefix}");
        sqlx::raw_sql(END).execute(&mut connection).await?;
        pages.push(looked_at);
    }
    // One of them may have planned anew, because the server has just analysed the tables; then it has looked at the catalogs, too.
    Ok(pages[2..].iter().copied().min().expect("three"))
}

/// Somebody's old snapshot keeps what went through a queue with limits: among what is due, and among what runs.
#[tokio::test]
async fn a_claim_from_a_queue_with_limits_begins_where_slow_ones_got_to() -> Result<()> {
    let db = Db::new().await;
    let mut connection = claimer(&db).await?;
    sqlx::raw_sql("insert into durable.queue (name, concurrency) values ('limited', 10)")
        .execute(&mut connection)
        .await?;
    put_into(&mut connection, "limited", "runs", 1, 0, "interval '-1 day'").await?;
    assert_eq!(claim_from(&mut connection, "'{limited}'", 10, FROM_THE_BEGINNING).await?.0, 1);
    let mut reader = PgConnection::connect(db.url()).await?;
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from durable.workflow")
        .execute(&mut reader)
        .await?;
    put_into(&mut connection, "limited", "gone", 20_000, 0, "interval '-2 hours'").await?;
    // All of them have run, and have left the line.
    let went = "insert into durable.line (queue, held_at, bucket, id)
                select queue, durable.now() - interval '1 hour', bucket, id from durable.workflow where id like 'gone%';
                update durable.workflow set status = 'completed', owner = null where id like 'gone%';
                delete from durable.line where id like 'gone%'";
    sqlx::raw_sql(went).execute(&mut connection).await?;
    put_into(&mut connection, "limited", "next", 30, 0, "interval '-10 minutes'").await?;
    let (claimed, whole) = claim_from(&mut connection, "'{limited}'", 20, FROM_THE_BEGINNING).await?;
    assert_eq!(claimed, 9, "beside the one that runs");
    let end_most =
        "update durable.workflow set status = 'completed', owner = null where status = 'running' and id <> 'runs-1'";
    sqlx::raw_sql(end_most).execute(&mut connection).await?;
    // As slow ones leave it: the one that runs is in the line from now on.
    let leave = "delete from durable.line where id <> 'runs-1'; update durable.line set held_at = durable.now()";
    for sql in [
        leave,
        "insert into durable.queue_look (queue, held_since, priority, due_at, whole_at)
         select 'limited', held_at, 0, durable.now() - interval '11 minutes', clock_timestamp() + interval '1 hour'
         from durable.line
         on conflict (queue) do update
         set held_since = excluded.held_since, priority = excluded.priority, due_at = excluded.due_at, whole_at = excluded.whole_at",
    ] {
        sqlx::raw_sql(sql).execute(&mut connection).await?;
    }
    let (claimed, goes_on) = claim_from(&mut connection, "'{limited}'", 20, FROM_THE_BEGINNING).await?;
    assert_eq!(claimed, 9, "the one that runs still counts");
    // What lies before that place is taken as soon as there is not enough behind it.
    put_into(&mut connection, "limited", "back", 1, 0, "interval '-3 hours'").await?;
    for taken in [9, 4] {
        sqlx::raw_sql(end_most).execute(&mut connection).await?;
        assert_eq!(claim_from(&mut connection, "'{limited}'", 20, FROM_THE_BEGINNING).await?.0, taken);
    }
    println!("pages of a limited claim: {whole} from the beginning, {goes_on} from where slow ones got to");
    assert!(goes_on * 2 < whole, "{goes_on} pages, and {whole} from the beginning");
    reader.close().await?;
    Ok(())
}

/// A line's times never go back with the clock: who was let in before still counts.
#[tokio::test]
async fn a_limit_of_one_line_holds_when_the_clock_goes_back() -> Result<()> {
    let db = Db::new().await;
    let mut connection = claimer(&db).await?;
    let ahead = "insert into durable.queue (name, concurrency) values ('limited', 10);
                 insert into durable.queue_look (queue, held_since) values ('limited', durable.now() + interval '1 hour')";
    sqlx::raw_sql(ahead).execute(&mut connection).await?;
    put_into(&mut connection, "limited", "w", 30, 0, "interval '-1 minute'").await?;
    for taken in [10, 0] {
        assert_eq!(claim_from(&mut connection, "'{limited}'", 20, FROM_THE_BEGINNING).await?.0, taken);
    }
    Ok(())
}

/// Its index is made where that takes a moment.
#[tokio::test]
async fn without_the_index_of_the_line_everybody_has_a_place_and_limits_hold() -> Result<()> {
    let db = Db::new().await;
    let mut connection = claimer(&db).await?;
    let without =
        "drop index durable.place_apart; insert into durable.queue (name, concurrency) values ('limited', 10)";
    sqlx::raw_sql(without).execute(&mut connection).await?;
    put_into(&mut connection, "limited", "w", 30, 0, "interval '-1 minute'").await?;
    for taken in [10, 10] {
        assert_eq!(claim_from(&mut connection, "'{limited}'", 10, FROM_THE_BEGINNING).await?.0, taken);
        let placed = "select count(*) from durable.place where is_held";
        assert_eq!(db.count(placed).await, 10);
        assert_eq!(db.count("select count(*) from durable.line").await, 0);
        sqlx::raw_sql(END).execute(&mut connection).await?;
    }
    Ok(())
}

/// Whatever limit the queue has, and whether those who wait are of partitions.
#[tokio::test]
async fn a_claim_from_a_queue_with_limits_reads_no_more_the_more_wait_in_it() -> Result<()> {
    // Seven partitions have seven places in an index that is a level deeper.
    for (limit, partition, most) in [
        ("concurrency", "", 2),
        ("concurrency", "'p-' || hashtext(id) % 7", 3),
        ("concurrency_per_partition", "'one'", 2),
    ] {
        let few = pages_of_a_limited_claim(limit, partition, 0).await?;
        let many = pages_of_a_limited_claim(limit, partition, 20_000).await?;
        println!("{limit}, partition {partition:?}: {few} pages, {many} beside 20,000 that wait");
        assert!(many < few * most, "{limit}, partition {partition:?}: {many} pages, and {few} beside none");
    }
    Ok(())
}

/// In order of priority, then of time, whatever is in between.
#[tokio::test]
async fn what_is_claimed_goes_by_priority_and_then_by_time() -> Result<()> {
    let db = Db::new().await;
    let mut connection = claimer(&db).await?;
    for (prefix, priority) in [("last", i16::MAX), ("middle", 7), ("first", i16::MIN), ("second", 0)] {
        put(&mut connection, prefix, 3, priority, "interval '-1 minute'").await?;
        put(&mut connection, &format!("not-{prefix}"), 3, priority, "interval '1 minute'").await?;
    }
    let mut order = Vec::new();
    for _ in 0..12 {
        assert_eq!(claim(&mut connection, 1, FROM_THE_BEGINNING).await?.0, 1);
        let taken =
            "update durable.workflow set status = 'completed', owner = null where status = 'running' returning id";
        let taken: Vec<String> = sqlx::query_scalar(taken).fetch_all(&mut connection).await?;
        order.extend(taken);
    }
    let wanted =
        ["first", "second", "middle", "last"].iter().flat_map(|prefix| (1..=3).map(move |n| format!("{prefix}-{n}")));
    assert_eq!(order, wanted.collect::<Vec<_>>());
    Ok(())
}

#[workflow]
async fn note(_ctx: &durable::Ctx) -> Result<()> {
    Ok(())
}

/// A backlog that is claimed beside an old snapshot, and what comes meanwhile before the place that the claims have reached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_old_snapshot_everything_is_claimed_also_what_comes_back_to_the_beginning() -> Result<()> {
    drain_beside_a_snapshot("default", 20_000).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_old_snapshot_everything_is_claimed_from_a_queue_with_limits_too() -> Result<()> {
    drain_beside_a_snapshot("limited", 10_000).await
}

async fn drain_beside_a_snapshot(queue: &str, backlog: i64) -> Result<()> {
    let db = Db::new().await;
    let client: Durable = db.client().await;
    let mut reader = PgConnection::connect(db.url()).await?;
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from durable.workflow")
        .execute(&mut reader)
        .await?;
    client.start_all((0..backlog).map(|n| (format!("w-{n}"), note()))).queue(queue).await?;
    let limited = Queue::new("limited").concurrency(40);
    let _worker = db.builder().concurrency(64).register(note).serve(limited).start().await?;
    db.until("select exists (select from durable.workflow where status = 'completed')").await;
    // As if taken back from a dead worker, with its old place; and of a higher priority.
    let mut connection = PgConnection::connect(db.url()).await?;
    put_into(&mut connection, queue, "back", 10, 0, "interval '-1 hour'").await?;
    client.start(note()).queue(queue).id("urgent").priority(-1).await?;
    db.until_count("select count(*) from durable.workflow where status = 'completed'", |done| done == backlog + 11)
        .await;
    let at = "select count(*) from durable.workflow where finished_at < (select finished_at from durable.workflow where id = 'urgent')";
    println!(
        "{queue}: {} of {backlog} ended before one of a higher priority that came in the middle",
        db.count(at).await
    );
    reader.close().await?;
    Ok(())
}
