//! Starting children for bodies, and looking whether they have ended: those of many bodies in one statement each.
//!
//! Gathering is `group`'s, the statements are `store::child`'s. That a child's end wakes its parent is part of the commit of
//! that end (`committer`); who is told of it then is decided here.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::lease::{Lease, LeaseView};
use super::{Engine, cut};
use crate::ctx::attempt::Attempt;
use crate::ctx::order::{ChildrenOrder, StartOrder};
use crate::ctx::strays::LostChildrenOrder;
use crate::decide::Stop;
use crate::error::Error;
use crate::group::{Group, Item, Writer};
use crate::id::{Id, OwnerId};
use crate::store::cancel::cancel_lost;
use crate::store::child::{
    ChildLook, ChildStarted, ChildrenSeen, NewChild, ended_children, start_children, start_children_apart,
};
use crate::store::link::{Backoff, Links, call};
use crate::wake::Word;

/// Bytes of outputs in the answer to a look. One output may have more.
const LOOK_BYTES: i64 = 4 * 1024 * 1024;

/// How often a start is asked for again whose id somebody else commits at the same moment. Once is enough, unless they give it
/// up again.
const AGAIN_MAX: usize = 3;

/// The ways on which children are started and looked at.
pub(super) struct Offspring {
    starts: Group<NewChild>,
    looks: Group<ChildLook>,
}

impl Offspring {
    pub(super) fn new(links: &Arc<Links>, owner: OwnerId, lease: &Lease) -> Self {
        let statement = || Statement { links: links.clone(), owner, lease: lease.view() };
        Self { starts: Group::new(Starts(statement())), looks: Group::new(Looks(statement())) }
    }
}

struct Statement {
    links: Arc<Links>,
    owner: OwnerId,
    lease: LeaseView,
}

struct Starts(Statement);
struct Looks(Statement);

impl Item for NewChild {
    type Answer = ChildStarted;

    /// The child, whose it is, and the record of its start.
    fn rows(&self) -> usize {
        3
    }

    fn bytes(&self) -> usize {
        NewChild::bytes(self)
    }
}

impl Item for ChildLook {
    /// Nothing if the workflow has another owner or claim.
    type Answer = Option<ChildrenSeen>;

    fn rows(&self) -> usize {
        self.awaited.len()
    }

    fn bytes(&self) -> usize {
        64 + self.awaited.iter().map(|id| 16 + id.as_str().len()).sum::<usize>()
    }
}

impl Writer<NewChild> for Starts {
    async fn write(&self, children: &[NewChild]) -> Result<Option<Vec<ChildStarted>>, Error> {
        let mut answers: Vec<Option<ChildStarted>> = vec![None; children.len()];
        // One statement cannot say which of two has started a child with the same id.
        for round in rounds(children.iter().map(|child| &child.id)) {
            let now: Vec<&NewChild> = round.iter().map(|n| &children[*n]).collect();
            let Some(answered) = self.start(&now).await? else { return Ok(None) };
            round.into_iter().zip(answered).for_each(|(n, answer)| answers[n] = Some(answer));
        }
        Ok(Some(answers.into_iter().flatten().collect()))
    }
}

impl Writer<ChildLook> for Looks {
    async fn write(&self, looks: &[ChildLook]) -> Result<Option<Vec<Option<ChildrenSeen>>>, Error> {
        let Statement { links, owner, lease } = &self.0;
        let mut backoff = Backoff::for_worker();
        let looks: Vec<&ChildLook> = looks.iter().collect();
        loop {
            if lease.ended() {
                return Ok(None);
            }
            match call!(links, "look at children", connection =>
                ended_children(connection, &links.sql, *owner, &looks, LOOK_BYTES))
            {
                Err(error) if backoff.again(&error).await => {}
                answer => break answer.map(Some),
            }
        }
    }
}

/// The places of some ids, in rounds in which none is twice.
fn rounds<'i>(ids: impl Iterator<Item = &'i Id>) -> Vec<Vec<usize>> {
    let (mut rounds, mut seen) = (Vec::<Vec<usize>>::new(), HashMap::new());
    for (place, id) in ids.enumerate() {
        let times: &mut usize = seen.entry(id).or_default();
        if rounds.len() == *times {
            rounds.push(Vec::new());
        }
        rounds[*times].push(place);
        *times += 1;
    }
    rounds
}

impl Starts {
    /// Start children, however long the database takes. A statement that is repeated after a lost reply finds what it started.
    async fn start(&self, children: &[&NewChild]) -> Result<Option<Vec<ChildStarted>>, Error> {
        const ACT: &str = "start children";
        let Statement { links, owner, lease } = &self.0;
        let (mut backoff, mut tries, mut apart) = (Backoff::for_worker(), 0, false);
        loop {
            if lease.ended() {
                return Ok(None);
            }
            let answered = if apart {
                let answers = call!(links, ACT, connection =>
                    start_children_apart(connection, &links.sql, *owner, children));
                answers.map(Some)
            } else {
                call!(links, ACT, connection => start_children(connection, &links.sql, *owner, children))
            };
            match answered {
                Ok(None) => apart = true,
                Ok(Some(answers)) if tries < AGAIN_MAX && answers.contains(&ChildStarted::Again) => tries += 1,
                Err(error) if backoff.again(&error).await => {}
                answer => break answer,
            }
        }
    }
}

impl Engine {
    /// Start a child for a body. No answer means that the attempt was stopped.
    pub(super) async fn start_child(&self, order: StartOrder) {
        let StartOrder { attempt, child, reply } = order;
        let id = child.id.clone();
        attempt.begin_start(&id);
        // Its leaf has lost a race before this began, or the attempt is over: nobody wants it.
        if !reply.is_closed() && attempt.stopped().is_none() {
            self.start_wanted(&attempt, child, reply).await;
        }
        attempt.end_start(&id);
    }

    async fn start_wanted(&self, attempt: &Attempt, child: NewChild, reply: oneshot::Sender<ChildStarted>) {
        let answer = match self.offspring.starts.write(child).await {
            Ok(Some((child, answer))) => {
                if let ChildStarted::Started { .. } = answer
                    && child.delay_ms == 0
                {
                    self.child_is_due(&child);
                }
                answer
            }
            Ok(None) => return attempt.stop(Stop::Lost),
            Err(error) => return attempt.stop(Stop::Broken(error.to_string())),
        };
        match answer {
            // A leaf that is gone has no use for the answer, and the record stands either way.
            ChildStarted::Started { .. } | ChildStarted::Taken(..) => drop(reply.send(answer)),
            ChildStarted::Lost => attempt.stop(Stop::Lost),
            ChildStarted::Overtaken => attempt.stop(Stop::Overtaken),
            ChildStarted::Again => {
                attempt.stop(Stop::Broken("the id of a child is taken and given up again and again".to_owned()));
            }
        }
    }

    /// Look which children of a body have ended, and tell it.
    pub(super) async fn look_at_children(&self, order: ChildrenOrder) {
        let ChildrenOrder { attempt, awaited } = order;
        let look = ChildLook { id: attempt.id.clone(), claims: attempt.claims, awaited };
        match self.offspring.looks.write(look).await {
            Ok(Some((look, Some(seen)))) => attempt.children_looked(&look.awaited, seen),
            Ok(Some((_, None)) | None) => attempt.stop(Stop::Lost),
            Err(error) => attempt.stop(Stop::Broken(error.to_string())),
        }
    }

    /// Cancel children that losers of a race have started, but for detached ones.
    pub(super) async fn cancel_lost(&self, order: LostChildrenOrder) {
        let LostChildrenOrder { attempt, lost } = order;
        let mut backoff = Backoff::for_worker();
        while !self.lease.ended() {
            match call!(self.writes, "cancel the children of losers", connection =>
                cancel_lost(connection, &self.plan.sql, self.owner, (&attempt.id, attempt.claims), &lost))
            {
                Ok(reached) => {
                    cut::tell(&self.plan.wake, Some(self), &reached);
                    return attempt.lost_cancelled(&lost);
                }
                Err(error) if backoff.again(&error).await => {}
                Err(error) => return attempt.stop(Stop::Broken(error.to_string())),
            }
        }
    }

    /// A child was started: it is due in its queue, which is this worker's own unless it was given another one.
    fn child_is_due(&self, child: &NewChild) {
        let queue = child.queue.as_ref().unwrap_or(&self.plan.settings.queue);
        self.plan.wake.now();
        if !self.takes(queue, Some((child.name, child.version))) {
            self.plan.wake.tell_others(Word::Due(queue.clone()));
        }
    }

    /// A workflow has ended, or may have: if it is a child, tell whoever runs its parent, or may take it up.
    pub(super) fn child_ended(&self, attempt: &Attempt, parent_runs: bool) {
        let Some(parent) = &attempt.parent else { return };
        if self.poke(&parent.id) {
            return;
        }
        if parent_runs {
            self.plan.wake.tell_others(Word::Message(parent.id.digest()));
        } else if let Some(queue) = &parent.queue {
            self.plan.wake.now();
            if !self.takes(queue, None) {
                self.plan.wake.tell_others(Word::Due(queue.clone()));
            }
        }
    }
}
