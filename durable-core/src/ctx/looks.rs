//! Which looks into the mailbox may be under way at the same time.
//!
//! A look takes the message that it finds. So within a race there is only one at a time, and the race is not decided
//! before it has answered: otherwise a loser could take what somebody waits for. Elsewhere they go side by side.

use std::task::Waker;

use chrono::{DateTime, Utc};

use super::attempt::{Asked, Attempt, Inner};
use super::order::Order;
use super::race;
use crate::decide::Stop;
use crate::history::Kind;
use crate::id::Position;

#[derive(Default)]
pub(super) struct Looks {
    /// The races that are not decided yet, in the order in which they were begun: an outer one before its inner ones.
    races: Vec<Race>,
    /// Where the looks come from that are under way, of those within races.
    under_way: Vec<Position>,
}

struct Race {
    at: Position,
    /// An arm is through: no new look begins.
    is_closing: bool,
}

impl Looks {
    pub(super) fn begin_race(&mut self, at: &Position) {
        self.races.push(Race { at: at.clone(), is_closing: false });
    }

    /// No look begins below it any more.
    pub(super) fn close_race(&mut self, at: &Position) {
        self.races.iter_mut().filter(|race| race.at == *at).for_each(|race| race.is_closing = true);
    }

    pub(super) fn end_race(&mut self, at: &Position) {
        self.races.retain(|race| race.at != *at);
    }

    /// Whether a receive may order a look.
    pub(super) fn may_begin(&self, at: &Position) -> bool {
        !self.races.iter().any(|race| race.is_closing && at.is_below(&race.at))
    }

    /// Whether one is under way below this position.
    pub(super) fn are_under_way_below(&self, at: &Position) -> bool {
        self.under_way.iter().any(|look| look.is_below(at))
    }

    /// Whether one is ordered below this position, and waits for its turn.
    pub(super) fn wait_below(at: &Position, orders: &[Order]) -> bool {
        orders.iter().any(|order| {
            let Order::Receive(look) = order else { return false };
            look.position.is_below(at) && !is_given_up(order)
        })
    }

    /// Whether a position lies within a race that is not decided.
    pub(super) fn are_in_race(&self, at: &Position) -> bool {
        self.races.iter().any(|race| at.is_below(&race.at))
    }

    pub(super) fn end(&mut self, at: &Position) {
        self.under_way.retain(|look| look != at);
    }

    /// Take the orders that may be carried out now.
    pub(super) fn let_out(&mut self, orders: &mut Vec<Order>) -> Vec<Order> {
        orders.retain(|order| !is_given_up(order));
        if self.races.is_empty() {
            return std::mem::take(orders);
        }
        let Self { races, under_way } = self;
        let (now, later) = std::mem::take(orders).into_iter().partition(|order| {
            let Order::Receive(look) = order else { return true };
            let Some(outermost) = races.iter().find(|race| look.position.is_below(&race.at)) else { return true };
            let is_free = !under_way.iter().any(|other| other.is_below(&outermost.at));
            if is_free {
                under_way.push(look.position.clone());
            }
            is_free
        });
        *orders = later;
        now
    }
}

/// A look that has lost before it began must not take anything any more.
fn is_given_up(order: &Order) -> bool {
    matches!(order, Order::Receive(look) if look.reply.is_closed())
}

/// What a race was answered with.
pub(crate) enum AskedRace {
    Won {
        winner: usize,
        ended_at: DateTime<Utc>,
    },
    /// Its arms have to be run.
    Open,
    Later,
    Stopped,
}

/// What races ask of their attempt.
impl Attempt {
    /// Who has won a race of so many arms, if it was decided before. A mismatch stops the attempt.
    pub(crate) fn ask_race(&self, at: &Position, arms: usize, waker: &Waker) -> AskedRace {
        match self.ask(at, Kind::Race, race::NAME, waker) {
            Asked::Recorded(record) => match race::winner(&record, at, arms) {
                Ok(winner) => {
                    self.decide_race(at, winner);
                    AskedRace::Won { winner, ended_at: record.ended_at }
                }
                Err(mismatch) => {
                    self.stop(Stop::Mismatch(mismatch));
                    AskedRace::Stopped
                }
            },
            Asked::Begin => {
                self.inner().looks.begin_race(at);
                AskedRace::Open
            }
            Asked::Later => AskedRace::Later,
            Asked::Stopped => AskedRace::Stopped,
        }
    }

    /// An arm of a race is through. Whether it may be decided: no message is on its way to another arm, nor its history; and
    /// unless a message has decided it, none may be there for one that was about to look.
    pub(crate) fn may_decide(&self, at: &Position, took_message: bool) -> bool {
        let mut inner = self.inner();
        inner.looks.close_race(at);
        !inner.looks.are_under_way_below(at)
            && !inner.recall.is_wanted_below(at)
            && (took_message || !Looks::wait_below(at, &inner.ordered))
    }

    /// A race is decided: what its losers have recorded or registered counts as nothing.
    pub(crate) fn decide_race(&self, at: &Position, winner: usize) {
        let winner_at = Position { lane: at.lane_below().into(), seq: i32::try_from(winner).unwrap_or(i32::MAX) };
        let mut inner = self.inner();
        inner.recall.forget_losers(at, winner);
        inner.undos.retain(|undo| !undo.position.is_below(at) || undo.position.is_below(&winner_at));
        inner.strays.decide(at, |started_at| started_at.is_below(&winner_at));
        inner.lose_children_of_losers();
    }

    /// A race is over, or was given up.
    pub(crate) fn end_race(&self, at: &Position) {
        self.inner().looks.end_race(at);
    }

    /// Whether a receive may look into the mailbox.
    pub(crate) fn may_look(&self, at: &Position) -> bool {
        self.inner().looks.may_begin(at)
    }

    pub(crate) fn end_look(&self, at: &Position) {
        let mut inner = self.inner();
        inner.in_flight -= 1;
        inner.looks.end(at);
    }
}

impl Inner {
    /// The orders that may be carried out now.
    pub(super) fn let_out(&mut self) -> Vec<Order> {
        let Self { looks, ordered, .. } = self;
        looks.let_out(ordered)
    }
}
