//! Places where a test may kill the process. Outside the feature `testing` this is nothing.

#[cfg(feature = "testing")]
pub(crate) fn probe(place: &'static str) {
    crate::testing::pass(place);
}

#[cfg(not(feature = "testing"))]
pub(crate) fn probe(_place: &'static str) {}
