//! The SQL functions as part of a schema: how they come into it, by which name, and what a role needs for them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use durable::{Ctx, Topic, workflow};
use durable_tests::db::Db;
use durable_tests::soon::Soon;
use sqlx::{Connection, PgConnection};

use super::from_sql::{refusal, run, text};
use super::statements::statements;

const WORD: Topic<String> = Topic::new("word");

#[workflow]
async fn listens(ctx: &Ctx) -> Result<String> {
    Ok(ctx.receive(WORD).await?)
}

/// What an application of the first migration has: its schema, and workflows that wait in it.
pub(super) async fn of_the_first_migration() -> Result<Db> {
    let db = Db::empty().await;
    let before = statements().into_iter().find(|statement| statement.name == "migrations").context("the script")?;
    run(&db.pool, &before.text).await?;
    run(&db.pool, include_str!("../../../migrations/0001_durable.sql")).await?;
    run(&db.pool, "insert into durable.migration (version, name) values (1, 'durable')").await?;
    let started = "insert into durable.workflow (bucket, id, name, version, queue, status, due_at, input)
        select get_byte(sha256(convert_to(id, 'UTF8')), 0) % 64, id, 'listens', 1, 'default', 'queued', now(), 'null'
        from unnest('{a,b}'::text[]) as id";
    run(&db.pool, started).await?;
    Ok(db)
}

/// The columns, keys and checks of the tables of the first migration: all that a statement of an older binary relies on.
async fn tables(db: &Db) -> Result<String> {
    let tables = "
        select string_agg(line, e'\\n' order by line)
        from (
            select table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '
                   || coalesce(column_default, '') as line
            from information_schema.columns where table_schema = 'durable' and table_name not in ('fork', 'child', 'event', 'attribute', 'operation', 'generation', 'fingerprint', 'deadline', 'deadline_change', 'ending', 'stream', 'stream_value', 'queue', 'place', 'partition', 'line', 'queue_look', 'schedule', 'tick', 'subscription', 'burst', 'partition_burst', 'start_key', 'held_start', 'batch_input', 'worker_takes', 'worker_declares', 'taker', 'step_limit', 'step_permit')
            union all
            select conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
            from pg_constraint where connamespace = 'durable'::regnamespace and conname not like all ('{fork%,child%,event%,attribute%,operation%,generation%,fingerprint%,deadline%,ending%,status_is_an_end,stream%,queue%,place%,partition%,line%,limits_are_positive,rate%,schedule%,tick%,subscription%,burst%,rule_is_one_of_two,overlap_is_known,catch_up_is_known,start_key%,how_is_known,held_start%,waits_for_one_thing,batch_input%,worker_takes%,worker_declares%,step_limit%,step_permit%,step_rate%}')
        ) as lines";
    Ok(text(&db.pool, tables).await?)
}

/// P19: while old binaries write to every table, a migration waits for none of them, and they find what they know.
#[tokio::test]
async fn a_database_of_the_first_migration_is_brought_up_to_date_beside_its_writers() -> Result<()> {
    let db = of_the_first_migration().await?;
    let before = tables(&db).await?;
    let mut writer = db.pool.begin().await?;
    run(&mut *writer, "update durable.workflow set wakes = wakes + 1 where id = 'a'").await?;
    run(&mut *writer, "insert into durable.message values (0, 'x', 1, 't', null, '1')").await?;
    run(
        &mut *writer,
        "insert into durable.step (started_at, seq, bucket, workflow_id, lane, kind, name)
                       values (now(), 0, 0, 'x', '', 'step', 's')",
    )
    .await?;
    run(&mut *writer, "lock table durable.worker in row exclusive mode").await?;

    let refused = db.builder().client().await.unwrap_err();
    assert!(refused.to_string().contains("lacks migration 2"), "{refused}");
    let began_at = Instant::now();
    durable::migrate(&db.pool, "durable").await?;
    assert!(began_at.elapsed() < Duration::from_secs(5), "it waited: {:?}", began_at.elapsed());
    durable::migrate(&db.pool, "durable").await?;
    // An index would have had to wait.
    let has_index = "select (to_regclass('durable.workflow_listed') is not null)::int::bigint";
    assert_eq!(db.count(has_index).await, 0);
    writer.commit().await?;

    assert_eq!(tables(&db).await?, before);
    run(&db.pool, "select durable.send('a', 'word', '\"sent\"')").await?;
    assert_eq!(text(&db.pool, "select durable.start('listens', id => 'b')").await?, "b");
    let durable = db.builder().register(listens).start().await?;
    assert_eq!(durable.workflow::<String>("a").soon().await?, "sent");
    Ok(())
}

/// P19: what changes a table that was there before waits for whoever writes to it, or only reads it, as a backup does for an hour; and everybody
/// else waits for that. An index may be made where it takes a moment, which is told by its standing within a block.
#[test]
fn no_migration_changes_a_table_of_an_earlier_one() -> Result<()> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    let mut files = std::fs::read_dir(directory)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    assert!(files.len() > 18, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        for line in text.lines() {
            let changed = match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["alter" | "lock", "table", table, ..] => table,
                ["create", "index", _, "on", table, ..] | ["create", "unique", "index", _, "on", table, ..] => table,
                ["drop", "index" | "table", what, ..] => what,
                _ => continue,
            };
            let is_new = text.contains(&format!("create table {changed} ("));
            assert!(is_new || line.starts_with(' '), "{}: {line}", file.display());
        }
    }
    Ok(())
}

/// P19: a binary goes on beside a schema that a newer one has migrated.
#[tokio::test]
async fn a_schema_that_is_newer_than_the_binary_is_no_reason_to_refuse() -> Result<()> {
    let db = Db::new().await;
    run(&db.pool, "insert into durable.migration (version, name) values (9999, 'later')").await?;
    durable::migrate(&db.pool, "durable").await?;
    let durable = db.builder().register(listens).start().await?;
    durable.start(listens()).id("a").await?;
    durable.send("a", WORD, "sent".into()).await?;
    assert_eq!(durable.workflow::<String>("a").soon().await?, "sent");
    Ok(())
}

#[tokio::test]
async fn another_schema_has_functions_of_its_own() -> Result<()> {
    let db = Db::empty().await;
    durable::migrate(&db.pool, "agents_2").await?;
    let durable = db.builder().schema("agents_2").register(listens).start().await?;
    let id = text(&db.pool, "select agents_2.start('listens')").await?;
    let conflict = format!("select agents_2.start('other', id => '{id}')");
    assert_eq!(refusal(&text(&db.pool, &conflict).await.unwrap_err())?.0, "23505");
    run(&db.pool, &format!("select agents_2.send('{id}', 'word', '\"sent\"')")).await?;
    assert_eq!(durable.workflow::<String>(id).soon().await?, "sent");
    let elsewhere = "select count(*) from pg_proc where pronamespace = 'agents_2'::regnamespace
                     and prosrc || coalesce(obj_description(oid), '') like '%durable.%'";
    assert_eq!(db.count(elsewhere).await, 0);
    Ok(())
}

/// What stands before `pg_catalog`, and in the caller's temporary schema, is not asked.
#[tokio::test]
async fn the_search_path_does_not_matter() -> Result<()> {
    const DECOYS: &str = "
        create schema decoy;
        create table decoy.workflow (id text); create table decoy.message (id text);
        create temporary table workflow (id text); create temporary table message (id text);
        create function decoy.sha256(bytea) returns bytea language sql as 'select null::bytea';
        create function decoy.now() returns timestamptz language sql as 'select null::timestamptz';
        create function decoy.equal(text, text) returns boolean language sql as 'select false';
        create operator decoy.= (leftarg = text, rightarg = text, function = decoy.equal);
        create domain decoy.json as text; create domain decoy.interval as text;";
    let db = Db::new().await;
    let durable = db.builder().register(listens).start().await?;
    let mut connection = PgConnection::connect(db.url()).await?;
    run(&mut connection, DECOYS).await?;
    for (id, path) in [("a", "''"), ("b", "decoy, pg_catalog"), ("c", "pg_temp, decoy, pg_catalog, public")] {
        run(&mut connection, &format!("set search_path = {path}")).await?;
        for _ in 0..2 {
            assert_eq!(text(&mut connection, &format!("select durable.start('listens', id => '{id}')")).await?, id);
            run(&mut connection, &format!("select durable.send('{id}', 'word', '\"sent\"', 'k')")).await?;
        }
        assert_eq!(text(&mut connection, "select durable.start('listens')").await?.len(), 36);
        assert_eq!(durable.workflow::<String>(id).soon().await?, "sent");
        let shown = text(&mut connection, "select current_setting('search_path')").await?;
        assert_eq!(shown.replace('"', ""), path.trim_matches('\''), "the caller keeps its own");
    }
    assert_eq!(db.count("select count(*) from durable.message").await, 3);
    Ok(())
}

/// The grants, as the documentation tells them.
pub(super) fn grants() -> &'static str {
    let manual = include_str!("../../../durable-core/docs/from_sql.md");
    let (_, from) = manual.split_once("create role order_desk;").expect("the grants in the manual");
    from.split("```").next().expect("their end")
}

/// Whether the role may do something; whatever it did is undone.
async fn may(tx: &mut PgConnection, sql: &str) -> Result<bool> {
    let mut inner = tx.begin().await?;
    let done = run(&mut *inner, sql).await;
    inner.rollback().await?;
    match done {
        Ok(()) => Ok(true),
        Err(error) if refusal(&error)?.0 == "42501" => Ok(false),
        Err(error) => Err(error).context(sql.to_owned()),
    }
}

/// In one transaction, which takes the role away with it.
async fn as_the_role(db: &Db) -> Result<sqlx::Transaction<'static, sqlx::Postgres>> {
    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "create role order_desk").await?;
    run(&mut *tx, grants()).await?;
    run(&mut *tx, "set local role order_desk").await?;
    Ok(tx)
}

#[tokio::test]
async fn a_role_with_the_grants_of_the_manual_starts_and_sends() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(listens).start().await?;
    durable.start(listens()).id("waits").await?;
    db.until_status("waits", "suspended").await;

    let mut tx = as_the_role(&db).await?;
    assert_eq!(text(&mut *tx, "select durable.start('listens', id => 'new')").await?, "new");
    assert_eq!(text(&mut *tx, "select durable.start('listens', id => 'new')").await?, "new");
    assert_eq!(text(&mut *tx, "select durable.start('listens')").await?.len(), 36);
    for id in ["new", "waits"] {
        for _ in 0..2 {
            run(&mut *tx, &format!("select durable.send('{id}', 'word', '\"keyed\"', 'k')")).await?;
        }
        run(&mut *tx, &format!("select durable.send('{id}', 'word', '\"free\"')")).await?;
    }
    for (wrong, code) in [
        ("select durable.start('other', id => 'waits')", "23505"),
        ("select durable.send('nobody', 'word', '1')", "P0002"),
    ] {
        let mut inner = tx.begin().await?;
        assert_eq!(refusal(&run(&mut *inner, wrong).await.unwrap_err())?.0, code, "{wrong}");
        inner.rollback().await?;
    }
    run(&mut *tx, "reset role").await?;
    let kept = "select (select count(*) from durable.workflow) || ' ' || (select count(*) from durable.message)";
    assert_eq!(text(&mut *tx, kept).await?, "3 4");
    run(&mut *tx, "drop owned by order_desk; drop role order_desk").await?;
    tx.commit().await?;

    // What it did is what the engine expects.
    for id in ["new", "waits"] {
        assert_eq!(durable.workflow::<String>(id).soon().await?, "keyed");
    }
    Ok(())
}

#[tokio::test]
async fn a_role_with_the_grants_of_the_manual_can_do_what_it_says_and_no_more() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(listens).start().await?;
    durable.start(listens()).id("done").await?;
    durable.send("done", WORD, "secret".into()).await?;
    durable.workflow::<String>("done").soon().await?;
    durable.start(listens()).id("waits").await?;
    db.until_status("waits", "suspended").await;

    let mut tx = as_the_role(&db).await?;
    for forbidden in [
        "select output from durable.workflow",
        "select input from durable.workflow",
        "select failure from durable.workflow",
        "select waits from durable.workflow",
        "select * from durable.workflow",
        "select from durable.step",
        "select output from durable.step",
        "select value from durable.message",
        "select topic from durable.message",
        "select id from durable.worker",
        "select version from durable.migration",
        "select id from durable.waiting",
        "insert into durable.step (started_at, seq, bucket, workflow_id, lane, kind, name)
         values (now(), 0, 0, 'waits', '', 'step', 's')",
        "insert into durable.worker (id, lease_until, host, pid, queue) values (gen_random_uuid(), now(), 'h', 1, 'q')",
        "insert into durable.workflow (bucket, id, name, version, queue, status, owner, input)
         values (0, 'x', 'n', 1, 'q', 'running', gen_random_uuid(), 'null')",
        "insert into durable.workflow (bucket, id, name, version, queue, status, output, input)
         values (0, 'x', 'n', 1, 'q', 'completed', '1', 'null')",
        "update durable.workflow set status = 'cancelled'",
        "update durable.workflow set owner = null",
        "update durable.workflow set input = 'null'",
        "update durable.workflow set output = '1'",
        "update durable.workflow set queue = 'mine'",
        "update durable.message set value = '1'",
        "delete from durable.workflow",
        "delete from durable.message",
        "delete from durable.step",
        "truncate durable.workflow",
        "create table durable.mine (n integer)",
        "create or replace function durable.now() returns timestamptz language sql as 'select now()'",
        "alter function durable.start security definer",
    ] {
        assert!(!may(&mut tx, forbidden).await?, "allowed: {forbidden}");
    }
    // What comes with the grants, which the manual says.
    for unavoidable in [
        "select bucket, id, name, version, status, wakes, due_at from durable.workflow",
        "select bucket, workflow_id, key from durable.message",
        "update durable.workflow set wakes = wakes + 1, due_at = due_at + interval '1 year'",
        "insert into durable.workflow (bucket, id, name, version, queue, status, input)
         values (0, 'x', 'n', 1, 'q', 'completed', 'null')",
        "insert into durable.message (bucket, workflow_id, n, topic, value) values (0, 'waits', 9, 't', '1')",
    ] {
        assert!(may(&mut tx, unavoidable).await?, "forbidden: {unavoidable}");
    }
    tx.rollback().await?;
    Ok(())
}

/// Each right in the manual is one that the functions use: without any one of them they refuse.
#[tokio::test]
async fn no_grant_of_the_manual_can_be_left_out() -> Result<()> {
    const BOTH: &str = "
        select durable.start('listens', id => 'new'), durable.start('listens', id => 'new');
        select durable.send('new', 'word', '1', 'k'), durable.send('new', 'word', '1', 'k')";
    let db = Db::new().await;
    let mut tx = as_the_role(&db).await?;
    assert!(may(&mut tx, BOTH).await?);
    run(&mut *tx, "reset role").await?;
    let mut tried = 0;
    for grant in grants().split(';').filter(|grant| grant.contains('(')) {
        let (right, rest) = grant.split_once('(').context("the columns of a grant")?;
        let (columns, on) = rest.split_once(')').context("the columns of a grant")?;
        for column in columns.split(',') {
            let revoke = format!("{right} ({column}) {on}").replace("grant", "revoke").replace(" to ", " from ");
            let without = format!("{revoke}; set local role order_desk; {BOTH}");
            assert!(!may(&mut tx, &without).await?, "not needed: {revoke}");
            tried += 1;
        }
    }
    assert_eq!(tried, 27);
    tx.rollback().await?;
    Ok(())
}

/// Without grants nobody gets anything through the functions: they have no rights of their own.
#[tokio::test]
async fn a_role_without_grants_can_do_nothing() -> Result<()> {
    let db = Db::new().await;
    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "create role order_desk_stranger").await?;
    for (grant, call) in [
        ("select 1", "select durable.start('listens')"),
        ("grant usage on schema durable to order_desk_stranger", "select durable.start('listens')"),
        ("select 1", "select durable.send('x', 'word', '1')"),
    ] {
        run(&mut *tx, grant).await?;
        run(&mut *tx, "set local role order_desk_stranger").await?;
        assert!(!may(&mut tx, call).await?, "{call}");
        run(&mut *tx, "reset role").await?;
    }
    tx.rollback().await?;
    Ok(())
}
