//! How often and when a failed step is tried again. Pure.

use std::time::Duration;

/// When a failed step is tried again: exponential backoff with jitter and a cap.
///
/// The delay after attempt `n` is `first * factor^(n-1)`, at most `max`, then varied by up to
/// `jitter` of itself in either direction. A delay that the failure asks for
/// ([`retry_after`](crate::retry_after)) is used instead where it is longer, and is not capped by `max`.
///
/// A plain number stands for a policy with that many attempts and the other defaults:
/// `ctx.run(charge(..)).retry(3)`.
///
/// ```
/// use durable::Retry;
/// use std::time::Duration;
///
/// let patient = Retry { max_attempts: 20, max: Duration::from_secs(3600), ..Retry::DEFAULT };
/// assert_eq!(Retry::from(3), Retry { max_attempts: 3, ..Retry::DEFAULT });
/// # let _ = patient;
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Retry {
    /// Attempts in all, the first one included. 1 means that the step is never tried again.
    pub max_attempts: u32,
    /// The delay after the first attempt.
    pub first: Duration,
    /// What each further delay is multiplied by. At least 1.
    pub factor: f64,
    /// The longest delay.
    pub max: Duration,
    /// By which part of itself a delay is varied, 0 to 1, so that a thousand workflows that failed
    /// together do not come back together.
    pub jitter: f64,
}

impl Retry {
    /// Three attempts, 1 s and 2 s apart, at most a minute, varied by a fifth.
    pub const DEFAULT: Retry = Retry {
        max_attempts: 3,
        first: Duration::from_secs(1),
        factor: 2.0,
        max: Duration::from_secs(60),
        jitter: 0.2,
    };

    /// One attempt.
    pub const NEVER: Retry = Retry { max_attempts: 1, ..Retry::DEFAULT };

    /// How long to wait after `attempt` (1-based), with `dice` from 0 to 1.
    pub(crate) fn delay(&self, attempt: u32, asked: Option<Duration>, dice: f64) -> Duration {
        let exponent = attempt.saturating_sub(1).min(1_000);
        let plain = self.first.as_secs_f64() * self.factor.max(1.0).powi(exponent.cast_signed());
        let capped = plain.min(self.max.as_secs_f64());
        let varied = capped * (1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * dice - 1.0));
        Duration::try_from_secs_f64(varied).unwrap_or(self.max).max(asked.unwrap_or_default())
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl From<u32> for Retry {
    fn from(max_attempts: u32) -> Self {
        Self { max_attempts, ..Self::DEFAULT }
    }
}

/// `n` days of 24 hours.
pub const fn days(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(86_400))
}

/// `n` hours.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(3_600))
}

/// `n` minutes.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(60))
}

/// `n` seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_vary_around_it() {
        let even = Retry { jitter: 0.0, ..Retry::DEFAULT };
        for (attempt, seconds) in [(1, 1.0), (2, 2.0), (3, 4.0), (7, 60.0), (u32::MAX, 60.0)] {
            assert_eq!(even.delay(attempt, None, 0.5).as_secs_f64(), seconds, "attempt {attempt}");
        }
        let varied = Retry { jitter: 0.5, ..Retry::DEFAULT };
        assert_eq!(varied.delay(2, None, 0.0).as_secs_f64(), 1.0);
        assert_eq!(varied.delay(2, None, 1.0).as_secs_f64(), 3.0);
    }

    #[test]
    fn a_delay_that_the_server_asked_for_wins_where_it_is_longer() {
        assert_eq!(Retry::DEFAULT.delay(1, Some(minutes(10)), 0.5), minutes(10));
        assert_eq!(Retry::DEFAULT.delay(7, Some(seconds(1)), 0.5), minutes(1));
    }

    #[test]
    fn absurd_policies_still_give_a_delay() {
        let absurd = Retry { first: Duration::MAX, factor: f64::INFINITY, max: Duration::MAX, ..Retry::DEFAULT };
        assert!(absurd.delay(2, None, 1.0) > days(1));
        let none = Retry { factor: f64::NAN, ..Retry::DEFAULT };
        assert_eq!(none.delay(5, None, 0.5), seconds(1));
    }
}
