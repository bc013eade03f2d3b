//! Every statement of the library is one that PostgreSQL can prepare, and none reads a hot table from end to end.
//!
//! Each is planned as the engine's connections plan it: once for all, with the ways to read a table from end to end
//! closed; for tables that are new and were never analysed, and for tables of some age. What runs on the application's
//! connections is planned with the planner as it is, too, for its parameters and once for all.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use durable_tests::db::Db;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::statements::{PARAMETERS, SCRIPT, Statement, parameter, statements};

/// Those that grow with the work.
#[rustfmt::skip]
const HOT: [&str; 14] =
    ["workflow", "step", "message", "child", "event", "attribute", "operation", "stream", "stream_value", "place", "tick", "start_key",
     "held_start", "batch_input"];

/// What a database of some age holds: most workflows have ended or sleep, a few are queued or run.
const SOME_AGE: &str = "
    insert into durable.worker (id, lease_until, host, pid, queue)
    select md5('worker' || n)::uuid, now() + interval '15 s', 'host', n, 'default' from generate_series(1, 4) n;

    insert into durable.workflow
        (bucket, id, name, version, queue, status, owner, stopping, due_at, claims, claimed_at, finished_at, waits, input)
    select n % 64, 'w-' || n, 'name-' || n % 10, 1, 'default', s.status,
           case when s.status = 'running' then md5('worker' || n % 4 + 1)::uuid end,
           case when s.status = 'cancelled' and n % 400 = 95 then md5('worker' || n % 4 + 1)::uuid end,
           case s.status when 'queued' then now() - n * interval '1 ms'
                         when 'suspended' then now() + (n - 200) * interval '1 minute' end,
           1, now(), case when s.status in ('completed', 'cancelled') then now() end,
           case when s.status = 'suspended' then '[{\"lane\":\"\",\"seq\":1,\"kind\":\"sleep\"}]'::json end,
           '{\"lead\": 42}'
    from generate_series(1, 20000) n,
         lateral (select case when n % 100 < 55 then 'suspended' when n % 100 < 90 then 'completed'
                              when n % 100 < 98 then 'cancelled' when n % 100 < 99 then 'queued'
                              when n % 200 < 100 then 'running' else 'blocked' end as status) s;

    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
    select n % 64, 'w-' || n, '', 0, 'step', 'research', '{\"found\": true}', now() from generate_series(1, 20000) n;

    insert into durable.message (bucket, workflow_id, n, topic, key, value, sent_at, received_at)
    select n % 64, 'w-' || n, 1, 'decision', 'k', null, now(), case when n % 50 > 0 then now() end
    from generate_series(1, 20000) n;

    insert into durable.child (bucket, id, parent_bucket, parent, lane, seq, detached)
    select n % 64, 'w-' || n, n / 10 % 64, 'w-' || n / 10, '', n % 10, false from generate_series(1, 20000) n;

    insert into durable.attribute (bucket, id, name, value, sort, by_body, created_at)
    select n % 64, 'w-' || n, 'name-' || n % 10, to_json(n % 100), 's' || n % 100, false, now() from generate_series(1, 20000) n;

    insert into durable.operation (bucket, workflow_id, n, act)
    select n % 64, 'w-' || n, 0, 'pause' from generate_series(1, 20000) n;

    insert into durable.event (bucket, workflow_id, key, n, value, published_at)
    select n % 64, 'w-' || n, 'word', 1, '1', now() from generate_series(1, 20000) n;

    insert into durable.stream (bucket, workflow_id, key, first, next, tag)
    select n % 64, 'w-' || n, 'word', 0, 2, n from generate_series(1, 20000) n;

    insert into durable.stream_value (bucket, workflow_id, key, n, value, written_at)
    select n % 64, 'w-' || n, 'word', k, '1', now() from generate_series(1, 20000) n, generate_series(0, 1) k;

    insert into durable.place (bucket, id, queue, name, version, priority, is_new, due_at)
    select n % 64, 'w-' || n, 'default', 'name-' || n % 10, 1, 0, true, now() from generate_series(1, 20000) n;

    insert into durable.ending (bucket, id, status, failure)
    select n % 64, 'w-' || n, 'cancelled', '{}' from generate_series(1, 20000) n where n % 1000 = 0;

    insert into durable.deadline (bucket, id, at)
    select n % 64, 'w-' || n, now() + n * interval '1 s' from generate_series(1, 20000) n;

    insert into durable.schedule (name, workflow, version, cron, time_zone, due_at, may_start, overlap, catch_up, catch_up_most,
                                  jitter, queue, priority, attributes, input)
    select 'name-' || n, 'name-1', 1, '0 0 3 * * *', 'UTC', now() + n * interval '1 s', n % 10 = 0, 'skip', 'last', 1,
           interval '0', 'default', 0, '[]', '{}' from generate_series(1, 1000) n;
    insert into durable.tick (schedule, id, bucket, at, kind, started_at)
    select 'name-' || n % 1000, 'w-' || n, n % 64, now(), 'tick', case when n % 100 > 0 then now() end from generate_series(1, 20000) n;

    insert into durable.start_key (name, how, key, bucket, id)
    select 'name-1', 'batch', 'key-' || n, n % 64, 'w-' || n from generate_series(1, 20000) n;
    insert into durable.held_start (bucket, id, due_at)
    select n % 64, 'w-' || n, now() + n * interval '1 s' from generate_series(1, 20000) n;
    insert into durable.batch_input (bucket, id, n, name, call, inputs)
    select n % 64, 'w-' || n, 0, 'name-1', 'call-' || n, '1' from generate_series(1, 20000) n;

    analyze durable.start_key; analyze durable.held_start; analyze durable.batch_input;
    analyze durable.attribute; analyze durable.operation; analyze durable.event; analyze durable.ending; analyze durable.deadline;
    analyze durable.place; analyze durable.stream; analyze durable.stream_value; analyze durable.schedule; analyze durable.tick;
    analyze durable.child; analyze durable.workflow; analyze durable.step; analyze durable.message; analyze durable.worker;
";

async fn run(connection: &mut PgConnection, sql: String) -> Result<()> {
    let shown = sql.chars().take(200).collect::<String>();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.with_context(|| shown)?;
    Ok(())
}

/// What PostgreSQL would do for a prepared statement.
async fn plan(connection: &mut PgConnection, name: &str, values: &str) -> Result<Value> {
    let arguments = if values.is_empty() { String::new() } else { format!("({values})") };
    let explain = format!("explain (format json) execute {name}{arguments}");
    let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(connection).await?;
    Ok(serde_json::from_str(&row.try_get_unchecked::<String, _>(0)?)?)
}

/// The nodes of a plan that read a hot table, or an index of one, from end to end.
fn scans(plan: &Value, whole_indexes: &BTreeSet<String>, found: &mut Vec<String>) {
    match plan {
        Value::Array(plans) => plans.iter().for_each(|plan| scans(plan, whole_indexes, found)),
        Value::Object(node) => {
            let text = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or_default();
            let on_hot = HOT.contains(&text("Relation Name"));
            let whole_index = whole_indexes.contains(text("Index Name")) && node.get("Index Cond").is_none();
            if text("Node Type") == "Seq Scan" && on_hot || whole_index {
                found.push(format!("{} on {}{}", text("Node Type"), text("Relation Name"), text("Index Name")));
            }
            node.values().for_each(|value| scans(value, whole_indexes, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The indexes that have an entry for every row. One with a condition is as small as what it is about.
async fn whole_indexes(connection: &mut PgConnection) -> Result<BTreeSet<String>> {
    let whole = "select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid \
                 join pg_class t on t.oid = i.indrelid \
                 where t.relnamespace = 'durable'::regnamespace and t.relname::text = any ($1) \
                   and (i.indpred is null or c.relname = 'message_key')";
    let hot: Vec<String> = HOT.map(str::to_owned).into();
    Ok(sqlx::query_scalar(whole).bind(hot).fetch_all(connection).await?.into_iter().collect())
}

/// How connections plan.
struct Planner {
    named: &'static str,
    settings: &'static str,
    /// Only these statements are planned so; all of them but the lists if there are none.
    only: &'static [&'static str],
}

/// The first is as `store::link` sets the engine's connections up.
const PLANNERS: [Planner; 4] = [
    Planner {
        named: "the engine's",
        settings: "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_hashjoin = off; \
                   set enable_mergejoin = off; set jit = off; set search_path = ''; set timezone = 'UTC'",
        only: &[],
    },
    Planner {
        named: "the application's, for the parameters",
        settings: "reset all; set plan_cache_mode = force_custom_plan",
        only: ON_THE_APPLICATIONS,
    },
    Planner {
        named: "the application's, once for all",
        settings: "reset all; set plan_cache_mode = force_generic_plan",
        only: ON_THE_APPLICATIONS,
    },
    Planner { named: "that of lists", settings: OF_LISTS, only: LISTS },
];

/// As `store::list` sets the connection up for them. They are planned each time, and what is asked decides their index.
const OF_LISTS: &str = "reset all; set plan_cache_mode = force_custom_plan; set enable_hashjoin = off; \
                        set enable_mergejoin = off; set jit = off; set search_path = ''; set timezone = 'UTC'";

const LISTS: &[&str] = &["list_newest", "list_newest_with", "list_oldest", "list_oldest_with"];

/// Statements that the index of lists is for, and the one of the start of a worker.
const FOR_PEOPLE: &[&str] = &["note_code", "list_newest", "list_oldest", "counts"];

/// Statements that run on connections which the application has set up.
#[rustfmt::skip]
const ON_THE_APPLICATIONS: &[&str] =
    &["start", "start_attributed", "fork", "cancel", "change_deadline", "send", "set_attribute", "set_schedule", "ask_schedule", "operate_schedule",
      "transact", "mark_stands", "start_keyed", "start_subscribers"];

/// Plan every statement as a planner does, and say which read a hot table from end to end.
async fn full_reads(connection: &mut PgConnection, planner: &Planner) -> Result<Vec<String>> {
    run(connection, planner.settings.to_owned()).await?;
    let whole = whole_indexes(connection).await?;
    assert!(whole.contains("workflow_pkey") && !whole.contains("workflow_owner"), "{whole:?}");
    let mut bad = Vec::new();
    let mut planned = BTreeSet::new();
    for Statement { name, text } in statements().into_iter().filter(|statement| statement.name != SCRIPT) {
        let parameters = PARAMETERS.iter().find(|(of, _)| *of == name);
        let (_, parameters) =
            parameters.with_context(|| format!("{name}.sql: its parameters belong into this test"))?;
        planned.insert(name.clone());
        let planned_so = match planner.only {
            [] => !LISTS.contains(&&*name),
            only => only.contains(&&*name),
        };
        if !planned_so {
            continue;
        }
        let (types, values): (Vec<_>, Vec<_>) = parameters.split_whitespace().map(parameter).unzip();
        let types = if types.is_empty() { String::new() } else { format!("({})", types.join(", ")) };
        run(connection, format!("prepare {name}{types} as {text}")).await?;
        let plan = plan(connection, &name, &values.join(", ")).await.with_context(|| name.clone())?;
        run(connection, format!("deallocate {name}")).await?;
        let mut found = Vec::new();
        scans(&plan, &whole, &mut found);
        // It has every workflow that sleeps, which is many times as many as are due.
        if !FOR_PEOPLE.contains(&&*name) && plan.to_string().contains("workflow_listed") {
            found.push("the index of lists".to_owned());
        }
        bad.extend(found.iter().map(|found| format!("{name}.sql, planner: {}: {found}", planner.named)));
    }
    assert_eq!(planned, PARAMETERS.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>());
    Ok(bad)
}

/// Plan every statement by each planner on tables that were filled so.
async fn refuse_full_reads(filled: &str, planners: &[Planner]) -> Result<()> {
    let db = Db::new().await;
    let mut connection = PgConnection::connect(db.url()).await?;
    run(&mut connection, filled.to_owned()).await?;
    refuse_full_reads_of(&mut connection, planners).await
}

async fn refuse_full_reads_of(connection: &mut PgConnection, planners: &[Planner]) -> Result<()> {
    for planner in planners {
        let bad = full_reads(connection, planner).await?;
        anyhow::ensure!(bad.is_empty(), "{}", bad.join("\n"));
    }
    Ok(())
}

#[tokio::test]
async fn no_statement_scans_a_hot_table() -> Result<()> {
    refuse_full_reads(SOME_AGE, &PLANNERS).await
}

#[tokio::test]
async fn no_statement_scans_a_table_of_a_million_rows() -> Result<()> {
    refuse_full_reads(&SOME_AGE.replace("(1, 20000)", "(1, 1000000)"), &PLANNERS).await
}

/// A plan that was made when the tables were new is kept while they grow a thousandfold.
#[tokio::test]
async fn no_statement_scans_a_hot_table_for_having_been_planned_when_it_was_new() -> Result<()> {
    refuse_full_reads("select 1", &PLANNERS[..1]).await
}

/// The same of tables that are known to be empty, or nearly: vacuumed after the first workflows were deleted, or
/// analysed after the first ones were started. To read them from end to end is cheaper then than any key.
#[tokio::test]
async fn no_statement_scans_a_hot_table_for_having_been_planned_when_it_was_known_to_be_small() -> Result<()> {
    let db = Db::new().await;
    let mut connection = PgConnection::connect(db.url()).await?;
    for rows in ["(1, 0)", "(1, 3)", "(1, 100)"] {
        run(&mut connection, format!("truncate {}", HOT.map(|table| format!("durable.{table}")).join(", "))).await?;
        run(&mut connection, "truncate durable.worker, durable.ending, durable.deadline, durable.schedule".to_owned())
            .await?;
        run(&mut connection, SOME_AGE.replace("(1, 20000)", rows)).await?;
        for table in HOT {
            run(&mut connection, format!("vacuum analyze durable.{table}")).await?;
        }
        refuse_full_reads_of(&mut connection, &PLANNERS[..1]).await.with_context(|| format!("rows: {rows}"))?;
    }
    Ok(())
}

/// What the functions for SQL do is planned inside of them, so it is their reads that are counted.
#[tokio::test]
async fn no_function_scans_a_hot_table() -> Result<()> {
    // But for the table of what is being undone, which is as good as empty.
    const FULL_READS: &str = "select coalesce(sum(seq_scan), 0)::bigint from pg_stat_xact_user_tables \
                              where schemaname = 'durable' and relname <> 'ending'";
    let db = Db::new().await;
    let mut connection = PgConnection::connect(db.url()).await?;
    run(&mut connection, SOME_AGE.to_owned()).await?;
    // From the sixth call on a plan may be one for all.
    for call in 1..=12 {
        let mut tx = connection.begin().await?;
        // Not 0: the server counts together what it has not yet given to its statistics.
        let before: i64 = sqlx::query_scalar(FULL_READS).fetch_one(&mut *tx).await?;
        for again in ["new", "old"] {
            run(&mut tx, format!("select durable.start('name', id => 'from-sql-{call}') as {again}")).await?;
            run(&mut tx, format!("select durable.send('from-sql-{call}', 'topic', '1', 'key') as {again}")).await?;
        }
        for within in ["'1 hour'", "'2 hours'", "null"] {
            run(&mut tx, format!("select durable.set_deadline('from-sql-{call}', {within})")).await?;
        }
        for operation in ["pause", "resume", "cancel", "restart", "delete", "start"] {
            let why = if ["pause", "resume", "cancel", "restart"].contains(&operation) { ", 'why'" } else { "" };
            let name = if operation == "start" { "'name', id => " } else { "" };
            run(&mut tx, format!("select durable.{operation}({name}'from-sql-{call}'{why})")).await?;
        }
        // One with children, one that is a child, one of both.
        for id in ["w-9", "w-1901", &format!("from-sql-{call}")] {
            run(&mut tx, format!("select durable.change_deadline('{id}', '{call} s'), durable.expire('{id}')")).await?;
            run(&mut tx, format!("select durable.cancel('{id}')")).await?;
        }
        let passed = format!("(select passed_until from durable.schedule where name = 'name-{call}')");
        for function in [
            "queue_metrics()".to_owned(),
            "queue_metrics('default')".to_owned(),
            format!("ask_schedule('name-{call}', 'trigger', null, '{{t-{call}}}', null)"),
            format!("tick_schedule('name-{call}', 0, {passed}, now(), '{{u-{call}}}', array[now()], 0, null, null)"),
        ] {
            run(&mut tx, format!("select * from durable.{function}")).await?;
        }
        let full_reads: i64 = sqlx::query_scalar(FULL_READS).fetch_one(&mut *tx).await?;
        assert_eq!(full_reads, before, "at call {call}");
        run(&mut tx, "select count(*) from durable.workflow where name = 'x'".to_owned()).await?;
        let would_show: i64 = sqlx::query_scalar(FULL_READS).fetch_one(&mut *tx).await?;
        assert_eq!(would_show, before + 1);
        tx.commit().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_sequential_scan_would_show() -> Result<()> {
    let db = Db::new().await;
    let mut connection = PgConnection::connect(db.url()).await?;
    run(&mut connection, SOME_AGE.to_owned()).await?;
    let whole = whole_indexes(&mut connection).await?;
    for slow in [
        "select id from durable.workflow where name = 'x'",
        "select lane from durable.step order by bucket, workflow_id, lane, seq limit 1",
    ] {
        run(&mut connection, format!("prepare slow as {slow}")).await?;
        let plan = plan(&mut connection, "slow", "").await?;
        run(&mut connection, "deallocate slow".to_owned()).await?;
        let mut found = Vec::new();
        scans(&plan, &whole, &mut found);
        assert_eq!(found.len(), 1, "{slow}: {plan}");
    }
    Ok(())
}

/// What is asked of a list, and whether it costs a full read.
const ASKED: &[(&str, bool)] = &[
    ("'failed', null, null, null, null, null, BUCKETS, null, null, 101", false),
    ("'blocked', 'name-1', 'default', null, null, null, BUCKETS, null, null, 101", false),
    ("'cancelled', null, null, '2020-01-01', '2030-01-01', null, BUCKETS, null, null, 101", false),
    ("'suspended', null, null, null, null, null, BUCKETS, now(), 'w-7', 101", false),
    ("'suspended', null, null, null, null, 'w-1234%', BUCKETS, null, null, 101", false),
    ("'queued', null, null, null, null, null, BUCKETS, null, null, 101", false),
    ("'running', null, null, null, null, null, BUCKETS, now(), 'w-7', 101", false),
    ("'completed', null, null, null, null, 'w-1234%', BUCKETS, null, null, 101", false),
    ("'completed', null, null, null, null, null, BUCKETS, null, null, 101", true),
    ("'completed', 'name-1', null, null, null, null, BUCKETS, now(), 'w-7', 101", true),
];

/// The manual of lists says what reads the whole table, and which index an operator may add.
#[tokio::test]
async fn a_list_reads_the_whole_table_only_for_completed_workflows_without_the_index_of_the_manual() -> Result<()> {
    let manual = include_str!("../../../durable-core/docs/list.md");
    let index = manual.lines().find(|line| line.contains("workflow_completed")).context("the index in the manual")?;
    let db = Db::new().await;
    let mut connection = PgConnection::connect(db.url()).await?;
    run(&mut connection, SOME_AGE.to_owned()).await?;
    run(&mut connection, OF_LISTS.to_owned()).await?;
    let buckets = format!("'{{{}}}'", (0..64).map(|bucket| bucket.to_string()).collect::<Vec<_>>().join(","));
    for index in [None, Some(index)] {
        if let Some(index) = index {
            run(&mut connection, index.to_owned()).await?;
        }
        let whole = whole_indexes(&mut connection).await?;
        for list in
            statements().into_iter().filter(|statement| ["list_newest", "list_oldest"].contains(&&*statement.name))
        {
            run(&mut connection, format!("prepare list as {}", list.text)).await?;
            for (asked, read_in_full) in ASKED {
                let plan = plan(&mut connection, "list", &asked.replace("BUCKETS", &buckets)).await?;
                let mut found = Vec::new();
                scans(&plan, &whole, &mut found);
                let expected = *read_in_full && index.is_none();
                assert_eq!(!found.is_empty(), expected, "{}, {asked}, {index:?}: {plan}", list.name);
            }
            run(&mut connection, "deallocate list".to_owned()).await?;
        }
    }
    Ok(())
}

/// A page of a long history is a walk along the key, whatever the planner knows of the table: a plan that collects
/// and sorts would read all of the rest for each page.
#[tokio::test]
async fn a_page_of_a_history_is_read_along_the_key() -> Result<()> {
    const LONG: &str = "
        alter table durable.step set (autovacuum_enabled = false);
        insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
        select 7, 'w-7', '', n, 'step', 'research', '1', now() from generate_series(1, 20000) n";
    let db = Db::new().await;
    let mut connection = PgConnection::connect(db.url()).await?;
    let history = statements().into_iter().find(|statement| statement.name == "history").context("the statement")?;
    let types = "smallint[], text[], text[], integer[], bigint, bigint";
    run(&mut connection, "set jit = off".to_owned()).await?;
    // Prepared while the table is empty, and planned then, and again when it is full, and once it is known to be.
    run(&mut connection, format!("prepare page({types}) as {}", history.text)).await?;
    for filled in ["select 1", LONG, "analyze durable.step"] {
        run(&mut connection, filled.to_owned()).await?;
        for mode in ["force_custom_plan", "force_generic_plan"] {
            run(&mut connection, format!("set plan_cache_mode = {mode}")).await?;
            let plan = plan(&mut connection, "page", "'{7}', '{w-7}', '{\"\"}', '{500}', 1000, 1000000").await?;
            let text = plan.to_string();
            assert!(text.contains("\"Index Scan\"") && text.contains("step_pkey"), "{filled}, {mode}: {plan}");
            assert!(!text.contains("Sort") && !text.contains("Bitmap"), "{filled}, {mode}: {plan}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_script_before_the_migrations_can_be_run_again() -> Result<()> {
    let db = Db::new().await;
    let mut connection = PgConnection::connect(db.url()).await?;
    let script = statements().into_iter().find(|statement| statement.name == SCRIPT).context("the script")?;
    run(&mut connection, script.text).await
}
