//! From SQL: whoever speaks it starts workflows and sends to them, in a transaction of their own.
//!
//! Whose rights they need and which schema they are in is `from_sql_schema`; what they cost is `plans`.

use anyhow::{Context, Result};
use durable::{Ctx, Durable, ErrorKind, FailureKind, Status, Topic, hours, minutes, workflow};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::soon::Soon;
use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, PgExecutor};

const WORD: Topic<String> = Topic::new("word");

#[workflow]
async fn listens(ctx: &Ctx) -> Result<String> {
    Ok(ctx.receive(WORD).await?)
}

#[workflow]
async fn answers(ctx: &Ctx, word: String) -> Result<String> {
    Ok(format!("{} {word}", ctx.id()))
}

#[workflow]
async fn adds(ctx: &Ctx, one: i64, other: i64) -> Result<i64> {
    let _ = ctx.id();
    Ok(one + other)
}

#[workflow(name = "listens_twice", version = 3)]
async fn listens_again(ctx: &Ctx) -> Result<Vec<String>> {
    Ok(vec![ctx.receive(WORD).await?, ctx.receive(WORD).await?])
}

async fn worker(db: &Db) -> Result<Durable> {
    let builder = db.builder().register(listens).register(answers).register(adds).register(listens_again);
    Ok(builder.start().await?)
}

/// One text from SQL.
pub(super) async fn text(db: impl PgExecutor<'_>, sql: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar::<_, Option<String>>(AssertSqlSafe(sql)).fetch_one(db).await.map(Option::unwrap_or_default)
}

/// Send something from SQL, or do anything else that has no answer.
pub(super) async fn run(db: impl PgExecutor<'_>, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.map(drop)
}

/// How SQL was refused: SQLSTATE, message, hint.
pub(super) fn refusal(error: &sqlx::Error) -> Result<(String, String, String)> {
    let error = error.as_database_error().with_context(|| format!("not refused by the database: {error}"))?;
    let error = error.downcast_ref::<PgDatabaseError>();
    Ok((error.code().to_owned(), error.message().to_owned(), error.hint().unwrap_or_default().to_owned()))
}

/// The input is the JSON that Rust would have stored: nothing, a value, an array of values.
#[tokio::test]
async fn what_sql_starts_a_worker_runs() -> Result<()> {
    let db = Db::new().await;
    let durable = worker(&db).await?;
    assert_eq!(text(&db.pool, "select durable.start('answers', '\"Ada\"', id => 'a')").await?, "a");
    text(&db.pool, "select durable.start('adds', json_build_array(40, 2), 'b')").await?;
    let c = text(&db.pool, "select durable.start('listens_twice', version => 3)").await?;
    for word in ["one", "two"] {
        let send = sqlx::query("select durable.send($1, 'word', to_json($2::text))");
        send.bind(&c).bind(word).execute(&db.pool).await?;
    }
    assert_eq!(durable.workflow::<String>("a").soon().await?, "a Ada");
    assert_eq!(durable.workflow::<i64>("b").soon().await?, 42);
    assert_eq!(durable.workflow::<Vec<String>>(c).soon().await?, ["one", "two"]);
    let queued =
        "select count(*) from durable.workflow where queue <> 'default' or priority <> 0 or status <> 'completed'";
    assert_eq!(db.count(queued).await, 0);
    Ok(())
}

/// Every id has one place, whoever computes it.
#[tokio::test]
async fn an_id_is_found_by_the_other_side() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let ids = ["x".to_owned(), "Bestellung-ß-🦀 'quoted' \\ %".to_owned(), "ß".repeat(256), "order/42".to_owned()];
    for (n, id) in ids.iter().enumerate() {
        let started: String =
            sqlx::query_scalar("select durable.start('listens', id => $1)").bind(id).fetch_one(&db.pool).await?;
        assert_eq!(&started, id);
        assert_eq!(client.workflow::<()>(id).info().await?.name, "listens");
        assert!(client.start(listens()).id(id).await?.existed());

        let other = format!("{n}{}", id.chars().skip(1).collect::<String>());
        client.start(listens()).id(&other).await?;
        let send = sqlx::query("select durable.send($1, 'word', '1')").bind(&other);
        send.execute(&db.pool).await?;
    }
    assert_eq!(db.count("select count(*) from durable.message").await, 4);
    assert_eq!(db.count("select count(*) from durable.workflow").await, 8);
    Ok(())
}

/// P5: one trigger, and each row that is committed has its workflow.
#[tokio::test]
async fn a_trigger_starts_a_workflow_if_and_only_if_the_insert_commits() -> Result<()> {
    const TRIGGER: &str = "
        create function placed() returns trigger language plpgsql as $$ begin
            perform durable.start('answers', to_json(new.value), id => 'row-' || new.name);
            return null;
        end $$;
        create trigger placed after insert on application_row for each row execute function placed();";
    let db = Db::new().await;
    let durable = worker(&db).await?;
    run(&db.pool, TRIGGER).await?;

    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "insert into application_row values ('1', 'never')").await?;
    tx.rollback().await?;
    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "insert into application_row values ('2', 'two'), ('3', 'three \"quoted\"')").await?;
    run(&mut *tx, "savepoint s; insert into application_row values ('4', 'never'); rollback to s").await?;
    assert!(durable.workflow::<String>("row-2").status().await.unwrap_err().is_not_found(), "not before the commit");
    tx.commit().await?;

    assert_eq!(durable.workflow::<String>("row-2").soon().await?, "row-2 two");
    assert_eq!(durable.workflow::<String>("row-3").soon().await?, "row-3 three \"quoted\"");
    assert_eq!(db.count("select count(*) from durable.workflow").await, 2);

    // A refused start refuses the row.
    let error = run(&db.pool, "insert into application_row values (e'a\\nb', 'x')").await.unwrap_err();
    assert_eq!(refusal(&error)?.0, "22023", "{error}");
    assert_eq!(db.count("select count(*) from application_row").await, 2);
    Ok(())
}

/// P4: the same workflow is returned, from either side; its input stays what it was.
#[tokio::test]
async fn the_same_id_twice_is_one_workflow() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    for input in ["first", "second"] {
        let start = sqlx::query_scalar::<_, String>("select durable.start('answers', to_json($1::text), 'a')");
        assert_eq!(start.bind(input).fetch_one(&db.pool).await?, "a");
    }
    let again = client.start(answers("first".into())).id("a").await?;
    assert!(again.existed() && !again.input_differs());
    client.start(answers("first".into())).id("b").await?;
    text(&db.pool, "select durable.start('answers', '\"second\"', 'b', queue => 'elsewhere')").await?;

    let durable = worker(&db).await?;
    assert_eq!(durable.workflow::<String>("a").soon().await?, "a first");
    assert_eq!(durable.workflow::<String>("b").soon().await?, "b first");
    // And after the end.
    assert_eq!(text(&db.pool, "select durable.start('answers', '\"third\"', 'a')").await?, "a");
    assert_eq!(durable.workflow::<String>("a").soon().await?, "a first");
    Ok(())
}

/// P4: an id belongs to one workflow; the error names both and the way out.
#[tokio::test]
async fn the_id_of_another_workflow_is_a_conflict() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(answers("x".into())).id("a").await?;
    for (start, part) in [
        ("select durable.start('listens', id => 'a')", "version 1, not to \"listens\" version 1"),
        ("select durable.start('answers', id => 'a', version => 2)", "version 1, not to \"answers\" version 2"),
    ] {
        let (code, message, hint) = refusal(&text(&db.pool, start).await.unwrap_err())?;
        assert_eq!((&*code, &*hint), ("23505", "Use another id."));
        assert!(
            message.starts_with("the id a belongs to workflow \"answers\" ") && message.ends_with(part),
            "{message}"
        );
    }
    text(&db.pool, "select durable.start('adds', '[1, 2]', 'b')").await?;
    assert_eq!(client.start(listens()).id("b").await.unwrap_err().kind(), ErrorKind::Conflict);
    Ok(())
}

/// P4, P5: a start waits for the transaction that started the same id, and takes its place if that rolls back.
#[tokio::test]
async fn of_two_starts_at_once_the_second_waits_for_the_first() -> Result<()> {
    let db = Db::new().await;
    for (name, commits) in [("answers", true), ("answers", false), ("listens", true), ("listens", false)] {
        let id = format!("{name}-{commits}");
        let mut tx = db.pool.begin().await?;
        text(&mut *tx, &format!("select durable.start('answers', '\"first\"', '{id}')")).await?;
        let second = tokio::spawn({
            let (pool, start) = (db.pool.clone(), format!("select durable.start('{name}', '\"second\"', '{id}')"));
            async move { text(&pool, &start).await }
        });
        db.until(
            "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
        )
        .await;
        if commits {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        let second = tokio::time::timeout(PATIENCE, second).await??;
        match (name, commits) {
            ("listens", true) => assert_eq!(refusal(&second.unwrap_err())?.0, "23505"),
            _ => assert_eq!(second?, id),
        }
        let input = format!("select name || ' ' || (input #>> '{{}}') from durable.workflow where id = '{id}'");
        let expected = if commits { "answers first".to_owned() } else { format!("{name} second") };
        assert_eq!(text(&db.pool, &input).await?, expected);
    }
    Ok(())
}

/// P7: whether the body waits already makes no difference.
#[tokio::test]
async fn a_message_is_received_whenever_it_was_sent() -> Result<()> {
    let db = Db::new().await;
    text(&db.pool, "select durable.start('listens_twice', version => 3, id => 'l')").await?;
    run(&db.pool, "select durable.send('l', 'word', '\"queued\"')").await?;
    let durable = worker(&db).await?;
    db.until("select status = 'suspended' from durable.workflow").await;
    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "select durable.send('l', 'word', '\"never\"')").await?;
    tx.rollback().await?;
    run(&db.pool, "select durable.send('l', 'word', '\"suspended\"')").await?;
    assert_eq!(durable.workflow::<Vec<String>>("l").soon().await?, ["queued", "suspended"]);

    // In one transaction, before anybody else can see the workflow.
    let mut tx = db.pool.begin().await?;
    text(&mut *tx, "select durable.start('listens', id => 'm')").await?;
    run(&mut *tx, "select durable.send('m', 'word', '\"at once\"')").await?;
    tx.commit().await?;
    assert_eq!(durable.workflow::<String>("m").soon().await?, "at once");
    Ok(())
}

/// A message wakes, it does not shorten another wait.
#[tokio::test]
async fn a_message_for_another_topic_leaves_the_wait_as_it_was() -> Result<()> {
    let db = Db::new().await;
    let durable = worker(&db).await?;
    text(&db.pool, "select durable.start('listens', id => 'l')").await?;
    db.until_status("l", "suspended").await;
    run(&db.pool, "select durable.send('l', 'another', '1')").await?;
    db.until("select status = 'suspended' and claims = 2 from durable.workflow").await;
    run(&db.pool, "select durable.send('l', 'word', '\"x\"')").await?;
    assert_eq!(durable.workflow::<String>("l").soon().await?, "x");
    Ok(())
}

/// P7: a key is one message, from either side, also after it was received and after the end.
#[tokio::test]
async fn a_key_is_one_message() -> Result<()> {
    let db = Db::new().await;
    let durable = worker(&db).await?;
    text(&db.pool, "select durable.start('listens_twice', version => 3, id => 'l')").await?;
    let again = "select durable.send('l', 'word', '\"one\"', key => 'click')";
    run(&db.pool, again).await?;
    run(&db.pool, again).await?;
    db.until("select count(*) = 1 from durable.message where received_at is not null").await;
    run(&db.pool, again).await?;
    durable.send("l", WORD, "from Rust".into()).key("click").await?;
    durable.send("l", WORD, "two".into()).key("other").await?;
    run(&db.pool, "select durable.send('l', 'word', '\"repeat\"', key => 'other')").await?;
    assert_eq!(durable.workflow::<Vec<String>>("l").soon().await?, ["one", "two"]);
    run(&db.pool, again).await?;
    assert_eq!(db.count("select count(*) from durable.message").await, 2);
    Ok(())
}

/// P7: of two at once with one key, the second waits and then finds the first.
#[tokio::test]
async fn one_key_sent_by_two_transactions_is_one_message() -> Result<()> {
    let db = Db::new().await;
    text(&db.pool, "select durable.start('listens', id => 'l')").await?;
    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "select durable.send('l', 'word', '1', 'k')").await?;
    let pool = db.pool.clone();
    let second = tokio::spawn(async move { run(&pool, "select durable.send('l', 'word', '2', 'k')").await });
    db.until(
        "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
    )
    .await;
    tx.commit().await?;
    tokio::time::timeout(PATIENCE, second).await???;
    assert_eq!(db.text("select string_agg(value::text, ',') from durable.message").await, "1");
    Ok(())
}

#[tokio::test]
async fn a_message_that_nobody_would_read_is_refused() -> Result<()> {
    let db = Db::new().await;
    let durable = worker(&db).await?;
    let unknown = run(&db.pool, "select durable.send('nobody', 'word', '1')").await.unwrap_err();
    let (code, message, hint) = refusal(&unknown)?;
    assert_eq!(code, "P0002");
    assert_eq!(message, "could not send \"word\" to workflow nobody: there is no such workflow");
    assert!(hint.contains("Start it first"), "{hint}");

    text(&db.pool, "select durable.start('adds', '[1, 2]', 'done')").await?;
    durable.workflow::<i64>("done").soon().await?;
    text(&db.pool, "select durable.start('listens', id => 'gone')").await?;
    durable.cancel("gone").await?;
    for (id, status) in [("done", "completed"), ("gone", "cancelled")] {
        let send = format!("select durable.send('{id}', 'word', '1', 'k')");
        let (code, message, _) = refusal(&run(&db.pool, &send).await.unwrap_err())?;
        assert_eq!(code, "55000");
        assert!(message.contains(&format!("it is {status}, nobody would read")), "{message}");
    }
    assert_eq!(db.count("select count(*) from durable.message").await, 0);
    Ok(())
}

/// Each kind of wrong argument: the expression, the SQLSTATE, a part of the message.
const BAD: &[(&str, &str, &str)] = &[
    ("durable.start('')", "22023", "the workflow name is empty"),
    ("durable.start(null)", "22004", "the workflow name is null"),
    ("durable.start(repeat('n', 513))", "22023", "the workflow name has 513 bytes, at most 512"),
    ("durable.start('x', null)", "22004", "the input is null"),
    ("durable.start('x', 'no json')", "22P02", "invalid input syntax for type json"),
    ("durable.start('x', json_build_array(repeat('x', 33554432)))", "54000", "at most 33554432 can be stored"),
    ("durable.start('x', id => null)", "22004", "the workflow id is null"),
    ("durable.start('x', id => '')", "22023", "the workflow id is empty"),
    ("durable.start('x', id => repeat('ß', 257))", "22023", "the workflow id has 514 bytes, at most 512"),
    ("durable.start('x', id => E'a\\nb')", "22023", "the workflow id holds a control character"),
    ("durable.start('x', id => U&'a\\0085')", "22023", "the workflow id holds a control character"),
    ("durable.start('x', id => U&'a\\007F')", "22023", "the workflow id holds a control character"),
    ("durable.start('x', version => 0)", "22023", "the version is 0"),
    ("durable.start('x', version => null)", "22023", "the version is <NULL>"),
    ("durable.start('x', queue => E'\\t')", "22023", "the queue holds a control character"),
    ("durable.start('x', queue => null)", "22004", "the queue is null"),
    ("durable.start('x', priority => 32768)", "22023", "the priority is 32768"),
    ("durable.start('x', delay => '-1 s')", "22023", "the delay is -00:00:01"),
    ("durable.start('x', delay => null)", "22023", "the delay is <NULL>"),
    ("durable.send('', 't', '1')", "22023", "the workflow id is empty"),
    ("durable.send(null, 't', '1')", "22004", "the workflow id is null"),
    ("durable.send('w', '', '1')", "22023", "the topic is empty"),
    ("durable.send('w', E'\\x01', '1')", "22023", "the topic holds a control character"),
    ("durable.send('w', 't', null)", "22004", "the value is null"),
    ("durable.send('w', 't', json_build_array(repeat('x', 33554432)))", "54000", "at most 33554432 can be stored"),
    ("durable.send('w', 't', '1', '')", "22023", "the message key is empty"),
    ("durable.send('w', 't', '1', repeat('k', 513))", "22023", "the message key has 513 bytes"),
];

#[tokio::test]
async fn bad_input_of_each_kind_is_refused_with_its_fix_and_writes_nothing() -> Result<()> {
    let db = Db::new().await;
    text(&db.pool, "select durable.start('listens', id => 'w')").await?;
    for (call, expected, part) in BAD {
        let error = run(&db.pool, &format!("select {call}")).await.expect_err(call);
        let (code, message, hint) = refusal(&error)?;
        assert_eq!(code, *expected, "{call}: {message}");
        assert!(message.contains(part), "{call}: {message}");
        assert!(!hint.is_empty() || code == "22P02", "{call}");
    }
    let written =
        "select (count(*) + sum(wakes))::bigint + (select count(*) from durable.message) from durable.workflow";
    assert_eq!(db.count(written).await, 1);
    Ok(())
}

/// Nobody checks the type of an input when it is stored; the workflow that cannot read it says so.
#[tokio::test]
async fn an_input_that_does_not_decode_fails_its_workflow() -> Result<()> {
    let db = Db::new().await;
    let durable = worker(&db).await?;
    let deep = format!("'{}1{}'", "[".repeat(200), "]".repeat(200));
    for (id, name, input) in [
        ("left-out", "answers", "'null'"),
        ("one-of-two", "adds", "'[1]'"),
        ("not-a-list", "adds", "'1'"),
        ("too-much", "listens", "'\"secret\"'"),
        ("half-a-character", "answers", "'\"\\ud800\"'"),
        ("deep", "answers", &*deep),
    ] {
        text(&db.pool, &format!("select durable.start('{name}', {input}, '{id}')")).await?;
        let error = durable.workflow::<()>(id).soon().await.unwrap_err();
        let failure = error.failure().with_context(|| format!("{id}: {error}"))?;
        assert_eq!(failure.kind(), FailureKind::Value, "{id}");
        assert!(failure.message().starts_with("its input does not decode as "), "{id}: {failure}");
        assert!(!failure.message().contains("secret"), "{failure}");
    }
    // Nothing of it was run, and the worker goes on.
    assert_eq!(db.count("select count(*) from durable.step").await, 0);
    text(&db.pool, "select durable.start('adds', '[1, 2]', 'good')").await?;
    assert_eq!(durable.workflow::<i64>("good").soon().await?, 3);
    Ok(())
}

#[tokio::test]
async fn generated_ids_sort_by_time_also_among_those_of_rust() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let many = "select array_agg(durable.start('listens')) from generate_series(1, 2000)";
    let ids: Vec<String> = sqlx::query_scalar(many).fetch_one(&db.pool).await?;
    assert!(ids.is_sorted_by(|a, b| a <= b) && ids.iter().all(|id| id.len() == 36));
    let version_and_variant = "select bool_and(id ~ '^.{8}-.{4}-7.{3}-[89ab].{3}-.{12}$') from durable.workflow";
    db.until(version_and_variant).await;
    assert_eq!(db.count("select count(distinct id) from durable.workflow").await, 2000);

    let mut mixed = vec![ids.last().context("an id")?.clone()];
    for _ in 0..5 {
        mixed.push(client.start(listens()).await?.id().to_owned());
        mixed.push(text(&db.pool, "select durable.start('listens')").await?);
    }
    // To the millisecond: what is finer each side counts in its own way.
    let millis: Vec<&str> = mixed.iter().map(|id| &id[..13]).collect();
    assert!(millis.is_sorted(), "{millis:?}");
    Ok(())
}

#[tokio::test]
async fn a_delay_counts_by_the_databases_clock_and_a_queue_is_another() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = worker(&db).await?;
    text(&db.pool, "select durable.start('answers', '\"x\"', 'later', delay => '1 hour', priority => -5)").await?;
    text(&db.pool, "select durable.start('answers', '\"x\"', 'never', delay => '1000000 days')").await?;
    text(&db.pool, "select durable.start('answers', '\"x\"', 'elsewhere', queue => 'other')").await?;
    clock.advance(minutes(59)).await?;
    text(&db.pool, "select durable.start('answers', '\"x\"', 'now')").await?;
    durable.workflow::<String>("now").soon().await?;
    assert_eq!(durable.workflow::<String>("later").status().await?, Status::Queued);
    clock.advance(minutes(2)).await?;
    assert_eq!(durable.workflow::<String>("later").soon().await?, "later x");
    clock.advance(hours(24)).await?;
    for left in ["never", "elsewhere"] {
        assert_eq!(durable.workflow::<String>(left).status().await?, Status::Queued, "{left}");
    }
    assert_eq!(db.count("select priority::bigint from durable.workflow where id = 'later'").await, -5);
    Ok(())
}
