//! Workflows as values: what a call of a `#[workflow]` function describes, and how a body is found by name.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Encoded};
use crate::ctx::Ctx;
use crate::decide::Returns;
use crate::error::{Error, ErrorKind};
use crate::failure::{Failure, FailureKind, Returned};
use crate::id::check_text;
use crate::step::BoxFuture;

/// A workflow's types, name and body. Implemented by `#[workflow]`.
pub trait Workflow: Send + Sync + 'static {
    /// What it is started with.
    type Input: Serialize + DeserializeOwned + Send + 'static;
    /// What its function returns.
    type Returned: Returned;
    /// Its name in the database.
    const NAME: &'static str;
    /// Its version.
    const VERSION: i32;
    /// What its code is known by; empty when that is not known.
    const FINGERPRINT: &'static str = "";

    /// Its function.
    fn body(ctx: &Ctx, input: Self::Input) -> BoxFuture<'_, Self::Returned>;
}

/// What a workflow gives when it completes.
pub(crate) type OutputOf<W> = <<W as Workflow>::Returned as Returned>::Output;

/// A workflow that is described but has not started: what calling a `#[workflow]` function gives.
///
/// Give it to [`Durable::start`](crate::Durable::start). On its own it does nothing.
#[must_use = "a workflow does nothing until it is started: durable.start(..).await"]
pub struct Call<W: Workflow> {
    pub(crate) input: W::Input,
    workflow: PhantomData<fn() -> W>,
}

impl<W: Workflow> std::fmt::Debug for Call<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Call({:?})", W::NAME)
    }
}

impl<W: Workflow> Call<W> {
    pub(crate) fn encode(&self) -> Encoded {
        codec::encode(&self.input).map(|(json, _)| json)
    }
}

/// Describe a workflow. Called by what `#[workflow]` emits.
pub fn call<W: Workflow>(input: W::Input) -> Call<W> {
    Call { input, workflow: PhantomData }
}

/// A function made by `#[workflow]`, whatever its parameters.
#[diagnostic::on_unimplemented(
    message = "this is not a workflow",
    label = "expected a function annotated with `#[workflow]`"
)]
pub trait WorkflowFn<Parameters> {
    /// The workflow that it describes.
    type Workflow: Workflow;
}

macro_rules! workflow_fn {
    ($($parameter:ident)*) => {
        impl<W: Workflow, F: Fn($($parameter),*) -> Call<W>, $($parameter),*> WorkflowFn<($($parameter,)*)> for F {
            type Workflow = W;
        }
    };
}
workflow_fn!();
workflow_fn!(A);
workflow_fn!(A B);
workflow_fn!(A B C);
workflow_fn!(A B C D);
workflow_fn!(A B C D E);
workflow_fn!(A B C D E G);
workflow_fn!(A B C D E G H);
workflow_fn!(A B C D E G H I);

type BodyFn = dyn for<'c> Fn(&'c Ctx, &str) -> BoxFuture<'c, Returns> + Send + Sync;

/// The bodies that this process has, by name and version.
#[derive(Default)]
pub(crate) struct Registry {
    bodies: BTreeMap<(String, i32), Arc<BodyFn>>,
    names: (Vec<String>, Vec<i32>),
    /// In the order of the names.
    fingerprints: Vec<&'static str>,
}

impl Registry {
    pub(crate) fn add<W: Workflow>(&mut self) -> Result<(), Error> {
        check_text("workflow name", W::NAME)?;
        let body: Arc<BodyFn> = Arc::new(|ctx, input| run_body::<W>(ctx, input));
        match self.bodies.insert((W::NAME.to_owned(), W::VERSION), body) {
            None => {
                self.names.0.push(W::NAME.to_owned());
                self.names.1.push(W::VERSION);
                self.fingerprints.push(W::FINGERPRINT);
                Ok(())
            }
            Some(_) => Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "two workflows are registered as {:?} version {}: give one of them another name or version",
                    W::NAME,
                    W::VERSION
                ),
            )),
        }
    }

    pub(crate) fn find(&self, name: &str, version: i32) -> Option<Arc<BodyFn>> {
        self.bodies.get(&(name.to_owned(), version)).cloned()
    }

    pub(crate) fn knows(&self, name: &str, version: i32) -> bool {
        self.bodies.contains_key(&(name.to_owned(), version))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// What the code of each is known by, in the order of the names.
    pub(crate) fn fingerprints(&self) -> &[&'static str] {
        &self.fingerprints
    }

    /// What the code of one is known by; empty when that is not known.
    pub(crate) fn fingerprint(&self, name: &str, version: i32) -> &'static str {
        let names = self.names.0.iter().zip(&self.names.1);
        let place = names.zip(&self.fingerprints).find(|((n, v), _)| *n == name && **v == version);
        place.map_or("", |(_, fingerprint)| fingerprint)
    }

    /// Names and versions, in parallel, as the statements take them.
    pub(crate) fn names(&self) -> &(Vec<String>, Vec<i32>) {
        &self.names
    }
}

fn run_body<'c, W: Workflow>(ctx: &'c Ctx, input: &str) -> BoxFuture<'c, Returns> {
    match codec::decode::<W::Input>(input) {
        Ok(input) => {
            let body = W::body(ctx, input);
            Box::pin(async move {
                let output = body.await.into_result().map_err(|error| Failure::from_error(&error))?;
                codec::encode(&output)
                    .map(|(json, _)| json)
                    .map_err(|problem| Failure::new(FailureKind::Value, format!("its output {problem}")).terminal())
            })
        }
        Err(problem) => {
            Box::pin(async move { Err(Failure::new(FailureKind::Value, format!("its input {problem}")).terminal()) })
        }
    }
}
