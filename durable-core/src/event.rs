//! Typed names of what a workflow publishes.

use std::marker::PhantomData;

/// The largest value of an event, in bytes of JSON.
pub(crate) const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// A named state that a workflow publishes, with the type of its values: its progress, its total, a link to pay by.
///
/// Made as a constant and shared by the body that [publishes](crate::Ctx::publish) and those who read:
///
/// ```
/// use durable::Event;
///
/// const PROGRESS: Event<u32> = Event::new("progress");
/// ```
///
/// An event that an [application publishes](crate::Durable::publish) starts the workflows that are [subscribed](crate::Subscription)
/// to it, and belongs to none of them.
///
/// Names have 1 to 512 bytes without control characters; one that breaks this fails what it is used for. Values have at most
/// 1 MiB of JSON. Only the last one that a workflow has published is kept; it lives as long as the workflow.
pub struct Event<T> {
    key: &'static str,
    values: PhantomData<fn() -> T>,
}

impl<T> Event<T> {
    /// An event. Two events of one workflow with one name are one event.
    pub const fn new(key: &'static str) -> Self {
        Self { key, values: PhantomData }
    }

    /// Its name.
    pub const fn key(&self) -> &'static str {
        self.key
    }
}

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Event<T> {}

impl<T> std::fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Event({:?})", self.key)
    }
}
