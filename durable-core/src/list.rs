//! Finding workflows: which are wanted, in which order, and page by page. What is found is `info`.

use std::cmp::Reverse;
use std::pin::Pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::attribute::{AttributeValue, Bound, conditions};
use crate::bulk::{Bulk, What};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::id::{Id, check_text};
use crate::info::{WorkflowInfo, WorkflowPage};
use crate::status::Status;
use crate::store::link::call_patiently;
use crate::store::list::{self as store, Order, Wanted};
use crate::store::operate::Act;

/// Workflows in a page, where nobody says otherwise, and at most: each may carry a failure of some kilobytes.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;

/// A page of workflows about to be read. Made by [`Durable::workflows`](crate::Durable::workflows); awaiting it reads the page.
///
/// What is asked for has to hold all together. Pages are keyed by when a workflow was started, not numbered: however
/// many are started meanwhile, no page repeats or skips what was there when the first was read. One whose starting
/// transaction commits later than it began may stand before a place that has been passed; and a list by status shows
/// those that have it when their page is read.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for a limit, a text or a place that cannot be, database kinds.
#[must_use = "a list is not read until it is awaited"]
#[derive(Clone)]
pub struct ListWorkflows<'a> {
    client: &'a Arc<Client>,
    statuses: Vec<Status>,
    name: Option<String>,
    queue: Option<String>,
    created_from: Option<DateTime<Utc>>,
    created_before: Option<DateTime<Utc>>,
    id_prefix: Option<String>,
    attributes: Vec<(String, Bound, AttributeValue)>,
    order: Order,
    after: Option<String>,
    limit: Option<u32>,
}

impl<'a> ListWorkflows<'a> {
    pub(crate) fn new(client: &'a Arc<Client>) -> Self {
        Self {
            client,
            statuses: Vec::new(),
            name: None,
            queue: None,
            created_from: None,
            created_before: None,
            id_prefix: None,
            attributes: Vec::new(),
            order: Order::Newest,
            after: None,
            limit: None,
        }
    }

    /// Only those that stand so. Called again, those that stand so or so.
    pub fn status(mut self, status: Status) -> Self {
        if !self.statuses.contains(&status) {
            self.statuses.push(status);
        }
        self
    }

    /// Only those with this body, of any version.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only those of this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Only those that were started at this time or later.
    pub fn created_from(mut self, from: DateTime<Utc>) -> Self {
        self.created_from = Some(from);
        self
    }

    /// Only those that were started before this time.
    pub fn created_before(mut self, before: DateTime<Utc>) -> Self {
        self.created_before = Some(before);
        self
    }

    /// Only those whose ids begin so.
    pub fn id_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.id_prefix = Some(prefix.into());
        self
    }

    /// Only those with this [attribute](crate::Start::attribute).
    pub fn attribute(self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.having(name.into(), Bound::Equal, value.into())
    }

    /// Only those with an attribute of this kind that is as much as this or more.
    pub fn attribute_from(self, name: impl Into<String>, from: impl Into<AttributeValue>) -> Self {
        self.having(name.into(), Bound::From, from.into())
    }

    /// Only those with an attribute of this kind that is less than this.
    pub fn attribute_before(self, name: impl Into<String>, before: impl Into<AttributeValue>) -> Self {
        self.having(name.into(), Bound::Before, before.into())
    }

    fn having(mut self, name: String, bound: Bound, value: AttributeValue) -> Self {
        self.attributes.push((name, bound, value));
        self
    }

    /// Cancel all of these, as [`Durable::cancel`](crate::Durable::cancel) does one; see [`Bulk`].
    pub fn cancel(self) -> Bulk<'a> {
        Bulk::new(self, What::Cancel)
    }

    /// Pause all of these, as [`Durable::pause`](crate::Durable::pause) does one; see [`Bulk`].
    pub fn pause(self) -> Bulk<'a> {
        Bulk::new(self, What::Operate(Act::Pause))
    }

    /// Resume all of these, as [`Durable::resume`](crate::Durable::resume) does one; see [`Bulk`].
    pub fn resume(self) -> Bulk<'a> {
        Bulk::new(self, What::Operate(Act::Resume))
    }

    /// Restart all of these, as [`Durable::restart`](crate::Durable::restart) does one; see [`Bulk`].
    pub fn restart(self) -> Bulk<'a> {
        Bulk::new(self, What::Operate(Act::Restart))
    }

    /// Delete all of these, as [`Durable::delete`](crate::Durable::delete) does one; see [`Bulk`].
    pub fn delete(self) -> Bulk<'a> {
        Bulk::new(self, What::Operate(Act::Delete))
    }

    /// Those that were started last come first, which is the default.
    pub fn newest_first(mut self) -> Self {
        self.order = Order::Newest;
        self
    }

    /// Those that were started first come first.
    pub fn oldest_first(mut self) -> Self {
        self.order = Order::Oldest;
        self
    }

    /// How many at most in a page: 1 to 1,000, default 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Go on where a page ended: its [`next`](WorkflowPage::next), a text to be handed back as it is. Ask for the same
    /// as for that page.
    pub fn after(mut self, next: impl Into<String>) -> Self {
        self.after = Some(next.into());
        self
    }

    /// Check everything before the database is asked.
    fn wanted(&self) -> Result<Wanted, Error> {
        let limit = self.page_limit();
        if limit == 0 || limit > PAGE_MAX {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("a page of {limit} workflows cannot be read: ask for 1 to {PAGE_MAX}"),
            ));
        }
        let texts = [("workflow name", &self.name), ("queue", &self.queue), ("beginning of ids", &self.id_prefix)];
        for (what, text) in texts {
            text.as_ref().map_or(Ok(()), |text| check_text(what, text))?;
        }
        Ok(Wanted {
            statuses: if self.statuses.is_empty() { Status::ALL.to_vec() } else { self.statuses.clone() },
            name: self.name.clone(),
            queue: self.queue.clone(),
            created_from: self.created_from,
            created_before: self.created_before,
            id_like: self.id_prefix.as_deref().map(like),
            having: conditions(&self.attributes)
                .map_err(|problem| Error::new(ErrorKind::Usage, format!("cannot list workflows: {problem}")))?,
            order: self.order,
            after: self.after.as_deref().map(|next| place(next, self.order)).transpose()?,
            // One more, to know whether there is another page.
            limit: i64::from(limit) + 1,
        })
    }

    fn page_limit(&self) -> u32 {
        self.limit.unwrap_or(PAGE)
    }

    pub(crate) async fn read(self) -> Result<WorkflowPage, Error> {
        let wanted = self.wanted()?;
        let found = call_patiently!(self.client.links, "list workflows", connection =>
                store::list(connection, &self.client.sql, &wanted))?;
        Ok(page(found, self.order, self.page_limit() as usize))
    }

    pub(crate) fn client(&self) -> &'a Arc<Client> {
        self.client
    }

    /// Whether it is about all workflows there are.
    pub(crate) fn is_about_all(&self) -> bool {
        let texts = [&self.name, &self.queue, &self.id_prefix];
        let times = [self.created_from, self.created_before];
        self.statuses.is_empty()
            && self.attributes.is_empty()
            && texts.iter().all(|text| text.is_none())
            && times.iter().all(Option::is_none)
    }

    /// Whether it is about one page.
    pub(crate) fn is_about_a_page(&self) -> bool {
        self.limit.is_some() || self.after.is_some()
    }

    /// Only those of it that stand in one of these ways. Gives the ways that were asked for and are none of these.
    pub(crate) fn narrow(&mut self, to: &[Status]) -> Vec<Status> {
        if self.statuses.is_empty() {
            self.statuses = to.to_vec();
        }
        let (kept, others) = self.statuses.iter().partition(|status| to.contains(status));
        self.statuses = kept;
        others
    }
}

/// The first of what was found of each status, as one page.
fn page(mut workflows: Vec<WorkflowInfo>, order: Order, limit: usize) -> WorkflowPage {
    let key = |workflow: &WorkflowInfo| (workflow.created_at, workflow.id.clone());
    match order {
        Order::Newest => workflows.sort_by_cached_key(|workflow| Reverse(key(workflow))),
        Order::Oldest => workflows.sort_by_cached_key(key),
    }
    let more = workflows.len() > limit;
    workflows.truncate(limit);
    let next = workflows.last().filter(|_| more).map(|last| {
        let micros = last.created_at.timestamp_micros();
        format!("{}.{micros}.{}", word(order), last.id)
    });
    WorkflowPage { workflows, next }
}

/// The place that a page has given as its end.
fn place(next: &str, order: Order) -> Result<(DateTime<Utc>, String), Error> {
    let usage =
        |problem: &str| Error::new(ErrorKind::Usage, format!("cannot list workflows after {next:?}: {problem}"));
    let no_place = || usage("it is not what a page gave as its `next`");
    let mut parts = next.splitn(3, '.');
    let (Some(way), Some(micros), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(no_place());
    };
    let created_at = micros.parse().ok().and_then(DateTime::from_timestamp_micros).ok_or_else(no_place)?;
    if ![word(Order::Newest), word(Order::Oldest)].contains(&way) {
        return Err(no_place());
    }
    if way != word(order) {
        return Err(usage("that page was in the other order"));
    }
    Ok((created_at, Id::new(id)?.as_str().to_owned()))
}

fn word(order: Order) -> &'static str {
    match order {
        Order::Newest => "newest",
        Order::Oldest => "oldest",
    }
}

/// The pattern for what begins so.
fn like(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '\\' | '%' | '_') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "%"
}

impl<'a> IntoFuture for ListWorkflows<'a> {
    type Output = Result<WorkflowPage, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl std::fmt::Debug for ListWorkflows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ListWorkflows({:?}, at most {})", self.statuses, self.page_limit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is() {
        let at = DateTime::from_timestamp_micros(1_764_000_000_123_456).unwrap();
        let written = |id: &str| format!("newest.{}.{id}", at.timestamp_micros());
        for id in ["order-42", "a.b.c", "Bestellung ß 🦀"] {
            assert_eq!(place(&written(id), Order::Newest).unwrap(), (at, id.to_owned()));
        }
        let other = place(&written("x"), Order::Oldest).unwrap_err();
        assert!(other.to_string().contains("other order"), "{other}");
        for bad in
            ["", "newest", "newest.1", "newest.x.y", "sideways.1.x", "newest.1.", "newest.99999999999999999999.x"]
        {
            assert_eq!(place(bad, Order::Newest).unwrap_err().kind(), ErrorKind::Usage, "{bad:?}");
        }
    }

    #[test]
    fn what_is_special_in_a_pattern_is_not_in_a_prefix() {
        assert_eq!(like("order-"), "order-%");
        assert_eq!(like("50%_\\"), "50\\%\\_\\\\%");
    }
}
