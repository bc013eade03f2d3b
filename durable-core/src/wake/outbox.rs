//! What this process has to tell the others, until it is sent.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// Words that wait to be sent. What comes on top is dropped: it was only a hint.
const WORDS_MAX: usize = 10_000;

/// A word between processes. Ids are told as their hashes: whoever may listen need not be one who may read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Word {
    /// A worker has a cancelled workflow to stop.
    Stopping(Uuid),
    /// Something of this queue is due.
    Due(String),
    /// Something of this queue will be due as soon as somebody's transaction commits.
    Soon(String),
    /// A message came for a workflow that runs somewhere.
    Message(u64),
    /// Somebody waits for the end of this workflow.
    Wanted(u64),
    /// A workflow that somebody may wait for has ended.
    Ended(u64),
}

/// Words that wait to be sent, each once.
#[derive(Default)]
pub(crate) struct Outbox {
    words: Mutex<BTreeSet<Word>>,
    filled: Notify,
}

impl Outbox {
    fn words(&self) -> MutexGuard<'_, BTreeSet<Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, word: Word) {
        let mut words = self.words();
        if words.len() < WORDS_MAX {
            words.insert(word);
            self.filled.notify_one();
        }
    }

    /// Wait until there is something to send, and take it while `fits`; the rest stays.
    pub(crate) async fn take(&self, mut fits: impl FnMut(&Word) -> bool) -> Vec<Word> {
        loop {
            {
                let mut words = self.words();
                let mut taken = Vec::new();
                while let Some(word) = words.first()
                    && fits(word)
                {
                    taken.extend(words.pop_first());
                }
                if !taken.is_empty() {
                    return taken;
                }
            }
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_word_is_taken_once_and_what_does_not_fit_stays() {
        let outbox = Outbox::default();
        for n in [2, 1, 2, 3] {
            outbox.put(Word::Ended(n));
        }
        outbox.put(Word::Due("q".into()));
        let mut room = 2;
        let fits = |_: &Word| {
            room -= 1;
            room >= 0
        };
        let first = outbox.take(fits).now_or_never();
        assert_eq!(first, Some(vec![Word::Due("q".into()), Word::Ended(1)]));
        let rest = outbox.take(|_| true).now_or_never();
        assert_eq!(rest, Some(vec![Word::Ended(2), Word::Ended(3)]));
        assert_eq!(outbox.take(|_| true).now_or_never(), None);
    }

    #[test]
    fn the_outbox_has_a_bound() {
        let outbox = Outbox::default();
        for n in 0..2 * WORDS_MAX as u64 {
            outbox.put(Word::Ended(n));
        }
        assert_eq!(outbox.take(|_| true).now_or_never().map(|words| words.len()), Some(WORDS_MAX));
    }
}
