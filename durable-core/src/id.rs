//! The names of things: workflows, workers, positions; and where a workflow lives.
//!
//! Pure. What an id may look like is decided here and nowhere else.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};

/// Bytes of an id, name, queue, topic or key. A B-tree entry ends at 2,704 bytes, and three of these
/// share one.
const TEXT_MAX: usize = 512;

/// The schema's name where nobody asked for another.
pub(crate) const DEFAULT_SCHEMA: &str = "durable";

/// Buckets that ids are spread over. Part of every key, so it can never change.
const BUCKETS: u8 = 64;

/// A workflow's id with its bucket. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    text: Arc<str>,
    digest: u64,
    bucket: i16,
}

// The text was hashed when the id was made.
impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

impl Id {
    /// Check and adopt the caller's id.
    pub(crate) fn new(text: &str) -> Result<Self, Error> {
        check_text("workflow id", text)?;
        Ok(Self::trusted(text))
    }

    /// A new id, ordered by time.
    pub(crate) fn generate() -> Self {
        Self::trusted(&Uuid::now_v7().to_string())
    }

    /// An id that comes from the database.
    pub(crate) fn trusted(text: &str) -> Self {
        // The same in SQL: get_byte(sha256(convert_to(id, 'UTF8')), 0) % 64
        let digest = Sha256::digest(text.as_bytes());
        let (first, _) = digest.split_first_chunk().expect("a digest of 32 bytes");
        let bucket = i16::from(digest[0] % BUCKETS);
        Self { text: text.into(), digest: u64::from_be_bytes(*first), bucket }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Every bucket that there is.
    pub(crate) fn buckets() -> Vec<i16> {
        (0..i16::from(BUCKETS)).collect()
    }

    pub(crate) fn bucket(&self) -> i16 {
        self.bucket
    }

    /// What stands for it where the text would be too long, the same in every process. Two ids may share it.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// One incarnation of one worker process. Random, so that a worker that was fenced can never be mistaken
/// for its successor, not even after a failover that lost commits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct OwnerId(pub(crate) Uuid);

impl OwnerId {
    pub(crate) fn generate() -> Self {
        Self(Uuid::new_v4())
    }

    /// How its sessions say whose they are. Half of it, because a session's name has 63 bytes for that, for what it is for,
    /// and for the application's own name.
    pub(crate) fn session_name(self) -> String {
        format!("{:016x}", self.0.as_u64_pair().0)
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where in a body something durable stands: a lane, and a number in it.
///
/// The lane of the body itself is `""`; a branch opened at position 3 has the lane `"3"`, the second item
/// of a fan-out at 3 the lane `"3.1"`. Once it has continued as new these are `"g1"`, `"g1.3"`, `"g1.3.1"`, and so on.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Position {
    pub(crate) lane: Arc<str>,
    pub(crate) seq: i32,
}

impl Position {
    /// The lane that a branch at this position opens.
    pub(crate) fn lane_below(&self) -> String {
        if self.lane.is_empty() { self.seq.to_string() } else { format!("{}.{}", self.lane, self.seq) }
    }

    /// Whether this position lies in a lane that `other`, or a position below it, opened.
    pub(crate) fn is_below(&self, other: &Self) -> bool {
        let below = other.lane_below();
        self.lane.strip_prefix(below.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// Whether this position lies in this lane or below it.
    pub(crate) fn is_in(&self, lane: &str) -> bool {
        lane.is_empty() || self.lane.strip_prefix(lane).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// Whether this position lies in the lane of `other`, at its place or further on, or below such a one.
    pub(crate) fn is_not_before(&self, other: &Self) -> bool {
        let below = |rest: &str| rest.split('.').next().and_then(|number| number.parse().ok());
        let number = match self.lane.strip_prefix(&*other.lane) {
            Some("") => Some(self.seq),
            Some(rest) if other.lane.is_empty() => below(rest),
            Some(rest) => rest.strip_prefix('.').and_then(below),
            None => None,
        };
        number.is_some_and(|number| number >= other.seq)
    }

    /// Up to where the rest of its lane lies in the order of the table's key, with the lanes below; `None` is the end of all.
    pub(crate) fn end_of_lane(&self) -> Option<Self> {
        let end = format!("{}/", self.lane);
        (!self.lane.is_empty()).then(|| Self { lane: end.into(), seq: i32::MIN })
    }

    /// What the order of a body goes by: the numbers from the body's own lane down to this position.
    pub(crate) fn path(&self) -> Vec<i32> {
        let lanes = self.lane.split('.').filter_map(|number| number.parse().ok());
        lanes.chain([self.seq]).collect()
    }

    /// Before every other, in the order of the table's key.
    pub(crate) fn first() -> Self {
        Self { lane: "".into(), seq: i32::MIN }
    }

    /// The one right after it in that order.
    pub(crate) fn next(&self) -> Self {
        Self { lane: self.lane.clone(), seq: self.seq.saturating_add(1) }
    }

    /// From where and up to where the lanes lie, in that order, that this position or one below it opened.
    pub(crate) fn range_below(&self) -> (Self, Self) {
        let below = self.lane_below();
        // "3.1" is below "3", "30" is not: the slash is what follows the point.
        let end = format!("{below}/");
        (Self { lane: below.into(), seq: i32::MIN }, Self { lane: end.into(), seq: i32::MIN })
    }
}

/// The body's own lane in a generation of its workflow. Positions of different generations so have nothing in common: neither
/// their records, nor the keys of steps and the ids of children that are made of them, nor what is drawn there.
pub(crate) fn body_lane(generation: i32) -> Arc<str> {
    if generation == 0 { "".into() } else { format!("g{generation}").into() }
}

// Without a slash, so that in a step's key the last slash ends the workflow's id, which may hold slashes itself.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lane.is_empty() { write!(f, "{}", self.seq) } else { write!(f, "{}.{}", self.lane, self.seq) }
    }
}

/// Refuse text that a key cannot hold or a person cannot read.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), Error> {
    let usage = |problem: String| Err(Error::new(ErrorKind::Usage, problem));
    if text.is_empty() {
        return usage(format!("the {what} is empty: give it at least one character"));
    }
    if text.len() > TEXT_MAX {
        return usage(format!(
            "the {what} has {} bytes, at most {TEXT_MAX} are allowed: use a shorter one, or a hash of it",
            text.len()
        ));
    }
    if let Some(found) = text.chars().find(|c| c.is_control()) {
        return usage(format!("the {what} holds the control character {found:?}: leave it out"));
    }
    Ok(())
}

/// Refuse a schema name that would have to be quoted, or that PostgreSQL would cut at 63 bytes.
pub(crate) fn check_schema(schema: &str) -> Result<(), Error> {
    let mut bytes = schema.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && schema.len() <= 63
        && !schema.starts_with("pg_");
    if good {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Usage,
        format!("{schema:?} cannot name the schema: use 1 to 63 of a-z, 0-9 and _, not beginning with a digit or pg_"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_refused_with_its_fix() {
        for (text, part) in
            [("", "empty"), (&*"x".repeat(513), "513 bytes"), ("a\0b", "control character"), ("a\nb", "control")]
        {
            let error = Id::new(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(Id::new(&"x".repeat(512)).is_ok());
        assert!(Id::new("Bestellung-ß-🦀").is_ok());
    }

    #[test]
    fn a_bucket_never_changes() {
        // From PostgreSQL: select get_byte(sha256(convert_to('order-42', 'UTF8')), 0) % 64
        for (id, bucket) in [("order-42", 59), ("", 35), ("Bestellung-ß-🦀", 20)] {
            assert_eq!(Id::trusted(id).bucket(), bucket, "{id}");
        }
    }

    #[test]
    fn a_schema_name_is_plain() {
        for good in ["durable", "_x", "agents_2"] {
            assert!(check_schema(good).is_ok(), "{good}");
        }
        for bad in ["", "Durable", "2x", "a-b", "a.b", "a\"b", "pg_x", "ä", &"x".repeat(64)] {
            assert!(check_schema(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lane_is_named_after_the_position_that_opened_it() {
        let at = |lane: &str, seq| Position { lane: lane.into(), seq };
        assert_eq!(at("", 3).lane_below(), "3");
        assert_eq!(at("3", 1).lane_below(), "3.1");
        assert_eq!(at("3", 1).to_string(), "3.1");
        assert_eq!(at(&body_lane(0), 3).to_string(), "3");
        let third = at(&body_lane(2), 3);
        assert_eq!((third.to_string(), third.lane_below(), third.path()), ("g2.3".into(), "g2.3".into(), vec![3]));
        assert!(third.is_in("g2") && at("g2.3", 1).is_in("g2") && at("g2", 0).is_in(""));
        for (there, from, expected) in [
            (at("", 3), at("", 3), true),
            (at("", 2), at("", 3), false),
            (at("12.1", 0), at("", 3), true),
            (at("2.9", 7), at("", 3), false),
            (at("3.1", 0), at("3.1", 1), false),
            (at("3.1.10", 0), at("3.1", 2), true),
            (at("3.10", 5), at("3.1", 2), false),
            (at("g1.4", 0), at("g1", 3), true),
            (at("", 9), at("g1", 3), false),
        ] {
            assert_eq!(there.is_not_before(&from), expected, "{there} from {from}");
        }
        assert!(!at("g20", 0).is_in("g2") && !at("", 0).is_in("g2") && !at("3", 0).is_in("g2"));
    }
}
