//! What a workflow has gone through, in order, for people: page by page. Decided by nobody, written by nobody: it is put together from what
//! is stored anyway, by `store::timeline`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::id::Id;
use crate::store::link::call_patiently;
use crate::store::timeline as store;
use crate::transition::{Place, TimelinePage};

/// Entries in a page, where nobody says otherwise, and at most.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;

/// Bytes of records in a page, as they are stored.
const PAGE_BYTES: i64 = 8 * 1024 * 1024;

/// A page of a timeline about to be read. Made by [`Handle::timeline`](crate::Handle::timeline); awaiting it reads the page.
///
/// A timeline is put together from what a workflow writes anyway, so nothing pays for it before somebody reads it. What it tells and
/// what not is in the [manual](crate::Handle::timeline). A page ends early when its records have 8 MiB together; one entry is in it
/// in any case. Each page looks at all records of the workflow, without their values.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for a limit or a place that cannot be, database kinds. A workflow that does not exist has an
/// empty timeline.
#[must_use = "a timeline is not read until it is awaited"]
pub struct ReadTimeline<'a> {
    client: &'a Arc<Client>,
    id: &'a Id,
    after: Option<String>,
    limit: u32,
}

impl<'a> ReadTimeline<'a> {
    pub(crate) fn new(client: &'a Arc<Client>, id: &'a Id) -> Self {
        Self { client, id, after: None, limit: PAGE }
    }

    /// How many entries at most in a page: 1 to 1,000, default 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Go on where a page ended: its [`next`](TimelinePage::next), a text to be handed back as it is.
    pub fn after(mut self, next: impl Into<String>) -> Self {
        self.after = Some(next.into());
        self
    }

    async fn read(self) -> Result<TimelinePage, Error> {
        if self.limit == 0 || self.limit > PAGE_MAX {
            let problem = format!("a page of {} entries cannot be read: ask for 1 to {PAGE_MAX}", self.limit);
            return Err(Error::new(ErrorKind::Usage, problem));
        }
        let after = self.after.as_deref().map_or_else(|| Ok(Place::first()), Place::parse)?;
        let act = format!("read the timeline of workflow {}", self.id);
        let (client, limit) = (self.client, i64::from(self.limit));
        let (entries, last) = call_patiently!(client.links, &act, connection =>
                store::timeline(connection, &client.sql, self.id, &after, limit, PAGE_BYTES))?;
        Ok(TimelinePage { entries, next: last.map(|last| last.to_string()) })
    }
}

impl<'a> IntoFuture for ReadTimeline<'a> {
    type Output = Result<TimelinePage, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl fmt::Debug for ReadTimeline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadTimeline({}, at most {})", self.id, self.limit)
    }
}
