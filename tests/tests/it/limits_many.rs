//! Many who want one limit: a thousand agents of three processes, and workers that ask in the same moment.

use std::time::Duration;

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use durable::{Limit, minutes, seconds};
use durable_tests::calls::{LIMITED, limited_call};
use durable_tests::db::Db;
use durable_tests::journey::Outside;
use durable_tests::victim::{Orders, Victim};
use sqlx::postgres::PgPoolOptions;

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// Notes when calls were let go, and how many, by the limit's own time: that of a body is a little later, and varies.
const NOTES: &str = "
    create table public.granted (xid xid8 not null, many integer not null, at timestamptz);
    create function public.note_many() returns trigger language plpgsql as $$
    begin
        insert into public.granted (xid, many) values (pg_current_xact_id(), new.held - old.held);
        return null;
    end $$;
    create trigger note after update on durable.step_permit for each row
        when (new.n = old.n and new.held > old.held) execute function public.note_many();
    create function public.note_time() returns trigger language plpgsql as $$
    begin
        update public.granted set at = new.given_at where xid = pg_current_xact_id();
        return null;
    end $$;
    create trigger note after update on durable.step_limit for each row
        when (new.given_at <> old.given_at) execute function public.note_time();";

/// P21: the promise of the feature, with a shorter minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_of_three_processes_keep_to_a_rate_and_use_it() -> Result<()> {
    const AGENTS: usize = 1_000;
    const RATE: usize = 100;
    const PERIOD: Duration = Duration::from_secs(2);
    let db = Db::new().await;
    sqlx::raw_sql(LIMITED).execute(&db.pool).await?;
    sqlx::raw_sql(NOTES).execute(&db.pool).await?;
    let client = db.client().await;
    let orders = Orders { serves_calls: true, ..Orders::new(db.url()) };
    let begin = || async { Victim::begin(VICTIM, &orders).at_work().await };
    let _victims = [begin().await, begin().await, begin().await];
    // That there is a concurrency, which nobody reaches, makes what runs known.
    client.set_limit(Limit::new("calls").concurrency(10_000).rate(100, PERIOD)).await?;
    client.start_many((0..AGENTS).map(|n| (format!("a-{n}"), limited_call()))).await?;
    db.until("select count(*) = 1000 from durable.workflow where status = 'completed'").await;

    let calls = "select count(*) from public.limited where begins";
    assert_eq!(
        (db.count(calls).await, db.count("select count(distinct id) from public.limited").await),
        (1_000, 1_000)
    );
    assert_eq!(db.count("select count(distinct pid) from public.limited").await, 3, "one of the processes did nothing");
    let began: Vec<DateTime<Utc>> =
        sqlx::query_scalar("select g.at from public.granted g cross join generate_series(1, g.many) order by g.at")
            .fetch_all(&db.pool)
            .await?;
    ensure!(began.len() >= AGENTS, "{} of {AGENTS} were let go", began.len());
    let nearest = began.windows(RATE + 1).map(|window| window[RATE] - window[0]).min().unwrap_or_default().to_std()?;
    // A period's worth begins at once, the others in turns which are as far apart as the rate says.
    let took = (began[began.len() - 1] - began[0]).to_std()?;
    let (periods, needed) = (took.div_duration_f64(PERIOD), 10.0);
    println!(
        "{} let go in {periods:.2} periods, {needed} are needed; {RATE} and one in no less than {nearest:?}",
        began.len()
    );
    ensure!(nearest >= PERIOD, "{RATE} and one within {nearest:?}");
    ensure!(periods <= needed + 2.0, "{periods:.2} periods, {needed} are needed");
    Ok(())
}

/// Who has slept until its turn comes with the next poll, together with all whose turns were meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_whose_turns_have_come_begins_as_fast_as_the_rate_allows_and_is_not_sent_away() -> Result<()> {
    let db = Db::new().await;
    sqlx::raw_sql(LIMITED).execute(&db.pool).await?;
    let builder = db.builder().poll_every(seconds(3)).short_wait(seconds(2)).concurrency(2_000).register(limited_call);
    let limit = Limit::new("calls").rate(400, seconds(2));
    let durable = builder.state(Outside(db.pool.clone())).limit(limit).start().await?;
    durable.start_many((0..1_200).map(|n| (format!("a-{n}"), limited_call()))).await?;
    db.until("select count(*) = 1200 from durable.workflow where status = 'completed'").await;
    // A claim to come into the line, and another one when it is its turn. Six hundred turns come with a poll, of which four hundred begin
    // at once.
    let sent_away = db.count("select count(*) from durable.workflow where claims > 2").await;
    assert!(sent_away < 50, "{sent_away} were sent away when their turn had come");
    Ok(())
}

/// P21: what only the lock of the limit's row keeps. Each asking is slow after what it reads and before what it writes is there to
/// be read, so that all of them would read the same if they could.
#[tokio::test]
async fn of_twelve_workers_that_ask_in_the_same_moment_no_more_begin_than_the_limit_allows() -> Result<()> {
    const WORKERS: usize = 12;
    let db = Db::new().await;
    sqlx::raw_sql(
        "create function public.slow() returns trigger language plpgsql as $$
         begin
             perform pg_sleep(0.03);
             return new;
         end $$;
         create trigger slow before insert or update on durable.step_permit for each row execute function public.slow();
         insert into durable.worker (id, lease_until, host, pid, queue)
         select lpad(n::text, 32, '0')::uuid, now() + interval '1 h', 'h', n, 'q' from generate_series(1, 12) n",
    )
    .execute(&db.pool)
    .await?;
    let client = db.client().await;
    let pool = PgPoolOptions::new().min_connections(12).max_connections(12).connect(db.url()).await?;
    let mut began = Vec::new();
    for limit in [Limit::new("concurrency").concurrency(3), Limit::new("rate").rate(3, minutes(1))] {
        client.set_limit(limit.clone()).await?;
        let ask = async |worker: usize| {
            let ask =
                "select newcomers_begin from durable.ask_limit($1, lpad($2::text, 32, '0')::uuid, 1, 0, 0, 0, 1, null)";
            let worker = i32::try_from(worker).expect("a small number");
            sqlx::query_scalar::<_, i32>(ask).bind(limit.name()).bind(worker).fetch_one(&pool).await
        };
        let of_each = futures::future::try_join_all((1..=WORKERS).map(ask)).await?;
        began.push((limit.name().to_owned(), of_each.iter().sum::<i32>()));
    }
    assert_eq!(began, [("concurrency".to_owned(), 3), ("rate".to_owned(), 3)]);
    Ok(())
}
