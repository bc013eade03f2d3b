//! Attributes: given at the start, set by the body exactly once, and found in lists.

use std::collections::BTreeSet;

use anyhow::Result;
use chrono::{DateTime, Utc};
use durable::{AttributeValue, Ctx, Durable, ErrorKind, FailureKind, ListWorkflows, Status, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use durable_tests::wire::Wire;

#[workflow]
async fn parcel(ctx: &Ctx, weight: f64) -> Result<()> {
    ctx.run(work("weigh".to_owned())).await?;
    ctx.set_attribute("weight", weight).await?;
    ctx.set_attribute("stage", "weighed").await?;
    ctx.run(gated("pack".to_owned())).await?;
    ctx.set_attribute("stage", "packed").await?;
    Ok(())
}

#[workflow]
async fn nothing(ctx: &Ctx) -> Result<i64> {
    Ok(ctx.now().timestamp())
}

#[workflow]
async fn sets(ctx: &Ctx, name: String, count: u32) -> Result<()> {
    for n in 0..count {
        ctx.set_attribute(format!("{name}{n}"), i64::from(n)).await?;
    }
    Ok(())
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    Ok(db.builder().register(parcel).register(nothing).register(sets).state(kit.clone()).start().await?)
}

async fn ids(list: ListWorkflows<'_>) -> Result<Vec<String>> {
    Ok(list.await?.workflows.into_iter().map(|workflow| workflow.id).collect())
}

async fn attributes(durable: &Durable, id: &str) -> Result<Vec<(String, AttributeValue, bool)>> {
    let all = durable.workflow::<()>(id).attributes().await?;
    Ok(all.into_iter().map(|a| (a.name, a.value, a.by_body)).collect())
}

#[tokio::test]
async fn attributes_of_every_kind_are_read_as_they_were_given() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let at: DateTime<Utc> = "2026-11-26T15:00:00.000001Z".parse()?;
    let start = client.start(nothing()).id("a").attribute("city", "Köln").attribute("big", i64::MIN);
    start.attribute("ratio", -1.5).attribute("vip", true).attribute("due", at).attribute("none", "").await?;
    let expected: Vec<(String, AttributeValue, bool)> = [
        ("big", i64::MIN.into()),
        ("city", "Köln".into()),
        ("due", at.into()),
        ("none", "".into()),
        ("ratio", (-1.5).into()),
        ("vip", true.into()),
    ]
    .map(|(name, value)| (name.to_owned(), value, false))
    .into();
    assert_eq!(attributes(&client, "a").await?, expected);
    let read = db.text("select string_agg(name || '=' || value, ' ' order by name) from durable.attribute").await;
    let told = r#"big=-9223372036854775808 city="Köln" due="2026-11-26T15:00:00.000001Z" none="" ratio=-1.5 vip=true"#;
    assert_eq!(read, told);
    // A workflow that is there keeps those that it has.
    assert!(client.start(nothing()).id("a").attribute("city", "Bonn").attribute("more", 1).await?.existed());
    assert_eq!(attributes(&client, "a").await?, expected);
    Ok(())
}

/// A start with attributes is one statement, in a transaction of the caller's as well, and many are one.
#[tokio::test]
async fn a_start_with_attributes_is_one_statement() -> Result<()> {
    let db = Db::new().await;
    let wire = Wire::to(&db);
    let client = Durable::builder(wire.pool()).migrate(false).hints(false).client().await?;
    client.start(nothing()).id("warm").attribute("n", 0).await?;
    wire.forget();
    client.start(nothing()).id("one").attribute("n", 1).await?;
    assert_eq!(wire.flights().len(), 1);
    wire.forget();
    let many = (0..1_000).map(|n| (format!("many-{n}"), nothing()));
    client.start_many(many).attribute("n", 2).attribute("m", "x").await?;
    assert_eq!(wire.flights().len(), 1);
    assert_eq!(db.count("select count(*) from durable.attribute").await, 2_002);

    let mut tx = db.pool.begin().await?;
    client.start(nothing()).id("in-tx").attribute("n", 3).in_tx(&mut tx).await?;
    tx.rollback().await?;
    assert_eq!(db.count("select count(*) from durable.attribute where id = 'in-tx'").await, 0);
    Ok(())
}

/// Those that are there already get nothing of it.
#[tokio::test]
async fn of_many_starts_only_the_new_ones_get_the_attributes() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(nothing()).id("b").await?;
    client.start_many(["a", "b", "c"].map(|id| (id, nothing()))).attribute("n", 1).await?;
    assert_eq!(db.text("select string_agg(id, '' order by id) from durable.attribute").await, "ac");
    Ok(())
}

/// P1: what a body sets is set once, however often it is run; a later run does not set an old value again.
#[tokio::test]
async fn a_body_sets_an_attribute_exactly_once() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(parcel(2.5)).id("p").attribute("stage", "new").attribute("customer", 7).await?;
    kit.gate.reached().await;
    let stage = |stage: &str, by_body| ("stage".to_owned(), AttributeValue::from(stage), by_body);
    assert_eq!(attributes(&durable, "p").await?[1], stage("weighed", true));
    // An operator corrects it; then the body is run again from its history.
    sqlx::query("update durable.attribute set sort = 'scorrected' where name = 'stage'").execute(&db.pool).await?;
    durable.pause("p").await?;
    durable.resume("p").await?;
    kit.gate.reached().await;
    assert_eq!(attributes(&durable, "p").await?[1], stage("corrected", true));
    kit.gate.open();
    handle.soon().await?;
    let all = attributes(&durable, "p").await?;
    let customer = ("customer".to_owned(), AttributeValue::from(7), false);
    assert_eq!(all, [customer.clone(), stage("packed", true), ("weight".to_owned(), 2.5.into(), true)]);
    let steps = durable.workflow::<()>("p").steps().await?;
    let set: Vec<_> = steps.iter().filter(|step| step.name == "set attribute").collect();
    assert_eq!(set.len(), 3);
    assert!(set.iter().all(|step| step.kind == "transaction"), "{set:?}");
    assert!(set[1].input.as_deref().is_some_and(|input| input.contains(r#""value":"weighed""#)), "{:?}", set[1]);

    // A restart begins with what was given at the start and not set anew; a fork has what its source has.
    durable.fork::<()>("p", 4).id("f").await?;
    assert_eq!(attributes(&durable, "f").await?, all);
    durable.workflow::<()>("f").soon().await?;
    sqlx::query("update durable.workflow set queue = 'nobody''s'").execute(&db.pool).await?;
    durable.restart("p").await?;
    assert_eq!(attributes(&durable, "p").await?, [customer]);
    let moved = "select count(*) from durable.workflow w join durable.attribute a using (bucket, id)
                 where w.id = 'p' and a.created_at = w.created_at";
    assert_eq!(db.count(moved).await, 1);
    Ok(())
}

#[tokio::test]
async fn workflows_are_found_by_attributes_alone_and_together() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    for n in 0..20 {
        let start = client.start(nothing()).id(format!("w{n:02}")).attribute("n", n).attribute("even", n % 2 == 0);
        start.attribute("city", if n < 10 { "Bonn" } else { "Bonn-Beuel" }).await?;
    }
    client.start(nothing()).id("bare").await?;
    client.start(nothing()).id("float").attribute("n", 5.0).await?;
    let list = || client.workflows().oldest_first();
    let range = |from: u32, to: u32| (from..to).map(|n| format!("w{n:02}")).collect::<Vec<_>>();
    assert_eq!(ids(list().attribute("n", 5)).await?, ["w05"]);
    assert_eq!(ids(list().attribute("n", 5.0)).await?, ["float"]);
    assert_eq!(ids(list().attribute("city", "Bonn")).await?, range(0, 10), "no beginning of it");
    assert_eq!(ids(list().attribute_from("n", 3).attribute_before("n", 7)).await?, range(3, 7));
    assert_eq!(ids(list().attribute_from("n", 15)).await?, range(15, 20));
    assert_eq!(ids(list().attribute_before("n", 3)).await?, range(0, 3));
    assert_eq!(ids(list().attribute_from("city", "Bonn-")).await?, range(10, 20));
    let evens =
        list().attribute("even", true).attribute_from("n", 6).attribute_before("n", 12).attribute("city", "Bonn");
    assert_eq!(ids(evens).await?, ["w06", "w08"]);
    let newest = client.workflows().attribute("even", true).id_prefix("w1").name("nothing").status(Status::Queued);
    assert_eq!(ids(newest).await?, ["w18", "w16", "w14", "w12", "w10"]);
    assert_eq!(ids(list().attribute("even", true).status(Status::Failed)).await?, [""; 0]);
    assert_eq!(ids(list().attribute("odd", true)).await?, [""; 0]);
    assert_eq!(ids(list().attribute("even", true).name("other")).await?, [""; 0]);
    assert_eq!(ids(list().attribute("even", true).queue("other")).await?, [""; 0]);
    Ok(())
}

/// No page repeats or skips one, whatever is started meanwhile.
#[tokio::test]
async fn pages_by_attributes_are_stable() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    for batch in 0..3 {
        let calls = (0..10).map(|n| (format!("w{batch}-{n}"), nothing()));
        client.start_many(calls).attribute("kind", "a").attribute("n", batch).await?;
    }
    for list in [client.workflows().attribute("kind", "a"), client.workflows().attribute_from("n", 0).oldest_first()] {
        let (mut seen, mut next) = (Vec::new(), None::<String>);
        loop {
            let page = next.into_iter().fold(list.clone().limit(4), ListWorkflows::after).await?;
            seen.extend(page.workflows.into_iter().map(|workflow| workflow.id));
            client.start(nothing()).attribute("kind", "a").id(format!("new-{}", seen.len())).await?;
            match page.next {
                Some(more) => next = Some(more),
                None => break,
            }
        }
        let old: Vec<_> = seen.iter().filter(|id| id.starts_with('w')).collect();
        assert_eq!((old.len(), old.iter().collect::<BTreeSet<_>>().len()), (30, 30), "{seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn attributes_that_cannot_be_say_why_and_start_nothing() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let start = || durable.start(nothing()).id("bad");
    let many = (0..33).fold(start(), |start, n| start.attribute(format!("a{n}"), n));
    for (refused, told) in [
        (start().attribute("", 1), "the name of an attribute is empty"),
        (start().attribute("n".repeat(65), 1), "65 bytes, at most 64"),
        (start().attribute("x", "t".repeat(513)), "attribute \"x\" has 513 bytes, at most 512"),
        (start().attribute("x", "a\nb"), "holds a control character"),
        (start().attribute("x", f64::NAN), "is no number"),
        (start().attribute("x", 1).attribute("x", 2), "attribute \"x\" is given twice"),
        (many, "33 attributes, at most 32"),
    ] {
        let error = refused.await.unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(told), "{error}");
    }
    assert_eq!(db.count("select count(*) from durable.workflow").await, 0);

    let many = (0..9).fold(durable.workflows(), |list, n| list.attribute("x", n));
    for (refused, told) in [
        (durable.workflows().attribute("", 1), "name of an attribute is empty"),
        (durable.workflows().attribute_from("x", f64::NAN), "is no number"),
        (many, "9 attributes are asked for, at most 8"),
    ] {
        let error = refused.await.unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(told), "{error}");
    }

    // From a body it is a failure, which no further attempt mends.
    for (call, told) in [
        (sets("a".repeat(64), 1), "65 bytes, at most 64"),
        (sets("a".into(), 33), "\"a32\" is one too many: the workflow has 32 others"),
    ] {
        let error = durable.start(call).await?.soon().await.unwrap_err();
        let failure = error.failure().expect("it failed");
        assert!(failure.is_terminal() && failure.kind() == FailureKind::Error, "{failure:?}");
        assert!(failure.attempts() == 1 && failure.to_string().contains(told), "{failure}");
    }
    assert_eq!(db.count("select count(*) from durable.attribute").await, 32);
    Ok(())
}
