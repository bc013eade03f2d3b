//! The policies of a schedule: for workflows that have not ended when the next tick comes, and for ticks that were missed.

use std::time::Duration;

/// Ticks that are made up for in one go, at most.
const CATCH_UP_MAX: u32 = 1_000;

/// What to do with a tick while a workflow that the schedule has started before has not ended. A blocked one has not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overlap {
    /// Leave the tick out, and count it as skipped.
    #[default]
    Skip,
    /// Let one tick wait until nothing of the schedule is open; leave out what comes while one waits.
    QueueOne,
    /// Let the ticks wait, and start them one after the other; 10,000 at most, then they are left out.
    QueueAll,
    /// Cancel what is open, as [`Durable::cancel`](crate::Durable::cancel) does, and start the tick once that has ended, with its
    /// undo steps. Of ticks that come meanwhile the last one is started.
    CancelRunning,
    /// Start it beside what is open.
    Allow,
}

impl Overlap {
    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Overlap::Skip => "skip",
            Overlap::QueueOne => "queue_one",
            Overlap::QueueAll => "queue_all",
            Overlap::CancelRunning => "cancel_running",
            Overlap::Allow => "allow",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        use Overlap::{Allow, CancelRunning, QueueAll, QueueOne, Skip};
        [Skip, QueueOne, QueueAll, CancelRunning, Allow].into_iter().find(|overlap| overlap.as_str() == word)
    }
}

/// What to do with ticks that were missed: because no worker was there, or the database was not.
///
/// A tick is missed once the next one's time has come too, or a minute after its own. Ticks of a paused schedule are none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CatchUp {
    pub(crate) missed: Missed,
    /// Ticks to start at most, of which the latest count.
    pub(crate) most: u32,
    pub(crate) within: Option<Duration>,
}

/// Which of the missed ticks are started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Missed {
    None,
    Last,
    All,
}

impl Missed {
    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Missed::None => "skip",
            Missed::Last => "last",
            Missed::All => "all",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Missed::None, Missed::Last, Missed::All].into_iter().find(|missed| missed.as_str() == word)
    }
}

impl CatchUp {
    /// Start nothing for them. A tick that is less than a minute late, and the latest, is started nevertheless: a deploy is no
    /// reason to lose one.
    pub fn skip() -> Self {
        Self { missed: Missed::None, most: 1, within: None }
    }

    /// Start the last one, for all of them. The default.
    pub fn last() -> Self {
        Self { missed: Missed::Last, most: 1, within: None }
    }

    /// Start all of them, but not more than so many, 1 to 1,000, and then the latest. The policy for
    /// [overlaps](Overlap) is asked for each: with [`Overlap::Skip`] the first one of them would start, and the others be skipped.
    pub fn all(most: u32) -> Self {
        Self { missed: Missed::All, most, within: None }
    }

    /// Start none whose time was longer ago than this.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = Some(within);
        self
    }

    /// What is wrong with it, if something is.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self { most, .. } if *most == 0 || *most > CATCH_UP_MAX => {
                Err(format!("it catches up on {most} ticks, which has to be 1 to {CATCH_UP_MAX}"))
            }
            Self { within: Some(within), .. } if *within < Duration::from_secs(1) => {
                Err(format!("it catches up within {within:?}, which has to be 1 s or more"))
            }
            _ => Ok(()),
        }
    }
}

impl Default for CatchUp {
    fn default() -> Self {
        Self::last()
    }
}
