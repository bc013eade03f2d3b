//! What can be measured, and which measurement yields it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::relay::{Relay, Transport};
use crate::workloads::closed::{self, Load};
use crate::workloads::lines::{self, Line};
use crate::workloads::{cost, limited, processes, queue, sleepers, takeover};
use crate::{bare, limits};

/// One number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// (a), in rows per second.
    SingleInserts,
    /// (b), in rows per second.
    BatchedInserts,
    /// (c), in transactions per second.
    UpdatesWithInsert,
    /// Rows per second of the bare loop with so many in flight.
    Bare(usize),
    SequentialSteps,
    SequentialP50,
    /// W1, in steps per second, with so many in flight.
    Steps(usize),
    /// W1, in seconds for a workflow.
    StepsP50(usize),
    StepsP99(usize),
    /// W4, in transactions per second.
    Deposits,
    /// W3, in workflows per second.
    BulkStarts,
    Drained,
    SingleStarts,
    /// A queue of 100,000, in workflows per second, and in statements per workflow.
    Drain(Line),
    DrainStatements(Line),
    /// A thousand that wait for one limit of steps, in calls per second, and in statements per call.
    LimitedCalls,
    LimitedStatements,
    /// W5: bytes per workflow; steps per second of W1 at 256 beside so many, and without them by turns.
    SleeperBytes,
    StepsBeside(u32),
    StepsWithout(u32),
    /// W6, in seconds from the fence, and from the first claim.
    Takeover,
    Claimed,
    /// Steps per second of so many processes, each with so many in flight.
    Processes(usize, usize),
    /// W1 with so many in flight, through a relay.
    Relayed(Transport, usize),
    /// Per workflow, with so many in flight.
    Statements(usize),
    /// Bytes per workflow.
    Wal,
    WalImages,
}

pub(crate) type Figures = BTreeMap<Figure, f64>;

/// Measure a figure, and with it those that come from the same measurement.
pub(crate) async fn measure(bench: &Bench, figure: Figure, into: &mut Figures) -> Result<()> {
    if into.contains_key(&figure) {
        return Ok(());
    }
    let found = probe(bench, figure).await.with_context(|| format!("could not measure {figure:?}"))?;
    into.extend(found);
    Ok(())
}

async fn probe(bench: &Bench, figure: Figure) -> Result<Vec<(Figure, f64)>> {
    Ok(match figure {
        Figure::SingleInserts => vec![(figure, limits::single_inserts(bench).await?)],
        Figure::BatchedInserts => vec![(figure, limits::batched_inserts(bench).await?)],
        Figure::UpdatesWithInsert => vec![(figure, limits::updates_with_insert(bench).await?)],
        Figure::Bare(in_flight) => vec![(figure, bare::batches(bench, in_flight).await?)],
        Figure::SequentialSteps | Figure::SequentialP50 => {
            let found = bare::sequential(bench).await?;
            vec![(Figure::SequentialSteps, found.steps_per_s), (Figure::SequentialP50, found.latencies.p50)]
        }
        Figure::Steps(in_flight) | Figure::StepsP50(in_flight) | Figure::StepsP99(in_flight) => {
            bench.fresh().await?;
            let found = closed::run(&bench.url, bench.pace, in_flight, Load::Plain { bytes: 200 }).await?;
            vec![
                (Figure::Steps(in_flight), found.steps_per_s),
                (Figure::StepsP50(in_flight), found.latencies.p50),
                (Figure::StepsP99(in_flight), found.latencies.p99),
            ]
        }
        Figure::Deposits => {
            bench.fresh().await?;
            vec![(figure, closed::run(&bench.url, bench.pace, 32, Load::Transactional).await?.steps_per_s)]
        }
        Figure::BulkStarts | Figure::Drained => {
            let found = queue::enqueue_and_drain(bench).await?;
            vec![(Figure::BulkStarts, found.enqueued), (Figure::Drained, found.drained)]
        }
        Figure::Drain(line) | Figure::DrainStatements(line) => {
            let found = lines::drain(bench, line).await?;
            vec![(Figure::Drain(line), found.per_s), (Figure::DrainStatements(line), found.statements)]
        }
        Figure::LimitedCalls | Figure::LimitedStatements => {
            let found = limited::wait(bench).await?;
            vec![(Figure::LimitedCalls, found.per_s), (Figure::LimitedStatements, found.statements)]
        }
        Figure::SingleStarts => vec![(figure, queue::enqueue_singly(bench).await?)],
        Figure::SleeperBytes => vec![(figure, sleepers::memory(bench).await?)],
        Figure::StepsBeside(asleep) | Figure::StepsWithout(asleep) => {
            let found = sleepers::beside(bench, asleep).await?;
            vec![(Figure::StepsBeside(asleep), found.steps_per_s), (Figure::StepsWithout(asleep), found.without)]
        }
        Figure::Takeover | Figure::Claimed => {
            let found = takeover::measure(bench).await?;
            vec![(Figure::Takeover, found.from_fence), (Figure::Claimed, found.from_claim)]
        }
        Figure::Processes(count, in_flight) => vec![(figure, processes::steps(bench, count, in_flight).await?)],
        Figure::Relayed(transport, in_flight) => {
            bench.fresh().await?;
            let relay = Relay::start(bench, transport).await?;
            let found = closed::run(&relay.url, bench.pace, in_flight, Load::Plain { bytes: 200 }).await?;
            vec![(figure, found.steps_per_s)]
        }
        Figure::Statements(in_flight) => vec![(figure, cost::statements(bench, in_flight).await?)],
        Figure::Wal | Figure::WalImages => {
            let found = cost::wal(bench).await?;
            vec![(Figure::Wal, found.all), (Figure::WalImages, found.images)]
        }
    })
}
