//! Calls that share a queue with limits, for the tests that kill its workers, and a sweep over what they did.

use std::time::Duration;

use anyhow::{Result, ensure};
use durable::{Builder, Ctx, Limit, Queue, StepCtx, step, workflow};
use sqlx::PgPool;

use crate::journey::{Outside, SHORT_WAIT, note};

/// The limits of the queue.
pub const AT_ONCE: i64 = 6;
/// Of each partition.
pub const OF_EACH: i64 = 2;
/// That may begin in any [`PERIOD`].
pub const RATE: u32 = 25;
/// See [`RATE`].
pub const PERIOD: Duration = Duration::from_millis(700);

/// How many may begin at once; the others are spread over the period.
pub const BURST: u32 = 4;

/// The queue.
pub fn queue() -> Queue {
    let (at_once, of_each) = (u32::try_from(AT_ONCE), u32::try_from(OF_EACH));
    Queue::new("calls")
        .concurrency(at_once.expect("a small number"))
        .concurrency_per_partition(of_each.expect("a small number"))
        .rate(RATE, PERIOD)
        .burst(BURST)
}

/// Register what calls need beside the state of a journey.
pub fn register(builder: Builder) -> Builder {
    let at_once = u32::try_from(AT_ONCE).expect("a small number");
    builder
        .register(call_once)
        .register(call_twice)
        .register(limited_call)
        .limit(Limit::new("calls").concurrency(at_once).rate(RATE, PERIOD))
}

/// Takes some time, waits suspended, and takes some time again.
#[workflow]
pub async fn call_twice(ctx: &Ctx) -> Result<()> {
    ctx.run(takes_time("first".into())).await?;
    ctx.sleep(SHORT_WAIT * 3 / 2).await?;
    ctx.run(takes_time("second".into())).await?;
    Ok(())
}

/// Takes some time.
#[workflow]
pub async fn call_once(ctx: &Ctx) -> Result<()> {
    Ok(ctx.run(takes_time("only".into())).await?)
}

#[step]
async fn takes_time(step: &StepCtx, which: String) -> Result<()> {
    note(step, &which, "").await?;
    tokio::time::sleep(Duration::from_millis(5 + uuid::Uuid::new_v4().as_u64_pair().0 % 40)).await;
    Ok(())
}

/// Notes each time that a workflow begins to run, and that it does not any more.
pub const WATCH: &str = "
    create table public.run (id text not null, partition text not null, begins boolean not null, is_first boolean not null,
                      begun_at timestamptz not null, at timestamptz not null default clock_timestamp());
    create function public.watch() returns trigger language plpgsql as $$
    begin
        insert into public.run (id, partition, begins, is_first, begun_at)
        select new.id, coalesce((select partition from durable.place p where p.bucket = new.bucket and p.id = new.id), ''),
               new.status = 'running', new.claims = 1, coalesce(new.claimed_at, durable.now());
        return null;
    end $$;
    create trigger watch after update on durable.workflow for each row
        when ((old.status = 'running') <> (new.status = 'running')) execute function public.watch();";

/// What is not true of calls that have ended: no more ran at once than the queue allows, in all and of each partition, and no more
/// began in any period.
pub async fn check(pool: &PgPool) -> Result<()> {
    let most = most_at_once(pool).await?;
    let of_each =
        "select max(n) from (select sum(case when begins then 1 else -1 end) over (partition by partition order by at, begins) as n
                             from run) as t";
    let of_each: i64 = sqlx::query_scalar(of_each).fetch_one(pool).await?;
    let began: Vec<chrono::DateTime<chrono::Utc>> =
        sqlx::query_scalar("select begun_at from run where begins and is_first order by begun_at")
            .fetch_all(pool)
            .await?;
    let rate = RATE as usize;
    let nearest = began.windows(rate + 1).map(|window| window[rate] - window[0]).min();
    println!(
        "at most {most} of {AT_ONCE} at once, {of_each} of {OF_EACH} of a partition; {} began, {rate} of them and the next in no less \
         than {nearest:?}",
        began.len()
    );
    let spread = most_in_a_row(&began, PERIOD / RATE);
    println!("at most {spread} more than their share of a span began; {BURST} may");
    ensure!(spread <= i64::from(BURST), "{spread} more than their share of a span began");
    ensure!(most <= AT_ONCE, "{most} ran at once");
    ensure!(of_each <= OF_EACH, "{of_each} of a partition ran at once");
    ensure!(
        nearest.is_none_or(|nearest| nearest.to_std().is_ok_and(|near| near >= PERIOD)),
        "{nearest:?} for {rate} and one"
    );
    Ok(())
}

/// How many ran at once, at most.
pub async fn most_at_once(pool: &PgPool) -> sqlx::Result<i64> {
    let most = "select max(n) from (select sum(case when begins then 1 else -1 end) over (order by at, begins) as n from run) as t";
    sqlx::query_scalar(most).fetch_one(pool).await
}

/// By how many those that began in any span are more than the steps that it has: the burst. From each moment to each later one, since
/// what matters begins and ends with somebody who begins.
pub fn most_in_a_row(began: &[chrono::DateTime<chrono::Utc>], step: Duration) -> i64 {
    let step = i64::try_from(step.as_nanos()).expect("less than centuries");
    let mut most = 0;
    for (first, from) in began.iter().enumerate() {
        for (many, until) in (1..).zip(&began[first..]) {
            let span = (*until - *from).num_nanoseconds().expect("less than centuries");
            most = most.max(many - span / step);
        }
    }
    most
}

/// What limited calls write: when their bodies began and ended, in which process.
pub const LIMITED: &str = "
    create table public.limited (id text not null, pid integer not null, begins boolean not null,
                                 at timestamptz not null default clock_timestamp());";

/// Makes a call within the limit "calls".
#[workflow]
pub async fn limited_call(ctx: &Ctx) -> Result<()> {
    ctx.run(within_limit(ctx.id().to_owned())).await?;
    Ok(())
}

#[step(limit = "calls")]
async fn within_limit(step: &StepCtx, id: String) -> Result<()> {
    let Outside(pool) = step.state();
    let note = async |begins: bool| {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let noted = sqlx::query("insert into public.limited (id, pid, begins) values ($1, $2, $3)");
        noted.bind(&id).bind(pid).bind(begins).execute(pool).await
    };
    note(true).await?;
    tokio::time::sleep(Duration::from_millis(5 + uuid::Uuid::new_v4().as_u64_pair().0 % 40)).await;
    note(false).await?;
    Ok(())
}

/// What is not true of limited calls that have ended: no more ran at once than the limit allows. A call of a process that was lost ran until
/// that was fenced: what it still does out there after that cannot be known.
pub async fn check_limited(pool: &PgPool) -> Result<()> {
    let most: i64 = sqlx::query_scalar(
        "with ran as (
             select b.at as began,
                    least((select min(e.at) from public.limited e
                           where e.id = b.id and e.pid = b.pid and not e.begins and e.at >= b.at),
                          (select min(k.fenced_at) from durable.worker k where k.pid = b.pid and k.fenced_at >= b.at)) as ended
             from public.limited b where b.begins
         ),
         edges as (select began as at, 1 as one from ran union all select ended, -1 from ran)
         select max(n)::bigint from (select sum(one) over (order by at, one) as n from edges) t",
    )
    .fetch_one(pool)
    .await?;
    let began: Vec<chrono::DateTime<chrono::Utc>> =
        sqlx::query_scalar("select at from public.limited where begins order by at").fetch_all(pool).await?;
    let rate = RATE as usize;
    let nearest = began.windows(rate + 1).map(|window| window[rate] - window[0]).min();
    println!(
        "at most {most} of {AT_ONCE} at once; {} began, {rate} of them and the next in no less than {nearest:?}",
        began.len()
    );
    ensure!(most <= AT_ONCE, "{most} ran at once");
    // The limit counts when a call is let go, which is a little before its body writes.
    let least = PERIOD.mul_f64(0.7);
    ensure!(
        nearest.is_none_or(|nearest| nearest.to_std().is_ok_and(|near| near >= least)),
        "{nearest:?} for {rate} and one"
    );
    Ok(())
}
