//! Steps that many tests use, and the state that lets a test watch and hold them.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use durable::{StepCtx, step};

use crate::gate::Gate;

/// What step bodies did in this process, in order. Clones are the same log.
#[derive(Clone, Default, Debug)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Note something.
    pub fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    /// Everything noted so far.
    pub fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often this was noted.
    pub fn count(&self, what: &str) -> usize {
        self.entries().iter().filter(|entry| *entry == what).count()
    }
}

/// The state of the steps below: what they did, and where they are held.
#[derive(Clone, Default, Debug)]
pub struct Kit {
    /// What step bodies did.
    pub log: Log,
    /// Where [`gated`] steps wait.
    pub gate: Gate,
}

/// Note that the body ran, and give the name back.
#[step]
pub async fn work(step: &StepCtx, name: String) -> Result<String> {
    step.state::<Kit>().log.note(name.clone());
    Ok(name)
}

/// Note that the body began, wait at the gate, and give the name back.
#[step]
pub async fn gated(step: &StepCtx, name: String) -> Result<String> {
    let kit = step.state::<Kit>();
    kit.log.note(name.clone());
    kit.gate.pass().await;
    Ok(name)
}
