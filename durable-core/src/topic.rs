//! Typed addresses in a workflow's mailbox.

use std::marker::PhantomData;

/// A named kind of message to a workflow, with the type of its values.
///
/// Made as a constant and shared by senders and the body that receives:
///
/// ```
/// use durable::Topic;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// enum Decision { Approve, Reject(String) }
///
/// const DECISION: Topic<Decision> = Topic::new("decision");
/// ```
///
/// Names have 1 to 512 bytes without control characters; one that breaks this is refused when a message is
/// sent, and fails a receive.
pub struct Topic<T> {
    name: &'static str,
    values: PhantomData<fn() -> T>,
}

impl<T> Topic<T> {
    /// A topic. Two topics with one name are one topic.
    pub const fn new(name: &'static str) -> Self {
        Self { name, values: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Topic<T> {}

impl<T> std::fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Topic({:?})", self.name)
    }
}
