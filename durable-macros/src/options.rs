//! The arguments of the attributes, as in `#[step(tx, retry(max_attempts = 5), timeout = "30s")]`.
//!
//! Each option is read by itself, so that one mistake neither hides the next nor drops the others.
//! How a duration is written is `duration`'s business.

use std::fmt::Display;
use std::str::FromStr;

use proc_macro2::TokenStream;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Expr, ExprLit, Lit, Meta, Token};

use crate::complaints::Complaints;
use crate::duration;

/// Recorded names are part of a history's key to its code; a bound keeps rows and logs readable.
const NAME_BYTES_MAX: usize = 200;
/// As for the names of queues.
const LIMIT_BYTES_MAX: usize = 512;
/// With the longest pauses this is centuries of trying: whoever wants more has mistyped.
const ATTEMPTS_MAX: u32 = 1_000_000;
/// Above this, the second pause is the longest pause anyway.
const FACTOR_MAX: f64 = 1_000.0;

#[derive(Clone, Copy, PartialEq)]
enum StepOption {
    Tx,
    Name,
    Retry,
    Timeout,
    Limit,
}

#[derive(Clone, Copy, PartialEq)]
enum WorkflowOption {
    Name,
    Version,
}

#[derive(Clone, Copy, PartialEq)]
enum RetryOption {
    MaxAttempts,
    First,
    Factor,
    Max,
    Jitter,
}

const STEP_OPTIONS: [(&str, StepOption); 5] = [
    ("tx", StepOption::Tx),
    ("name", StepOption::Name),
    ("retry", StepOption::Retry),
    ("timeout", StepOption::Timeout),
    ("limit", StepOption::Limit),
];
const WORKFLOW_OPTIONS: [(&str, WorkflowOption); 2] =
    [("name", WorkflowOption::Name), ("version", WorkflowOption::Version)];
const RETRY_OPTIONS: [(&str, RetryOption); 5] = [
    ("max_attempts", RetryOption::MaxAttempts),
    ("first", RetryOption::First),
    ("factor", RetryOption::Factor),
    ("max", RetryOption::Max),
    ("jitter", RetryOption::Jitter),
];

/// What `#[step(..)]` says.
#[derive(Default)]
pub(crate) struct StepOptions {
    pub(crate) tx: bool,
    pub(crate) name: Option<String>,
    pub(crate) retry: Option<Retry>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) limit: Option<String>,
}

/// What `#[workflow(..)]` says.
#[derive(Default)]
pub(crate) struct WorkflowOptions {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<i32>,
}

/// When a failed step is tried again. Omitted fields keep the library's defaults, which are these.
#[derive(Debug, PartialEq)]
pub(crate) struct Retry {
    pub(crate) max_attempts: u32,
    pub(crate) first_ms: u64,
    pub(crate) factor: f64,
    pub(crate) max_ms: u64,
    pub(crate) jitter: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, first_ms: 1_000, factor: 2.0, max_ms: 60_000, jitter: 0.2 }
    }
}

impl StepOptions {
    pub(crate) fn parse(tokens: TokenStream, complaints: &mut Complaints) -> Self {
        let mut options = Self::default();
        for (option, meta) in known(tokens, "step", &STEP_OPTIONS, complaints) {
            let read = match option {
                StepOption::Tx => flag(&meta).map(|()| options.tx = true),
                StepOption::Name => recorded_name(&meta).map(|name| options.name = Some(name)),
                StepOption::Retry => retry(&meta, complaints).map(|retry| options.retry = Some(retry)),
                StepOption::Timeout => millis(&meta).map(|ms| options.timeout_ms = Some(ms)),
                StepOption::Limit => limit_name(&meta).map(|limit| options.limit = Some(limit)),
            };
            read.unwrap_or_else(|error| complaints.add(error));
        }
        options
    }
}

impl WorkflowOptions {
    pub(crate) fn parse(tokens: TokenStream, complaints: &mut Complaints) -> Self {
        let mut options = Self::default();
        for (option, meta) in known(tokens, "workflow", &WORKFLOW_OPTIONS, complaints) {
            let read = match option {
                WorkflowOption::Name => recorded_name(&meta).map(|name| options.name = Some(name)),
                WorkflowOption::Version => integer(&meta, i32::MAX, "2").map(|version| options.version = Some(version)),
            };
            read.unwrap_or_else(|error| complaints.add(error));
        }
        options
    }
}

/// The options of `tokens` that are on the list, each once. Complains about the others.
fn known<O: Copy + PartialEq>(
    tokens: TokenStream,
    owner: &str,
    list: &[(&'static str, O)],
    complaints: &mut Complaints,
) -> Vec<(O, Meta)> {
    let metas = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens).unwrap_or_else(|error| {
        complaints.add(error);
        Punctuated::new()
    });
    let mut found: Vec<(O, Meta)> = Vec::new();
    for meta in metas {
        let written = option_name(&meta);
        match list.iter().find(|(name, _)| *name == written) {
            None => complaints.at(meta.path(), unknown(&written, owner, list)),
            Some((name, option)) if found.iter().any(|(earlier, _)| earlier == option) => {
                complaints.at(meta.path(), format!("`{name}` is given twice: remove one"));
            }
            Some((_, option)) => found.push((*option, meta)),
        }
    }
    found
}

fn option_name(meta: &Meta) -> String {
    meta.path().get_ident().map(ToString::to_string).unwrap_or_default()
}

fn unknown<O>(written: &str, owner: &str, list: &[(&str, O)]) -> String {
    match (owner, written) {
        ("workflow", "timeout" | "retry" | "tx" | "limit") => {
            format!("`{written}` belongs on steps: write it on the `#[step]` that needs it")
        }
        ("step", "version") => {
            "`version` belongs on workflows: a step changes with the workflow that runs it".to_owned()
        }
        _ => match list.iter().find(|(name, _)| is_similar(written, name)) {
            Some((name, _)) => format!("unknown option `{written}`: did you mean `{name}`?"),
            None => {
                let names: Vec<_> = list.iter().map(|(name, _)| format!("`{name}`")).collect();
                format!("unknown option `{written}`: {owner} takes {}", names.join(", "))
            }
        },
    }
}

/// Whether one was probably meant to be the other: two slips of a key, or one inside the other.
fn is_similar(written: &str, name: &str) -> bool {
    let within = |long: &str, short: &str| short.len() >= 4 && long.contains(short);
    within(written, name) || within(name, written) || distance(written, name) <= (name.len() / 3).clamp(1, 2)
}

/// Levenshtein's distance: insertions, deletions and replacements between the two.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}

fn retry(meta: &Meta, complaints: &mut Complaints) -> syn::Result<Retry> {
    let Meta::List(list) = meta else {
        return Err(wrong(meta, "`retry` takes its options in parentheses: write `retry(max_attempts = 5)`"));
    };
    let mut retry = Retry::default();
    let mut bound = None;
    let before = complaints.count();
    for (option, meta) in known(list.tokens.clone(), "retry", &RETRY_OPTIONS, complaints) {
        let read = match option {
            RetryOption::MaxAttempts => integer(&meta, ATTEMPTS_MAX, "5").map(|n| retry.max_attempts = n),
            RetryOption::First => millis(&meta).map(|ms| retry.first_ms = ms),
            RetryOption::Factor => number(&meta, 1.0, FACTOR_MAX, "2.0").map(|factor| retry.factor = factor),
            RetryOption::Max => millis(&meta).map(|ms| retry.max_ms = ms),
            RetryOption::Jitter => number(&meta, 0.0, 1.0, "0.2").map(|jitter| retry.jitter = jitter),
        };
        read.unwrap_or_else(|error| complaints.add(error));
        if matches!(option, RetryOption::First | RetryOption::Max) {
            bound = Some(meta);
        }
    }
    // A value that could not be read is not compared with another.
    if let Some(meta) = bound.filter(|_| complaints.count() == before && retry.first_ms > retry.max_ms) {
        let (first, max) = (retry.first_ms, retry.max_ms);
        let message =
            format!("the first pause ({first} ms) is longer than the longest ({max} ms): set `first` and `max`");
        return Err(wrong(meta, message));
    }
    Ok(retry)
}

fn flag(meta: &Meta) -> syn::Result<()> {
    match meta {
        Meta::Path(_) => Ok(()),
        Meta::List(_) | Meta::NameValue(_) => Err(wrong(meta, "`tx` takes no value: write just `tx`")),
    }
}

fn recorded_name(meta: &Meta) -> syn::Result<String> {
    let Some((value, Lit::Str(text))) = literal(meta) else {
        return Err(wrong_value(meta, "a text", "\"charge\""));
    };
    let name = text.value();
    if name.trim().is_empty() {
        Err(wrong(value, "a name cannot be empty: remove the option to take the function's name"))
    } else if name.len() > NAME_BYTES_MAX {
        Err(wrong(value, format!("a name has at most {NAME_BYTES_MAX} bytes, this one has {}: shorten it", name.len())))
    } else if name.chars().any(char::is_control) {
        Err(wrong(value, "a name cannot contain control characters: remove them"))
    } else {
        Ok(name)
    }
}

fn limit_name(meta: &Meta) -> syn::Result<String> {
    let Some((value, Lit::Str(text))) = literal(meta) else {
        return Err(wrong_value(meta, "a text", "\"openai\""));
    };
    let name = text.value();
    if name.is_empty() {
        Err(wrong(
            value,
            "the name of a limit cannot be empty: write the one that `Limit::new` has, or remove the option",
        ))
    } else if name.len() > LIMIT_BYTES_MAX {
        let message = format!(
            "the name of a limit has at most {LIMIT_BYTES_MAX} bytes, this one has {}: shorten it, here and in `Limit::new`",
            name.len()
        );
        Err(wrong(value, message))
    } else if name.chars().any(char::is_control) {
        Err(wrong(
            value,
            "the name of a limit cannot contain control characters: remove them, here and in `Limit::new`",
        ))
    } else {
        Ok(name)
    }
}

fn millis(meta: &Meta) -> syn::Result<u64> {
    let Some((value, Lit::Str(text))) = literal(meta) else {
        return Err(wrong_value(meta, "a duration in quotes", "\"30s\""));
    };
    duration::millis(&text.value()).map_err(|message| wrong(value, message))
}

/// A whole number from 1 to `max`.
fn integer<N>(meta: &Meta, max: N, example: &str) -> syn::Result<N>
where
    N: FromStr<Err: Display> + From<bool> + PartialOrd + Display,
{
    let number = match literal(meta) {
        Some((_, Lit::Int(number))) => number.base10_parse::<N>().ok(),
        _ => None,
    };
    match number {
        Some(n) if n >= N::from(true) && n <= max => Ok(n),
        _ => Err(wrong_value(meta, format!("a whole number from 1 to {max}"), example)),
    }
}

/// A number from `min` to `max`.
fn number(meta: &Meta, min: f64, max: f64, example: &str) -> syn::Result<f64> {
    let number = match literal(meta) {
        Some((_, Lit::Float(float))) => float.base10_parse::<f64>().ok(),
        Some((_, Lit::Int(int))) => int.base10_parse::<f64>().ok(),
        _ => None,
    };
    match number {
        Some(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(wrong_value(meta, format!("a number from {min:?} to {max:?}"), example)),
    }
}

/// The literal behind `name =`, also where a `macro_rules!` put it there.
fn literal(meta: &Meta) -> Option<(&Expr, &Lit)> {
    let Meta::NameValue(pair) = meta else {
        return None;
    };
    let mut value = &pair.value;
    while let Expr::Group(group) = value {
        value = &group.expr;
    }
    match value {
        Expr::Lit(ExprLit { lit, .. }) => Some((&pair.value, lit)),
        _ => None,
    }
}

fn wrong_value(meta: &Meta, expected: impl Display, example: impl Display) -> syn::Error {
    let name = option_name(meta);
    let message = format!("`{name}` takes {expected}: write `{name} = {example}`");
    match meta {
        Meta::NameValue(pair) => wrong(&pair.value, message),
        Meta::Path(_) | Meta::List(_) => wrong(meta, message),
    }
}

fn wrong(tokens: impl quote::ToTokens, message: impl Display) -> syn::Error {
    syn::Error::new_spanned(tokens, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn step(tokens: TokenStream) -> (StepOptions, Vec<String>) {
        let mut complaints = Complaints::default();
        let options = StepOptions::parse(tokens, &mut complaints);
        (options, complaints.messages())
    }

    #[test]
    fn options_are_read_in_any_order() {
        let (options, complaints) = step(quote! {
            timeout = "30s", retry(jitter = 0, max = "2m", factor = 1.5, first = "250ms", max_attempts = 5), tx, name = "pay",
        });
        assert_eq!(complaints, [""; 0]);
        assert!(options.tx);
        assert_eq!((options.name.as_deref(), options.timeout_ms), (Some("pay"), Some(30_000)));
        let expected = Retry { max_attempts: 5, first_ms: 250, factor: 1.5, max_ms: 120_000, jitter: 0.0 };
        assert_eq!(options.retry, Some(expected));
    }

    #[test]
    fn an_omitted_retry_field_keeps_its_default() {
        let (options, _) = step(quote! { retry(max_attempts = 1) });
        assert_eq!(options.retry, Some(Retry { max_attempts: 1, ..Retry::default() }));
        assert_eq!(step(quote! {}).0.retry, None);
    }

    #[test]
    fn every_mistake_is_reported_and_the_rest_still_counts() {
        let (options, complaints) = step(quote! { nam = "a", timeout = 3, tx, retry(maximum = "1s", factor = 0.5) });
        assert!(options.tx);
        assert_eq!(complaints.len(), 4, "{complaints:?}");
    }

    #[test]
    fn a_value_at_its_bound_is_taken_and_one_beyond_is_not() {
        for tokens in [
            quote! { retry(max_attempts = 1_000_000) },
            quote! { retry(factor = 1) },
            quote! { retry(factor = 1000.0, jitter = 1.0) },
            quote! { retry(first = "1m") },
        ] {
            assert_eq!(step(tokens.clone()).1, [""; 0], "{tokens}");
        }
        for tokens in [
            quote! { retry(max_attempts = 1_000_001) },
            quote! { retry(max_attempts = -1) },
            quote! { retry(factor = 1000.1) },
            quote! { retry(factor = 1e400) },
            quote! { retry(jitter = -0.1) },
            quote! { retry(first = "61s") },
            quote! { retry(max = "999ms") },
        ] {
            assert_eq!(step(tokens.clone()).1.len(), 1, "{tokens}");
        }
    }

    #[test]
    fn a_name_is_bounded_in_bytes() {
        let name = "é".repeat(NAME_BYTES_MAX / 2);
        assert_eq!(step(quote! { name = #name }).0.name, Some(name.clone()));
        let longer = format!("{name}a");
        assert!(step(quote! { name = #longer }).1[0].contains("201"));
    }

    #[test]
    fn the_name_of_a_limit_is_bounded_in_bytes() {
        let name = "é".repeat(LIMIT_BYTES_MAX / 2);
        assert_eq!(step(quote! { limit = #name }).0.limit, Some(name.clone()));
        let longer = format!("{name}a");
        assert!(step(quote! { limit = #longer }).1[0].contains("513"));
        for wrong in ["", "two\nlines", "nul\0"] {
            let (options, complaints) = step(quote! { limit = #wrong });
            assert!(options.limit.is_none() && complaints.len() == 1, "{wrong:?}: {complaints:?}");
        }
    }

    #[test]
    fn a_likely_slip_names_what_was_meant() {
        for (written, meant) in [("timeot", "timeout"), ("timeout_secs", "timeout"), ("retrry", "retry"), ("tx_", "tx")]
        {
            let message = unknown(written, "step", &STEP_OPTIONS);
            assert!(message.ends_with(&format!("did you mean `{meant}`?")), "{message}");
        }
        assert!(unknown("colour", "step", &STEP_OPTIONS).contains("step takes `tx`, `name`"));
    }

    #[test]
    fn a_version_is_a_positive_i32() {
        let version = |tokens| {
            let mut complaints = Complaints::default();
            (WorkflowOptions::parse(tokens, &mut complaints).version, complaints.count())
        };
        assert_eq!(version(quote! { version = 2147483647 }), (Some(i32::MAX), 0));
        assert_eq!(version(quote! { version = 2147483648 }), (None, 1));
        assert_eq!(version(quote! { version = 0 }), (None, 1));
    }
}
