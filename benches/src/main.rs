//! The benchmark: every figure of the library beside the limit of the database, measured in the same run.
//!
//! # Layout
//!
//! | file | what lives there |
//! |---|---|
//! | `options` | the command line |
//! | `catalog` | the rows: what stands beside which limit, and what is required |
//! | `figure` | which measurement yields which number |
//! | `limits`, `bare` | the limits: pgbench, and Rust without the library |
//! | `workloads`, `workflows`, `payload` | what is measured of the library |
//! | `bench`, `sample` | the server; medians |
//! | `report` | table, JSON, picture |

mod bare;
mod bench;
mod catalog;
mod figure;
mod limits;
mod options;
mod payload;
mod report;
mod sample;
mod workflows;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use bench::{Bench, Pace};
use catalog::{GROUPS, Group, Limit};
use figure::Figures;
use options::{Options, USAGE};
use report::Measured;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1), &catalog::ids()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.help || options.list {
        print!("{}", if options.help { USAGE.to_owned() } else { catalog::ids().join("\n") + "\n" });
        return ExitCode::SUCCESS;
    }
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let out = options.out.clone().unwrap_or_else(|| PathBuf::from("target/benches"));
    std::fs::create_dir_all(&out).with_context(|| format!("could not make the directory {}", out.display()))?;
    let pace = if options.quick { Pace::QUICK } else { Pace::FULL };
    let bench = Bench::start(pace, out.clone()).await?;
    let settings = bench.settings().await?;
    eprintln!("{}", settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "));
    let mut measured = Vec::new();
    for group in GROUPS {
        measured.extend(measure_group(&bench, group, options).await?);
    }
    if options.json {
        for row in &measured {
            println!("{}", report::json::row(row));
        }
    } else {
        print!("{}", report::table::table(&measured));
    }
    Ok(())
}

/// Limits and workloads in turns, round after round.
async fn measure_group(bench: &Bench, group: &Group, options: &Options) -> Result<Vec<Measured>> {
    let rows: Vec<_> = group.rows.iter().filter(|row| options.wants(row.id)).copied().collect();
    let mut rounds = Vec::new();
    for round in 1..=if rows.is_empty() { 0 } else { bench.pace.rounds } {
        eprintln!("{}, round {round} of {}", group.title, bench.pace.rounds);
        let mut figures = Figures::new();
        for row in &rows {
            if let Limit::Measured(limit, _) = row.limit {
                figure::measure(bench, limit, &mut figures).await?;
            }
            figure::measure(bench, row.ours, &mut figures).await?;
        }
        rounds.push(figures);
    }
    Ok(rows.into_iter().filter_map(|row| Measured::of(row, &rounds)).collect())
}
