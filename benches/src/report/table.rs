//! The table for people.

use super::{Measured, number};
use crate::catalog::Required;

const HEAD: [&str; 8] = ["id", "workload", "unit", "ours", "limit", "ratio", "required", ""];

/// Aligned columns, each line a row; what is missed stands out in the last one.
pub(crate) fn table(rows: &[Measured]) -> String {
    let mut lines: Vec<Vec<String>> = vec![HEAD.iter().map(|&head| head.to_owned()).collect()];
    lines.extend(rows.iter().map(cells));
    aligned(&lines, &[3, 4, 5, 6])
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
        row.unit.to_owned(),
        number(measured.ours),
        format!("{} {:>9}", measured.limit_is(), number(measured.limit)),
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
