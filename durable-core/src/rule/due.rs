//! What a worker offers of the ticks that have passed, and when the next one is.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{CatchUp, Missed, Rule, jitter_of};

/// How late the latest tick may be before it counts as missed: what a restart takes, and more.
const ON_TIME: TimeDelta = TimeDelta::minutes(1);

/// Ticks that are walked through one by one. Where more have passed, they are counted up to here, and the latest looked for
/// from the other end.
const WALK_MAX: i64 = 20_000;

/// A schedule as it was seen.
pub(crate) struct Seen<'s> {
    pub(crate) name: &'s str,
    pub(crate) rule: &'s Rule,
    pub(crate) jitter: Duration,
    pub(crate) catch_up: CatchUp,
    /// All ticks up to here have been dealt with.
    pub(crate) passed_until: DateTime<Utc>,
    pub(crate) now: DateTime<Utc>,
}

/// What is to be done with it.
#[derive(PartialEq, Debug)]
pub(crate) struct Round {
    /// The ticks to start, in order.
    pub(crate) offered: Vec<DateTime<Utc>>,
    /// How many others have passed; up to 20,000 are counted.
    pub(crate) missed: i64,
    pub(crate) passed_until: DateTime<Utc>,
    /// The next tick, and when to act on it.
    pub(crate) next: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Round {
    /// For a schedule that is paused.
    pub(crate) fn none(passed_until: DateTime<Utc>) -> Self {
        Self { offered: Vec::new(), missed: 0, passed_until, next: None }
    }
}

impl Seen<'_> {
    /// Decide.
    pub(crate) fn round(&self) -> Round {
        let most = usize::try_from(self.catch_up.most).unwrap_or(1);
        let (mut latest, mut count, mut next) = (VecDeque::new(), 0, None);
        for tick in self.rule.ticks_after(self.passed_until) {
            if self.acted_on_at(tick) > self.now {
                next = Some(tick);
                break;
            }
            if count == WALK_MAX {
                latest = self.latest(most, &mut next);
                break;
            }
            count += 1;
            latest.push_back(tick);
            if latest.len() > most {
                latest.pop_front();
            }
        }
        let passed_until = latest.back().copied().unwrap_or(self.passed_until);
        let offered: Vec<_> = match latest.back() {
            // The last tick of all, and no reason to wait for the policy.
            Some(last) if self.is_on_time(*last) && self.catch_up.missed != Missed::All => vec![*last],
            _ if self.catch_up.missed == Missed::None => Vec::new(),
            _ => latest.into_iter().filter(|tick| self.is_within(*tick)).collect(),
        };
        let missed = count - i64::try_from(offered.len()).unwrap_or_default();
        Round { offered, missed, passed_until, next: next.map(|tick| (tick, self.acted_on_at(tick))) }
    }

    fn acted_on_at(&self, tick: DateTime<Utc>) -> DateTime<Utc> {
        tick.checked_add_signed(jitter_of(self.name, tick, self.jitter)).unwrap_or(tick)
    }

    fn is_on_time(&self, tick: DateTime<Utc>) -> bool {
        self.now - self.acted_on_at(tick) <= ON_TIME
    }

    fn is_within(&self, tick: DateTime<Utc>) -> bool {
        let within = self.catch_up.within.map(|within| TimeDelta::from_std(within).unwrap_or(TimeDelta::MAX));
        self.is_on_time(tick) || within.is_none_or(|within| self.now - tick <= within)
    }

    /// The latest ticks that have passed, at most so many, looked for in a stretch before now that is doubled until it has them.
    fn latest(&self, most: usize, next: &mut Option<DateTime<Utc>>) -> VecDeque<DateTime<Utc>> {
        let mut stretch = TimeDelta::minutes(1);
        loop {
            let from = (self.now - stretch).max(self.passed_until);
            let mut latest = VecDeque::new();
            for tick in self.rule.ticks_after(from) {
                if self.acted_on_at(tick) > self.now {
                    *next = Some(tick);
                    break;
                }
                latest.push_back(tick);
                if latest.len() > most {
                    latest.pop_front();
                }
            }
            if latest.len() == most || from == self.passed_until {
                return latest;
            }
            stretch = stretch * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-{text}Z").parse().unwrap()
    }

    fn round(rule: &Rule, catch_up: CatchUp, passed_until: &str, now: &str) -> Round {
        let (passed_until, now) = (at(passed_until), at(now));
        Seen { name: "n", rule, jitter: Duration::ZERO, catch_up, passed_until, now }.round()
    }

    fn nightly() -> Rule {
        Rule::cron("0 0 3 * * *", "UTC").unwrap()
    }

    #[test]
    fn a_tick_is_offered_once_it_has_come_and_not_before() {
        let before = round(&nightly(), CatchUp::last(), "20T03:00:00", "21T02:59:59.999");
        let next = Some((at("21T03:00:00"), at("21T03:00:00")));
        assert_eq!(before, Round { offered: vec![], missed: 0, passed_until: at("20T03:00:00"), next });
        for policy in [CatchUp::skip(), CatchUp::last(), CatchUp::all(5)] {
            let on_time = round(&nightly(), policy, "20T03:00:00", "21T03:00:00");
            let next = Some((at("22T03:00:00"), at("22T03:00:00")));
            let passed_until = at("21T03:00:00");
            assert_eq!(on_time, Round { offered: vec![passed_until], missed: 0, passed_until, next });
        }
        // A clock that was moved back.
        let back = round(&nightly(), CatchUp::all(5), "21T03:00:00", "19T12:00:00");
        assert_eq!((back.offered, back.missed, back.passed_until), (vec![], 0, at("21T03:00:00")));
        assert_eq!(back.next, Some((at("22T03:00:00"), at("22T03:00:00"))));
    }

    #[test]
    fn what_was_missed_in_a_week_goes_by_the_policy() {
        let ticks =
            |days: std::ops::RangeInclusive<u32>| days.map(|d| at(&format!("{d}T03:00:00"))).collect::<Vec<_>>();
        let days = |n: u64| Duration::from_secs(n * 86_400);
        // Back an hour after the latest of seven.
        for (policy, offered) in [
            (CatchUp::skip(), vec![]),
            (CatchUp::last(), ticks(27..=27)),
            (CatchUp::last().within(Duration::from_secs(600)), vec![]),
            (CatchUp::all(100), ticks(21..=27)),
            (CatchUp::all(3), ticks(25..=27)),
            (CatchUp::all(100).within(days(2)), ticks(26..=27)),
        ] {
            let round = round(&nightly(), policy, "20T03:00:00", "27T04:00:00");
            assert_eq!(round.missed, 7 - i64::try_from(offered.len()).unwrap());
            assert_eq!((round.offered, round.passed_until), (offered, at("27T03:00:00")), "{policy:?}");
        }
        // Back half a minute after the latest of seven: that one is on time.
        for (policy, offered) in
            [(CatchUp::skip(), 1), (CatchUp::last(), 1), (CatchUp::all(100), 7), (CatchUp::skip().within(days(0)), 1)]
        {
            let round = round(&nightly(), policy, "20T03:00:00", "27T03:00:30");
            assert_eq!(round.offered, ticks((28 - offered)..=27), "{policy:?}");
        }
    }

    #[test]
    fn a_week_of_seconds_costs_a_moment() {
        let rule = Rule::every(Duration::from_secs(1), Duration::ZERO).unwrap();
        let round = round(&rule, CatchUp::all(3), "20T00:00:00", "27T00:00:00.5");
        assert_eq!(round.offered, ["26T23:59:58", "26T23:59:59", "27T00:00:00"].map(at));
        assert_eq!((round.missed, round.passed_until), (WALK_MAX - 3, at("27T00:00:00")));
        assert_eq!(round.next, Some((at("27T00:00:01"), at("27T00:00:01"))));
    }

    #[test]
    fn a_jitter_moves_the_act_and_not_the_tick() {
        let rule = nightly();
        let jitter = Duration::from_secs(3_600);
        let late = jitter_of("n", at("21T03:00:00"), jitter);
        assert!(late > TimeDelta::minutes(1), "a tick that shows it");
        let seen = |now| Seen {
            name: "n",
            rule: &rule,
            jitter,
            catch_up: CatchUp::skip(),
            passed_until: at("20T03:00:00"),
            now,
        };
        let acts_at = at("21T03:00:00") + late;
        let before = seen(acts_at - TimeDelta::milliseconds(1)).round();
        assert_eq!((before.offered, before.next), (vec![], Some((at("21T03:00:00"), acts_at))));
        assert_eq!(seen(acts_at).round().offered, [at("21T03:00:00")]);
    }
}
