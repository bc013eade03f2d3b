//! Cron expressions in time zones. What an expression says of a clock on the wall is the crate `croner`'s; what that means where
//! the clock jumps is decided here, and nowhere else.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use croner::parser::{CronParser, Seconds, Year};
use strsim::levenshtein;

/// Bytes of an expression.
const EXPRESSION_MAX: usize = 256;

/// Names that a message suggests.
const SUGGESTIONS: usize = 3;

/// How far two names may be apart for one to be suggested for the other.
const NEAR: usize = 3;

/// The fields in order, with what they take.
const FIELDS: [(&str, &str); 6] = [
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, L, or 15W for the working day that is nearest"),
    ("month", "1 to 12, or JAN to DEC"),
    ("day of the week", "0 to 7 or SUN to SAT, MON#2 for the second, FRI#L for the last one"),
];

/// An expression in a time zone.
#[derive(Clone, Debug)]
pub(crate) struct Cron {
    pub(crate) expression: String,
    pub(crate) zone: Tz,
    cron: croner::Cron,
    /// It ticks in every hour, so it is about time that passes and not about times of day.
    every_hour: bool,
}

impl Cron {
    pub(super) fn parse(expression: &str, time_zone: &str) -> Result<Self, String> {
        let zone = time_zone.parse::<Tz>().map_err(|_| unknown_zone(time_zone))?;
        if expression.len() > EXPRESSION_MAX {
            return Err(format!("its expression has {} bytes, at most {EXPRESSION_MAX} are allowed", expression.len()));
        }
        let cron = parsed(expression).map_err(|problem| explained(expression, &problem))?;
        let every_hour = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
        Ok(Self { expression: expression.to_owned(), zone, cron, every_hour })
    }

    /// The first tick after a time.
    pub(super) fn after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.every_hour { self.in_passing_time(at) } else { self.by_the_wall(at) }
    }

    /// A time of day that the clock jumps over is taken for the moment at which it jumps; one that it shows twice, for the first.
    fn by_the_wall(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut wall = self.wall(at);
        loop {
            wall = self.next_on_the_wall(wall, false)?;
            let tick = match self.zone.from_local_datetime(&wall) {
                MappedLocalTime::Single(tick) => tick.to_utc(),
                MappedLocalTime::Ambiguous(a, b) => a.min(b).to_utc(),
                MappedLocalTime::None => self.end_of_gap(wall)?,
            };
            // The second time that the clock shows it, or another one that the same jump has gone over.
            if tick > at {
                return Some(tick);
            }
        }
    }

    /// What ticks in every hour does so whatever the clock shows: it ticks where the time on the wall fits, which is twice where
    /// that comes twice, and not at all where it is jumped over.
    fn in_passing_time(&self, mut at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut inclusive = false;
        loop {
            let ahead = self.ahead(at);
            let wall = self.next_on_the_wall(self.wall(at), inclusive)?;
            let tick = (wall - ahead).and_utc();
            match self.first_jump(at, tick) {
                None => return Some(tick),
                Some(jump) => (at, inclusive) = (jump, true),
            }
        }
    }

    /// The next time on the wall that fits the expression, as if the clock never jumped.
    fn next_on_the_wall(&self, wall: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
        let next = self.cron.find_next_occurrence(&wall.and_utc(), inclusive).ok()?;
        Some(next.naive_utc())
    }

    fn wall(&self, at: DateTime<Utc>) -> NaiveDateTime {
        at.with_timezone(&self.zone).naive_local()
    }

    fn ahead(&self, at: DateTime<Utc>) -> TimeDelta {
        TimeDelta::seconds(self.zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc().into())
    }

    /// When the clock jumps for the first time after `from`, and not after `to`.
    fn first_jump(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let ahead = self.ahead(from);
        let mut before = from;
        // No zone changes twice in a day.
        let after = loop {
            let after = (before + TimeDelta::days(1)).min(to);
            if self.ahead(after) != ahead {
                break after;
            }
            if after == to {
                return None;
            }
            before = after;
        };
        let (mut before, mut after) = (before.timestamp(), after.timestamp());
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            let same = self.ahead(DateTime::from_timestamp(middle, 0)?) == ahead;
            if same { before = middle } else { after = middle }
        }
        DateTime::from_timestamp(after, 0)
    }

    /// When the jump is over that goes over this time on the wall.
    fn end_of_gap(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        // No clock is ahead of or behind UTC by more, and no jump is longer.
        let near = TimeDelta::hours(40);
        let (mut from, to) = ((wall - near).and_utc(), (wall + near).and_utc());
        loop {
            let jump = self.first_jump(from, to)?;
            if self.wall(jump) > wall && self.wall(jump - TimeDelta::seconds(1)) < wall {
                return Some(jump);
            }
            from = jump;
        }
    }
}

impl std::fmt::Display for Cron {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} in {}", self.expression, self.zone)
    }
}

fn parsed(expression: &str) -> Result<croner::Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(expression).map_err(|problem| problem.to_string())
}

/// Which field of an expression is wrong: found by trying each with nothing but stars beside it.
fn explained(expression: &str, problem: &str) -> String {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let names = match fields.len() {
        6 => &FIELDS[..],
        5 => &FIELDS[1..],
        count => {
            let plural = if count == 1 { "" } else { "s" };
            return format!(
                "the cron expression {expression:?} has {count} field{plural}, it takes 6 (second, minute, hour, day of the \
                 month, month, day of the week), or 5 without the second"
            );
        }
    };
    for (n, (field, (name, takes))) in fields.iter().zip(names).enumerate() {
        let alone: Vec<&str> = (0..fields.len()).map(|other| if other == n { *field } else { "*" }).collect();
        if parsed(&alone.join(" ")).is_err() {
            let number = n + 1;
            return format!(
                "the cron expression {expression:?} is wrong in field {number}, the {name} {field:?}: it takes {takes}, and \
                 `*`, `1,2`, `1-5`, `*/2` (the parser says: {problem})"
            );
        }
    }
    format!("the cron expression {expression:?} is wrong: {problem}")
}

/// What to say of a zone that nobody knows, with those that are near.
fn unknown_zone(given: &str) -> String {
    // No name is longer, and a long one would take long to compare.
    let lower: String = given.to_lowercase().chars().take(64).collect();
    let city = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let near_to = |name: &str| {
        // A city alone is short, and many are near to each other.
        let city = Some(levenshtein(&city(name), &city(&lower))).filter(|apart| *apart <= 1);
        let whole = Some(levenshtein(name, &lower)).filter(|apart| *apart <= NEAR.min(lower.len() / 2));
        city.into_iter().chain(whole).min()
    };
    let names = TZ_VARIANTS.iter().map(|zone| zone.name());
    let mut near: Vec<(usize, &str)> = names.filter_map(|name| Some((near_to(&name.to_lowercase())?, name))).collect();
    near.sort_unstable();
    let nearest = near.first().map_or(0, |(distance, _)| *distance);
    let names = near.iter().take_while(|(distance, _)| *distance == nearest).take(SUGGESTIONS);
    let names: Vec<&str> = names.map(|(_, name)| *name).collect();
    let hint = match names[..] {
        [] => "give a name of the IANA database, such as \"Europe/Berlin\" or \"UTC\"".to_owned(),
        _ => format!("is it {}?", names.join(", ")),
    };
    format!("there is no time zone {given:?}: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ticks after a time in UTC, as the wall shows them there.
    fn ticks(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(expression, zone).unwrap();
        let first = cron.after(after.parse().unwrap());
        let ticks = std::iter::successors(first, |tick| cron.after(*tick));
        ticks.take(count).map(|tick| tick.with_timezone(&cron.zone).format("%d %H:%M:%S %:z").to_string()).collect()
    }

    #[test]
    fn a_time_of_day_in_a_gap_is_the_first_moment_after_it() {
        // Berlin goes from 2:00 to 3:00 on the 29th of March 2026.
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            ["28 02:30:00 +01:00", "29 03:00:00 +02:00", "30 02:30:00 +02:00"]
        );
        // All that the gap goes over is that moment, once; also if it is a tick itself.
        assert_eq!(
            ticks("0 0,20,40 1-3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 6),
            [
                "29 01:20:00 +01:00",
                "29 01:40:00 +01:00",
                "29 03:00:00 +02:00",
                "29 03:20:00 +02:00",
                "29 03:40:00 +02:00",
                "30 01:00:00 +02:00"
            ]
        );
        assert_eq!(
            ticks("0 15 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2),
            ["08 03:00:00 -04:00", "09 02:15:00 -04:00"]
        );
        // Half an hour, from 2:00 to 2:30 on the 4th of October.
        assert_eq!(
            ticks("0 10 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2),
            ["04 02:30:00 +11:00", "05 02:10:00 +11:00"]
        );
    }

    #[test]
    fn a_day_that_begins_late_or_not_at_all_has_its_midnight_tick() {
        // From 0:00 to 1:00 on the 4th of November 2018.
        assert_eq!(
            ticks("0 0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", 2),
            ["04 01:00:00 -02:00", "05 00:00:00 -02:00"]
        );
        assert_eq!(
            ticks("0 0 0 * * *", "Asia/Beirut", "2024-03-30T12:00:00Z", 2),
            ["31 01:00:00 +03:00", "01 00:00:00 +03:00"]
        );
        // Samoa had no 30th of December 2011.
        assert_eq!(
            ticks("0 0 3 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3),
            ["29 03:00:00 -10:00", "31 00:00:00 +14:00", "31 03:00:00 +14:00"]
        );
    }

    #[test]
    fn a_time_of_day_that_comes_twice_ticks_the_first_time() {
        // Berlin goes from 3:00 back to 2:00 on the 25th of October 2026.
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["25 02:30:00 +02:00", "26 02:30:00 +01:00"]
        );
        assert_eq!(
            ticks("0 */30 1-3 * * *", "America/New_York", "2026-11-01T04:30:00Z", 6),
            [
                "01 01:00:00 -04:00",
                "01 01:30:00 -04:00",
                "01 02:00:00 -05:00",
                "01 02:30:00 -05:00",
                "01 03:00:00 -05:00",
                "01 03:30:00 -05:00"
            ]
        );
        // From anywhere in the second hour, it is the next day's.
        for after in ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:29:59Z", "2026-10-25T01:30:00Z"] {
            let next = ticks("0 30 2 * * *", "Europe/Berlin", after, 1);
            assert_eq!(next, ["26 02:30:00 +01:00"], "{after}");
        }
        // Half an hour, from 2:00 back to 1:30 on the 5th of April.
        assert_eq!(
            ticks("0 45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", 2),
            ["05 01:45:00 +11:00", "06 01:45:00 +10:30"]
        );
        // Midnight twice.
        assert_eq!(
            ticks("0 30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00:00Z", 2),
            ["17 23:30:00 -02:00", "18 23:30:00 -03:00"]
        );
    }

    #[test]
    fn what_ticks_every_hour_follows_the_time_that_passes() {
        assert_eq!(
            ticks("0 30 * * * *", "Europe/Berlin", "2026-10-24T23:00:00Z", 4),
            ["25 01:30:00 +02:00", "25 02:30:00 +02:00", "25 02:30:00 +01:00", "25 03:30:00 +01:00"]
        );
        assert_eq!(
            ticks("0 30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
            ["29 01:30:00 +01:00", "29 03:30:00 +02:00", "29 04:30:00 +02:00"]
        );
        assert_eq!(
            ticks("0 */15 * * * *", "Australia/Lord_Howe", "2026-04-04T14:29:00Z", 5),
            [
                "05 01:30:00 +11:00",
                "05 01:45:00 +11:00",
                "05 01:30:00 +10:30",
                "05 01:45:00 +10:30",
                "05 02:00:00 +10:30"
            ]
        );
        // The last hour of a day that comes twice, where the next tick is a year off.
        assert_eq!(
            ticks("0 30 * 17 2 *", "America/Sao_Paulo", "2018-02-18T00:00:00Z", 4),
            ["17 22:30:00 -02:00", "17 23:30:00 -02:00", "17 23:30:00 -03:00", "17 00:30:00 -03:00"]
        );
        // Each second, over both jumps, without one too many or too few.
        for (from, count) in [("2026-03-29T00:30:00Z", 3_600), ("2026-10-25T00:30:00Z", 3_600)] {
            let cron = Cron::parse("* * * * * *", "Europe/Berlin").unwrap();
            let from: DateTime<Utc> = from.parse().unwrap();
            let mut at = from;
            for _ in 0..count {
                let next = cron.after(at).unwrap();
                assert_eq!(next - at, TimeDelta::seconds(1));
                at = next;
            }
        }
    }

    #[test]
    fn a_zone_without_jumps_and_fields_of_all_kinds() {
        assert_eq!(
            ticks("0 0 9 * * MON-FRI", "Asia/Kolkata", "2026-11-27T00:00:00Z", 2),
            ["27 09:00:00 +05:30", "30 09:00:00 +05:30"]
        );
        assert_eq!(ticks("15 3 L FEB *", "UTC", "2026-01-01T00:00:00Z", 1), ["28 03:15:00 +00:00"]);
        assert_eq!(ticks("0 0 12 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["29 12:00:00 +00:00"]);
        assert_eq!(ticks("@daily", "UTC", "2026-01-01T00:00:00.001Z", 1), ["02 00:00:00 +00:00"]);
    }

    #[test]
    fn no_tick_goes_back_or_is_lost_in_any_zone() {
        // In every zone there is, over the months in which clocks jump: ticks go forward, and one a day is one a day.
        for zone in TZ_VARIANTS {
            let daily = Cron::parse("0 30 2 * * *", zone.name()).unwrap();
            for from in ["2026-02-25T12:00:00Z", "2026-08-28T12:00:00Z"] {
                let from: DateTime<Utc> = from.parse().unwrap();
                let days = std::iter::successors(daily.after(from), |tick| daily.after(*tick)).take(75);
                let days: Vec<_> = days.collect();
                assert!(days.is_sorted_by(|a, b| a < b), "{zone}");
                let dates: Vec<_> = days.iter().map(|tick| tick.with_timezone(&zone).date_naive()).collect();
                assert!(dates.windows(2).all(|two| two[1] - two[0] == TimeDelta::days(1)), "{zone}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_says_where_and_why() {
        for (expression, told) in [
            ("0 61 * * * *", "\"0 61 * * * *\" is wrong in field 2, the minute \"61\": it takes 0 to 59"),
            ("0 0 3 * FEBR *", "field 5, the month \"FEBR\""),
            ("0 0 3 * * FOO", "field 6, the day of the week \"FOO\""),
            ("61 3 * * *", "field 1, the minute \"61\""),
            ("0 0 5-1 * * *", "field 3, the hour \"5-1\""),
            ("*/0 * * * * *", "field 1, the second \"*/0\""),
            ("0 0 é * * *", "field 3, the hour \"é\""),
            ("* * * *", "has 4 fields, it takes 6"),
            ("0 0 3 * * * 2027", "has 7 fields"),
            ("", "has 0 fields"),
            ("@hourlyish", "has 1 field,"),
        ] {
            let problem = Cron::parse(expression, "UTC").unwrap_err();
            assert!(problem.contains(told), "{problem}");
        }
        assert!(Cron::parse(&"*".repeat(300), "UTC").unwrap_err().contains("300 bytes, at most 256"));
        assert_eq!(Cron::parse("0 0 0 30 2 *", "UTC").unwrap().after(Utc::now()), None);
    }

    #[test]
    fn near_zones_are_suggested() {
        for (given, told) in [
            ("Europe/Berln", "is it Europe/Berlin?"),
            ("europe/berlin", "is it Europe/Berlin"),
            ("Berlin", "is it Europe/Berlin"),
            ("America/NewYork", "America/New_York"),
            ("CEST-ish/Nowhere", "give a name of the IANA database"),
            ("", "give a name of the IANA database"),
        ] {
            let problem = Cron::parse("* * * * * *", given).unwrap_err();
            assert!(problem.contains(told), "{problem}");
        }
    }
}
