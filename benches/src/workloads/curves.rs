//! How the cost of a step grows: with workflows in flight, rows in the tables, payloads, processes, sleepers.

use anyhow::Result;
use serde::Serialize;

use super::closed::{self, Load};
use super::{processes, sleepers};
use crate::bench::Bench;
use crate::load;

/// The ids of the curves.
pub(crate) const IDS: [&str; 5] =
    ["curve-in-flight", "curve-rows", "curve-payload", "curve-processes", "curve-sleepers"];

/// Rows are loaded for at most this long; beyond it there are fewer.
const LOAD_SECONDS_MAX: f64 = 90.0;

/// Steps per second against one thing that grows.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Curve {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) points: Vec<Point>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Point {
    pub(crate) at: f64,
    pub(crate) steps_per_s: f64,
}

pub(crate) async fn curve(bench: &Bench, id: &'static str) -> Result<Curve> {
    let mut points = Vec::new();
    let mut point = |at: f64, steps_per_s: f64| points.push(Point { at, steps_per_s });
    let title = match id {
        "curve-in-flight" => {
            for in_flight in [1, 4, 16, 64, 256, 1_000, 4_000] {
                point(in_flight as f64, plain(bench, in_flight, 200).await?);
            }
            "workflows in flight"
        }
        "curve-rows" => {
            let mut most: f64 = 10e6;
            for rows in [0.0, 1e6, 10e6] {
                let rows = most.min(rows);
                bench.fresh().await?;
                let seconds = load::history(bench, rows as u32).await?;
                if rows > 0.0 {
                    most = most.min((LOAD_SECONDS_MAX / seconds).floor().max(1.0) * rows);
                }
                point(rows, closed::run(&bench.url, bench.pace, 256, Load::Plain { bytes: 200 }).await?.steps_per_s);
            }
            "steps already in the table, 256 in flight"
        }
        "curve-payload" => {
            for bytes in [200, 2_000, 20_000, 200_000] {
                point(bytes as f64, plain(bench, 256, bytes).await?);
            }
            "bytes that a step returns, 256 in flight"
        }
        "curve-processes" => {
            for count in [1, 2, 4] {
                point(count as f64, processes::steps(bench, count, 256).await?);
            }
            "worker processes, 256 in flight each"
        }
        _ => {
            let found = sleepers::beside(bench, 1_000_000).await?;
            point(0.0, found.without);
            point(1e6, found.steps_per_s);
            "suspended workflows beside, 256 in flight"
        }
    };
    Ok(Curve { id, title, points })
}

async fn plain(bench: &Bench, in_flight: usize, bytes: usize) -> Result<f64> {
    bench.fresh().await?;
    Ok(closed::run(&bench.url, bench.pace, in_flight, Load::Plain { bytes }).await?.steps_per_s)
}
