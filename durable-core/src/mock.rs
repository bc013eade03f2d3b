//! Bodies that a test puts in the place of steps' own. How they are given is `testing::mocking`.
//!
//! A step is found by where its function stands, since neither the function's type nor the body's tells the other's: the
//! body that `#[step]` emits is a closure in that function, and is called after it. The name that a type has is made for
//! people, and nobody promises that it is unique; so this is for tests, and a test keeps it.

use std::any::type_name;
use std::collections::HashMap;
use std::sync::Arc;

use crate::step::{Attempted, BoxFuture, States};

/// A body without its types, and without the contexts that it was not given.
pub(crate) type Mock = dyn Fn(&str) -> BoxFuture<'static, Attempted> + Send + Sync;

/// The bodies of one worker's mocks, by the step's function.
#[derive(Default)]
pub(crate) struct Mocks(HashMap<&'static str, Arc<Mock>>);

impl Mocks {
    /// In the place of the step that `D` describes.
    pub(crate) fn insert<D>(&mut self, mock: Arc<Mock>) {
        self.0.insert(type_name::<D>(), mock);
    }
}

/// The mock of the step whose body is `B`, if there is one.
pub(crate) fn mock_of<B>(states: &States) -> Option<Arc<Mock>> {
    let function = type_name::<B>().strip_suffix("::{{closure}}")?;
    states.get::<Mocks>()?.0.get(function).cloned()
}
