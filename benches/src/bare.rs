//! The limits of a Rust client that knows what it wants: the same rows by the same driver, without the library.
//! Nothing of what makes a workflow durable is here: no owner, no lease, no repeat after a lost reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::bench::Bench;
use crate::payload::payload;
use crate::sample::{Latencies, percentiles};

/// Connections of the bare loop; as many as the library has committers.
const CONNECTIONS: usize = 2;

const STEPS: &str = "
    insert into bench.step (bucket, workflow_id, lane, seq, kind, name, input, output, started_at)
    select g.bucket, g.id, '', g.seq, g.kind, g.name, g.input::json, g.output::json, now()
    from unnest($1::smallint[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[])
        as g (bucket, id, seq, kind, name, input, output)";

/// Rows per second of a loop that sends what `in_flight` workflows would have ready, over two connections.
pub(crate) async fn batches(bench: &Bench, in_flight: usize) -> Result<f64> {
    bench.fresh().await?;
    let (rows, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(send(bench.url.clone(), in_flight / CONNECTIONS, rows.clone(), stop.clone())))
        .collect();
    tokio::time::sleep(bench.pace.warm_up).await;
    let (began, before) = (Instant::now(), rows.load(Ordering::Relaxed));
    tokio::time::sleep(bench.pace.ours).await;
    let rate = (rows.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await??;
    }
    Ok(rate)
}

/// Ten steps of as many workflows as a batch has rows, one step of each at a time; then the next workflows.
async fn send(url: String, batch: usize, rows: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Result<()> {
    let mut connection = PgConnection::connect(&url).await?;
    let output = payload(200);
    loop {
        let mut keys: Vec<(i16, String)> = (0..batch).map(|_| key()).collect();
        keys.sort_unstable();
        for seq in 0..10 {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let column = |text: &str| vec![text.to_owned(); batch];
            let (buckets, ids): (Vec<i16>, Vec<String>) = keys.iter().cloned().unzip();
            let insert = sqlx::query(STEPS).bind(buckets).bind(ids).bind(vec![seq; batch]).bind(column("step"));
            let insert = insert.bind(column("work")).bind(column("[200]")).bind(column(&output));
            insert.execute(&mut connection).await?;
            rows.fetch_add(batch as u64, Ordering::Relaxed);
        }
    }
}

/// A generated id and its bucket, spread as the library's are.
fn key() -> (i16, String) {
    let id = Uuid::now_v7();
    (i16::from(id.as_bytes()[15] % 64), id.to_string())
}

/// What one client after the other needs.
pub(crate) struct Sequential {
    pub(crate) steps_per_s: f64,
    pub(crate) latencies: Latencies,
}

/// One connection, twelve plain prepared statements per workflow: its row, ten steps, its end.
pub(crate) async fn sequential(bench: &Bench) -> Result<Sequential> {
    bench.fresh().await?;
    let mut connection = PgConnection::connect(&bench.url).await?;
    let until = Instant::now() + bench.pace.warm_up;
    while Instant::now() < until {
        one_workflow(&mut connection).await?;
    }
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < bench.pace.ours {
        let start = Instant::now();
        one_workflow(&mut connection).await?;
        took.push(start.elapsed());
    }
    let steps = took.len() as f64 * 10.0;
    let seconds = took.iter().sum::<Duration>().as_secs_f64();
    Ok(Sequential { steps_per_s: steps / seconds, latencies: percentiles(took) })
}

async fn one_workflow(connection: &mut PgConnection) -> Result<()> {
    let (bucket, id) = key();
    let start = "insert into bench.workflow (bucket, id, name, version, queue, status, due_at, input)
                 values ($1, $2, 'ten_steps', 1, 'default', 'queued', now(), $3::json)";
    sqlx::query(start).bind(bucket).bind(&id).bind("[200]").execute(&mut *connection).await?;
    let step = "insert into bench.step (bucket, workflow_id, lane, seq, kind, name, input, output, started_at)
                values ($1, $2, '', $3, 'step', 'work', $4::json, $5::json, now())";
    for seq in 0..10 {
        let insert = sqlx::query(step).bind(bucket).bind(&id).bind(seq).bind("[200]").bind(payload(200));
        insert.execute(&mut *connection).await?;
    }
    let end = "update bench.workflow set status = 'completed', output = $3::json, finished_at = now()
               where bucket = $1 and id = $2";
    sqlx::query(end).bind(bucket).bind(&id).bind("10").execute(connection).await?;
    Ok(())
}
