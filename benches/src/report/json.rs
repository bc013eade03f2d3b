//! The same for programs: one object per row.

use serde_json::{Value, json};

use super::Measured;
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
