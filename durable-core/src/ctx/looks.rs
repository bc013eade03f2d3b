//! Which looks into the mailbox may be under way at the same time.
//!
//! A look takes the message that it finds. So within a race there is only one at a time, and the race is not decided
//! before it has answered: otherwise a loser could take what somebody waits for. Elsewhere they go side by side.

use super::attempt::Order;
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
