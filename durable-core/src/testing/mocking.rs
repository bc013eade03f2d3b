//! Putting another body in the place of a step's own. Finding it is `mock`'s.

use std::any::type_name;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Builder;
use crate::codec;
use crate::error::{Error, ErrorKind};
use crate::mock::{Mock, Mocks};
use crate::step::{AttemptFailure, Attempted, BoxFuture, Step, attempt};

/// A function made by `#[step]`, whatever its parameters.
#[diagnostic::on_unimplemented(message = "this is not a step", label = "expected a function annotated with `#[step]`")]
pub trait StepFn<Parameters> {
    /// What it takes: nothing, the one argument, or a tuple of them.
    type Arguments: DeserializeOwned + Send + 'static;
    /// What it gives.
    type Output: Serialize + DeserializeOwned + Send + 'static;
}

macro_rules! step_fn {
    ($arguments:ty; $($parameter:ident)*) => {
        impl<T, F, $($parameter),*> StepFn<($($parameter,)*)> for F
        where
            F: Fn($($parameter),*) -> Step<T>,
            T: Serialize + DeserializeOwned + Send + 'static,
            $($parameter: DeserializeOwned + Send + 'static),*
        {
            type Arguments = $arguments;
            type Output = T;
        }
    };
}
step_fn!((););
step_fn!(A; A);
step_fn!((A, B); A B);
step_fn!((A, B, C); A B C);
step_fn!((A, B, C, D); A B C D);
step_fn!((A, B, C, D, E); A B C D E);
step_fn!((A, B, C, D, E, G); A B C D E G);
step_fn!((A, B, C, D, E, G, H); A B C D E G H);
step_fn!((A, B, C, D, E, G, H, I); A B C D E G H I);

impl Builder {
    /// In a test: run `mock` in the place of a step's body, so that no mail is sent and no model is asked. Everything else
    /// is as with the body: attempts, retries, records, crash points. A transactional step commits what it records, and
    /// nothing else.
    ///
    /// It takes the step's argument, or a tuple of them, and gives what the step gives; anything else does not compile.
    /// A second mock of the same step replaces the first.
    ///
    /// ```no_run
    /// use durable::{Ctx, step, workflow};
    ///
    /// #[step]
    /// async fn rate(from: String, to: String) -> anyhow::Result<f64> {
    ///     anyhow::bail!("no internet: {from} {to}")
    /// }
    ///
    /// #[workflow]
    /// async fn convert(ctx: &Ctx, cents: f64) -> anyhow::Result<f64> {
    ///     Ok(cents * ctx.run(rate("EUR".into(), "CHF".into())).await?)
    /// }
    ///
    /// # async fn example(db: durable::testing::TestDatabase) -> anyhow::Result<()> {
    /// let builder = db.builder().register(convert).mock(rate, |(from, to)| async move {
    ///     assert_eq!((&*from, &*to), ("EUR", "CHF"));
    ///     Ok(0.5)
    /// });
    /// # let _ = builder; Ok(()) }
    /// ```
    pub fn mock<P, S, M, Fut>(mut self, step: S, mock: M) -> Self
    where
        S: StepFn<P>,
        M: Fn(S::Arguments) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<S::Output>> + Send + 'static,
    {
        // The function itself only tells its type; a pointer to it, or a closure around it, would not tell which it is.
        if size_of_val(&step) > 0 || type_name::<S>().ends_with("{{closure}}") {
            let problem = "a mock takes the step's function itself: .mock(send_mail, ..)";
            self.problem.get_or_insert(Error::new(ErrorKind::Usage, problem));
        }
        self.states.get_or_default::<Mocks>().insert::<S>(erase(mock));
        self
    }
}

fn erase<A, T, M, Fut>(mock: M) -> Arc<Mock>
where
    A: DeserializeOwned + Send + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    M: Fn(A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let mock = Arc::new(mock);
    Arc::new(move |input: &str| -> BoxFuture<'static, Attempted> {
        match codec::decode::<A>(input) {
            Ok(arguments) => {
                let mock = mock.clone();
                // Called inside the future, so that what it does before its first await cannot panic outside.
                Box::pin(attempt(async move { mock(arguments).await }))
            }
            Err(problem) => Box::pin(async move { Err(AttemptFailure::value("input", &problem)) }),
        }
    })
}
