//! When a schedule ticks, and what becomes of ticks that were missed. Pure: no clock, no I/O.
//!
//! `cron` is about expressions in time zones, `due` about what a worker offers once some ticks have passed, `words` the policies.

mod cron;
pub(crate) mod due;
mod words;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use sha2::{Digest, Sha256};

use cron::Cron;
pub(crate) use words::Missed;
pub use words::{CatchUp, Overlap};

/// The longest interval. Beyond it an offset would say next to nothing.
const EVERY_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Gaps between ticks that a jitter is measured against.
const GAPS: usize = 100;

/// When a schedule ticks.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    Cron(Box<Cron>),
    /// Counted from the Unix epoch plus an offset, in seconds.
    Every {
        period_s: i64,
        offset_s: i64,
    },
}

impl Rule {
    /// By an expression in a time zone; what is wrong with it, if something is.
    pub(crate) fn cron(expression: &str, time_zone: &str) -> Result<Self, String> {
        Cron::parse(expression, time_zone).map(|cron| Rule::Cron(Box::new(cron)))
    }

    /// By an interval; what is wrong with it, if something is.
    pub(crate) fn every(period: Duration, offset: Duration) -> Result<Self, String> {
        if period < Duration::from_secs(1) {
            return Err(format!("it ticks every {period:?}, which has to be 1 s or more"));
        }
        if period.subsec_nanos() > 0 || offset.subsec_nanos() > 0 {
            return Err(format!("it ticks every {period:?} from {offset:?} on: both have to be whole seconds"));
        }
        if period > EVERY_MAX {
            return Err(format!("it ticks every {period:?}, which has to be ten years or less"));
        }
        if offset >= period {
            return Err(format!("its offset of {offset:?} has to be less than its interval of {period:?}"));
        }
        let seconds = |of: Duration| i64::try_from(of.as_secs()).unwrap_or(i64::MAX);
        Ok(Rule::Every { period_s: seconds(period), offset_s: seconds(offset) })
    }

    /// The first tick after a time.
    pub(crate) fn after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Rule::Cron(cron) => cron.after(at),
            Rule::Every { period_s, offset_s } => {
                let next = (at.timestamp() - offset_s).div_euclid(*period_s) + 1;
                DateTime::from_timestamp(next.checked_mul(*period_s)?.checked_add(*offset_s)?, 0)
            }
        }
    }

    /// The ticks after a time, in order.
    pub(crate) fn ticks_after(&self, at: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        std::iter::successors(self.after(at), |tick| self.after(*tick))
    }

    /// Refuse a rule that never ticks, and a jitter that could carry a tick past the next one.
    pub(crate) fn check(&self, jitter: Duration, now: DateTime<Utc>) -> Result<(), String> {
        let Some(first) = self.after(now) else {
            return Err(format!("{self} never comes"));
        };
        if jitter.is_zero() {
            return Ok(());
        }
        let gap = match self {
            Rule::Every { period_s, .. } => TimeDelta::seconds(*period_s),
            Rule::Cron(_) => {
                let ticks: Vec<_> = self.ticks_after(first).take(GAPS).collect();
                let gaps = std::iter::once(first).chain(ticks.iter().copied()).zip(&ticks).map(|(a, b)| *b - a);
                gaps.min().unwrap_or(TimeDelta::MAX)
            }
        };
        match gap.to_std() {
            Ok(gap) if jitter >= gap => {
                Err(format!("its jitter of {jitter:?} has to be shorter than the {gap:?} between two of its ticks"))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rule::Cron(cron) => cron.fmt(f),
            Rule::Every { period_s, offset_s: 0 } => write!(f, "every {period_s} s"),
            Rule::Every { period_s, offset_s } => write!(f, "every {period_s} s from {offset_s} s on"),
        }
    }
}

/// The id of the workflow that a schedule starts for a tick.
pub(crate) fn tick_id(schedule: &str, tick: DateTime<Utc>) -> String {
    format!("{schedule}/{}", tick.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// The tick that a workflow's id tells of.
pub(crate) fn tick_of(id: &str) -> Option<DateTime<Utc>> {
    let (schedule, time) = id.rsplit_once('/')?;
    let tick = time.parse::<DateTime<Utc>>().ok()?;
    (tick_id(schedule, tick) == id).then_some(tick)
}

/// How much later than its time a tick is acted on: always the same for a tick, and less than the jitter.
pub(crate) fn jitter_of(schedule: &str, tick: DateTime<Utc>, jitter: Duration) -> TimeDelta {
    let digest = Sha256::digest(tick_id(schedule, tick).as_bytes());
    let (first, _) = digest.split_first_chunk().expect("a digest of 32 bytes");
    let share = u128::from(u64::from_be_bytes(*first)) * jitter.as_millis().min(u64::MAX.into());
    let millis = share >> 64;
    TimeDelta::milliseconds(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn intervals_count_in_absolute_time_from_the_epoch() {
        let rule = Rule::every(Duration::from_secs(6 * 3_600), Duration::ZERO).unwrap();
        let ticks: Vec<_> = rule.ticks_after(at("2026-10-24T19:00:00.5Z")).take(4).map(|t| t.to_rfc3339()).collect();
        // Over the end of summer time.
        assert_eq!(
            ticks,
            [
                "2026-10-25T00:00:00+00:00",
                "2026-10-25T06:00:00+00:00",
                "2026-10-25T12:00:00+00:00",
                "2026-10-25T18:00:00+00:00"
            ]
        );
        let rule = Rule::every(Duration::from_secs(60), Duration::from_secs(7)).unwrap();
        assert_eq!(rule.after(at("2026-01-01T00:00:06Z")), Some(at("2026-01-01T00:00:07Z")));
        assert_eq!(rule.after(at("2026-01-01T00:00:07Z")), Some(at("2026-01-01T00:01:07Z")));
        assert_eq!(rule.after(at("1969-12-31T23:59:00Z")), Some(at("1969-12-31T23:59:07Z")));
    }

    #[test]
    fn intervals_that_cannot_be_say_why() {
        let s = Duration::from_secs;
        for (period, offset, told) in [
            (s(0), s(0), "has to be 1 s or more"),
            (Duration::from_millis(999), s(0), "has to be 1 s or more"),
            (Duration::from_millis(1_500), s(0), "whole seconds"),
            (s(60), Duration::from_millis(5), "whole seconds"),
            (s(60), s(60), "less than its interval"),
            (s(u64::MAX), s(0), "ten years or less"),
        ] {
            let problem = Rule::every(period, offset).unwrap_err();
            assert!(problem.contains(told), "{problem}");
        }
    }

    #[test]
    fn a_jitter_is_deterministic_spread_and_shorter_than_the_gap() {
        let rule = Rule::cron("0 0 3,4 * * *", "Europe/Berlin").unwrap();
        let now = at("2026-11-26T12:00:00Z");
        assert!(rule.check(Duration::from_secs(3_599), now).is_ok());
        let problem = rule.check(Duration::from_secs(3_600), now).unwrap_err();
        assert!(problem.contains("its jitter of 3600s has to be shorter than the 3600s between"), "{problem}");

        let jitter = Duration::from_secs(60);
        let spread: Vec<_> = rule.ticks_after(now).take(100).map(|tick| jitter_of("n", tick, jitter)).collect();
        assert!(spread.iter().all(|late| (TimeDelta::zero()..TimeDelta::seconds(60)).contains(late)));
        assert!(spread.iter().max().unwrap().num_seconds() > 50 && spread.iter().min().unwrap().num_seconds() < 10);
        let tick = at("2026-11-27T03:00:00Z");
        assert_eq!(jitter_of("n", tick, jitter), jitter_of("n", tick, jitter));
        assert_ne!(jitter_of("n", tick, jitter), jitter_of("m", tick, jitter));
    }

    #[test]
    fn an_id_tells_its_tick_and_no_other_id_does() {
        let tick = at("2026-11-27T03:00:00Z");
        assert_eq!(tick_id("a/b", tick), "a/b/2026-11-27T03:00:00Z");
        assert_eq!(tick_of("a/b/2026-11-27T03:00:00Z"), Some(tick));
        for id in ["order-42", "a/2026-11-27", "2026-11-27T03:00:00Z", "a/2026-11-27T04:00:00+01:00", "a/x", "a/"] {
            assert_eq!(tick_of(id), None, "{id}");
        }
    }
}
