//! Finding workflows, counting them, and reading their histories: page by page, and each thing once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use durable::{Ctx, Durable, ErrorKind, ListWorkflows, Status, StepCtx, Topic, WorkflowInfo, step, workflow};
use durable_tests::db::Db;
use durable_tests::soon::Soon;

use super::from_sql::{run, text};
use super::from_sql_schema::of_the_first_migration;

const STATUSES: [Status; 7] = [
    Status::Queued,
    Status::Running,
    Status::Suspended,
    Status::Completed,
    Status::Failed,
    Status::Cancelled,
    Status::Blocked,
];

/// A workflow for a list.
#[derive(Clone, Debug)]
struct Row {
    id: String,
    name: String,
    queue: String,
    status: Status,
    /// In milliseconds after the beginning.
    created: i64,
}

/// When the first of them was started.
fn beginning() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).expect("a time")
}

fn at(millis: i64) -> DateTime<Utc> {
    beginning() + Duration::from_millis(millis.try_into().expect("a time after the beginning"))
}

async fn insert(db: &Db, rows: &[Row]) -> Result<()> {
    let column = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).to_owned()).collect::<Vec<_>>();
    sqlx::query(
        "insert into durable.workflow (bucket, id, name, version, queue, status, owner, due_at, created_at, input)
         select durable.bucket(id), id, name, 1, queue, status,
                case when status = 'running' then gen_random_uuid() end, $5 + created * interval '1 ms',
                $5 + created * interval '1 ms', 'null'
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $6::bigint[]) as r (id, name, queue, status, created)",
    )
    .bind(column(|row| &row.id))
    .bind(column(|row| &row.name))
    .bind(column(|row| &row.queue))
    .bind(column(|row| row.status.as_str()))
    .bind(beginning())
    .bind(rows.iter().map(|row| row.created).collect::<Vec<_>>())
    .execute(&db.pool)
    .await?;
    Ok(())
}

/// Many that differ in everything; several have one time.
fn many(count: usize) -> Vec<Row> {
    let mut seed = 7_u64;
    let mut chance = |of: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % of
    };
    let mut row = |n: usize| Row {
        id: format!("{}-{n}", ["order", "lead", "ord_er", "ord%er"][chance(4) as usize]),
        name: format!("name-{}", chance(3)),
        queue: format!("queue-{}", chance(2)),
        status: STATUSES[chance(7) as usize],
        created: i64::try_from(chance(100)).expect("a small number") * 10,
    };
    (0..count).map(&mut row).collect()
}

fn newest_first(rows: &mut [&Row]) {
    rows.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
}

/// Read a list to its end.
async fn all(list: impl Fn() -> ListWorkflows<'static>) -> Result<Vec<WorkflowInfo>> {
    let mut found = Vec::new();
    let mut page = list().await?;
    loop {
        found.append(&mut page.workflows);
        let Some(next) = page.next else { return Ok(found) };
        page = list().after(next).await?;
    }
}

/// For as long as the test binary runs, so that lists can be described by plain closures.
async fn client(db: &Db) -> &'static Durable {
    Box::leak(Box::new(db.client().await))
}

fn ids(found: &[WorkflowInfo]) -> Vec<&str> {
    found.iter().map(|workflow| &*workflow.id).collect()
}

/// Everything that may be asked for, one by one and together, in pages of several sizes, against a list in memory.
#[tokio::test]
async fn a_list_is_what_was_asked_for_in_order_page_by_page() -> Result<()> {
    type Ask = fn(ListWorkflows<'static>) -> ListWorkflows<'static>;
    type Fits = fn(&Row) -> bool;
    let asks: [(Ask, Fits); 10] = [
        (|list| list, |_| true),
        (|list| list.status(Status::Failed), |row| row.status == Status::Failed),
        (|list| list.status(Status::Running), |row| row.status == Status::Running),
        (
            |list| list.status(Status::Completed).status(Status::Queued).status(Status::Completed),
            |row| matches!(row.status, Status::Completed | Status::Queued),
        ),
        (|list| list.name("name-1"), |row| row.name == "name-1"),
        (|list| list.queue("queue-0"), |row| row.queue == "queue-0"),
        (|list| list.id_prefix("ord"), |row| row.id.starts_with("ord")),
        (|list| list.id_prefix("ord_"), |row| row.id.starts_with("ord_")),
        (|list| list.created_from(at(300)).created_before(at(600)), |row| (300..600).contains(&row.created)),
        (
            |list| {
                list.id_prefix("ord%").status(Status::Suspended).status(Status::Blocked).name("name-2").queue("queue-1")
            },
            |row| {
                row.id.starts_with("ord%")
                    && matches!(row.status, Status::Suspended | Status::Blocked)
                    && row.name == "name-2"
                    && row.queue == "queue-1"
            },
        ),
    ];
    let db = Db::new().await;
    let rows = many(700);
    insert(&db, &rows).await?;
    let client = client(&db).await;
    for (n, (ask, fits)) in asks.into_iter().enumerate() {
        let mut expected: Vec<&Row> = rows.iter().filter(|row| fits(row)).collect();
        newest_first(&mut expected);
        let expected: Vec<&str> = expected.iter().map(|row| &*row.id).collect();
        assert!(!expected.is_empty(), "ask {n} finds nothing");
        for limit in [7, 100, 1000] {
            let newest = all(|| ask(client.workflows()).limit(limit)).await?;
            assert_eq!(ids(&newest), expected, "ask {n}, {limit} a page");
            let mut oldest = all(|| ask(client.workflows()).limit(limit).oldest_first()).await?;
            oldest.reverse();
            assert_eq!(ids(&oldest), expected, "ask {n}, {limit} a page, oldest first");
        }
    }
    assert_eq!(client.workflows().await?.workflows.len(), 100);
    assert!(client.workflows().name("nobody").await?.workflows.is_empty());
    Ok(())
}

/// A page is keyed by what never changes.
#[tokio::test]
async fn what_starts_meanwhile_moves_no_page() -> Result<()> {
    let db = Db::new().await;
    let client = client(&db).await;
    let rows = many(60);
    insert(&db, &rows).await?;
    for oldest in [false, true] {
        let list = || {
            let list = client.workflows().limit(10);
            if oldest { list.oldest_first() } else { list }
        };
        let (mut seen, mut page, mut pages) = (Vec::new(), list().await?, 1);
        loop {
            seen.extend(page.workflows.iter().map(|workflow| workflow.id.clone()));
            // As many as were shown, later than all and earlier than all.
            let row = |n: usize, created| Row { id: format!("late-{oldest}-{pages}-{n}"), created, ..rows[0].clone() };
            let created = if oldest { 0 } else { 100_000 };
            insert(&db, &(0..10).map(|n| row(n, created)).collect::<Vec<_>>()).await?;
            run(&db.pool, "update durable.workflow set queue = queue || 'x', due_at = now()").await?;
            let Some(next) = page.next else { break };
            page = list().after(next).await?;
            pages += 1;
        }
        let mut expected: Vec<&Row> = rows.iter().collect();
        newest_first(&mut expected);
        if oldest {
            expected.reverse();
            // Those that came while the place was still at the very beginning.
            seen.retain(|id| !id.starts_with("late-true"));
        }
        let expected: Vec<&str> = expected.iter().map(|row| &*row.id).collect();
        assert_eq!(seen, expected, "oldest first: {oldest}");
        run(&db.pool, "delete from durable.workflow where id like 'late-%'").await?;
    }
    Ok(())
}

#[workflow]
async fn listens(ctx: &Ctx) -> Result<String> {
    Ok(ctx.receive(Topic::<String>::new("word")).await?)
}

#[workflow]
async fn fails(ctx: &Ctx) -> Result<()> {
    bail!("{} has no luck", ctx.id())
}

/// What the engine writes is what a list shows, and what one workflow shows of itself.
#[tokio::test]
async fn a_list_shows_workflows_as_they_stand() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(listens).register(fails).start().await?;
    durable.start(listens()).id("waits").priority(-3).await?;
    assert_eq!(durable.start(fails()).id("failed").await?.soon().await.unwrap_err().kind(), ErrorKind::Failed);
    durable.start(listens()).id("cancelled").await?;
    durable.cancel("cancelled").await?;
    durable.start(listens()).id("elsewhere").queue("other").delay(Duration::from_secs(3600)).await?;
    db.until_status("waits", "suspended").await;

    let page = durable.workflows().oldest_first().await?;
    assert_eq!(ids(&page.workflows), ["waits", "failed", "cancelled", "elsewhere"]);
    assert_eq!(page.next, None);
    for listed in &page.workflows {
        let itself = durable.workflow::<()>(&listed.id).info().await?;
        assert_eq!(format!("{listed:?}"), format!("{itself:?}"));
    }
    let [waits, failed, cancelled, elsewhere] = &page.workflows[..] else { bail!("four") };
    assert_eq!((waits.status, waits.priority, waits.claims), (Status::Suspended, -3, 1));
    assert!(waits.claimed_at.is_some() && waits.finished_at.is_none() && waits.due_at.is_none());
    assert!(failed.failure.as_ref().context("a failure")?.message().contains("no luck"));
    assert!(failed.finished_at >= failed.claimed_at && cancelled.finished_at.is_some());
    assert_eq!((elsewhere.status, &*elsewhere.queue, elsewhere.claims), (Status::Queued, "other", 0));
    assert!(elsewhere.due_at > Some(elsewhere.created_at) && elsewhere.claimed_at.is_none());

    let parked = durable.workflows().status(Status::Failed).status(Status::Blocked).await?;
    assert_eq!(ids(&parked.workflows), ["failed"]);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_listed_is_refused() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    insert(&db, &many(3)).await?;
    let next = client.workflows().limit(1).await?.next.context("a next page")?;
    let long = "x".repeat(513);
    for (list, part) in [
        (client.workflows().limit(0), "1 to 1000"),
        (client.workflows().limit(1001), "1 to 1000"),
        (client.workflows().name(""), "workflow name is empty"),
        (client.workflows().queue("a\nb"), "control character"),
        (client.workflows().id_prefix(long), "513 bytes"),
        (client.workflows().after("2"), "it is not what a page gave"),
        (client.workflows().after(next).oldest_first(), "other order"),
    ] {
        let error = list.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let history = client.workflow::<()>("x");
    for (history, part) in [
        (history.history().limit(0), "1 to 1000"),
        (history.history().limit(1001), "1 to 1000"),
        (history.history().after("next"), "it is not what a page gave"),
    ] {
        let error = history.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn counts_are_those_of_the_statuses() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    assert_eq!(client.counts().await?, durable::Counts::default());
    let rows = many(500);
    insert(&db, &rows).await?;
    let mut of = BTreeMap::new();
    for row in &rows {
        *of.entry(row.status.as_str()).or_insert(0_u64) += 1;
    }
    let counts = client.counts().await?;
    for (status, counted) in [
        ("queued", counts.queued),
        ("running", counts.running),
        ("suspended", counts.suspended),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("blocked", counts.blocked),
    ] {
        assert_eq!(of.get(status), Some(&counted), "{status}");
    }
    Ok(())
}

/// Lists are right without their index, which a migration leaves out rather than hold up writers.
#[tokio::test]
async fn a_list_without_its_index_is_the_same_list() -> Result<()> {
    let db = Db::new().await;
    assert!(!text(&db.pool, "select to_regclass('durable.workflow_listed')::text").await?.is_empty());
    run(&db.pool, "drop index durable.workflow_listed").await?;
    insert(&db, &many(300)).await?;
    let client = client(&db).await;
    let found = all(|| client.workflows().status(Status::Suspended).limit(7)).await?;
    assert_eq!(found.len() as u64, client.counts().await?.suspended);
    assert!(found.is_sorted_by(|a, b| (a.created_at, &a.id) > (b.created_at, &b.id)));
    Ok(())
}

/// P19: writers of a large table do not wait for an index; an operator makes it, by the statement of the manual.
#[tokio::test]
async fn a_migration_leaves_the_index_of_a_large_table_to_an_operator() -> Result<()> {
    const LARGE: &str = "
        insert into durable.workflow (bucket, id, name, version, queue, status, input)
        select n % 64, 'w-' || n, 'x', 1, 'default', 'completed', to_json(repeat('x', 1800))
        from generate_series(1, 40000) n";
    let manual = include_str!("../../../durable-core/docs/list.md");
    let (_, index) = manual.rsplit_once("```sql").context("the last statement of the manual")?;
    let index = index.trim_end().trim_end_matches('`');
    let has_it = "select coalesce(to_regclass('durable.workflow_listed')::text, 'no')";

    let small = of_the_first_migration().await?;
    durable::migrate(&small.pool, "durable").await?;
    assert_eq!(text(&small.pool, has_it).await?, "durable.workflow_listed");

    let large = of_the_first_migration().await?;
    run(&large.pool, LARGE).await?;
    durable::migrate(&large.pool, "durable").await?;
    assert_eq!(text(&large.pool, has_it).await?, "no");
    let listed = large.client().await.workflows().status(Status::Queued).await?;
    assert_eq!(ids(&listed.workflows), ["b", "a"]);
    run(&large.pool, index).await?;
    let made = "select pg_get_indexdef('durable.workflow_listed'::regclass)";
    assert_eq!(text(&large.pool, made).await?, text(&small.pool, made).await?);
    Ok(())
}

/// Every statement of a list, a count and a history finds its tables in another schema.
#[tokio::test]
async fn another_schema_is_listed_by_itself() -> Result<()> {
    let db = Db::new().await;
    insert(&db, &many(20)).await?;
    let durable = db.builder().schema("agents_2").migrate(true).register(fails).start().await?;
    assert!(!text(&db.pool, "select to_regclass('agents_2.workflow_listed')::text").await?.is_empty());
    let failed = durable.start(fails()).id("f").await?;
    assert_eq!(failed.soon().await.unwrap_err().kind(), ErrorKind::Failed);
    assert_eq!(ids(&durable.workflows().await?.workflows), ["f"]);
    assert_eq!(durable.counts().await?.failed, 1);
    assert!(failed.history().await?.steps.is_empty());
    Ok(())
}

#[step(retry(max_attempts = 3, first = "1ms"))]
async fn fails_at_first(step: &StepCtx, item: u32) -> Result<u32> {
    if item == 2 && step.attempt() < 3 {
        bail!("attempt {} of {item}", step.attempt());
    }
    Ok(item)
}

#[step(retry(max_attempts = 1))]
async fn gives_up(item: u32) -> Result<u32> {
    bail!("never {item}")
}

#[step]
async fn gives_much(bytes: usize) -> Result<String> {
    // Not of the kind that compresses.
    let random = (0..bytes.div_ceil(16)).flat_map(|_| uuid::Uuid::new_v4().into_bytes());
    Ok(random.take(bytes).map(|byte| char::from(b'a' + byte % 26)).collect())
}

#[workflow]
async fn works_in_lanes(ctx: &Ctx) -> Result<Vec<u32>> {
    ctx.run(fails_at_first(1)).await?;
    let items = ctx.fan_out(0..12_u32, 4, async |ctx: &Ctx, item| ctx.run(fails_at_first(item)).await).await;
    let failed = ctx.run(gives_up(3)).await.is_err();
    assert!(failed);
    Ok(items.into_iter().collect::<Result<_, _>>()?)
}

/// Nothing of a history is left out or shown twice, with its inputs, outputs, failures and attempts.
#[tokio::test]
async fn a_history_page_by_page_is_all_of_the_history() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(works_in_lanes).start().await?;
    let handle = durable.start(works_in_lanes()).id("w").await?;
    handle.soon().await?;
    let mut at_once = handle.steps().await?;
    at_once.sort_by(|a, b| (&a.lane, a.seq).cmp(&(&b.lane, b.seq)));
    assert_eq!(at_once.len(), 14);
    for limit in [1, 3, 14, 1000] {
        let (mut steps, mut page) = (Vec::new(), handle.history().limit(limit).await?);
        loop {
            assert!(page.steps.len() <= limit as usize);
            steps.append(&mut page.steps);
            let Some(next) = page.next else { break };
            page = handle.history().limit(limit).after(next).await?;
        }
        assert_eq!(format!("{steps:?}"), format!("{at_once:?}"), "{limit} a page");
    }
    let retried = at_once.iter().find(|step| step.input.as_deref() == Some("2")).context("the item 2")?;
    assert_eq!((retried.output.as_deref(), retried.failed_attempts.len()), (Some("2"), 2));
    assert!(retried.failed_attempts[0].failure.message().contains("attempt 1 of 2"));
    let gave_up = at_once.iter().find(|step| step.name == "gives_up").context("the step that fails")?;
    assert!(gave_up.output.is_none() && gave_up.failure.as_ref().is_some_and(|f| f.message().contains("never 3")));
    assert!(durable.workflow::<()>("nobody").history().await?.steps.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_input_is_read_as_it_was_given() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    assert_eq!(client.start(writes_much(3)).id("one").await?.input::<usize>().await?, 3);
    client.start(listens()).id("none").await?.input::<()>().await?;
    text(&db.pool, "select durable.start('pay', '[\"order-7\", 1999]', 'several')").await?;
    let several = client.workflow::<()>("several");
    assert_eq!(several.input::<(String, i64)>().await?, ("order-7".to_owned(), 1999));

    let other = several.input::<String>().await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Decode);
    assert!(other.to_string().contains("the input of workflow several does not decode as"), "{other}");
    assert!(client.workflow::<()>("nobody").input::<()>().await.unwrap_err().is_not_found());
    Ok(())
}

#[workflow]
async fn writes_much(ctx: &Ctx, megabytes: usize) -> Result<()> {
    for _ in 0..megabytes {
        ctx.run(gives_much(1024 * 1024)).await?;
    }
    ctx.run(gives_much(9 * 1024 * 1024)).await?;
    ctx.run(gives_much(1)).await?;
    Ok(())
}

/// A page has a bound in bytes, and one record in any case.
#[tokio::test]
async fn a_page_of_a_history_ends_early_where_its_values_are_large() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(writes_much).start().await?;
    let handle = durable.start(writes_much(10)).id("w").await?;
    handle.soon().await?;
    let (mut lengths, mut page) = (Vec::new(), handle.history().await?);
    loop {
        lengths.push(page.steps.len());
        let Some(next) = page.next else { break };
        page = handle.history().after(next).await?;
    }
    assert!(lengths[0] < 10 && lengths.contains(&1) && lengths.iter().sum::<usize>() == 12, "{lengths:?}");
    Ok(())
}
