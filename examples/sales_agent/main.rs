//! The sales agent: a web application that hands each lead to a durable workflow.
//!
//! ```text
//! cargo run -p durable-examples --bin sales-agent                 a demonstration; it ends by itself
//! cargo run -p durable-examples --bin sales-agent -- --seed 7     the same one with other luck
//! cargo run -p durable-examples --bin sales-agent -- --serve      for you and a browser, until Ctrl-C
//! ```
//!
//! Reading order: `agent` is the workflow and its steps; `web` starts it and tells it what people
//! decide; `worker` gives it what it needs; `leads`, `research`, `model` and `mail` are what the steps
//! do. `internet` stands in for the world, and `demo` kills the worker again and again.

mod agent;
mod database;
mod demo;
mod dice;
mod http;
mod internet;
mod journal;
mod leads;
mod mail;
mod model;
mod pages;
mod problem;
mod research;
mod serve;
mod upload;
mod views;
mod web;
mod worker;

use std::{env, process::ExitCode, time::SystemTime};

use anyhow::{Context, Result, bail};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "\
usage: sales-agent [--seed N]             a demonstration that ends by itself
       sales-agent --serve [--port N]     keep serving, for a browser

DATABASE_URL    a PostgreSQL to use instead of a private one; only schemas named sales_agent* are touched
OPENAI_API_KEY  has a real model write the mails (also OPENAI_BASE_URL, OPENAI_MODEL)";

/// What this process is for.
enum Role {
    Demo {
        seed: u64,
    },
    Serve {
        port: u16,
    },
    /// A child of the demonstration.
    Worker {
        number: i32,
    },
    Help,
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("sales-agent: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let role = role(env::args().skip(1))?;
    if matches!(role, Role::Help) {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match role {
            Role::Demo { seed } => demo::run(seed).await,
            Role::Serve { port } => serve::run(port).await,
            Role::Worker { number } => worker::run_as_child(number).await,
            Role::Help => Ok(ExitCode::SUCCESS),
        }
    })
}

fn role(mut arguments: impl Iterator<Item = String>) -> Result<Role> {
    let mut role = Role::Demo { seed: seed_of_today() };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let text = arguments.next().with_context(|| format!("{argument} needs a number"))?;
            text.parse::<u32>().with_context(|| format!("{argument} {text}: not a number"))
        };
        match (argument.as_str(), &mut role) {
            ("--seed", Role::Demo { seed }) => *seed = number()?.into(),
            ("--serve", Role::Demo { .. }) => role = Role::Serve { port: 3000 },
            ("--port", Role::Serve { port }) => *port = number()?.try_into().context("--port is too large")?,
            ("--worker", Role::Demo { .. }) => role = Role::Worker { number: number()?.try_into()? },
            ("--help" | "-h", _) => role = Role::Help,
            _ => bail!("{argument} is not understood here\n{USAGE}"),
        }
    }
    Ok(role)
}

/// Some seed; it is printed, so that bad luck can be had again.
fn seed_of_today() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_micros() % 10_000)
}
