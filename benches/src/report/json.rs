//! The same for programs: one object per row.

use serde_json::{Value, json};

use super::{Measured, Report};
use crate::catalog::Required;

pub(crate) fn row(measured: &Measured) -> Value {
    let (required, is) = match measured.row.required {
        Required::AtLeast(least) => (json!(least), "at least"),
        Required::AtMost(most) => (json!(most), "at most"),
        Required::Nothing => (Value::Null, "nothing"),
    };
    json!({
        "workload": measured.row.id,
        "title": measured.row.title,
        "unit": measured.row.unit,
        "ours": measured.ours,
        "limit": measured.limit,
        "limit_is": measured.limit_is(),
        "ratio": measured.ratio,
        "ratios": measured.ratios,
        "required": required,
        "required_is": is,
        "ok": measured.ok(),
    })
}

/// Everything, for the file.
pub(crate) fn whole(report: &Report) -> String {
    let about: serde_json::Map<String, Value> =
        report.about.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let whole = json!({
        "about": about,
        "seconds": report.seconds,
        "rows": report.rows.iter().map(row).collect::<Vec<_>>(),
        "curves": report.curves,
        "profiles": report.profiles,
    });
    format!("{whole:#}\n")
}
