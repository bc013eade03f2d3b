//! Steps as values: what a call of a `#[step]` function describes, and what a step body gets to see.
//!
//! Running them is `worker::drive`; nothing here touches the database.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;

use crate::codec::{self, Encoded};
use crate::failure::{Failure, FailureKind, Returned, StepError, panic_message};
use crate::id::{Id, Position};
use crate::outflow::{Outflow, StepStream};
use crate::retry::Retry;
use crate::stream::Stream;

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What `#[step]` knows about a step without running it.
#[derive(Debug)]
pub struct StepDefinition {
    /// Its name in the history.
    pub name: &'static str,
    /// Its own retry policy, if it has one.
    pub retry: Option<Retry>,
    /// The longest time for one attempt, if there is one.
    pub timeout: Option<Duration>,
    /// The limit that each attempt keeps to, if there is one.
    pub limit: Option<&'static str>,
}

/// A step that is described but has not begun: what calling a `#[step]` function gives.
///
/// Give it to [`Ctx::run`](crate::Ctx::run), in a workflow. On its own it does nothing.
#[must_use = "a step does nothing until a workflow runs it: ctx.run(..).await"]
pub struct Step<T> {
    pub(crate) definition: &'static StepDefinition,
    pub(crate) arguments: Box<dyn Arguments>,
    pub(crate) body: StepBody,
    output: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Step<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Step({:?})", self.definition.name)
    }
}

/// Arguments that can be encoded once somebody needs them: a step that is answered from history never does.
pub(crate) trait Arguments: Send {
    fn encode(&self) -> Encoded;
}

impl<A: Serialize + Send> Arguments for A {
    fn encode(&self) -> Encoded {
        codec::encode_unproved(self)
    }
}

/// One attempt of a step body: from the arguments' JSON to the output.
pub(crate) type Attempted = Result<Output, AttemptFailure>;

/// The output of a step: its JSON, and the value that was read from it again. The workflow gets that one, so that
/// its first run and a recovery cannot differ.
pub(crate) struct Output {
    pub(crate) json: String,
    pub(crate) value: Box<dyn Any + Send>,
}

type PlainBody = dyn Fn(StepCtx, &str) -> BoxFuture<'static, Attempted> + Send + Sync;
type TransactionBody = dyn for<'t> Fn(&'t mut PgConnection, StepCtx, &str) -> BoxFuture<'t, Attempted> + Send + Sync;

/// A step body without its types.
#[derive(Clone)]
pub(crate) enum StepBody {
    Plain(Arc<PlainBody>),
    Transaction(Arc<TransactionBody>),
}

/// Why an attempt failed, and the word for the engine that came with it.
#[derive(Debug)]
pub(crate) struct AttemptFailure {
    pub(crate) failure: Failure,
    pub(crate) after: Option<Duration>,
    /// The SQLSTATE of a database error in the chain.
    pub(crate) code: Option<String>,
}

impl AttemptFailure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(kind, message), after: None, code: None }
    }

    pub(crate) fn value(what: &str, problem: &str) -> Self {
        // A value that cannot be stored will not be better at the next attempt.
        let failure = Failure::new(FailureKind::Value, format!("its {what} {problem}")).terminal();
        Self { failure, after: None, code: None }
    }

    /// What the server answered to COMMIT.
    pub(crate) fn of_commit(error: sqlx::Error) -> Self {
        Self::from_error(&anyhow::Error::from(error))
    }

    fn from_error(error: &anyhow::Error) -> Self {
        let code = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<sqlx::Error>())
            .and_then(|e| e.as_database_error())
            .and_then(|e| e.code().map(|code| code.into_owned()));
        Self { failure: Failure::from_error(error), after: StepError::delay_in(error), code }
    }
}

/// Describe a plain step. Called by what `#[step]` emits.
pub fn plain_step<A, R, F, Fut>(definition: &'static StepDefinition, arguments: A, body: F) -> Step<R::Output>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: Returned,
    F: Fn(StepCtx, A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = R> + Send + 'static,
{
    let body = Arc::new(move |ctx: StepCtx, input: &str| -> BoxFuture<'static, Attempted> {
        #[cfg(feature = "testing")]
        if let Some(mock) = crate::mock::mock_of::<F>(&ctx.state) {
            return mock(input);
        }
        match codec::decode::<A>(input) {
            // The body is called inside the future, so that even what it does before its first await
            // cannot panic outside.
            Ok(arguments) => {
                let started = std::panic::catch_unwind(AssertUnwindSafe(|| body(ctx, arguments)));
                Box::pin(async move {
                    match started {
                        Ok(future) => attempt(future).await,
                        Err(panic) => Err(AttemptFailure::new(FailureKind::Panic, panic_message(&*panic))),
                    }
                })
            }
            Err(problem) => Box::pin(async move { Err(AttemptFailure::value("input", &problem)) }),
        }
    });
    Step { definition, arguments: Box::new(arguments), body: StepBody::Plain(body), output: PhantomData }
}

/// Describe a transactional step. Called by what `#[step(tx)]` emits.
pub fn tx_step<A, R, F>(definition: &'static StepDefinition, arguments: A, body: F) -> Step<R::Output>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: Returned,
    F: for<'t> Fn(&'t mut PgConnection, StepCtx, A) -> BoxFuture<'t, R> + Send + Sync + 'static,
{
    let body = Arc::new(TransactionAdapter { body, types: PhantomData::<fn(A) -> R> }).erase();
    Step { definition, arguments: Box::new(arguments), body, output: PhantomData }
}

/// Carries the types through the erasure; a bare closure does not infer its two lifetimes.
struct TransactionAdapter<A, R, F> {
    body: F,
    types: PhantomData<fn(A) -> R>,
}

impl<A, R, F> TransactionAdapter<A, R, F>
where
    A: DeserializeOwned + Send + 'static,
    R: Returned,
    F: for<'t> Fn(&'t mut PgConnection, StepCtx, A) -> BoxFuture<'t, R> + Send + Sync + 'static,
{
    fn erase(self: Arc<Self>) -> StepBody {
        fn call<A, R, F>(
            adapter: &TransactionAdapter<A, R, F>,
        ) -> impl for<'t> Fn(&'t mut PgConnection, StepCtx, &str) -> BoxFuture<'t, Attempted> + '_
        where
            A: DeserializeOwned + Send + 'static,
            R: Returned,
            F: for<'t> Fn(&'t mut PgConnection, StepCtx, A) -> BoxFuture<'t, R> + Send + Sync + 'static,
        {
            move |tx, ctx, input| {
                #[cfg(feature = "testing")]
                if let Some(mock) = crate::mock::mock_of::<F>(&ctx.state) {
                    return mock(input);
                }
                match codec::decode::<A>(input) {
                    Ok(arguments) => Box::pin(attempt((adapter.body)(tx, ctx, arguments))),
                    Err(problem) => Box::pin(async move { Err(AttemptFailure::value("input", &problem)) }),
                }
            }
        }
        StepBody::Transaction(Arc::new(move |tx: &mut PgConnection, ctx: StepCtx, input: &str| {
            call(&self)(tx, ctx, input)
        }))
    }
}

/// Wait for a body, and read back what it gave.
pub(crate) async fn attempt<R: Returned>(body: impl Future<Output = R> + Send) -> Attempted {
    match AssertUnwindSafe(body).catch_unwind().await {
        Ok(returned) => match returned.into_result() {
            Ok(output) => match codec::encode(&output) {
                Ok((json, read)) => Ok(Output { json, value: Box::new(read) }),
                Err(problem) => Err(AttemptFailure::value("output", &problem)),
            },
            Err(error) => Err(AttemptFailure::from_error(&error)),
        },
        Err(panic) => Err(AttemptFailure::new(FailureKind::Panic, panic_message(&*panic))),
    }
}

/// What a step body gets to see: which attempt it is, its idempotency key, and the application's state.
#[derive(Clone)]
pub struct StepCtx {
    pub(crate) id: Id,
    pub(crate) position: Position,
    pub(crate) name: &'static str,
    /// Made when somebody asks for it.
    pub(crate) key: OnceLock<Box<str>>,
    pub(crate) attempt: u32,
    pub(crate) state: Arc<States>,
    pub(crate) outflow: Arc<Outflow>,
}

impl StepCtx {
    /// A key for this step that is the same for every attempt, on every worker, and different from every
    /// other step's: the workflow's id and the position, `order-42/3`, or `order-42/3.0` in a branch. Hand it
    /// to services that take an idempotency key.
    pub fn key(&self) -> &str {
        self.key.get_or_init(|| format!("{}/{}", self.id, self.position).into())
    }

    /// Which attempt this is, from 1. Attempts of a worker that died and that had not been recorded are
    /// counted again by its successor.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The step's name in the history.
    pub fn name(&self) -> &str {
        self.name
    }

    /// The workflow's id.
    pub fn workflow_id(&self) -> &str {
        self.id.as_str()
    }

    /// A stream of the workflow, to be written to while the step runs: an answer as it comes, lines of a log, progress.
    ///
    /// ```
    /// use durable::{StepCtx, Stream, step};
    ///
    /// const TOKENS: Stream<String> = Stream::new("tokens");
    ///
    /// #[step]
    /// async fn answer(step: &StepCtx, question: String) -> anyhow::Result<String> {
    ///     let tokens = step.stream(TOKENS);
    ///     let mut answer = String::new();
    ///     for token in question.split_inclusive(' ') { // a model's answer
    ///         tokens.write(token.to_owned()).await?;
    ///         answer.push_str(token);
    ///     }
    ///     Ok(answer)
    /// }
    /// ```
    ///
    /// # Durability
    ///
    /// Values are written while the step runs, and not undone when the attempt fails, nor with the transaction of a
    /// transactional step. Another attempt writes them again; each says [which attempt](crate::StreamValue::attempt) it is
    /// of, so that a reader can tell. All that an attempt has written stands before its outcome does.
    pub fn stream<T>(&self, stream: Stream<T>) -> StepStream<T> {
        StepStream::new(self.outflow.clone(), stream)
    }

    /// The application's state of type `T`, as given to [`Builder::state`](crate::Builder::state).
    ///
    /// # Panics
    ///
    /// When no state of this type was given; the attempt then fails with a message that says so.
    pub fn state<T: Send + Sync + 'static>(&self) -> &T {
        self.state.get().unwrap_or_else(|| {
            panic!("no state of type {0} was given: add .state(value) to the builder", std::any::type_name::<T>())
        })
    }
}

impl std::fmt::Debug for StepCtx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StepCtx({}, attempt {})", self.key(), self.attempt)
    }
}

/// The application's state, by type.
#[derive(Default)]
pub(crate) struct States(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl States {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, state: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(state));
    }

    pub(crate) fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>()).and_then(|state| state.downcast_ref())
    }

    #[cfg(feature = "testing")]
    pub(crate) fn get_or_default<T: Default + Send + Sync + 'static>(&mut self) -> &mut T {
        let state = self.0.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(T::default()));
        state.downcast_mut().expect("states are kept by their types")
    }
}
