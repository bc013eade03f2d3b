//! How user code fails: what it returns, and what is recorded of it.
//!
//! Users return `anyhow::Result` or their own error type. Recorded, and given to the body on the first run
//! as well as on every later one, is a [`Failure`]: text and flags, never the live error.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Messages of an error chain that are kept, and bytes of each.
const MESSAGES_MAX: usize = 32;
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Bytes of the data that an error may carry.
const DATA_BYTES_MAX: usize = 64 * 1024;

/// How a step or a workflow failed, as it is recorded.
///
/// This is what `ctx.run(..)` gives to a body when a step has failed for good, and what
/// [`Error::failure`](crate::Error::failure) shows to whoever waits for a failed workflow. It is the same on
/// the first run and after a recovery, because both read the record. It holds text written by your code:
/// the library stores it and never logs it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    kind: FailureKind,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    terminal: bool,
    messages: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    child: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// What kind of a failure it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// User code returned an error.
    Error,
    /// User code panicked.
    Panic,
    /// An attempt took longer than its timeout.
    Timeout,
    /// A value does not survive being stored.
    Value,
    /// A transactional step ended the engine's transaction itself.
    Transaction,
    /// The code does not fit the history, breaks a rule of the context, or names a limit that nobody has declared. The workflow is
    /// blocked.
    Mismatch,
    /// The workflow lost too many workers. It is blocked.
    Poison,
    /// Somebody paused the workflow. It is blocked, through no fault of its own.
    Paused,
    /// It was cancelled, with the reason as its message if there is one. A parent gets it of a child; [`Failure::child`] says
    /// of which.
    Cancelled,
    /// It had not ended by its deadline.
    Deadline,
    /// A child could not be started, because its id belongs to another workflow.
    Conflict,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        cut(&mut message);
        Self { kind, terminal: false, messages: vec![message], step: None, attempts: 0, child: None, data: None }
    }

    /// Read an error the way it is recorded.
    pub(crate) fn from_error(error: &anyhow::Error) -> Self {
        let mut failure = Self::new(FailureKind::Error, "");
        failure.messages.clear();
        for cause in error.chain().take(MESSAGES_MAX) {
            if let Some(own) = cause.downcast_ref::<StepError>() {
                failure.terminal |= own.terminal;
                failure.data = failure.data.take().or_else(|| own.data.clone());
            }
            if let Some(inner) = cause.downcast_ref::<Failure>() {
                failure.absorb(inner);
                continue;
            }
            let mut message = cause.to_string();
            cut(&mut message);
            // Many errors print their source as their own tail; people want to read it once.
            if !failure.messages.last().is_some_and(|last| last.ends_with(&message)) {
                failure.messages.push(message);
            }
        }
        failure
    }

    /// Take over what a failed step was recorded with, below the messages that wrap it.
    fn absorb(&mut self, inner: &Failure) {
        self.messages.extend(inner.messages.iter().cloned());
        self.kind = inner.kind;
        self.terminal |= inner.terminal;
        self.step.clone_from(&inner.step);
        self.attempts = inner.attempts;
        self.child.clone_from(&inner.child);
        self.data = self.data.take().or_else(|| inner.data.clone());
    }

    pub(crate) fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    pub(crate) fn of_step(mut self, step: &str, attempts: u32) -> Self {
        self.step = Some(step.to_owned());
        self.attempts = attempts;
        self
    }

    /// As the parent of the child that failed so gets it.
    pub(crate) fn of_child(mut self, id: &str) -> Self {
        self.child = Some(id.to_owned());
        self
    }

    /// Note below its own messages that an undo step has failed, too.
    pub(crate) fn undo_failed(&mut self, undo: &Failure) {
        if self.messages.len() < MESSAGES_MAX {
            let mut message = format!("and could not be undone: {undo}");
            cut(&mut message);
            self.messages.push(message);
        }
    }

    /// What kind of a failure it was.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The messages of the error and its causes, outermost first, joined by `": "`.
    pub fn message(&self) -> String {
        self.messages.join(": ")
    }

    /// Whether the code said that trying again is no use ([`terminal`]).
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The step that failed, if one did.
    pub fn step(&self) -> Option<&str> {
        self.step.as_deref()
    }

    /// How many attempts were made before it was given up; 0 where no step failed.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The id of the child workflow that failed or was cancelled, if it was one. What else this tells is then what the child
    /// failed with: its kind, its messages, the step of the child, its data.
    pub fn child(&self) -> Option<&str> {
        self.child.as_deref()
    }

    /// The data that the error carried ([`StepError::with_data`]), if it has the shape of `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Option<T> {
        self.data.clone().and_then(|data| serde_json::from_value(data).ok())
    }
}

/// A stored mismatch, with the code that has found it.
pub(crate) fn with_fingerprint(failure: &str, fingerprint: &str) -> String {
    let Ok(mut known) = serde_json::from_str::<Failure>(failure) else { return failure.to_owned() };
    known.data = Some(serde_json::json!({ "fingerprint": fingerprint }));
    serde_json::to_string(&known).unwrap_or_else(|_| failure.to_owned())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(child) = &self.child {
            write!(f, "child {child:?} failed: ")?;
        }
        if let Some(step) = &self.step {
            write!(f, "step {step:?} failed")?;
            if self.attempts > 1 {
                write!(f, " after {} attempts", self.attempts)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Failure {}

/// An error with a word for the engine: no more attempts, or not before a delay; made by [`terminal`] and
/// [`retry_after`].
///
/// It prints as the error inside it, and may be wrapped in further context.
pub struct StepError {
    error: anyhow::Error,
    terminal: bool,
    after: Option<Duration>,
    data: Option<Value>,
}

/// An error that no further attempt can mend: a declined card, a malformed address.
///
/// ```
/// use durable::{step, terminal};
///
/// #[step]
/// async fn charge(card: String) -> anyhow::Result<()> {
///     if card.is_empty() {
///         return Err(terminal(anyhow::anyhow!("no card")).into());
///     }
///     Ok(())
/// }
/// ```
pub fn terminal(error: impl Into<anyhow::Error>) -> StepError {
    StepError { error: error.into(), terminal: true, after: None, data: None }
}

/// An error that says when to try again, like a server's `Retry-After`.
///
/// The delay is kept where it is longer than the policy's own; it is not capped by it.
pub fn retry_after(error: impl Into<anyhow::Error>, after: Duration) -> StepError {
    StepError { error: error.into(), terminal: false, after: Some(after), data: None }
}

impl StepError {
    /// Attach data that whoever handles the failure can read back ([`Failure::data`]). What does not survive
    /// being stored as JSON, or is larger than 64 KiB, is left out.
    pub fn with_data(mut self, data: &impl Serialize) -> Self {
        self.data = storable(data);
        self
    }

    /// The delay that an error or one of its causes asks for.
    pub(crate) fn delay_in(error: &anyhow::Error) -> Option<Duration> {
        error.chain().find_map(|cause| cause.downcast_ref::<StepError>()).and_then(|own| own.after)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// What a step or a workflow may return. Sealed by what it is implemented for.
#[diagnostic::on_unimplemented(
    message = "a step or workflow returns a `Result`, not `{Self}`",
    label = "make this `Result<{Self}>`",
    note = "its error may be `anyhow::Error` or any type that implements `std::error::Error + Send + Sync + 'static`"
)]
pub trait Returned: Send + 'static {
    /// What `Ok` holds.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// The plain result.
    fn into_result(self) -> Result<Self::Output, anyhow::Error>;
}

impl<T, E> Returned for Result<T, E>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    E: Into<anyhow::Error> + Send + 'static,
{
    type Output = T;

    fn into_result(self) -> Result<T, anyhow::Error> {
        self.map_err(Into::into)
    }
}

/// A value that can be read again also where it will stand: a few levels down in a list of attempts.
fn storable(data: &impl Serialize) -> Option<Value> {
    let text = serde_json::to_string(data).ok().filter(|text| text.len() <= DATA_BYTES_MAX)?;
    serde_json::from_str::<Value>(&format!("[[[[[[[[{text}]]]]]]]]")).ok()?;
    serde_json::from_str(&text).ok()
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&'static str>().copied())
        .unwrap_or("a panic without text");
    format!("panicked: {text}")
}

fn cut(message: &mut String) {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
        message.truncate(end);
        message.push_str(" [cut]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn a_chain_is_recorded_outermost_first() {
        let failure = Failure::from_error(&anyhow!("disk full").context("writing").context("saving"));
        assert_eq!(failure.message(), "saving: writing: disk full");
        assert!(!failure.is_terminal());
    }

    #[test]
    fn the_word_for_the_engine_is_found_below_context() {
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct Declined {
            code: u32,
        }
        let error = Err::<(), _>(terminal(anyhow!("declined")).with_data(&Declined { code: 51 }))
            .context("charging")
            .unwrap_err();
        let failure = Failure::from_error(&error);
        assert!(failure.is_terminal());
        assert_eq!(failure.message(), "charging: declined");
        assert_eq!(failure.data(), Some(Declined { code: 51 }));

        let slow = anyhow::Error::from(retry_after(anyhow!("429"), Duration::from_secs(9)));
        assert_eq!(StepError::delay_in(&slow.context("calling")), Some(Duration::from_secs(9)));
    }

    #[test]
    fn a_failed_step_shows_through_the_workflow_that_it_failed() {
        let step = Failure::new(FailureKind::Timeout, "took longer than 30s").of_step("research", 3);
        let failure = Failure::from_error(&anyhow::Error::from(step).context("no dossier"));
        assert_eq!(failure.step(), Some("research"));
        assert_eq!(failure.to_string(), r#"step "research" failed after 3 attempts: no dossier: took longer than 30s"#);
        assert_eq!(failure.kind(), FailureKind::Timeout);
        let text = serde_json::to_string(&failure).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure);
    }

    #[test]
    fn a_long_message_is_cut_on_a_character() {
        let failure = Failure::new(FailureKind::Error, "ß".repeat(10_000));
        assert!(failure.message().len() <= MESSAGE_BYTES_MAX + 6);
    }
}
