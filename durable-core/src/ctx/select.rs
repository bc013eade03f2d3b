//! `select!`: a race whose arms have different types, and what is done with whichever has won.

/// What an arm has come to: of the first one `This`, of the second one `Other(This)`, of the last one of three
/// `Other(Other)`.
#[derive(Debug)]
pub enum Won<A, B> {
    /// This one.
    This(A),
    /// One of those after it.
    Other(B),
}

/// Wait for whichever comes first of several things, and go on with it: a [`race`](crate::Ctx::race) for arms of different
/// types.
///
/// ```
/// use durable::{Ctx, Topic, days, workflow};
///
/// const APPROVED: Topic<bool> = Topic::new("approved");
/// const WITHDRAWN: Topic<String> = Topic::new("withdrawn");
///
/// #[workflow]
/// async fn expense(ctx: &Ctx, id: i64) -> anyhow::Result<String> {
///     Ok(durable::select! { ctx,
///         approved = ctx.receive(APPROVED) => if approved? { "paid" } else { "rejected" }.to_owned(),
///         reason = ctx.receive(WITHDRAWN) => format!("withdrawn: {}", reason?),
///         _ = ctx.sleep(days(7)) => "expired".to_owned(),
///     })
/// }
/// ```
///
/// First comes the name of the context, then the arms: `pattern = future => value`, with commas in between. In the futures
/// that name is the context of the arm, which has a lane of its own; an `async { .. }` block may make several calls there.
/// A pattern has to fit whatever its future gives. The values are computed in the body, once the race is over: there the
/// name is the body's context again, and `?` and `return` leave the body.
///
/// # Durability
///
/// That of a [`race`](crate::Ctx::race).
#[macro_export]
macro_rules! select {
    ($ctx:ident, $($arms:tt)+) => {
        $crate::__select!($ctx; [] [] [] $($arms)+)
    };
}

/// The arms of `select!` one by one: how deep the present one lies, and the races' arms and the matches' so far.
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    ($ctx:ident; [$($deep:tt)*] [$($race:tt)*] [$($won:tt)*] $pattern:pat = $future:expr => $value:expr $(,)?) => {
        match $ctx.race() $($race)* .or(async |$ctx: &$crate::Ctx| $crate::__won!([$($deep)*] $future.await)).await {
            $($won)*
            $crate::__won!([$($deep)*] $pattern) => $value,
        }
    };
    ($ctx:ident; [$($deep:tt)*] [$($race:tt)*] [$($won:tt)*] $pattern:pat = $future:expr => $value:expr, $($rest:tt)+) => {
        $crate::__select!($ctx;
            [$($deep)* +]
            [$($race)* .or(async |$ctx: &$crate::Ctx| $crate::__won!([$($deep)*] this $future.await))]
            [$($won)* $crate::__won!([$($deep)*] this $pattern) => $value,]
            $($rest)+)
    };
    ($ctx:ident; [$($deep:tt)*] [$($race:tt)*] [$($won:tt)*] $pattern:pat = $future:expr => $value:block $($rest:tt)+) => {
        $crate::__select!($ctx; [$($deep)*] [$($race)*] [$($won)*] $pattern = $future => $value, $($rest)+)
    };
}

/// A value or a pattern, as deep as its arm lies.
#[doc(hidden)]
#[macro_export]
macro_rules! __won {
    ([] this $($what:tt)+) => { $crate::__private::Won::This($($what)+) };
    ([] $($what:tt)+) => { $($what)+ };
    ([+ $($deep:tt)*] $($what:tt)+) => { $crate::__private::Won::Other($crate::__won!([$($deep)*] $($what)+)) };
}
