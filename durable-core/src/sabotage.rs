//! Faults that a test builds into the committer, to prove that what checks it would see them. Outside the feature
//! `testing` this is nothing.
//!
//! Each is carried out in the code that it spoils: `worker::committer`, and `store::sql` for the statements.

/// A way in which a committer could be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "the way to it is `testing`"))]
pub enum Sabotage {
    /// It answers that a write stands before the database has said so.
    AcknowledgesEarly,
    /// Its statements do not ask who owns a workflow. To be set before a worker is built.
    ForgetsTheOwner,
    /// It leaves an outcome out of every batch of several, and answers for it as for the others.
    DropsARow,
}

#[cfg(not(feature = "testing"))]
pub(crate) const fn sabotaged(_by: Sabotage) -> bool {
    false
}

#[cfg(feature = "testing")]
pub(crate) use switch::{sabotage, sabotaged};

#[cfg(feature = "testing")]
mod switch {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Sabotage;

    static SWITCH: AtomicU8 = AtomicU8::new(0);

    fn number(sabotage: Option<Sabotage>) -> u8 {
        match sabotage {
            None => 0,
            Some(Sabotage::AcknowledgesEarly) => 1,
            Some(Sabotage::ForgetsTheOwner) => 2,
            Some(Sabotage::DropsARow) => 3,
        }
    }

    pub(crate) fn sabotage(sabotage: Option<Sabotage>) {
        SWITCH.store(number(sabotage), Ordering::Relaxed);
    }

    pub(crate) fn sabotaged(by: Sabotage) -> bool {
        SWITCH.load(Ordering::Relaxed) == number(Some(by))
    }
}
