//! What a claim reads: not what is due later, and not again and again what was claimed before. In pages, as PostgreSQL counts them.

use anyhow::{Context, Result};
use durable::{Durable, workflow};
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
    let mut pages = 0;
    // Plans are made by the first claim, while next to nothing waits, and stay. Another one finds everything as it was enqueued.
    for (prefix, many, taken) in [("a", 1, 1), ("b", 20 + beside, 10), ("c", 0, 10)] {
        put_into(&mut connection, "limited", prefix, many, 0, "interval '-1 day'").await?;
        if !partition.is_empty() && many > 0 {
            sqlx::raw_sql(AssertSqlSafe(place.clone())).execute(&mut connection).await?;
            // Everybody has come to wait in the own partition.
            for _ in 0..=many / 500 {
                let enter = "select durable.enter_places(q, 500) from durable.queue q";
                sqlx::raw_sql(enter).execute(&mut connection).await?;
            }
        }
        let claimed;
        (claimed, pages) = claim_from(&mut connection, "'{limited}'", 10, FROM_THE_BEGINNING).await?;
        assert_eq!(claimed, taken, "of {prefix}");
        sqlx::raw_sql(END).execute(&mut connection).await?;
    }
    Ok(pages)
}

/// Whatever limit the queue has, and whether those who wait are of partitions.
#[tokio::test]
async fn a_claim_from_a_queue_with_limits_reads_no_more_the_more_wait_in_it() -> Result<()> {
    for (limit, partition) in
        [("concurrency", ""), ("concurrency", "'p-' || hashtext(id) % 7"), ("concurrency_per_partition", "'one'")]
    {
        let few = pages_of_a_limited_claim(limit, partition, 0).await?;
        let many = pages_of_a_limited_claim(limit, partition, 20_000).await?;
        println!("{limit}, partition {partition:?}: {few} pages, {many} beside 20,000 that wait");
        assert!(many < few * 2, "{limit}, partition {partition:?}: {many} pages, and {few} beside none");
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
    const BACKLOG: i64 = 20_000;
    let db = Db::new().await;
    let client: Durable = db.client().await;
    let mut reader = PgConnection::connect(db.url()).await?;
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from durable.workflow")
        .execute(&mut reader)
        .await?;
    for n in 0..4 {
        client.start_many((0..5_000).map(|k| (format!("{n}-{k}"), note()))).await?;
    }
    let _worker = db.builder().concurrency(64).register(note).start().await?;
    db.until("select exists (select from durable.workflow where status = 'completed')").await;
    // As if taken back from a dead worker, with its old place; and of a higher priority.
    let mut connection = PgConnection::connect(db.url()).await?;
    put(&mut connection, "back", 10, 0, "interval '-1 hour'").await?;
    client.start(note()).id("urgent").priority(-1).await?;
    db.until_count("select count(*) from durable.workflow where status = 'completed'", |done| done == BACKLOG + 11)
        .await;
    let at = "select count(*) from durable.workflow where finished_at < (select finished_at from durable.workflow where id = 'urgent')";
    println!("{} of {BACKLOG} ended before one of a higher priority that came in the middle", db.count(at).await);
    reader.close().await?;
    Ok(())
}
