//! Typed names of what a workflow writes value after value, and what its readers get.

use std::marker::PhantomData;

use chrono::{DateTime, Utc};

/// The largest value in a stream, in bytes of JSON.
pub(crate) const STREAM_BYTES_MAX: usize = 1024 * 1024;

/// A named sequence of values that a workflow writes, with the type of the values: the tokens of an answer, the lines of a log,
/// what it has found so far.
///
/// Made as a constant and shared by those who write, a body ([`Ctx::stream`](crate::Ctx::stream)) and its steps
/// ([`StepCtx::stream`](crate::StepCtx::stream)), and those who read ([`Handle::stream`](crate::Handle::stream)):
///
/// ```
/// use durable::Stream;
///
/// const TOKENS: Stream<String> = Stream::new("tokens");
/// ```
///
/// Names have 1 to 512 bytes without control characters; one that breaks this fails what it is used for. Values have at most
/// 1 MiB of JSON. All of them are kept, as long as the workflow's row is.
pub struct Stream<T> {
    key: &'static str,
    values: PhantomData<fn() -> T>,
}

impl<T> Stream<T> {
    /// A stream. Two streams of one workflow with one name are one stream.
    pub const fn new(key: &'static str) -> Self {
        Self { key, values: PhantomData }
    }

    /// Its name.
    pub const fn key(&self) -> &'static str {
        self.key
    }
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Stream<T> {}

impl<T> std::fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?})", self.key)
    }
}

/// A value of a stream, as its readers get it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StreamValue<T> {
    /// Its place in the stream: 0, 1, 2, and so on, without a gap.
    pub offset: u64,
    /// The value.
    pub value: T,
    /// When it was written, by the database's clock.
    pub written_at: DateTime<Utc>,
    /// The attempt of a step that wrote it; `None` for a value that the body wrote, which is there once.
    pub attempt: Option<StepAttempt>,
}

/// An attempt of a step, as the values show it that it has written to a stream.
///
/// A step that is attempted again writes its values again. A reader who sees values of the same step with another attempt
/// than before drops what it has of the former, or shows that the answer begins anew.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct StepAttempt {
    /// The step's position, as the [history](crate::Handle::history) and [`StepCtx::key`](crate::StepCtx::key) have it: `3`, or
    /// `3.0` in a branch.
    pub step: String,
    /// Its number, from 1. It begins again when a worker has died.
    pub attempt: u32,
    /// Which claim of the workflow it was made under: grows when the workflow is taken up again.
    pub claim: u32,
}

impl StepAttempt {
    /// Whether this is a later attempt of the same step, which writes again what the other has written.
    pub fn repeats(&self, earlier: &Self) -> bool {
        self.step == earlier.step && (self.claim, self.attempt) > (earlier.claim, earlier.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_attempt_of_the_same_step_repeats_an_earlier_one() {
        let attempt = |step: &str, claim, attempt| StepAttempt { step: step.to_owned(), attempt, claim };
        assert!(attempt("3", 1, 2).repeats(&attempt("3", 1, 1)));
        assert!(attempt("3", 2, 1).repeats(&attempt("3", 1, 4)), "another worker counts from 1 again");
        assert!(!attempt("3", 1, 1).repeats(&attempt("3", 1, 1)));
        assert!(!attempt("3", 1, 1).repeats(&attempt("3", 1, 2)));
        assert!(!attempt("4", 1, 2).repeats(&attempt("3", 1, 1)));
    }
}
