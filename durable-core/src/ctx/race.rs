//! Races: arms with lanes of their own, polled as part of the body's future, until one is through.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Ctx;
use super::attempt::Attempt;
use super::branch::LaneFn;
use super::lane::{Lane, UnderWay};
use super::looks::AskedRace;
use crate::decide::to_json;
use crate::history::{Kind, Mismatch, Record};
use crate::id::Position;
use crate::step::BoxFuture;
use crate::store::step::StepRow;

/// The name that races have in the history.
pub(crate) const NAME: &str = "race";

/// What stands in the record of a race.
#[derive(Serialize, Deserialize)]
struct Outcome {
    winner: usize,
}

/// Which arm has won, by the record of a race that has so many.
pub(crate) fn winner(record: &Record, at: &Position, arms: usize) -> Result<usize, Mismatch> {
    let outcome = record.outcome.as_deref().ok().and_then(|output| serde_json::from_str::<Outcome>(output).ok());
    let Some(Outcome { winner }) = outcome else {
        return Err(Mismatch(format!("the record of the race at {at} is not one of a race")));
    };
    if winner >= arms {
        return Err(Mismatch(format!("arm {winner} has won the race at {at}, the code has {arms} (counted from 0)")));
    }
    Ok(winner)
}

/// A race in a body: add its arms, then await it, or join it with others. Made by [`Ctx::race`].
#[must_use = "a race does nothing until it is awaited"]
pub struct Race<'c, R> {
    attempt: Arc<Attempt>,
    ctx: &'c Ctx,
    under_way: UnderWay,
    position: Position,
    arms: Vec<Arm<'c, R>>,
    state: State,
}

struct Arm<'c, R> {
    lane: Arc<Lane>,
    body: BoxFuture<'c, R>,
    result: Option<R>,
}

enum State {
    New,
    Open {
        began_at: Instant,
    },
    /// Decided by an earlier attempt: only this arm is run again.
    Decided {
        winner: usize,
    },
    Over,
}

impl<'c, R: Send + 'c> Race<'c, R> {
    pub(super) fn new(ctx: &'c Ctx, position: Position) -> Self {
        let under_way = UnderWay::new(ctx.lane.clone());
        Self { attempt: ctx.attempt.clone(), ctx, under_way, position, arms: Vec::new(), state: State::New }
    }

    /// Add an arm.
    pub fn or<F>(mut self, body: F) -> Self
    where
        F: for<'x> LaneFn<&'x Ctx, R> + Send + 'c,
        for<'x> <F as LaneFn<&'x Ctx, R>>::Future: Send,
    {
        let path = format!("{}.{}", self.position.lane_below(), self.arms.len());
        let lane = Arc::new(Lane::new(path, self.ctx.now()));
        let own = Ctx { attempt: self.attempt.clone(), lane: lane.clone() };
        let body = Box::pin(async move { body(&own).await });
        self.arms.push(Arm { lane, body, result: None });
        self
    }
}

impl<R> Race<'_, R> {
    fn begin(&mut self, cx: &Context<'_>) -> Poll<()> {
        assert!(!self.arms.is_empty(), "a race without an arm would never end: add at least one with .or(..)");
        self.state = match self.attempt.ask_race(&self.position, self.arms.len(), cx.waker()) {
            AskedRace::Won { winner, ended_at } => {
                self.under_way.lane().observe(ended_at);
                State::Decided { winner }
            }
            AskedRace::Open => State::Open { began_at: Instant::now() },
            AskedRace::Later => return Poll::Pending,
            AskedRace::Stopped => State::Over,
        };
        Poll::Ready(())
    }

    /// Run all arms until one has won.
    fn first(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        for arm in &mut self.arms {
            let _ = arm.poll(cx);
        }
        let Some(first) = self.arms.iter().position(|arm| arm.result.is_some()) else { return Poll::Pending };
        // What somebody has sent must not be a loser's.
        let took = self.arms.iter().position(|arm| arm.result.is_some() && arm.lane.took_message());
        if self.attempt.may_decide(&self.position, took.is_some()) {
            Poll::Ready(took.unwrap_or(first))
        } else {
            Poll::Pending
        }
    }

    /// Have it written who has won, together with what the winner has to write itself.
    fn record(&self, winner: usize, took: Duration) {
        let ended_at = self.attempt.about_now();
        self.under_way.lane().observe(ended_at);
        self.attempt.decide_race(&self.position, winner);
        self.attempt.write_first(StepRow {
            id: self.attempt.id.clone(),
            claims: self.attempt.claims,
            row_at: self.attempt.row_at.clone(),
            position: self.position.clone(),
            kind: Kind::Race,
            name: NAME,
            input: None,
            output: Some(to_json(&Outcome { winner })),
            failure: None,
            attempts: None,
            ended_at,
            took_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
        });
    }

    /// Drop the losers, whatever they are doing, and give what the winner has come to.
    fn end(&mut self, winner: usize) -> R {
        self.state = State::Over;
        let arm = self.arms.swap_remove(winner);
        self.arms.clear();
        self.attempt.end_race(&self.position);
        self.under_way.lane().join(&arm.lane);
        self.under_way.end();
        arm.result.expect("the winner is through")
    }
}

impl<R> Future for Race<'_, R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let this = &mut *self;
        this.under_way.begin();
        loop {
            match this.state {
                State::New => ready!(this.begin(cx)),
                State::Open { began_at } => {
                    let winner = ready!(this.first(cx));
                    this.record(winner, began_at.elapsed());
                    return Poll::Ready(this.end(winner));
                }
                State::Decided { winner } => {
                    ready!(this.arms[winner].poll(cx));
                    return Poll::Ready(this.end(winner));
                }
                State::Over => return Poll::Pending,
            }
        }
    }
}

// Nothing in it is ever pinned in place: the arms are boxed.
impl<R> Unpin for Race<'_, R> {}

impl<R> Drop for Race<'_, R> {
    fn drop(&mut self) {
        self.attempt.end_race(&self.position);
    }
}

impl<R> std::fmt::Debug for Race<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Race({} arms at {})", self.arms.len(), self.position)
    }
}

impl<R> Arm<'_, R> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.result.is_none() {
            self.result = Some(ready!(self.body.as_mut().poll(cx)));
        }
        Poll::Ready(())
    }
}
