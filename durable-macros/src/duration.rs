//! Durations as a person writes them in an attribute: `"30s"`, `"1m30s"`, `"500ms"`, `"7d"`.
//!
//! Checked when the user's crate is compiled. Where such a text may stand is `options`' business.

/// The longest duration an attribute takes, in days: a hundred years. It keeps every sum of a
/// duration and a time far inside what PostgreSQL and chrono can hold.
const DAYS_MAX: u64 = 366 * 100;

/// Longest unit first, which is also the order in which a text must name them.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The milliseconds that `text` says, or what is wrong with it and how to write it instead.
pub(crate) fn millis(text: &str) -> Result<u64, String> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut units_left = &UNITS[..];
    if rest.is_empty() {
        return Err(malformed(text));
    }
    while !rest.is_empty() {
        let (digits, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after, |c| !c.is_ascii_alphabetic());
        if digits.is_empty() {
            return Err(malformed(text));
        }
        if unit.is_empty() {
            return Err(if after.is_empty() { unitless(digits) } else { malformed(text) });
        }
        let place = units_left.iter().position(|(name, _)| *name == unit).ok_or_else(|| unexpected_unit(unit))?;
        let amount = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(units_left[place].1));
        total = amount.and_then(|ms| total.checked_add(ms)).ok_or_else(too_long)?;
        units_left = &units_left[place + 1..];
        rest = after;
    }
    match total {
        0 => Err("a duration here must be longer than zero, such as \"30s\"".to_owned()),
        ms if ms > DAYS_MAX * UNITS[0].1 => Err(too_long()),
        ms => Ok(ms),
    }
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn malformed(text: &str) -> String {
    format!("`{text}` is not a duration: write whole numbers with units, such as \"30s\", \"1m30s\" or \"500ms\"")
}

fn unitless(digits: &str) -> String {
    format!("a duration needs a unit: write \"{digits}s\" for seconds or \"{digits}ms\" for milliseconds")
}

fn unexpected_unit(unit: &str) -> String {
    if UNITS.iter().any(|(name, _)| *name == unit) {
        format!(
            "unit `{unit}` is out of order or given twice: write the longest unit first, each once, such as \"1m30s\""
        )
    } else {
        format!("unknown unit `{unit}`: the units are d, h, m, s and ms, such as \"1m30s\"")
    }
}

fn too_long() -> String {
    format!("a duration here is at most {DAYS_MAX} days (a hundred years): shorten it")
}

#[cfg(test)]
mod tests {
    use super::millis;

    #[test]
    fn a_duration_is_the_sum_of_its_units() {
        for (text, expected) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1d1h1m1s1ms", 90_061_001),
            ("90m", 5_400_000),
            ("0h5s", 5_000),
            ("36600d", 36_600 * 86_400_000),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_wrong_duration_is_told_how_to_be_right() {
        for (text, hint) in [
            ("", "not a duration"),
            ("s", "not a duration"),
            ("30 s", "not a duration"),
            (" 30s", "not a duration"),
            ("1.5s", "not a duration"),
            ("-1s", "not a duration"),
            ("soon", "not a duration"),
            ("30", "write \"30s\""),
            ("1m30", "write \"30s\""),
            ("30sec", "unknown unit `sec`"),
            ("30S", "unknown unit `S`"),
            ("30s1m", "out of order"),
            ("1s1s", "given twice"),
            ("0s", "longer than zero"),
            ("36600d1ms", "36600 days"),
            ("99999999999999999999s", "36600 days"),
            ("18446744073709551615d", "36600 days"),
        ] {
            let message = millis(text).expect_err(text);
            assert!(message.contains(hint), "{text}: {message}");
        }
    }
}
