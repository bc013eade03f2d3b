//! The table for people.

use super::{Measured, Report, number};
use crate::catalog::Required;
use crate::workloads::curves::Curve;
use crate::workloads::profile::Profile;

const HEAD: [&str; 9] = ["id", "workload", "ours", "unit", "limit", "", "ratio", "required", ""];

/// All that was found, with what it was found on.
pub(crate) fn whole(report: &Report) -> String {
    let about: Vec<String> = report.about.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut text = format!("{}\n\n", about.join(", "));
    if !report.rows.is_empty() {
        text += &rows(&report.rows);
        text += "\nours and limit are medians of the rounds, the ratio is the median of the rounds' ratios\n";
    }
    for curve in &report.curves {
        text += &format!("\n{}: steps/s against {}\n{}", curve.id, curve.title, self::curve(curve));
    }
    if !report.profiles.is_empty() {
        text += &format!("\nmicroseconds of all processors per unit of work\n{}", profiles(&report.profiles));
    }
    text + &format!("\nmeasured in {:.0} s\n", report.seconds)
}

/// Aligned columns, each line a row; what is missed stands out in the last one.
fn rows(rows: &[Measured]) -> String {
    let mut lines: Vec<Vec<String>> = vec![HEAD.iter().map(|&head| head.to_owned()).collect()];
    lines.extend(rows.iter().map(cells));
    aligned(&lines, &[2, 5, 6])
}

fn curve(curve: &Curve) -> String {
    let cells = |number: fn(f64) -> String, of: fn(&crate::workloads::curves::Point) -> f64| {
        curve.points.iter().map(|point| number(of(point))).collect::<Vec<_>>()
    };
    let lines = [cells(number, |point| point.at), cells(number, |point| point.steps_per_s)];
    aligned(&lines, &(0..curve.points.len()).collect::<Vec<_>>())
}

/// A line for each, with what the server's sessions took beside it.
fn profiles(profiles: &[Profile]) -> String {
    let head = ["id", "", "per second", "client", "PostgreSQL", "other", "idle", "waits for WAL", "sessions"];
    let mut lines: Vec<Vec<String>> = vec![head.map(str::to_owned).into()];
    lines.extend(profiles.iter().map(|profile| {
        let us = |us: f64| format!("{us:.1}");
        let sessions = profile.sessions_us.iter().filter(|(_, us)| **us >= 0.05);
        vec![
            profile.id.to_owned(),
            profile.unit.to_owned(),
            number(profile.per_s),
            us(profile.client_us),
            us(profile.server_us),
            us(profile.other_us),
            us(profile.idle_us),
            profile.wal_us.map(us).unwrap_or_default(),
            sessions.map(|(name, us)| format!("{name} {us:.1}")).collect::<Vec<_>>().join(", "),
        ]
    }));
    aligned(&lines, &[2, 3, 4, 5, 6, 7])
}

fn cells(measured: &Measured) -> Vec<String> {
    let row = measured.row;
    let verdict = match (row.required, measured.ok()) {
        (Required::Nothing, _) => "",
        (_, true) => "ok",
        (_, false) => "NOT",
    };
    vec![
        row.id.to_owned(),
        row.title.to_owned(),
        number(measured.ours),
        row.unit.to_owned(),
        measured.limit_is().to_owned(),
        number(measured.limit),
        format!("{:.2}", measured.ratio),
        required(row.required),
        verdict.to_owned(),
    ]
}

pub(crate) fn required(required: Required) -> String {
    match required {
        Required::AtLeast(least) => format!(">= {least:.2}"),
        Required::AtMost(most) => format!("<= {most:.2}"),
        Required::Nothing => String::new(),
    }
}

/// Columns as wide as their widest cell; those in `right` end at the same place.
pub(crate) fn aligned(lines: &[Vec<String>], right: &[usize]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
