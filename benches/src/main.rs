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
//! | `bench`, `relay`, `load`, `cpu`, `sample` | the server, a way to it by TCP, rows in it, processor time, medians |
//! | `report` | table, JSON, picture |

mod bare;
mod bench;
mod catalog;
mod cpu;
mod figure;
mod limits;
mod load;
mod options;
mod payload;
mod relay;
mod report;
mod sample;
mod workflows;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use bench::{Bench, Pace};
use catalog::{GROUPS, Limit, Row};
use figure::Figures;
use options::{Options, USAGE};
use report::{Measured, Report, json, svg, table};
use workloads::processes::{self, CHILD};
use workloads::{curves, profile};

/// As a server that cares for throughput has it: with glibc's own allocator the library takes a quarter more processor
/// time, because tasks free on one thread what another one has allocated.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let done = if arguments.next_if(|first| first == CHILD).is_some() {
        processes::child(&arguments.next().unwrap_or_default()).await
    } else {
        let options = match Options::parse(arguments, &catalog::ids()) {
            Ok(options) => options,
            Err(error) => {
                eprintln!("{error}\n\n{USAGE}");
                return ExitCode::from(2);
            }
        };
        command(&options).await
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn command(options: &Options) -> Result<()> {
    if options.help {
        print!("{USAGE}");
        return Ok(());
    }
    if options.list {
        println!("{}", catalog::ids().join("\n"));
        return Ok(());
    }
    let out = options.out.clone().unwrap_or_else(|| PathBuf::from("target/benches"));
    std::fs::create_dir_all(&out).with_context(|| format!("could not make the directory {}", out.display()))?;
    let pace = if options.quick { Pace::QUICK } else { Pace::FULL };
    let mut bench = Bench::start(pace, out.clone()).await?;
    let report = measure(&mut bench, options).await?;
    if options.json {
        report.rows.iter().for_each(|row| println!("{}", json::row(row)));
    } else {
        print!("{}", table::whole(&report));
    }
    for (name, text) in [("limits.json", json::whole(&report)), ("limits.svg", svg::picture(&report))] {
        let file = out.join(name);
        std::fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

async fn measure(bench: &mut Bench, options: &Options) -> Result<Report> {
    let began = Instant::now();
    let at = || format!("{:>4} s", began.elapsed().as_secs());
    let mut report = Report::begin(bench).await?;
    let pace = bench.pace;
    for group in GROUPS {
        let rows: Vec<_> = group.rows.iter().filter(|row| options.wants(row.id)).copied().collect();
        bench.pace = pace.in_turns(group.rounds);
        let wanted = bench.pace.rounds;
        let mut rounds = Vec::new();
        for round in 1..=if rows.is_empty() { 0 } else { wanted } {
            eprintln!("{}  {}, round {round} of {wanted}", at(), group.title);
            rounds.push(one_round(bench, &rows).await?);
        }
        report.rows.extend(rows.into_iter().filter_map(|row| Measured::of(row, &rounds)));
    }
    bench.pace = pace;
    // Before the curves, which load and empty millions of rows and leave the server busy with them.
    for id in profile::IDS {
        if options.wants(id) {
            eprintln!("{}  {id}", at());
            report.profiles.push(profile::profile(bench, id).await?);
        }
    }
    for id in curves::IDS {
        if options.wants(id) && !(options.quick && options.only.is_empty()) {
            eprintln!("{}  {id}", at());
            report.curves.push(curves::curve(bench, id).await?);
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Each row's limit and then the row, so that the two are close in time.
async fn one_round(bench: &Bench, rows: &[Row]) -> Result<Figures> {
    let mut figures = Figures::new();
    for row in rows {
        if let Limit::Measured(limit, _) = row.limit {
            figure::measure(bench, limit, &mut figures).await?;
        }
        figure::measure(bench, row.ours, &mut figures).await?;
    }
    Ok(figures)
}
