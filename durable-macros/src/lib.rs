//! The attributes of `durable`: `#[workflow]` and `#[step]`, which are documented where `durable` re-exports them.
//!
//! Only the doors are here. Each hands its tokens to a pure function, which can be tested outside of the compiler:
//!
//! | file | says |
//! |---|---|
//! | `step`, `workflow` | what is emitted |
//! | `expansion` | the stages and pieces that both share, and what is kept of a wrong function |
//! | `options`, `duration` | what may stand in the attribute |
//! | `function` | the model of the user's function |
//! | `check` | what a signature cannot have, and how to mend it |
//! | `fingerprint` | what the code of a function is known by |
//! | `stored` | which types cannot be stored, as far as their tokens say |
//! | `complaints` | the mistakes that were found |

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "syn's enums are non-exhaustive: every match on one has an arm for the rest"
)]

mod check;
mod complaints;
mod duration;
mod expansion;
mod fingerprint;
mod function;
mod options;
mod step;
mod stored;
mod workflow;

use proc_macro::TokenStream;

// No documentation here: `durable` documents its re-exports, and rustdoc would show both texts.
#[allow(missing_docs)]
#[proc_macro_attribute]
pub fn step(options: TokenStream, item: TokenStream) -> TokenStream {
    step::expand(options.into(), item.into()).into()
}

#[allow(missing_docs)]
#[proc_macro_attribute]
pub fn workflow(options: TokenStream, item: TokenStream) -> TokenStream {
    workflow::expand(options.into(), item.into()).into()
}
