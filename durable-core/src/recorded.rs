//! Reading a workflow's history page by page, for people. How a body reads it is `history`.

use std::pin::Pin;
use std::sync::Arc;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::id::{Id, Position};
use crate::info::{HistoryPage, RecordedStep};
use crate::store::inspect as store;
use crate::store::link::call_patiently;

/// Records in a page, where nobody says otherwise, and at most.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;

/// Bytes in a page, as they are stored: an output may have tens of megabytes.
const PAGE_BYTES: i64 = 8 * 1024 * 1024;

/// A page of a history about to be read. Made by [`Handle::history`](crate::Handle::history); awaiting it reads the page.
///
/// The records come lane by lane, each lane in the order of its body; the body's own lane is the first. A page ends
/// early when its values have 8 MiB together, so that it has a bound in memory; one record is in it in any case.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for a limit or a place that cannot be, database kinds. A workflow that does not exist has an
/// empty history.
#[must_use = "a history is not read until it is awaited"]
pub struct ReadHistory<'a> {
    client: &'a Arc<Client>,
    id: &'a Id,
    after: Option<String>,
    limit: u32,
}

impl<'a> ReadHistory<'a> {
    pub(crate) fn new(client: &'a Arc<Client>, id: &'a Id) -> Self {
        Self { client, id, after: None, limit: PAGE }
    }

    /// How many records at most in a page: 1 to 1,000, default 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Go on where a page ended: its [`next`](HistoryPage::next), a text to be handed back as it is.
    pub fn after(mut self, next: impl Into<String>) -> Self {
        self.after = Some(next.into());
        self
    }

    async fn read(self) -> Result<HistoryPage, Error> {
        if self.limit == 0 || self.limit > PAGE_MAX {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("a page of {} records cannot be read: ask for 1 to {PAGE_MAX}", self.limit),
            ));
        }
        let after = self.after.as_deref().map_or_else(|| Ok(Position::first()), place)?;
        let act = format!("read the history of workflow {}", self.id);
        let (client, limit) = (self.client, i64::from(self.limit));
        let (steps, more) = call_patiently!(client.links, &act, connection =>
                store::steps_after(connection, &client.sql, self.id, &after, limit, PAGE_BYTES))?;
        let next = steps.last().filter(|_| more).map(end);
        Ok(HistoryPage { steps, next })
    }
}

/// The end of a page that has this record as its last.
fn end(last: &RecordedStep) -> String {
    format!("{}@{}", last.seq, last.lane)
}

/// The place that a page has given as its end.
fn place(next: &str) -> Result<Position, Error> {
    let place = next.split_once('@').and_then(|(seq, lane)| {
        let plain = lane.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        Some(Position { lane: lane.into(), seq: seq.parse().ok()? }).filter(|_| plain)
    });
    place.ok_or_else(|| {
        let problem = format!("cannot read a history after {next:?}: it is not what a page gave as its `next`");
        Error::new(ErrorKind::Usage, problem)
    })
}

impl<'a> IntoFuture for ReadHistory<'a> {
    type Output = Result<HistoryPage, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl std::fmt::Debug for ReadHistory<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadHistory({}, at most {})", self.id, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is() {
        for (text, lane, seq) in [("7@", "", 7), ("0@3.1", "3.1", 0)] {
            assert_eq!(place(text).unwrap(), Position { lane: lane.into(), seq });
        }
        for bad in ["", "7", "@", "x@", "7@x", "7@3/1"] {
            assert_eq!(place(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad:?}");
        }
    }
}
