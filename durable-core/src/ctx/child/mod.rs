//! Children as a body has them: workflows that it has started, one by one or in a set of which one waits for the next.
//!
//! `start` is their start as a body awaits it, `result` their end, `awaited` what an attempt knows of those that it waits for.
//! They are values: everything durable about them is done by the context.

pub(super) mod awaited;
pub(crate) mod result;
pub(crate) mod start;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::id::Id;

/// A child that was started by [`Ctx::start`](crate::Ctx::start): a workflow of its own, whose result the body can wait for by
/// [`Ctx::result`](crate::Ctx::result).
///
/// Dropping it does nothing to the child.
pub struct Child<T> {
    id: Id,
    name: &'static str,
    output: PhantomData<fn() -> T>,
}

impl<T> Child<T> {
    pub(super) fn new(id: Id, name: &'static str) -> Self {
        Self { id, name, output: PhantomData }
    }

    /// The child's id.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }
}

impl<T> Clone for Child<T> {
    fn clone(&self) -> Self {
        Self::new(self.id.clone(), self.name)
    }
}

impl<T> fmt::Debug for Child<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Child({:?} {})", self.name, self.id)
    }
}

/// Children of whom one waits for whichever ends next, by [`Ctx::next`](crate::Ctx::next). Collected from [`Child`]ren, or
/// filled one by one.
pub struct Children<T> {
    // In the order of ids, so that a look at many finds the same one first on every run.
    open: BTreeMap<Id, Child<T>>,
}

impl<T> Children<T> {
    /// Add one. It is there once, however often it is added.
    pub fn push(&mut self, child: Child<T>) {
        self.open.insert(child.id.clone(), child);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn ids(&self) -> Arc<[Id]> {
        self.open.keys().cloned().collect()
    }
}

impl<T> Default for Children<T> {
    fn default() -> Self {
        Self { open: BTreeMap::new() }
    }
}

impl<T> FromIterator<Child<T>> for Children<T> {
    fn from_iter<I: IntoIterator<Item = Child<T>>>(children: I) -> Self {
        Self { open: children.into_iter().map(|child| (child.id.clone(), child)).collect() }
    }
}

impl<T> fmt::Debug for Children<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Children({} open)", self.open.len())
    }
}
