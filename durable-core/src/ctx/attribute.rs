//! Setting an attribute from a body: a transactional step of the library's own.

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::attribute::{ATTRIBUTES_MAX, AttributeValue, StoredAttribute};
use crate::failure::terminal;
use crate::step::{BoxFuture, Step, StepCtx, StepDefinition, tx_step};
use crate::store::attribute::{Statements, set_attribute as set};

static DEFINITION: StepDefinition = StepDefinition { name: "set attribute", retry: None, timeout: None, limit: None };

/// What is set, as the history shows it.
#[derive(Serialize, Deserialize)]
struct Setting {
    name: String,
    value: serde_json::Value,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sort: String,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Describe it.
pub(super) fn set_attribute(name: String, value: AttributeValue) -> Step<()> {
    let setting = match StoredAttribute::new(&name, &value) {
        Ok(StoredAttribute { name, value, sort }) => {
            let value = serde_json::from_str(&value).unwrap_or_default();
            Setting { name, value, sort, problem: None }
        }
        Err(problem) => Setting { name, value: serde_json::Value::Null, sort: String::new(), problem: Some(problem) },
    };
    tx_step(&DEFINITION, setting, run)
}

fn run(tx: &mut PgConnection, step: StepCtx, setting: Setting) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let Setting { name, value, sort, problem } = setting;
        if let Some(problem) = problem {
            return Err(terminal(anyhow!(problem)).into());
        }
        let attribute = StoredAttribute { name, value: value.to_string(), sort };
        let Statements(sql) = step.state();
        let most = i64::try_from(ATTRIBUTES_MAX).unwrap_or(i64::MAX);
        if set(tx, sql, &step.id, &attribute, most).await? {
            return Ok(());
        }
        let name = attribute.name;
        let problem = format!("attribute {name:?} is one too many: the workflow has {ATTRIBUTES_MAX} others");
        Err(terminal(anyhow!(problem)).into())
    })
}
