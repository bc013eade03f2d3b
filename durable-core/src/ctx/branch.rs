//! Branches and fan-outs: parts of a body with lanes of their own, polled as part of the body's future.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::StreamExt;

use super::Ctx;
use super::attempt::Attempt;
use super::lane::{Lane, UnderWay};
use crate::id::Position;
use crate::step::BoxFuture;

/// An async closure over a context. Implemented by `async |ctx: &Ctx| ..`.
///
/// The plain `AsyncFnOnce` bound cannot say that its future is `Send`; this one can.
pub trait LaneFn<A, R>: AsyncFnOnce(A) -> R + FnOnce(A) -> <Self as LaneFn<A, R>>::Future {
    /// The future of the closure.
    type Future: Future<Output = R>;
}

impl<A, R, F, Fut> LaneFn<A, R> for F
where
    F: AsyncFnOnce(A) -> R + FnOnce(A) -> Fut,
    Fut: Future<Output = R>,
{
    type Future = Fut;
}

/// An async closure over a context and an item. Implemented by `async |ctx: &Ctx, item| ..`.
pub trait ItemFn<A, I, R>: AsyncFnOnce(A, I) -> R + FnOnce(A, I) -> <Self as ItemFn<A, I, R>>::Future {
    /// The future of the closure.
    type Future: Future<Output = R>;
}

impl<A, I, R, F, Fut> ItemFn<A, I, R> for F
where
    F: AsyncFnOnce(A, I) -> R + FnOnce(A, I) -> Fut,
    Fut: Future<Output = R>,
{
    type Future = Fut;
}

/// A position at which a branch or fan-out is opened: first of all the history is asked whether it may.
struct Opening {
    attempt: Arc<Attempt>,
    position: Position,
    opened: bool,
}

impl Opening {
    fn new(ctx: &Ctx, position: Position) -> Self {
        Self { attempt: ctx.attempt.clone(), position, opened: false }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.opened = self.opened || self.attempt.ask_branch(&self.position, cx.waker());
        if self.opened { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A branch in a body: await it, or join it with others. Made by [`Ctx::branch`].
#[must_use = "a branch does nothing until it is awaited"]
pub struct Branch<'c, R> {
    opening: Opening,
    under_way: UnderWay,
    lane: Arc<Lane>,
    body: BoxFuture<'c, R>,
}

impl<'c, R: Send + 'c> Branch<'c, R> {
    pub(super) fn new<F>(ctx: &'c Ctx, position: Position, body: F) -> Self
    where
        F: for<'x> LaneFn<&'x Ctx, R> + Send + 'c,
        for<'x> <F as LaneFn<&'x Ctx, R>>::Future: Send,
    {
        let lane = Arc::new(Lane::new(position.lane_below(), ctx.now()));
        let own = Ctx { attempt: ctx.attempt.clone(), lane: lane.clone() };
        let body = Box::pin(async move { body(&own).await });
        Self { opening: Opening::new(ctx, position), under_way: UnderWay::new(ctx.lane.clone()), lane, body }
    }
}

impl<R> Future for Branch<'_, R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        self.under_way.begin();
        ready!(self.opening.poll(cx));
        let polled = self.body.as_mut().poll(cx);
        if polled.is_ready() {
            self.under_way.lane().join(&self.lane);
            self.under_way.end();
        }
        polled
    }
}

/// A fan-out in a body: await it. Made by [`Ctx::fan_out`].
#[must_use = "a fan-out does nothing until it is awaited"]
pub struct FanOut<'c, R> {
    opening: Opening,
    under_way: UnderWay,
    body: BoxFuture<'c, Vec<R>>,
    ctx: PhantomData<&'c ()>,
}

impl<'c, R: Send + 'c> FanOut<'c, R> {
    pub(super) fn new<I, F>(ctx: &'c Ctx, position: Position, items: Vec<I>, at_once: usize, body: F) -> Self
    where
        I: Send + 'c,
        F: for<'x> ItemFn<&'x Ctx, I, R> + Clone + Send + 'c,
        for<'x> <F as ItemFn<&'x Ctx, I, R>>::Future: Send,
    {
        let below = position.lane_below();
        let started = ctx.now();
        let body = Box::pin(async move {
            let branches = items.into_iter().enumerate().map(|(n, item)| {
                let lane = Arc::new(Lane::new(format!("{below}.{n}"), started));
                let own = Ctx { attempt: ctx.attempt.clone(), lane };
                let body = body.clone();
                let branch: BoxFuture<'c, R> = Box::pin(async move {
                    let result = body(&own, item).await;
                    ctx.lane.join(&own.lane);
                    result
                });
                branch
            });
            // Collected first: the closures are tied to this scope, the boxed futures are not.
            let branches: Vec<_> = branches.collect();
            futures_util::stream::iter(branches).buffered(at_once).collect().await
        });
        Self {
            opening: Opening::new(ctx, position),
            under_way: UnderWay::new(ctx.lane.clone()),
            body,
            ctx: PhantomData,
        }
    }
}

impl<R> Future for FanOut<'_, R> {
    type Output = Vec<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<R>> {
        self.under_way.begin();
        ready!(self.opening.poll(cx));
        let polled = self.body.as_mut().poll(cx);
        if polled.is_ready() {
            self.under_way.end();
        }
        polled
    }
}

impl<R> std::fmt::Debug for Branch<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Branch")
    }
}

impl<R> std::fmt::Debug for FanOut<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FanOut")
    }
}
