//! The ways of values to streams: one line for each stream that an attempt of a workflow writes to.
//!
//! What stands in a line goes out in the order in which it came, as much of it at a time as there is; the writes of many
//! lines are one statement. A line knows the next offset, as nobody else writes there; where somebody has, the database
//! tells, and it goes on from there. So a stream has no gap, and no offset twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::Error;
use crate::group::{Group, Item, Writer};
use crate::id::{Id, Position};
use crate::store::stream::{Append, Appended};

/// Writes what comes out of lines. One for a worker's incarnation.
pub(crate) struct Appender {
    appends: Group<Append>,
    /// Where the lines live, whoever opens them from wherever.
    runtime: tokio::runtime::Handle,
}

impl Item for Append {
    type Answer = Option<Appended>;

    fn rows(&self) -> usize {
        1 + self.many
    }

    fn bytes(&self) -> usize {
        160 + self.id.as_str().len() + self.key.len() + self.values.len() + self.marks.len()
    }
}

impl Appender {
    /// Start one, on this runtime.
    pub(crate) fn new(writer: impl Writer<Append>) -> Arc<Self> {
        Arc::new(Self { appends: Group::new(writer), runtime: tokio::runtime::Handle::current() })
    }
}

/// A value on its way.
pub(crate) struct Entry {
    pub(crate) value: String,
    pub(crate) source: Source,
}

/// Where a value comes from.
pub(crate) enum Source {
    Body(Position),
    /// A step, with the number of its attempt.
    Step(Position, u32),
}

/// What became of a value.
pub(crate) enum Placed {
    /// At this offset, since then.
    At(u64, DateTime<Utc>),
    /// Nowhere: something else is recorded at the position of a body's value that it went out with.
    Refused,
}

impl Item for Entry {
    type Answer = Placed;

    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        64 + self.value.len()
    }
}

/// The lines of one attempt of a workflow, opened when they are needed.
pub(crate) struct Lines {
    appender: Arc<Appender>,
    id: Id,
    claims: i32,
    open: Mutex<HashMap<&'static str, Arc<Group<Entry>>>>,
}

impl Lines {
    pub(crate) fn new(appender: Arc<Appender>, id: Id, claims: i32) -> Arc<Self> {
        Arc::new(Self { appender, id, claims, open: Mutex::default() })
    }

    /// The line to a stream. It ends with the attempt.
    pub(crate) fn to(&self, key: &'static str) -> Arc<Group<Entry>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let line = open.entry(key).or_insert_with(|| {
            let line = Line {
                appender: self.appender.clone(),
                id: self.id.clone(),
                claims: self.claims,
                key,
                next: Mutex::default(),
            };
            let _here = self.appender.runtime.enter();
            Arc::new(Group::new(line))
        });
        line.clone()
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.appender.runtime
    }
}

struct Line {
    appender: Arc<Appender>,
    id: Id,
    claims: i32,
    key: &'static str,
    /// The next offset, as far as is known: that of a new stream at first.
    next: Mutex<i64>,
}

/// Where a value comes from, as `append.sql` reads it.
#[derive(Serialize)]
struct Mark<'e> {
    lane: &'e str,
    seq: i32,
    attempt: Option<u32>,
}

fn mark(entry: &Entry) -> Mark<'_> {
    let (position, attempt) = match &entry.source {
        Source::Body(position) => (position, None),
        Source::Step(position, attempt) => (position, Some(*attempt)),
    };
    Mark { lane: &position.lane, seq: position.seq, attempt }
}

fn array<'v>(values: impl Iterator<Item = &'v str>) -> String {
    let mut array = String::from("[");
    for value in values {
        if array.len() > 1 {
            array.push(',');
        }
        array.push_str(value);
    }
    array.push(']');
    array
}

impl Line {
    fn next(&self) -> i64 {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_next(&self, next: i64) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    fn append(&self, entries: &[Entry], tag: i64) -> Append {
        let marks: Vec<Mark<'_>> = entries.iter().map(mark).collect();
        Append {
            id: self.id.clone(),
            claims: self.claims,
            key: self.key,
            first: self.next(),
            tag,
            many: entries.len(),
            values: array(entries.iter().map(|entry| &*entry.value)),
            marks: serde_json::to_string(&marks).expect("marks are plain text and numbers and always encode"),
        }
    }
}

impl Writer<Entry> for Line {
    async fn write(&self, entries: &[Entry]) -> Result<Option<Vec<Placed>>, Error> {
        // One for all tries: by it a try shows as done whose reply was lost.
        let tag = fastrand::i64(..);
        loop {
            let append = self.append(entries, tag);
            match self.appender.appends.write(append).await? {
                None | Some((_, None)) => return Ok(None),
                Some((_, Some(Appended::Taken))) => {
                    return Ok(Some(entries.iter().map(|_| Placed::Refused).collect()));
                }
                Some((append, Some(Appended::Done(at)))) => {
                    let offsets = append.first..;
                    self.set_next(append.first + i64::try_from(entries.len()).unwrap_or_default());
                    let placed = offsets.map(|offset| Placed::At(offset.unsigned_abs(), at));
                    return Ok(Some(placed.take(entries.len()).collect()));
                }
                // An earlier claim has written there; or a try without a reply, which the next look shows as done.
                Some((_, Some(Appended::Moved(next)))) => self.set_next(next),
            }
        }
    }
}
