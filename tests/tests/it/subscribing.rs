//! Events that an application publishes: each workflow that is subscribed starts once, whoever publishes how often.

use std::sync::Arc;

use anyhow::{Context, Result};
use durable::testing::{TestDatabase, every_crash};
use durable::{
    Builder, Ctx, Durable, ErrorKind, Event, FailureKind, PgConnection, Queue, StepCtx, Subscription, step, workflow,
};
use durable_dev::ServerOptions;
use durable_tests::db::{APPLICATION_TABLES, Db};
use durable_tests::journey::Outside;
use durable_tests::kit::{Kit, work};
use durable_tests::soon::Soon;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::budgets::Lab;
use super::faults::{Cutter, Own, hang_commits, let_commits_go};
use super::from_sql::{refusal, run, text};

#[derive(Clone, Serialize, Deserialize)]
struct Lead {
    name: String,
    customer: Option<String>,
}

const CREATED: Event<Lead> = Event::new("lead.created");
const ROWS: &str = "select count(*) from durable.workflow";
const IDS: &str = "select string_agg(id, ' ' order by id) from durable.workflow";

fn lead(name: &str) -> Lead {
    Lead { name: name.to_owned(), customer: Some("acme".to_owned()) }
}

#[workflow]
async fn greet(ctx: &Ctx, lead: Lead) -> Result<String> {
    Ok(ctx.run(work(format!("hello {}", lead.name))).await?)
}

#[workflow]
async fn score(ctx: &Ctx, lead: Lead) -> Result<usize> {
    let _ = ctx.id();
    Ok(lead.name.len())
}

#[workflow(name = "score", version = 2)]
async fn score_again(ctx: &Ctx, lead: Lead) -> Result<usize> {
    let _ = ctx.id();
    Ok(lead.name.len() * 2)
}

fn both(builder: Builder, kit: &Kit) -> Builder {
    let builder = builder.register(greet).register(score).state(kit.clone());
    builder.subscribe(Subscription::new(CREATED, greet)).subscribe(Subscription::new(CREATED, score))
}

/// Whoever publishes has none of the workflows, and no worker; who is subscribed the workers have said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_event_starts_each_subscribed_workflow_once() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let web = db.client().await;
    let nobody = web.publish(CREATED, lead("Ada")).id("early").await?;
    assert_eq!((nobody.started, nobody.existed), (0, 0), "nobody is subscribed, which is no error");
    let worker = both(db.builder(), &kit).start().await?;

    let published = web.publish(CREATED, lead("Ada")).id("lead-42").await?;
    assert_eq!((published.started, published.existed), (2, 0));
    assert_eq!(web.workflow::<String>("lead.created/greet/lead-42").soon().await?, "hello Ada");
    assert_eq!(web.workflow::<usize>("lead.created/score/lead-42").soon().await?, 3);
    // Again, with another value: what it has started stands.
    let again = worker.publish(CREATED, lead("Grace")).id("lead-42").await?;
    assert_eq!((again.started, again.existed), (0, 2));
    // Without an id it is an event of its own.
    for _ in 0..2 {
        assert_eq!(web.publish(CREATED, lead("Bob")).await?.started, 2);
    }
    db.until("select count(*) = 6 from durable.workflow where status = 'completed'").await;
    assert_eq!(kit.log.count("hello Ada"), 1);
    assert_eq!((kit.log.count("hello Bob"), kit.log.count("hello Grace")), (2, 0));
    Ok(())
}

/// P5.
#[tokio::test]
async fn in_a_transaction_the_workflows_exist_if_and_only_if_it_commits() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = both(db.builder(), &kit).start().await?;
    let mut tx = db.pool.begin().await?;
    assert_eq!(durable.publish(CREATED, lead("Ada")).id("1").in_tx(&mut tx).await?.started, 2);
    tx.rollback().await?;
    assert_eq!(db.count(ROWS).await, 0);
    let mut tx = db.pool.begin().await?;
    let one = durable.publish(CREATED, lead("Ada")).id("1").in_tx(&mut tx).await?;
    let again = durable.publish(CREATED, lead("Ada")).id("1").in_tx(&mut tx).await?;
    assert_eq!((one.started, again.started, again.existed), (2, 0, 2));
    assert_eq!(db.count(ROWS).await, 0, "not before the commit");
    tx.commit().await?;
    assert_eq!(durable.workflow::<String>("lead.created/greet/1").soon().await?, "hello Ada");
    Ok(())
}

/// One that waits for another's transaction sees what became of it.
#[tokio::test]
async fn a_publication_that_waits_for_anothers_transaction_starts_what_that_did_not() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = both(db.builder(), &kit).client().await?;
    for (commits, started) in [(false, 2), (true, 0)] {
        let mut tx = db.pool.begin().await?;
        let id = format!("lead-{commits}");
        durable.publish(CREATED, lead("Ada")).id(&id).in_tx(&mut tx).await?;
        let other = tokio::spawn({
            let (durable, id) = (durable.clone(), id.clone());
            async move { durable.publish(CREATED, lead("Ada")).id(id).await }
        });
        db.until(
            "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
        )
        .await;
        match commits {
            true => tx.commit().await?,
            false => tx.rollback().await?,
        }
        let other = other.await??;
        assert_eq!((other.started, other.existed), (started, 2 - started));
    }
    Ok(())
}

/// Twenty at once, from several processes, some of whose transactions are rolled back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_publishers_of_one_id_start_each_workflow_once() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let worker = both(db.builder(), &kit).start().await?;
    let clients = [db.client().await, db.client().await, worker.clone()];
    let publishes = (0..20).map(|n| {
        let (client, pool) = (clients[n % 3].clone(), db.pool.clone());
        tokio::spawn(async move {
            if n % 4 > 0 {
                return anyhow::Ok(client.publish(CREATED, lead("Ada")).id("same").await?.started);
            }
            let mut tx = pool.begin().await?;
            client.publish(CREATED, lead("Ada")).id("same").in_tx(&mut tx).await?;
            tx.rollback().await?;
            Ok(0)
        })
    });
    let mut started = 0;
    for published in try_join_all(publishes).await? {
        started += published?;
    }
    assert_eq!(started, 2);
    db.until("select count(*) = 2 from durable.workflow where status = 'completed'").await;
    assert_eq!(kit.log.entries(), ["hello Ada"]);
    Ok(())
}

#[step]
async fn publishes(step: &StepCtx) -> Result<u32> {
    let pool = step.state::<Outside>().0.clone();
    let client = Durable::builder(pool).migrate(false).hints(false).client().await?;
    Ok(client.publish(CREATED, lead("plain")).id(step.workflow_id()).await?.started)
}

#[step(tx)]
async fn publishes_in_its_transaction(tx: &mut PgConnection, step: &StepCtx) -> Result<u32> {
    let pool = step.state::<Outside>().0.clone();
    let client = Durable::builder(pool).migrate(false).hints(false).client().await?;
    sqlx::query("insert into application_row (name) values ('tx')").execute(&mut *tx).await?;
    // Without an id: the transaction makes it once.
    Ok(client.publish(CREATED, lead("tx")).in_tx(tx).await?.started)
}

#[workflow]
async fn announces(ctx: &Ctx) -> Result<u32> {
    ctx.run(publishes()).await?;
    Ok(ctx.run(publishes_in_its_transaction()).await?)
}

/// P1: a worker dies at each point of two publications and of what they start, and each subscribed workflow is there once for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_point_of_a_publication_starts_each_workflow_once() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql(APPLICATION_TABLES).execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let worker =
        |builder: Builder, pool: PgPool| both(builder, &Kit::default()).register(announces).state(Outside(pool));
    let begin = |durable: Durable| async move {
        durable.start(announces()).id("a").await?;
        durable.publish(CREATED, lead("begin")).id("begin").await?;
        Ok(())
    };
    let check = |pool: PgPool| async move {
        let each: Vec<(String, i64)> = sqlx::query_as(
            "select name || ' ' || (input ->> 'name'), count(*) from durable.workflow where name <> 'announces' group by 1 order by 1",
        )
        .fetch_all(&pool)
        .await?;
        let each: Vec<String> = each.into_iter().map(|(what, many)| format!("{many} {what}")).collect();
        let wanted = ["1 greet begin", "1 greet plain", "1 greet tx", "1 score begin", "1 score plain", "1 score tx"];
        anyhow::ensure!(each == wanted, "{each:?}");
        Ok(())
    };
    let report = every_crash(db, worker, begin, check).await?;
    report.assert_clean();
    for point in ["before a call: publish \"lead.created\"", "after a call: publish \"lead.created\""] {
        assert!(report.points.iter().any(|p| p == point), "{point} in {:#?}", report.points);
    }
    Ok(())
}

/// No reply to any commit of theirs ever comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_whose_replies_are_lost_start_each_workflow_once() -> Result<()> {
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    let client = both(own.builder(), &Kit::default()).client().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);
    let mut published = Vec::new();
    for n in 0..5 {
        published.push(client.publish(CREATED, lead("Ada")).id(format!("lead-{n}")).await);
    }
    // Without an id, too: the repetition has the same one.
    published.push(client.publish(CREATED, lead("Ada")).await);
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;
    for published in published {
        let published = published?;
        assert_eq!((published.started, published.existed), (0, 2), "as documented: the first answer was lost");
    }
    assert!(cuts >= 6, "{cuts} commits without an answer");
    let rows: i64 = sqlx::query_scalar(ROWS).fetch_one(&own.outside).await?;
    assert_eq!(rows, 12);
    Ok(())
}

/// One statement, whatever the number of those who are subscribed.
#[tokio::test]
async fn a_publication_is_one_statement() -> Result<()> {
    let lab = Lab::new().await;
    let client = lab.builder().client().await?;
    let all = "select durable.set_subscriptions(array_agg('lead.created'::text), array_agg('w-' || n), array_agg(1), array_agg('default'::text),
                                                array_agg(0::smallint), array_agg('customer'::text), false) from generate_series(1, 1000) n";
    run(&lab.db.pool, all).await?;
    client.publish(CREATED, lead("Ada")).id("warm-up").await?;
    lab.wire.forget();
    assert_eq!(client.publish(CREATED, lead("Ada")).id("1").await?.started, 1_000);
    assert_eq!(lab.spent(), ["start_subscribers"]);
    assert_eq!(lab.db.count("select count(*) from durable.place where partition = 'acme'").await, 2_000);
    // There is no room for another one.
    let error = client.subscribe(Subscription::new(CREATED, greet)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Usage && error.to_string().contains("at most 1000 are allowed"), "{error}");
    let builder = lab.builder().register(greet).state(Kit::default());
    let error = builder.subscribe(Subscription::new(CREATED, greet)).start().await.unwrap_err();
    assert!(error.to_string().contains("at most 1000 are allowed"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_trigger_publishes_if_and_only_if_the_insert_commits() -> Result<()> {
    const TRIGGER: &str = "
        create function created() returns trigger language plpgsql as $$ begin
            perform durable.publish('lead.created', json_build_object('name', new.name), id => 'lead-' || new.name);
            return null;
        end $$;
        create trigger created after insert on application_row for each row execute function created();";
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = both(db.builder(), &kit).start().await?;
    run(&db.pool, TRIGGER).await?;
    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "insert into application_row values ('never')").await?;
    tx.rollback().await?;
    run(&db.pool, "insert into application_row values ('a'), ('b')").await?;
    assert_eq!(durable.workflow::<String>("lead.created/greet/lead-a").soon().await?, "hello a");
    assert_eq!(durable.workflow::<usize>("lead.created/score/lead-b").soon().await?, 1);
    assert_eq!(db.count(ROWS).await, 4);
    let publish = |arguments: &str| format!("select durable.publish({arguments})::text");
    assert_eq!(text(&db.pool, &publish("'lead.created', '{}', id => 'lead-a'")).await?, "0");
    assert_eq!(text(&db.pool, &publish("'nobody.cares'")).await?, "0");
    // What is no lead fails where it is read.
    assert_eq!(text(&db.pool, &publish("'lead.created', '7', 'odd'")).await?, "2");
    let failed = durable.workflow::<String>("lead.created/greet/odd").soon().await.unwrap_err();
    assert_eq!(failed.failure().context("a failure")?.kind(), FailureKind::Value);
    for (wrong, code, told) in [
        ("''", "22023", "the event is empty"),
        ("null", "22004", "the event is null"),
        ("'lead.created', null", "22004", "the event's value is null"),
        ("'lead.created', 'no json'", "22P02", "json"),
        ("'lead.created', '1', null", "22004", "the event's id is null"),
        ("'lead.created', '1', repeat('x', 513)", "22023", "513 bytes"),
        ("'lead.created', to_json(repeat('x', 1048576))", "54000", "at most 1048576 can be published"),
    ] {
        let (is, message, _) = refusal(&text(&db.pool, &publish(wrong)).await.unwrap_err())?;
        assert!(is == code && message.contains(told), "{wrong}: {is} {message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_subscription_that_is_added_gets_what_is_published_again() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.subscribe(Subscription::new(CREATED, greet)).await?;
    assert_eq!(client.publish(CREATED, lead("Ada")).id("1").await?.started, 1);
    client.subscribe(Subscription::new(CREATED, score)).await?;
    let again = client.publish(CREATED, lead("Grace")).id("1").await?;
    assert_eq!((again.started, again.existed), (1, 1));
    let stored = "select string_agg(input ->> 'name', ' ' order by name) from durable.workflow";
    assert_eq!(db.text(stored).await, "Ada Grace");
    Ok(())
}

/// An older release that declares it does not bring it back.
#[tokio::test]
async fn a_removed_subscription_starts_nothing_until_somebody_brings_it_back() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let old = || both(db.builder(), &kit);
    let first = old().start().await?;
    assert!(first.unsubscribe("lead.created", "greet").await?);
    assert!(!first.unsubscribe("lead.created", "greet").await?);
    assert!(!first.unsubscribe("lead.created", "nobody").await?);
    let second = old().start().await?;
    assert_eq!(second.publish(CREATED, lead("Ada")).id("1").await?.started, 1);
    assert_eq!(db.text(IDS).await, "lead.created/score/1");
    let stand = second.subscriptions().await?;
    let stand: Vec<_> = stand.iter().map(|s| (&*s.event, &*s.workflow, s.version, &*s.queue, s.is_removed)).collect();
    assert_eq!(stand, [("lead.created", "greet", 1, "default", true), ("lead.created", "score", 1, "default", false)]);

    second.subscribe(Subscription::new(CREATED, greet)).await?;
    assert_eq!(second.publish(CREATED, lead("Ada")).id("2").await?.started, 2);
    assert_eq!(text(&db.pool, "select durable.unsubscribe('lead.created', 'greet')::text").await?, "true");
    assert_eq!(second.publish(CREATED, lead("Ada")).id("3").await?.started, 1);
    Ok(())
}

/// The release that starts last says which version, and what is as it was is not written again.
#[tokio::test]
async fn the_release_that_starts_last_has_the_last_word() -> Result<()> {
    const STANDS: &str =
        "select string_agg(workflow || version || queue || priority || xmin, ' ') from durable.subscription";
    let db = Db::new().await;
    let old = || db.builder().register(score).subscribe(Subscription::new(CREATED, score));
    let new = || {
        let newer = Subscription::new(CREATED, score_again).queue("scores").priority(4);
        db.builder().register(score_again).subscribe(newer)
    };
    let _first = old().start().await?;
    let stands = db.text(STANDS).await;
    let _second = old().start().await?;
    assert_eq!(db.text(STANDS).await, stands, "nothing was written");
    let newest = new().queue("scores").start().await?;
    assert!(db.text(STANDS).await.starts_with("score2scores4"));
    newest.publish(CREATED, lead("Ada")).id("1").await?;
    assert_eq!(newest.workflow::<usize>("lead.created/score/1").soon().await?, 6);
    // What the version before has started is the same event's.
    let _late = old().start().await?;
    let again = newest.publish(CREATED, lead("Ada")).id("1").await?;
    assert_eq!((again.started, again.existed), (0, 1));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_is_refused() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let builder = || db.builder().register(greet).state(kit.clone());
    for (wrong, told) in [
        (builder().subscribe(Subscription::new(CREATED, score)), "add .register(score)"),
        (
            builder()
                .subscribe(Subscription::new(CREATED, greet))
                .subscribe(Subscription::new(CREATED, greet).priority(1)),
            "\"greet\" is subscribed twice",
        ),
        (builder().subscribe(Subscription::new(Event::<Lead>::new(""), greet)), "the event is empty"),
        (builder().subscribe(Subscription::new(CREATED, greet).queue("")), "the queue is empty"),
        (builder().subscribe(Subscription::new(CREATED, greet).partition_by("")), "names the partition is empty"),
    ] {
        let error = wrong.start().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(told), "{error}");
    }
    assert_eq!(db.count("select count(*) from durable.subscription").await, 0);

    let client = db.client().await;
    client.subscribe(Subscription::new(CREATED, greet).partition_by("customer")).await?;
    for (wrong, told) in [
        (client.publish(CREATED, lead("x")).id(""), "the event's id is empty"),
        (client.publish(CREATED, lead("x")).id("a\n"), "control character"),
        (client.publish(Event::<Lead>::new("\t"), lead("x")), "control character"),
        (client.publish(CREATED, lead(&"x".repeat(1 << 20))), "at most 1048576 can be published"),
        (client.publish(Event::<f64>::new("lead.created"), f64::NAN), "does not survive"),
        (
            client.publish(CREATED, Lead { name: "x".into(), customer: Some("a\nb".into()) }),
            "the partition holds a control",
        ),
    ] {
        let error = wrong.await.unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(told), "{error}");
    }
    client.start(score(lead("x"))).id("lead.created/greet/taken").await?;
    let error = client.publish(CREATED, lead("x")).id("taken").await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("belongs to workflow \"score\", not to \"greet\""),
        "{error}"
    );
    assert_eq!(db.count(ROWS).await, 1);
    Ok(())
}

/// No two events have the same workflow, whatever is in their names; what is too long is a hash.
#[tokio::test]
async fn the_workflows_of_different_events_have_different_ids() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let names = ["a", "a/b", "a%2Fb", "a%b", "b"];
    for name in names {
        client.subscribe(Subscription::new(Event::<Lead>::new(name), greet)).await?;
        for id in ["1", "b/1", "greet/1", "a/greet/1"] {
            assert_eq!(client.publish(Event::<Lead>::new(name), lead("x")).id(id).await?.started, 1, "{name} {id}");
        }
    }
    assert_eq!(db.count(ROWS).await, 20);
    let long = "l".repeat(512);
    for started in [1, 0] {
        assert_eq!(client.publish(Event::<Lead>::new("a"), lead("x")).id(&long).await?.started, started);
    }
    assert_eq!(db.count("select count(*) from durable.workflow where length(id) = 64").await, 1);
    Ok(())
}

/// P21: what is published for one customer does not run beyond the customer's limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_of_the_event_names_the_partition() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let mails = Subscription::new(CREATED, greet).queue("mails").partition_by("customer");
    let builder = db.builder().register(greet).state(kit.clone()).subscribe(mails);
    let durable = builder.serve(Queue::new("mails").concurrency_per_partition(1)).start().await?;
    for (n, customer) in [Some("acme"), Some("duck"), None, Some("")].into_iter().enumerate() {
        let lead = Lead { name: n.to_string(), customer: customer.map(str::to_owned) };
        durable.publish(CREATED, lead).id(n.to_string()).await?;
    }
    db.until("select count(*) = 4 from durable.workflow where status = 'completed'").await;
    let places = "select string_agg(partition, ' ' order by partition) from durable.place where partition > ''";
    assert_eq!(db.text(places).await, "acme duck");
    Ok(())
}

/// The grants of the manual are what it takes.
#[tokio::test]
async fn a_role_with_the_grants_of_the_manual_publishes() -> Result<()> {
    let db = Db::new().await;
    db.client().await.subscribe(Subscription::new(CREATED, greet).partition_by("customer")).await?;
    let manual = include_str!("../../../durable-core/docs/subscribe.md");
    let (_, grants) = manual.split_once("create role publisher;").context("the grants")?;
    let grants = grants.split("```").next().context("their end")?;
    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "create role publisher").await?;
    run(&mut *tx, grants).await?;
    run(&mut *tx, "set local role publisher").await?;
    for started in ["1", "0"] {
        let publish = "select durable.publish('lead.created', '{\"customer\":\"acme\"}', 'x')::text";
        assert_eq!(text(&mut *tx, publish).await?, started);
    }
    tx.rollback().await?;
    Ok(())
}
