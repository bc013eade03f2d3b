//! Starts of many callers in one statement.
//!
//! Gathering is `group`'s, the statements are `store::start`.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::Error;
use crate::group::{Group, Item, Writer};
use crate::id::OwnerId;
use crate::start::IfExists;
use crate::store::link::{Links, call_patiently};
use crate::store::start::{self as store, NewWorkflow, StartGroup, Started};

/// What became of each, in order; `None` for one to be asked for again.
pub(crate) type Answers = Vec<Option<Started>>;

/// The way to the writers of starts.
pub(crate) struct Starter {
    first: Group<StartItem>,
    /// For what the first one has no room for soon.
    second: Group<StartItem>,
    /// Those with attributes take another statement, so they go apart, and what has none pays nothing for it.
    attributed: Group<StartItem>,
}

/// Starts in line that are a statement worth sending beside another one. Below that, one statement of twice the size
/// costs less than two, and leaves the processors to the steps of what runs already.
const ENOUGH: usize = 32;

impl Starter {
    pub(crate) fn new(links: &Arc<Links>) -> Self {
        let group = || Group::new(Statement { links: links.clone() });
        Self { first: group(), second: group(), attributed: group() }
    }

    pub(crate) async fn write(&self, start: StartItem) -> Result<Option<(StartItem, Answers)>, Error> {
        let group = match start.has_attributes() {
            true => &self.attributed,
            false if self.first.in_line() < ENOUGH => &self.first,
            false => &self.second,
        };
        group.write(start).await
    }
}

/// What one caller starts.
pub(crate) struct StartItem {
    pub(crate) given: Vec<NewWorkflow>,
    pub(crate) policy: IfExists,
}

impl StartItem {
    fn has_attributes(&self) -> bool {
        self.given.iter().any(|new| new.attributes.is_some())
    }
}

impl Item for StartItem {
    type Answer = Answers;

    fn rows(&self) -> usize {
        self.given.len()
    }

    fn bytes(&self) -> usize {
        self.given.iter().map(NewWorkflow::bytes).sum()
    }
}

struct Statement {
    links: Arc<Links>,
}

impl Writer<StartItem> for Statement {
    async fn write(&self, items: &[StartItem]) -> Result<Option<Vec<Answers>>, Error> {
        let mut answers: Vec<Answers> = vec![Vec::new(); items.len()];
        let mut left: Vec<usize> = (0..items.len()).collect();
        while !left.is_empty() {
            let (now, later) = without_repeats(items, &left);
            let started = self.start(&now.iter().map(|n| &items[*n]).collect::<Vec<_>>()).await?;
            let mut started = started.into_iter();
            for n in now {
                answers[n] = started.by_ref().take(items[n].given.len()).collect();
            }
            left = later;
        }
        Ok(Some(answers))
    }
}

/// One statement cannot say which of two callers of the same id has started it, so the second one goes into the next:
/// the items for this statement, and those for later.
fn without_repeats(items: &[StartItem], left: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut ids = HashSet::new();
    left.iter().partition(|n| {
        let new = || items[**n].given.iter().map(|new| &new.id);
        let free = new().all(|id| !ids.contains(id));
        ids.extend(new().filter(|_| free));
        free
    })
}

impl Statement {
    async fn start(&self, items: &[&StartItem]) -> Result<Answers, Error> {
        let act = match items {
            [StartItem { given, .. }] if given.len() == 1 => format!("start workflow {}", given[0].id),
            _ => format!("start {} workflows", items.iter().map(|item| item.given.len()).sum::<usize>()),
        };
        let together = if items.iter().any(|item| item.has_attributes()) { None } else { together(items) };
        let mut answers = match together {
            None => return self.start_groups(items, &act).await,
            Some(each) if items.iter().all(|item| item.given.len() == 1) => self.start_new(each, &act).await?,
            Some(all) => match self.start_all(all, &act).await? {
                Some(answers) => return Ok(answers),
                None => return self.start_groups(items, &act).await,
            },
        };
        let there: Vec<usize> = (0..items.len()).filter(|n| answers[*n].is_none()).collect();
        if !there.is_empty() {
            let items: Vec<_> = there.iter().map(|n| items[*n]).collect();
            for (n, answer) in there.into_iter().zip(self.start_groups(&items, &act).await?) {
                answers[n] = answer;
            }
        }
        Ok(answers)
    }

    async fn start_all(&self, (owner, given): All<'_>, act: &str) -> Result<Option<Answers>, Error> {
        // What an unanswered try has started shows as being there.
        call_patiently!(self.links, act, connection =>
                store::start_all(connection, &self.links.sql, owner, &given))
    }

    async fn start_new(&self, (owner, given): All<'_>, act: &str) -> Result<Answers, Error> {
        // What an unanswered try has started shows as being there.
        call_patiently!(self.links, act, connection =>
                store::start_new(connection, &self.links.sql, owner, &given))
    }

    async fn start_groups(&self, items: &[&StartItem], act: &str) -> Result<Answers, Error> {
        let groups: Vec<_> =
            items.iter().map(|item| StartGroup { given: &item.given, policy: item.policy.as_number() }).collect();
        // An unknown outcome is resolved by the same statement: the id is the key.
        call_patiently!(self.links, act, connection => store::start(connection, &self.links.sql, &groups))
    }
}

/// What is started together, by one worker at most.
type All<'i> = (Option<OwnerId>, Vec<&'i NewWorkflow>);

/// `None` when it is by the workers of two incarnations, or has deadlines or partitions.
fn together<'i>(items: &[&'i StartItem]) -> Option<All<'i>> {
    let given: Vec<_> = items.iter().flat_map(|item| &item.given).collect();
    if given.iter().any(|new| new.deadline_ms.is_some() || new.partition.is_some()) {
        return None;
    }
    let mut owners = given.iter().filter_map(|new| new.owner);
    let owner = owners.next();
    owners.all(|other| Some(other) == owner).then_some((owner, given))
}
