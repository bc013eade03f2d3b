//! Every shape of a workflow, called as its definition says, less the context.

#![allow(unused_qualifications, reason = "contexts are recognised by any path")]

use anyhow::Result;
use durable::{Call, Ctx, Failure, step, workflow};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Lead {
    name: String,
}

#[step]
async fn greet(name: String) -> Result<String> {
    Ok(format!("hello {name}"))
}

#[workflow]
async fn nothing(_ctx: &Ctx) -> Result<()> {
    Ok(())
}

#[workflow]
pub(crate) async fn one(ctx: &Ctx, lead: Lead) -> Result<String> {
    Ok(ctx.run(greet(lead.name)).await?)
}

#[workflow(name = "many.v2", version = 7)]
async fn many(_: &durable::Ctx, mut a: i32, (b, c): (i32, i32), d: Vec<i32>) -> Result<i32, std::num::ParseIntError> {
    a += "1".parse::<i32>()?;
    Ok(a + b + c + d.len() as i32)
}

// The failure of a step is the failure of the workflow.
#[workflow]
async fn failure(ctx: &Ctx) -> Result<String, Failure> {
    ctx.run(greet("you".to_owned())).await
}

// Its own name means the door, also inside: a workflow can describe the next one of its kind.
#[workflow]
async fn recursive(_ctx: &Ctx, left: u32) -> Result<u32> {
    let next: Call<_> = recursive(left.saturating_sub(1));
    drop(next);
    Ok(left)
}

#[workflow]
async fn r#loop(_ctx: &Ctx, r#type: String) -> Result<String> {
    Ok(r#type)
}

mod agent {
    use super::{Ctx, Result, workflow};

    #[workflow]
    pub(crate) async fn agent(_ctx: &Ctx) -> Result<()> {
        Ok(())
    }
}
use agent::agent;

fn definition<W: durable::__private::Workflow>(_: Call<W>) -> (&'static str, i32) {
    (W::NAME, W::VERSION)
}

#[test]
fn a_workflow_is_known_by_its_name_and_version() {
    let lead = Lead { name: "you".to_owned() };
    assert_eq!(definition(nothing()), ("nothing", 1));
    assert_eq!(definition(one(lead)), ("one", 1));
    assert_eq!(definition(many(1, (2, 3), vec![4])), ("many.v2", 7));
    assert_eq!(definition(failure()), ("failure", 1));
    assert_eq!(definition(recursive(3)), ("recursive", 1));
    assert_eq!(definition(r#loop("x".to_owned())), ("loop", 1));
    assert_eq!(definition(agent()), ("agent", 1));
}

#[test]
fn a_workflow_can_be_defined_inside_a_function() {
    #[derive(Serialize, Deserialize)]
    struct Local(i32);

    #[workflow]
    async fn local(_ctx: &Ctx, n: Local) -> Result<Local> {
        Ok(n)
    }

    assert_eq!(definition(local(Local(1))), ("local", 1));
}
