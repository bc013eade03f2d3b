//! The one place through which a worker's workflows write what they have come to: outcomes of steps, suspensions, ends.
//!
//! Gathering is `group`'s, the statements are `store::commit` and `store::step`. What is written here, and when, is
//! decided in `execute`.

use std::collections::HashSet;
use std::sync::Arc;

use super::lease::{Lease, LeaseView};
use crate::clock::DatabaseClock;
use crate::error::Error;
use crate::group::{Group, Item, Writer};
use crate::history::Kind;
use crate::id::{Id, OwnerId};
use crate::sabotage::{Sabotage, sabotaged};
use crate::status::Status;
use crate::store::commit::{Apart, Committed, WorkflowRow, commit, commit_apart, settle};
use crate::store::link::{Backoff, Links, call};
use crate::store::step::{StepRow, record};

/// Writers of ordinary items. Two keep the server busy while one statement's answers are carried out.
const WRITERS: usize = 2;

/// Connections of the committer: one for each writer, one for what is large, and one for what needs locks.
pub(super) const LINKS: usize = WRITERS + 2;

/// From here on an item has a writer of its own kind, so that the many small ones do not wait while the server parses
/// and stores megabytes.
const LARGE: usize = 256 * 1024;

const ACT: &str = "commit what workflows have come to";

/// What one workflow has come to.
#[derive(Clone)]
pub(super) struct Write {
    /// Outcomes of steps.
    pub(super) steps: Vec<StepRow>,
    /// What becomes of its row, if all outcomes stand.
    pub(super) row: Option<Box<WorkflowRow>>,
}

/// What came of it.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Written {
    /// All outcomes stand.
    pub(super) steps: bool,
    pub(super) row: Became,
    /// The parent that the end of a child has woken runs just now, somewhere.
    pub(super) parent_runs: bool,
}

impl Written {
    const ALL: Self = Self { steps: true, row: Became::Done, parent_runs: false };
}

/// What came of a change of a workflow's row.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Became {
    /// It became what was asked, or nothing was asked.
    Done,
    /// It is still held, but something woke it, or an outcome does not stand. This is its count of wakes now, or slightly
    /// before now.
    Held(i64),
    /// It has another owner or claim, or none.
    Lost,
}

impl Write {
    /// Whom it wakes: the parent of a child that ends.
    fn parent(&self) -> Option<&Id> {
        self.row.as_ref().and_then(|row| row.parent.as_ref())
    }

    /// Whether it needs rows locked before anything is written: those of parents, or its own where an undo step is registered.
    fn locks(&self) -> bool {
        self.parent().is_some() || self.steps.iter().any(|step| step.kind == Kind::Undo)
    }
}

impl Item for Write {
    type Answer = Written;

    fn rows(&self) -> usize {
        self.steps.len() + usize::from(self.row.is_some())
    }

    fn bytes(&self) -> usize {
        self.steps.iter().map(StepRow::bytes).sum::<usize>() + self.row.as_ref().map_or(0, |row| row.bytes())
    }
}

/// The way to the writers.
pub(crate) struct Committer {
    ordinary: Vec<Group<Write>>,
    large: Group<Write>,
    /// Ends of children wake others, and undo steps are registered under a lock, which takes another statement; so they go apart, and
    /// the others pay nothing for it.
    locking: Group<Write>,
}

impl Committer {
    pub(super) fn new(links: &Arc<Links>, owner: OwnerId, lease: &Lease, clock: &Arc<DatabaseClock>) -> Self {
        let group = || Group::new(Statement { links: links.clone(), owner, lease: lease.view(), clock: clock.clone() });
        Self { ordinary: std::iter::repeat_with(group).take(WRITERS).collect(), large: group(), locking: group() }
    }

    /// Write what one workflow has come to. `None` when the incarnation is over, and with it the right to write.
    pub(super) async fn write(&self, write: Write) -> Result<Option<(Write, Written)>, Error> {
        let id = write.row.as_ref().map(|row| &row.id).or_else(|| write.steps.first().map(|step| &step.id));
        let Some(id) = id else { return Ok(Some((write, Written::ALL))) };
        let place = usize::try_from(id.bucket()).unwrap_or_default() % WRITERS;
        let group = match (write.locks(), write.bytes()) {
            (true, _) => &self.locking,
            (false, LARGE..) => &self.large,
            (false, _) => &self.ordinary[place],
        };
        group.write(write).await
    }
}

#[derive(Clone)]
struct Statement {
    links: Arc<Links>,
    owner: OwnerId,
    lease: LeaseView,
    clock: Arc<DatabaseClock>,
}

impl Writer<Write> for Statement {
    async fn write(&self, items: &[Write]) -> Result<Option<Vec<Written>>, Error> {
        if sabotaged(Sabotage::AcknowledgesEarly) {
            let (late, items) = (self.clone(), items.to_vec());
            let answers = vec![Written::ALL; items.len()];
            tokio::spawn(async move { late.surely(&items).await });
            return Ok(Some(answers));
        }
        self.surely(items).await
    }
}

impl Statement {
    /// As many tries as it takes.
    async fn surely(&self, items: &[Write]) -> Result<Option<Vec<Written>>, Error> {
        let mut backoff = Backoff::for_worker();
        loop {
            if self.lease.ended() {
                return Ok(None);
            }
            match self.once(items).await {
                Err(error) if backoff.again(&error).await => {}
                answer => break answer.map(Some),
            }
        }
    }

    /// One try. It may be repeated: what it wrote before then stands already.
    async fn once(&self, items: &[Write]) -> Result<Vec<Written>, Error> {
        if items.iter().any(Write::locks) {
            return self.with_locks(items).await;
        }
        if let [write] = items
            && self.alone(write).await?
        {
            return Ok(vec![Written::ALL]);
        }
        let mut answers = vec![Written::ALL; items.len()];
        let mut batch = Batch::of(items, |_| true);
        if sabotaged(Sabotage::DropsARow) && batch.steps.len() > 1 {
            batch.steps.pop();
        }
        let (steps, rows) = (batch.steps(), batch.rows());
        let committed = call!(self.links, ACT, connection =>
            commit(connection, &self.links.sql, self.owner, &steps, &rows))?;
        let written: HashSet<usize> = match committed {
            Committed::All(now) => {
                self.clock.hear(now, std::time::Instant::now());
                return Ok(answers);
            }
            Committed::Only(became) => became.iter().map(|place| batch.rows[*place].1).collect(),
        };
        let rest = Batch::of(items, |n| !written.contains(&n));
        let (steps, rows) = (rest.steps(), rest.rows());
        let apart = call!(self.links, ACT, connection =>
            commit_apart(connection, &self.links.sql, self.owner, &steps, &rows))?;
        rest.answer(&mut answers, &apart);
        Ok(answers)
    }

    /// Ends of children, each with the wake-up of its parent in the same act; and registrations of undo steps.
    async fn with_locks(&self, items: &[Write]) -> Result<Vec<Written>, Error> {
        let mut answers = vec![Written::ALL; items.len()];
        let mut left: Vec<usize> = (0..items.len()).collect();
        while !left.is_empty() {
            let (now, later) = apart_from_parents(items, left);
            let batch = Batch::of(items, |n| now.binary_search(&n).is_ok());
            let (steps, rows) = (batch.steps(), batch.rows());
            let apart = call!(self.links, "commit what needs locks", connection =>
                commit_apart(connection, &self.links.sql, self.owner, &steps, &rows))?;
            batch.answer(&mut answers, &apart);
            left = later;
        }
        Ok(answers)
    }

    /// A step and an end that come alone have plainer statements, and nearly always all is said with them: whether it is.
    async fn alone(&self, write: &Write) -> Result<bool, Error> {
        let (sql, owner) = (&self.links.sql, self.owner);
        let now = match (&write.steps[..], write.row.as_deref()) {
            ([step], None) => call!(self.links, ACT, connection => record(connection, sql, owner, step))?,
            ([] | [_], Some(row)) => match row.status.filter(|status| *status != Status::Suspended) {
                Some(status) => call!(self.links, ACT, connection =>
                    settle(connection, sql, owner, write.steps.first(), row, status))?,
                None => None,
            },
            _ => None,
        };
        now.inspect(|now| self.clock.hear(*now, std::time::Instant::now()));
        Ok(now.is_some())
    }
}

/// One statement changes a row once. So where a parent ends at the same time as its child, one of them goes into the next:
/// the items for this statement, and those for later.
fn apart_from_parents(items: &[Write], left: Vec<usize>) -> (Vec<usize>, Vec<usize>) {
    let (mut ids, mut parents) = (HashSet::new(), HashSet::new());
    left.into_iter().partition(|n| {
        let Some(row) = items[*n].row.as_deref() else { return true };
        let free = !parents.contains(&row.id) && row.parent.as_ref().is_none_or(|parent| !ids.contains(parent));
        if free {
            ids.insert(&row.id);
            parents.extend(&row.parent);
        }
        free
    })
}

/// Items in the order of their keys, each with the number of the item that it belongs to.
struct Batch<'i> {
    steps: Vec<(&'i StepRow, usize)>,
    rows: Vec<(&'i WorkflowRow, usize)>,
}

impl<'i> Batch<'i> {
    fn of(items: &'i [Write], wanted: impl Fn(usize) -> bool) -> Self {
        let numbered = || items.iter().zip(0..).filter(|(_, n)| wanted(*n));
        let mut steps: Vec<_> = numbered().flat_map(|(item, n)| item.steps.iter().map(move |s| (s, n))).collect();
        let mut rows: Vec<_> = numbered().filter_map(|(item, n)| Some((item.row.as_deref()?, n))).collect();
        steps.sort_unstable_by(|(a, _), (b, _)| {
            (a.id.bucket(), a.id.as_str(), &a.position).cmp(&(b.id.bucket(), b.id.as_str(), &b.position))
        });
        rows.sort_unstable_by_key(|(row, _)| (row.id.bucket(), row.id.as_str()));
        Self { steps, rows }
    }

    fn steps(&self) -> Vec<&'i StepRow> {
        self.steps.iter().map(|(step, _)| *step).collect()
    }

    fn rows(&self) -> Vec<&'i WorkflowRow> {
        self.rows.iter().map(|(row, _)| *row).collect()
    }

    fn answer(&self, answers: &mut [Written], apart: &Apart) {
        for missing in &apart.missing {
            answers[self.steps[*missing].1].steps = false;
        }
        for (refused, wakes) in &apart.refused {
            answers[self.rows[*refused].1].row = wakes.map_or(Became::Lost, Became::Held);
        }
        for runs in &apart.parent_runs {
            answers[self.rows[*runs].1].parent_runs = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(id: &str, parent: Option<&str>) -> Write {
        let row = WorkflowRow {
            id: Id::trusted(id),
            claims: 1,
            status: Some(Status::Completed),
            seen: None,
            waits: None,
            output: None,
            failure: None,
            parent: parent.map(Id::trusted),
        };
        Write { steps: Vec::new(), row: Some(Box::new(row)) }
    }

    #[test]
    fn a_parent_and_its_child_never_end_in_one_statement() {
        // Three generations that end at once, in any order, beside two children of somebody else's.
        for order in [["a", "a/0", "a/0/0"], ["a/0/0", "a/0", "a"], ["a/0", "a", "a/0/0"]] {
            let mut items: Vec<Write> = order.iter().map(|id| end(id, id.rsplit_once('/').map(|(of, _)| of))).collect();
            items.extend([end("b/0", Some("b")), end("b/1", Some("b"))]);
            let (mut left, mut rounds): (Vec<usize>, _) = ((0..items.len()).collect(), 0);
            while !left.is_empty() {
                let (now, later) = apart_from_parents(&items, left);
                let rows: Vec<_> = now.iter().filter_map(|n| items[*n].row.as_ref()).collect();
                assert!(
                    rows.iter().all(|row| rows.iter().all(|other| row.parent.as_ref() != Some(&other.id))),
                    "{order:?}"
                );
                assert!(now.is_sorted() && !now.is_empty());
                (left, rounds) = (later, rounds + 1);
            }
            assert!(rounds <= 3, "{order:?}: {rounds}");
        }
    }
}
