//! The limits that pgbench measures: what the database takes when a client does nothing but send.
//!
//! The table is `bench.step`, with the columns, the key and the options of the library's own. The limits of a Rust
//! client are in `bare`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::bench::{ACCOUNTS, Bench};
use crate::payload::payload;

/// The clients of (a) and (c); the best of them counts.
const CLIENTS: [u32; 3] = [8, 32, 64];
/// The clients and rows per INSERT of (b); the best of them counts. More clients only wait for two cores.
const BATCHES: [(u32, u32); 6] = [(2, 100), (4, 100), (8, 100), (2, 1_000), (4, 1_000), (8, 1_000)];

/// What a client of pgbench does again and again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Script {
    /// (a)
    Single,
    /// (c)
    Update,
}

impl Script {
    fn text(self) -> &'static str {
        match self {
            Script::Single => include_str!("single.sql"),
            Script::Update => include_str!("update.sql"),
        }
    }
}

/// (a): transactions per second of one single-row INSERT each.
pub(crate) async fn single_inserts(bench: &Bench) -> Result<f64> {
    best_over_clients(bench, Script::Single).await
}

/// (b): rows per second of INSERTs of 100 and 1,000 rows.
pub(crate) async fn batched_inserts(bench: &Bench) -> Result<f64> {
    let mut best: f64 = 0.0;
    for (clients, rows) in BATCHES {
        let define = [("rows", rows.to_string())];
        let tps = pgbench(bench, include_str!("batch.sql"), clients, &define).await?;
        best = best.max(tps * f64::from(rows));
    }
    Ok(best)
}

/// (c): transactions per second of BEGIN, UPDATE, INSERT, COMMIT.
pub(crate) async fn updates_with_insert(bench: &Bench) -> Result<f64> {
    best_over_clients(bench, Script::Update).await
}

async fn best_over_clients(bench: &Bench, script: Script) -> Result<f64> {
    let mut best: f64 = 0.0;
    for clients in CLIENTS {
        best = best.max(run(bench, script, clients).await?);
    }
    Ok(best)
}

/// Transactions per second of so many clients.
pub(crate) async fn run(bench: &Bench, script: Script, clients: u32) -> Result<f64> {
    pgbench(bench, script.text(), clients, &[]).await
}

/// Transactions per second of a script on fresh tables.
async fn pgbench(bench: &Bench, script: &str, clients: u32, define: &[(&str, String)]) -> Result<f64> {
    bench.fresh().await?;
    let file = bench.scratch.join("pgbench.sql");
    std::fs::write(&file, script).with_context(|| format!("could not write {}", file.display()))?;
    let mut command = Command::new(&bench.pgbench);
    // -n: no vacuum of tables that it has not made. Prepared, as every driver does it.
    command.args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string()]);
    command.args(["-T", &bench.pace.limit.as_secs().max(1).to_string()]).arg("-f").arg(&file);
    command.args(["-D", "n=0", "-D", &format!("accounts={ACCOUNTS}"), "-D", &format!("payload={}", payload(200))]);
    for (name, value) in define {
        command.args(["-D", &format!("{name}={value}")]);
    }
    command.arg(&bench.url).stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || command.output()).await?.context("could not start pgbench")?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        bail!("pgbench failed: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    tps(&said).with_context(|| format!("pgbench reported no transactions per second:\n{said}"))
}

/// `tps = 7635.482721 (without initial connection time)`
fn tps(said: &str) -> Option<f64> {
    let line =
        said.lines().find_map(|line| line.strip_prefix("tps = ").filter(|rest| rest.contains("without initial")))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::tps;

    #[test]
    fn the_rate_without_connecting_is_read() {
        let old = "tps = 12.5 (including connections establishing)\ntps = 85.125 (without initial connection time)\n";
        assert_eq!(tps(old), Some(85.125));
        assert_eq!(tps("transaction type: pgbench.sql\n"), None);
    }
}
