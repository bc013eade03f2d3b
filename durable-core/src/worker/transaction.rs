//! One attempt of a transactional step: BEGIN, the application's statements, the fenced record, COMMIT, on
//! one connection.
//!
//! BEGIN marks the transaction with a setting that ends with it; the record is refused where the mark is
//! gone, which is how a COMMIT smuggled into the step's code shows. An error after COMMIT was sent is
//! unknown, and is resolved by writing the same record again: the unique key waits for the lost transaction.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::drive::{StepDrive, within};
use crate::error::{Error, is_transient};
use crate::failure::FailureKind;
use crate::history::{Kind, Record};
use crate::probe::probe;
use crate::step::{AttemptFailure, Attempted, BoxFuture, StepCtx};
use crate::store::Fence;
use crate::store::link::{Backoff, answer};
use crate::store::step::{StepRow, Transacted, mark_stands, transact};

/// Runs of the application's statements that a serialization failure or a deadlock may cost, on top of the
/// step's own attempts.
const CONTENTIONS_MAX: u32 = 10;

const ACT: &str = "run a transactional step";

/// What an attempt came to.
pub(super) enum Tried {
    /// With the value for the body, if it is at hand.
    Recorded(Record, Option<Value>),
    Failed(AttemptFailure),
    /// The workflow is somebody else's by now, or its body has no use for the step any more.
    Stopped,
}

type Value = Box<dyn Any + Send>;

/// What one transaction came to.
enum Once {
    Recorded(Record, Value),
    /// The position is taken, or the workflow has another owner; nothing of this transaction stands.
    Refused,
    /// The body has dropped the step's future; nothing of this transaction stands.
    GivenUp,
    Failed(AttemptFailure),
    /// As `Failed`, on a connection that has to be closed: the attempt took too long, or the server answered
    /// COMMIT with an error that rolled everything back, like a deferred constraint's.
    Rejected(AttemptFailure),
    /// The connection broke before COMMIT was sent: nothing of it stands.
    Broken(Error),
    /// The connection broke after COMMIT was sent.
    Unknown(Box<StepRow>),
    Smuggled,
}

type Body = dyn for<'t> Fn(&'t mut PgConnection, StepCtx, &str) -> BoxFuture<'t, Attempted> + Send + Sync;

/// Run the step's statements and its record as one transaction.
pub(super) async fn attempt(drive: &mut StepDrive<'_>, body: &Arc<Body>, ctx: StepCtx) -> Result<Tried, Error> {
    let mut backoff = Backoff::for_worker();
    let mut contentions = 0;
    loop {
        // Each transaction writes to streams anew; what the one before has written there stands.
        let ctx = StepCtx { outflow: ctx.outflow.again(), ..ctx.clone() };
        let outcome = once(drive, body, ctx).await?;
        match outcome {
            Once::Recorded(record, value) => return Ok(Tried::Recorded(record, Some(value))),
            Once::Refused => return found(drive).await,
            Once::GivenUp => return Ok(Tried::Stopped),
            Once::Smuggled => return Ok(Tried::Failed(smuggled())),
            Once::Failed(failed) | Once::Rejected(failed) => {
                // Another owner of this position may have committed first; what failed here may be the
                // proof of it, like a unique key of the application's.
                if let (Fence::Held, Some(record)) =
                    drive.engine.recorded(&drive.order.attempt.id, &drive.order.position).await?
                {
                    return Ok(Tried::Recorded(record, None));
                }
                let contended = matches!(failed.code.as_deref(), Some("40001" | "40P01"));
                if !contended || contentions >= CONTENTIONS_MAX {
                    return Ok(Tried::Failed(failed));
                }
                contentions += 1;
                tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20 << contentions.min(5)))).await;
            }
            Once::Broken(error) => {
                if drive.engine.lease.ended() || !backoff.again(&error).await {
                    return if drive.engine.lease.ended() { Ok(Tried::Stopped) } else { Err(error) };
                }
            }
            Once::Unknown(row) => {
                if let Some(tried) = resolve(drive, &row).await? {
                    return Ok(tried);
                }
            }
        }
        if !drive.engine.lease.may_begin().await || drive.order.attempt.stopped().is_some() {
            return Ok(Tried::Stopped);
        }
    }
}

/// One transaction, from taking a connection to giving it back.
async fn once(drive: &mut StepDrive<'_>, body: &Arc<Body>, ctx: StepCtx) -> Result<Once, Error> {
    let mut link = match drive.engine.transactions.take(ACT).await {
        Ok(link) => link,
        Err(error) if error.is_transient() => return Ok(Once::Broken(error)),
        Err(error) => return Err(error),
    };
    let once = in_transaction(link.connection(), drive, body, ctx).await;
    match &once {
        // Only an answered COMMIT or ROLLBACK proves the connection healthy; otherwise it is closed, which
        // ends whatever is left of the transaction.
        Once::Recorded(..) | Once::Failed(_) => link.give_back(),
        Once::Rejected(_) | Once::Refused | Once::GivenUp | Once::Broken(_) | Once::Unknown(..) | Once::Smuggled => {}
    }
    Ok(once)
}

async fn in_transaction(
    connection: &mut PgConnection,
    drive: &mut StepDrive<'_>,
    body: &Arc<Body>,
    ctx: StepCtx,
) -> Once {
    let began = Instant::now();
    let mark = mark(drive);
    let outflow = ctx.outflow.clone();
    let mut tx = match begin(connection, drive, &mark).await {
        Ok(tx) => tx,
        Err(error) => return Once::Broken(error),
    };
    probe!("before the body of a step", drive.order.name);
    let attempted = tokio::select! {
        biased;
        // The leaf is gone, and the connection goes with the transaction.
        () = drive.order.reply.closed() => return Once::GivenUp,
        attempted = within(drive.order.timeout, body(&mut tx, ctx, &drive.input)) => attempted,
    };
    probe!("after the body of a step", drive.order.name);
    if drive.dried_up(&outflow).await {
        return Once::GivenUp;
    }
    let output = match attempted {
        Ok(output) => output,
        // A statement that outlived the attempt may still be running: closing the connection ends both.
        Err(failed) if failed.failure.kind() == FailureKind::Timeout => return Once::Rejected(failed),
        Err(failed) => return undo(tx, drive, &mark, failed).await,
    };
    // A body that kept its thread may come here long after its workflow was taken away.
    if drive.order.attempt.stopped().is_some() {
        return Once::GivenUp;
    }
    let row = drive.row(Ok(output.json), began.elapsed());
    let transacted = {
        probe!("before a call", "the record of a transactional step");
        let engine = drive.engine;
        let transacted = answer(transact(&mut tx, &engine.plan.sql, engine.owner, &mark, &row)).await;
        probe!("after a call", "the record of a transactional step");
        transacted
    };
    let recorded_at = match transacted {
        Ok(Ok(Transacted::Recorded(at))) => at,
        Ok(Ok(Transacted::Refused)) => return Once::Refused,
        Ok(Ok(Transacted::AnotherTransaction)) => return Once::Smuggled,
        Ok(Err(error)) if is_transient(&error) => return Once::Broken(Error::database(ACT, &error)),
        Ok(Err(error)) => return undo(tx, drive, &mark, unrecordable(&error)).await,
        Err(_) => return Once::Broken(Error::no_answer(ACT, began.elapsed())),
    };
    probe!("before a call", "the COMMIT of a transactional step");
    let committed = answer(tx.commit()).await;
    probe!("after a call", "the COMMIT of a transactional step");
    match committed {
        Ok(Ok(())) => {
            let outcome = Ok(row.output.unwrap_or_default());
            let record =
                Record { kind: Kind::Transaction, name: drive.order.name.to_owned(), outcome, ended_at: recorded_at };
            Once::Recorded(record, output.value)
        }
        Ok(Err(error)) if was_rolled_back(&error) => Once::Rejected(AttemptFailure::of_commit(error)),
        Ok(Err(_)) | Err(_) => Once::Unknown(Box::new(row)),
    }
}

type Tx<'t> = sqlx::Transaction<'t, sqlx::Postgres>;

/// BEGIN, the mark and the time-out in one round trip. The time-out, not a keepalive, frees the rows of a worker that
/// was cut off; it is set each time, because the step before may have changed the session's.
async fn begin<'t>(connection: &'t mut PgConnection, drive: &StepDrive<'_>, mark: &str) -> Result<Tx<'t>, Error> {
    let lease_ms = drive.engine.plan.settings.lease.as_millis();
    // The mark is made of digits, letters, dots, dashes and a slash; nothing of the user's is in it.
    let statement = format!(
        "begin; set local durable_step.key = '{mark}'; \
         set local idle_in_transaction_session_timeout = {lease_ms}"
    );
    probe!("before a call", "the BEGIN of a transactional step");
    let begun = answer(connection.begin_with(AssertSqlSafe(statement))).await;
    probe!("after a call", "the BEGIN of a transactional step");
    match begun {
        Ok(Ok(tx)) => Ok(tx),
        // Whatever it was, nothing of the step has happened yet.
        Ok(Err(error)) if is_transient(&error) => Err(Error::database(ACT, &error)),
        Ok(Err(error)) => Err(Error::database(ACT, &sqlx::Error::Protocol(error.to_string()))),
        Err(_) => Err(Error::no_answer(ACT, Duration::from_secs(0))),
    }
}

/// Roll back after a failure; unless the step's code ended the transaction itself, or the connection broke.
async fn undo(mut tx: Tx<'_>, drive: &StepDrive<'_>, mark: &str, failed: AttemptFailure) -> Once {
    match answer(mark_stands(&mut tx, &drive.engine.plan.sql, mark)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return Once::Smuggled,
        // An aborted transaction answers nothing, and so is still the engine's.
        Ok(Err(error)) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("25P02") => {}
        Ok(Err(error)) => return Once::Broken(Error::database(ACT, &sqlx::Error::Protocol(error.to_string()))),
        Err(_) => return Once::Broken(Error::no_answer(ACT, Duration::from_secs(0))),
    }
    match answer(tx.rollback()).await {
        Ok(Ok(())) => Once::Failed(failed),
        Ok(Err(error)) => Once::Broken(Error::database(ACT, &sqlx::Error::Protocol(error.to_string()))),
        Err(_) => Once::Broken(Error::no_answer(ACT, Duration::from_secs(0))),
    }
}

/// Find out what became of a transaction whose COMMIT was not answered: write the same record again, which
/// waits for the lost transaction on the unique key. `None` when that one has not, and never will have,
/// committed.
async fn resolve(drive: &mut StepDrive<'_>, row: &StepRow) -> Result<Option<Tried>, Error> {
    let mark = mark(drive);
    let mut backoff = Backoff::for_worker();
    while !drive.engine.lease.ended() {
        let error = match drive.engine.transactions.take(ACT).await {
            Err(error) => error,
            Ok(mut link) => match rewrite(link.connection(), drive, &mark, row).await {
                Ok(Transacted::Recorded(_)) => return Ok(None),
                Ok(Transacted::Refused | Transacted::AnotherTransaction) => return found(drive).await.map(Some),
                Err(error) => error,
            },
        };
        if !error.is_transient() {
            return Err(error);
        }
        // The worker's patience has no end of its own: it ends with the incarnation.
        backoff.again(&error).await;
    }
    Ok(Some(Tried::Stopped))
}

/// The record alone, in a transaction that is rolled back by closing its connection.
async fn rewrite(
    connection: &mut PgConnection,
    drive: &StepDrive<'_>,
    mark: &str,
    row: &StepRow,
) -> Result<Transacted, Error> {
    let mut tx = begin(connection, drive, mark).await?;
    let engine = drive.engine;
    match answer(transact(&mut tx, &engine.plan.sql, engine.owner, mark, row)).await {
        Ok(answer) => answer.map_err(|error| Error::database(ACT, &error)),
        Err(_) => Err(Error::no_answer(ACT, Duration::from_secs(0))),
    }
}

/// Whether an answer to COMMIT means that nothing of the transaction stands: a constraint that was checked late
/// (class 23), or a conflict (class 40, but for 40003, which says that the server does not know).
fn was_rolled_back(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code());
    code.is_some_and(|code| code.starts_with("23") || (code.starts_with("40") && code != "40003"))
}

async fn found(drive: &StepDrive<'_>) -> Result<Tried, Error> {
    Ok(drive.find_recorded().await?.map_or(Tried::Stopped, |record| Tried::Recorded(record, None)))
}

fn mark(drive: &StepDrive<'_>) -> String {
    format!("{}/{}", drive.engine.owner, drive.order.position)
}

fn smuggled() -> AttemptFailure {
    let problem = "it ended the engine's transaction with a COMMIT or ROLLBACK of its own: what it committed \
                   stands, but without its record; leave both to the engine, or use a savepoint";
    let mut failed = AttemptFailure::new(FailureKind::Transaction, problem);
    failed.failure = failed.failure.terminal();
    failed
}

fn unrecordable(error: &sqlx::Error) -> AttemptFailure {
    let problem = Error::database("record the step", error).to_string();
    AttemptFailure::new(FailureKind::Value, problem)
}
