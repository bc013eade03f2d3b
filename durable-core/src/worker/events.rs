//! Publishing events for bodies, and looking at those that they wait for: of many bodies in one statement each.
//!
//! Gathering is `group`'s, the statements are `store::event`'s.

use std::collections::HashSet;
use std::sync::Arc;

use super::Engine;
use super::lease::{Lease, LeaseView};
use crate::ctx::event::{EventOrder, PublishOrder};
use crate::decide::Stop;
use crate::error::Error;
use crate::group::{Group, Item, Writer};
use crate::id::OwnerId;
use crate::status::Status;
use crate::store::Fence;
use crate::store::event::{EventLook, EventSeen, Publication, Published, Woken, look_at_events, publish};
use crate::store::link::{Backoff, Links, call};
use crate::wake::Word;

/// The ways to events.
pub(super) struct Events {
    publications: Group<Publication>,
    looks: Group<EventLook>,
}

impl Events {
    pub(super) fn new(links: &Arc<Links>, owner: OwnerId, lease: &Lease) -> Self {
        let statement = || Statement { links: links.clone(), owner, lease: lease.view() };
        Self { publications: Group::new(Publications(statement())), looks: Group::new(Looks(statement())) }
    }
}

struct Statement {
    links: Arc<Links>,
    owner: OwnerId,
    lease: LeaseView,
}

struct Publications(Statement);
struct Looks(Statement);

/// What came of a publication, if its workflow is held; and who is to be told, with the first one of a statement.
pub(crate) struct PublicationAnswer {
    published: Option<Published>,
    woken: Vec<Woken>,
}

impl Item for Publication {
    type Answer = PublicationAnswer;

    /// The record and the event.
    fn rows(&self) -> usize {
        2
    }

    fn bytes(&self) -> usize {
        160 + self.id.as_str().len() + self.key.len() + 2 * self.value.len()
    }
}

impl Item for EventLook {
    type Answer = Option<EventSeen>;

    fn rows(&self) -> usize {
        1
    }

    /// With what is answered, as far as it can be known.
    fn bytes(&self) -> usize {
        4096 + self.id.as_str().len() + self.of.as_str().len() + self.key.len()
    }
}

impl Writer<Publication> for Publications {
    async fn write(&self, items: &[Publication]) -> Result<Option<Vec<PublicationAnswer>>, Error> {
        let mut answers: Vec<Option<PublicationAnswer>> = items.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..items.len()).collect();
        while !left.is_empty() {
            // A row is written once in a statement, so the second value of an event goes into the next one.
            let mut events = HashSet::new();
            let (now, later) =
                left.into_iter().partition::<Vec<_>, _>(|n| events.insert((&items[*n].id, items[*n].key)));
            let given: Vec<&Publication> = now.iter().map(|n| &items[*n]).collect();
            let Some((published, mut woken)) = self.publish(&given).await? else { return Ok(None) };
            for (n, published) in now.into_iter().zip(published) {
                answers[n] = Some(PublicationAnswer { published, woken: std::mem::take(&mut woken) });
            }
            left = later;
        }
        Ok(Some(answers.into_iter().flatten().collect()))
    }
}

impl Publications {
    async fn publish(&self, given: &[&Publication]) -> Result<Option<(Vec<Option<Published>>, Vec<Woken>)>, Error> {
        let Statement { links, owner, lease } = &self.0;
        let mut backoff = Backoff::for_worker();
        loop {
            if lease.ended() {
                return Ok(None);
            }
            match call!(links, "publish events", connection => publish(connection, &links.sql, *owner, given)) {
                // What an unanswered try has published shows as taken.
                Err(error) if backoff.again(&error).await => {}
                answer => break answer.map(Some),
            }
        }
    }
}

impl Writer<EventLook> for Looks {
    async fn write(&self, looks: &[EventLook]) -> Result<Option<Vec<Option<EventSeen>>>, Error> {
        let Statement { links, owner, lease } = &self.0;
        let mut backoff = Backoff::for_worker();
        loop {
            if lease.ended() {
                return Ok(None);
            }
            match call!(links, "look at events", connection => look_at_events(connection, &links.sql, *owner, looks)) {
                Err(error) if backoff.again(&error).await => {}
                answer => break answer.map(Some),
            }
        }
    }
}

impl Engine {
    /// Publish a value for a body. No answer means that the attempt was stopped.
    pub(super) async fn publish(&self, order: PublishOrder) {
        let PublishOrder { attempt, publication, reply } = order;
        let answer = match self.events.publications.write(publication).await {
            Ok(Some((publication, answer))) => answer.published.map(|published| (publication, published, answer.woken)),
            Ok(None) => None,
            Err(error) => return attempt.stop(Stop::Broken(error.to_string())),
        };
        let Some((publication, published, woken)) = answer else { return attempt.stop(Stop::Lost) };
        self.tell_woken(woken);
        if let Some(at) = published.at {
            // A leaf that is gone has no use for the answer, and the record stands either way.
            let _ = reply.send(((), at));
            return;
        }
        match self.recorded(&attempt.id, &publication.position).await {
            // By an earlier try whose reply was lost.
            Ok((Fence::Held, Some(record))) if record.is_publication_of(publication.key) => {
                let _ = reply.send(((), record.ended_at));
            }
            Ok((Fence::Held, Some(_))) => attempt.stop(Stop::Overtaken),
            Ok((Fence::Held, None) | (Fence::Lost, _)) => attempt.stop(Stop::Lost),
            Err(error) => attempt.stop(Stop::Broken(error.to_string())),
        }
    }

    /// Look at an event for a body that waits for it. No answer means that the attempt was stopped.
    pub(super) async fn look_at_event(&self, order: EventOrder) {
        let EventOrder { attempt, of, key, reply } = order;
        let look = EventLook { id: attempt.id.clone(), claims: attempt.claims, of, key };
        match self.events.looks.write(look).await {
            Ok(Some((_, Some(seen)))) => drop(reply.send(seen)),
            Ok(Some((_, None)) | None) => attempt.stop(Stop::Lost),
            Err(error) => attempt.stop(Stop::Broken(error.to_string())),
        }
    }

    /// Workflows were woken: tell whoever runs them, or may take them up.
    fn tell_woken(&self, woken: Vec<Woken>) {
        for Woken { id, status, queue } in woken {
            if self.poke(&id) {
                continue;
            }
            if status == Status::Running {
                self.plan.wake.tell_others(Word::Message(id.digest()));
            } else {
                self.plan.wake.now();
                if !self.takes(&queue, None) {
                    self.plan.wake.tell_others(Word::Due(queue));
                }
            }
        }
    }
}
