//! Rows that stand in the tables before anything is measured, as a database has them that has been in use.

use std::time::Instant;

use anyhow::{Context, Result};
use sqlx::{Connection, PgConnection};

use crate::bench::Bench;
use crate::payload::payload;

const BUCKETS: u32 = 64;

/// One for each of two processors.
const LOADERS: u32 = 2;

/// Asleep for another month. $1 is the bucket, $2 how many.
const SLEEPERS: &str = "
    insert into durable.workflow
        (bucket, id, name, version, queue, status, due_at, claims, claimed_at, waits, input)
    select $1, '018f0000-0000-7000-' || (10000000000000000 + $1::bigint * 1000000000 + i), 'sleeper', 1, 'default',
           'suspended', now() + interval '30 days' + i * interval '1 ms', 1, now(),
           json_build_array(json_build_object('lane', '', 'seq', 0, 'kind', 'sleep', 'topic', null,
                                              'until', now() + interval '30 days', 'attempts', null)),
           '[1]'
    from generate_series(1, $2) as i";

/// Queued for tomorrow.
const LATER: &str = "
    insert into durable.workflow (bucket, id, name, version, queue, status, due_at, input)
    select $1, '018f0000-0000-7000-' || (10000000000000000 + $1::bigint * 1000000000 + i), 'one_step', 1, 'default',
           'queued', now() + interval '1 day' + i * interval '1 ms', '[200]'
    from generate_series(1, $2) as i";

/// Workflows that have ended, and their ten steps.
const ENDED: &str = "
    insert into durable.workflow
        (bucket, id, name, version, queue, status, claims, claimed_at, finished_at, input, output)
    select $1, '018f0000-0000-7000-' || (10000000000000000 + $1::bigint * 1000000000 + i), 'ten_steps', 1, 'default',
           'completed', 1, now(), now(), '[200]', '45'
    from generate_series(1, $2) as i";
const STEPS: &str = "
    insert into durable.step (bucket, workflow_id, lane, seq, kind, name, input, output, started_at)
    select $1, '018f0000-0000-7000-' || (10000000000000000 + $1::bigint * 1000000000 + i), '', seq, 'step', 'work',
           '[0,200]', $3::json, now()
    from generate_series(1, $2) as i, generate_series(0, 9) as seq";

/// Suspended workflows.
pub(crate) async fn sleepers(bench: &Bench, count: u32) -> Result<()> {
    let load = |connection, bucket| Box::pin(fill(connection, bucket, count / BUCKETS, SLEEPERS));
    in_parallel(bench, count, load).await
}

/// Workflows that are queued for later.
pub(crate) async fn later(bench: &Bench, count: u32) -> Result<()> {
    let load = |connection, bucket| Box::pin(fill(connection, bucket, count / BUCKETS, LATER));
    in_parallel(bench, count, load).await
}

/// So many steps of workflows that have ended; the seconds that it took.
pub(crate) async fn history(bench: &Bench, steps: u32) -> Result<f64> {
    let began = Instant::now();
    let load = |connection, bucket| Box::pin(fill(connection, bucket, steps / 10 / BUCKETS, ENDED));
    in_parallel(bench, steps, load).await?;
    Ok(began.elapsed().as_secs_f64())
}

async fn fill(mut connection: PgConnection, bucket: i16, count: u32, workflows: &'static str) -> Result<PgConnection> {
    let count = i32::try_from(count)?;
    sqlx::query(workflows).bind(bucket).bind(count).execute(&mut connection).await?;
    if workflows == ENDED {
        sqlx::query(STEPS).bind(bucket).bind(count).bind(payload(200)).execute(&mut connection).await?;
    }
    Ok(connection)
}

async fn in_parallel<F>(bench: &Bench, count: u32, load: impl Fn(PgConnection, i16) -> F + Copy) -> Result<()>
where
    F: Future<Output = Result<PgConnection>> + Send + 'static,
{
    if count == 0 {
        return Ok(());
    }
    let loaders = (0..LOADERS).map(|loader| async move {
        let mut connection = PgConnection::connect(&bench.url).await?;
        for bucket in (loader..BUCKETS).step_by(LOADERS as usize) {
            connection = load(connection, i16::try_from(bucket)?).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(loaders).await.context("could not load rows")?;
    // As autovacuum would have done long ago, and would otherwise do in the middle of what is measured.
    for sql in ["vacuum analyze durable.workflow", "vacuum analyze durable.step", "checkpoint"] {
        sqlx::raw_sql(sql).execute(&bench.pool).await.context("could not vacuum the loaded rows")?;
    }
    Ok(())
}
