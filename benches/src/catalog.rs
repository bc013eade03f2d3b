//! The rows of the report: what is measured, beside which limit, and what is required. To be read as a table.

use crate::figure::Figure::{self, *};
use crate::relay::Transport;
use crate::workloads::lines::Line;
use crate::workloads::{curves, limited, profile};

/// One line of the report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ours: Figure,
    pub(crate) limit: Limit,
    pub(crate) required: Required,
}

/// What a figure stands beside.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// Another figure, taken in the same round.
    Measured(Figure, &'static str),
    /// A budget.
    Fixed(f64, &'static str),
}

/// Of the ratio of ours to the limit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Required {
    AtLeast(f64),
    AtMost(f64),
    Nothing,
}

impl Required {
    /// Compared as printed, with two decimals.
    pub(crate) fn met(self, ratio: f64) -> bool {
        let printed = (ratio * 100.0).round() / 100.0;
        match self {
            Self::AtLeast(least) => printed >= least,
            Self::AtMost(most) => printed <= most,
            Self::Nothing => true,
        }
    }
}

/// How often a group is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rounds {
    /// As often as the pace says: limit and workload by turns, because machines drift.
    InTurns,
    /// In many short turns: the latency of one alone is that of the disk, which changes from second to second.
    InShortTurns,
    /// What is counted, not timed.
    Once,
}

/// Rows that are measured in the same rounds, limits first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) rounds: Rounds,
    pub(crate) rows: &'static [Row],
}

const A: Limit = Measured(SingleInserts, "(a) single-row INSERTs");
const B: Limit = Measured(BatchedInserts, "(b) INSERTs from UNNEST");
const C: Limit = Measured(UpdatesWithInsert, "(c) BEGIN, UPDATE, INSERT, COMMIT");

const fn row(
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    ours: Figure,
    limit: Limit,
    required: Required,
) -> Row {
    Row { id, title, unit, ours, limit, required }
}

use Limit::{Fixed, Measured};
use Required::{AtLeast, AtMost, Nothing};

pub(crate) const GROUPS: &[Group] = &[
    Group {
        title: "a workflow alone",
        rounds: Rounds::InShortTurns,
        rows: &[
            row(
                "w1-1",
                "W1, 1 in flight",
                "steps/s",
                Steps(1),
                Measured(SequentialSteps, "sequential client"),
                AtLeast(0.9),
            ),
            row("w1-1-p50", "W1, 1 in flight, p50", "s", StepsP50(1), Measured(SequentialP50, "its p50"), AtMost(1.1)),
            row("w1-1-p99", "W1, 1 in flight, p99", "s", StepsP99(1), Measured(StepsP50(1), "own p50"), AtMost(2.0)),
        ],
    },
    Group {
        title: "ten-step workflows",
        rounds: Rounds::InTurns,
        rows: &[
            row("w1-32", "W1, 32 in flight", "steps/s", Steps(32), A, AtLeast(1.5)),
            row("w1-256", "W1, 256 in flight", "steps/s", Steps(256), A, AtLeast(5.0)),
            row(
                "w1-256-bare",
                "W1, 256 in flight",
                "steps/s",
                Steps(256),
                Measured(Bare(256), "bare loop"),
                AtLeast(0.7),
            ),
            row("w1-2000", "W1, 2,000 in flight", "steps/s", Steps(2_000), B, AtLeast(0.75)),
            row(
                "w1-2000-bare",
                "W1, 2,000 in flight",
                "steps/s",
                Steps(2_000),
                Measured(Bare(2_000), "bare loop"),
                Nothing,
            ),
        ],
    },
    Group {
        title: "transactional steps",
        rounds: Rounds::InTurns,
        rows: &[row("w4", "W4, ten #[step(tx)], 32 in flight", "tx/s", Deposits, C, AtLeast(1.0))],
    },
    Group {
        title: "a queue",
        rounds: Rounds::InTurns,
        rows: &[
            row("w3-drain", "W3, one worker drains 50,000", "workflows/s", Drained, A, AtLeast(2.5)),
            row("w3-bulk", "W3, enqueue 10,000 per call", "workflows/s", BulkStarts, A, AtLeast(4.0)),
            row("w3-single", "W3, enqueue one by one, 64 callers", "workflows/s", SingleStarts, A, AtLeast(0.65)),
        ],
    },
    Group {
        title: "queues of 100,000",
        rounds: Rounds::InTurns,
        rows: &[
            row("q1", "100,000 drained by one process", "workflows/s", Drain(Line::Plain(1, 2_000)), A, Nothing),
            row(
                "q1-statements",
                "statements of each",
                "statements",
                DrainStatements(Line::Plain(1, 2_000)),
                Fixed(0.1, "budget"),
                AtMost(1.0),
            ),
            row(
                "q2",
                "by two processes",
                "workflows/s",
                Drain(Line::Plain(2, 1_000)),
                Measured(Drain(Line::Plain(1, 2_000)), "one process"),
                Nothing,
            ),
            row(
                "q2-statements",
                "statements of each",
                "statements",
                DrainStatements(Line::Plain(2, 1_000)),
                Fixed(0.1, "budget"),
                AtMost(1.0),
            ),
            row(
                "q4",
                "by four processes",
                "workflows/s",
                Drain(Line::Plain(4, 500)),
                Measured(Drain(Line::Plain(1, 2_000)), "one process"),
                Nothing,
            ),
            row(
                "q4-statements",
                "statements of each",
                "statements",
                DrainStatements(Line::Plain(4, 500)),
                Fixed(0.1, "budget"),
                AtMost(1.0),
            ),
            row(
                "q-50",
                "from a queue that lets 50 run",
                "workflows/s",
                Drain(Line::Limit(50)),
                Measured(Drain(Line::Plain(1, 50)), "a worker of 50"),
                Nothing,
            ),
            row(
                "q-50-statements",
                "statements of each",
                "statements",
                DrainStatements(Line::Limit(50)),
                Measured(DrainStatements(Line::Plain(1, 50)), "a worker of 50"),
                Nothing,
            ),
            row(
                "q-keys",
                "from 1,000 partitions, two of each",
                "workflows/s",
                Drain(Line::Partitions(1_000, 2)),
                Measured(Drain(Line::Plain(1, 2_000)), "one process"),
                Nothing,
            ),
            row(
                "q-keys-statements",
                "statements of each",
                "statements",
                DrainStatements(Line::Partitions(1_000, 2)),
                Fixed(0.1, "budget"),
                AtMost(1.0),
            ),
            row(
                "q-later",
                "beside 1,000,000 for tomorrow",
                "workflows/s",
                Drain(Line::BesideLater),
                Measured(Drain(Line::Plain(1, 2_000)), "one process"),
                AtLeast(0.9),
            ),
            row(
                "q-snapshot",
                "beside a snapshot from 300,000 before",
                "workflows/s",
                Drain(Line::BesideSnapshot),
                Measured(Drain(Line::Plain(1, 2_000)), "one process"),
                AtLeast(0.9),
            ),
            row(
                "q-50-snapshot",
                "the queue of 50 beside one from 100,000 before",
                "workflows/s",
                Drain(Line::LimitBesideSnapshot(50)),
                Measured(Drain(Line::Limit(50)), "beside none"),
                AtLeast(0.9),
            ),
        ],
    },
    Group {
        title: "a limit of steps",
        rounds: Rounds::InTurns,
        rows: &[
            row(
                "q-step-limit",
                "1,000 that wait for one limit of steps",
                "calls/s",
                LimitedCalls,
                Fixed(limited::RATE as f64, "its rate"),
                AtLeast(0.9),
            ),
            row(
                "q-step-limit-statements",
                "statements of each",
                "statements",
                LimitedStatements,
                Fixed(1.0, "budget"),
                AtMost(1.0),
            ),
        ],
    },
    Group {
        title: "sleepers beside",
        rounds: Rounds::InTurns,
        rows: &[row(
            "w5-beside",
            "W5, W1 at 256 beside 1,000,000 asleep",
            "steps/s",
            StepsBeside(1_000_000),
            Measured(StepsWithout(1_000_000), "beside none"),
            AtLeast(0.95),
        )],
    },
    Group {
        title: "a takeover",
        rounds: Rounds::InTurns,
        rows: &[
            row("w6", "W6, takeover of 1,000 workflows", "s", Takeover, Fixed(0.2, "budget"), AtMost(1.0)),
            row("w6-claimed", "of that, from the first claim", "s", Claimed, Measured(Takeover, "all of it"), Nothing),
        ],
    },
    Group {
        title: "two processes",
        rounds: Rounds::InTurns,
        rows: &[
            row(
                "processes-2",
                "two processes, 256 in flight each",
                "steps/s",
                Processes(2, 256),
                Measured(Processes(1, 256), "one process, 256"),
                AtLeast(1.0),
            ),
            row(
                "processes-2-split",
                "two processes, 128 in flight each",
                "steps/s",
                Processes(2, 128),
                Measured(Processes(1, 256), "one process, 256"),
                Nothing,
            ),
        ],
    },
    Group {
        title: "TCP",
        rounds: Rounds::InTurns,
        rows: &[row(
            "tcp-2000",
            "W1, 2,000 in flight, by TCP through a relay",
            "steps/s",
            Relayed(Transport::Tcp, 2_000),
            Measured(Relayed(Transport::UnixSocket, 2_000), "by unix socket through it"),
            Nothing,
        )],
    },
    Group {
        title: "costs",
        rounds: Rounds::Once,
        rows: &[
            row(
                "w5-memory",
                "W5, memory of a suspended workflow",
                "bytes",
                SleeperBytes,
                Fixed(100.0, "budget"),
                AtMost(1.0),
            ),
            row(
                "statements-1",
                "statements of a workflow alone",
                "statements",
                Statements(1),
                Fixed(12.0, "budget"),
                AtMost(1.0),
            ),
            row(
                "statements-256",
                "statements of one of 256 in flight",
                "statements",
                Statements(256),
                Fixed(1.0, "budget"),
                AtMost(1.0),
            ),
            row("wal", "WAL of a queued ten-step workflow", "bytes", Wal, Fixed(5_000.0, "budget"), AtMost(1.0)),
            row(
                "wal-images",
                "of that, full-page images, at most",
                "bytes",
                WalImages,
                Measured(Wal, "all WAL"),
                Nothing,
            ),
        ],
    },
];

/// Every id that can be asked for.
pub(crate) fn ids() -> Vec<&'static str> {
    let rows = GROUPS.iter().flat_map(|group| group.rows).map(|row| row.id);
    rows.chain(curves::IDS).chain(profile::IDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_compared_as_it_is_printed() {
        for (required, ratio, met) in [
            (AtLeast(0.9), 0.896, true),
            (AtLeast(0.9), 0.894, false),
            (AtMost(1.0), 1.004, true),
            (AtMost(1.0), 1.006, false),
            (AtLeast(0.9), f64::NAN, false),
            (Nothing, f64::NAN, true),
        ] {
            assert_eq!(required.met(ratio), met, "{required:?} {ratio}");
        }
    }

    #[test]
    fn ids_are_unique() {
        let mut sorted = ids();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), ids().len());
    }
}
