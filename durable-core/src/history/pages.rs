//! The part of a history that is in memory: a window over what the database has, page by page. Pure.
//!
//! Positions are read in key order, lane as text before number, which is the order of the table's key. Bodies
//! ask in an order of their own: each lane from its beginning, lane "10" after lane "9". So a page is read from
//! wherever somebody asks and brings along what stands next to it. What was read stays known: a record is handed
//! out once and is gone then; one that was read too early gives up its place to others and leaves its position
//! behind, until it is asked for and read again.

mod generation;
mod peek;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::losers::Losers;
use super::{Kind, Mismatch, Record};
use crate::id::{Id, Position};
pub(crate) use peek::Peeked;

/// Records and bytes in one page, and so in what a workflow gets at its claim. A single record may have more.
pub(crate) const PAGE_RECORDS: usize = 1_000;
pub(crate) const PAGE_BYTES: usize = 1024 * 1024;

/// Records and bytes of a workflow that are kept unasked, beside the latest page: fan-outs of thousands of lanes
/// ask for what is far apart.
const KEPT_RECORDS: usize = 4 * PAGE_RECORDS;
const KEPT_BYTES: usize = 4 * PAGE_BYTES;

/// What a read of the database brought: everything from a position on, up to the last record, or to the end
/// of the history.
pub(crate) struct Page {
    pub(crate) from: Position,
    /// In key order.
    pub(crate) records: Vec<(Position, Record)>,
    /// Whether the database has more behind the last one.
    pub(crate) more: bool,
}

/// What a position was answered with.
pub(crate) enum Answer {
    Recorded(Record),
    Nothing,
    /// The history has to be read from this position on first.
    Unread(Position),
}

/// What is recorded for one workflow, as far as it is in memory.
pub(crate) struct History {
    /// What was read and not asked for yet.
    slots: BTreeMap<Position, Slot>,
    /// The stretches of positions that were read: from the key up to the value, or to the end. They never touch.
    /// Whatever was asked for lies within them, and so does whatever this attempt has recorded itself.
    known: BTreeMap<Position, Option<Position>>,
    /// The pages that may still have records in memory, oldest first: their number, first and last position.
    pages: VecDeque<(u64, Position, Position)>,
    page: u64,
    records: usize,
    bytes: usize,
    losers: Losers,
    /// The body's own lane. What lies neither there nor below was left by an earlier generation, and counts as nothing.
    root: Arc<str>,
}

/// A place that was read and not asked for yet.
struct Slot {
    /// The page that brought the record.
    page: u64,
    /// `None` once it had to make room.
    record: Option<Box<Record>>,
}

impl Default for History {
    /// The history of a workflow that never ran.
    fn default() -> Self {
        Self { known: BTreeMap::from([(Position::first(), None)]), ..Self::unread() }
    }
}

impl History {
    /// A history of which nothing is in memory yet.
    pub(crate) fn unread() -> Self {
        Self {
            slots: BTreeMap::new(),
            known: BTreeMap::new(),
            pages: VecDeque::new(),
            page: 0,
            records: 0,
            bytes: 0,
            losers: Losers::default(),
            root: "".into(),
        }
    }

    /// What is recorded at a position for this thing, if anything.
    pub(crate) fn ask(&mut self, at: &Position, kind: Kind, name: &str) -> Result<Answer, Mismatch> {
        if !self.knows(at) {
            return Ok(Answer::Unread(at.clone()));
        }
        let Some(Slot { page, record }) = self.slots.remove(at) else {
            // A race has its record beside its lanes, and before it is decided only these.
            return if kind == Kind::Race { Ok(Answer::Nothing) } else { self.refuse_lanes_below(at, kind, name) };
        };
        let Some(record) = record else {
            self.slots.insert(at.clone(), Slot { page, record });
            return Ok(Answer::Unread(at.clone()));
        };
        self.unload(&record);
        if kind.fits(record.kind) && record.name == name {
            return Ok(Answer::Recorded(*record));
        }
        Err(Mismatch(format!(
            "at position {at} the history has {} {:?}, the code asks for {} {name:?}{}",
            record.kind.as_str(),
            record.name,
            kind.as_str(),
            record.advice(),
        )))
    }

    /// Check that a branch or fan-out may stand at a position. Answers where to read first, if need be.
    pub(crate) fn ask_branch(&self, at: &Position) -> Result<Option<Position>, Mismatch> {
        match self.slots.get(at) {
            None if self.knows(at) => Ok(None),
            None | Some(Slot { record: None, .. }) => Ok(Some(at.clone())),
            Some(Slot { record: Some(record), .. }) => Err(Mismatch(format!(
                "at position {at} the history has {} {:?}, the code opens a branch{}",
                record.kind.as_str(),
                record.name,
                record.advice()
            ))),
        }
    }

    /// A race was decided: what its losers have recorded counts as nothing from now on.
    pub(crate) fn forget_losers(&mut self, race: &Position, winner: usize) {
        self.losers.note(race, winner);
        let (from, to) = race.range_below();
        let below = self.slots.range((Included(&from), Excluded(&to)));
        let lost: Vec<_> = below.map(|(at, _)| at).filter(|at| self.losers.have(at)).cloned().collect();
        for at in lost {
            if let Some(Slot { record: Some(record), .. }) = self.slots.remove(&at) {
                self.unload(&record);
                self.losers.lose(&record);
            }
        }
        if self.first_gap(from, Some(&to)).is_none() {
            // Nothing of it is going to be read any more.
            self.losers.forget(race);
        }
    }

    /// The children that losers have started, of what was read since this was last asked.
    pub(crate) fn take_lost_children(&mut self) -> Vec<Id> {
        self.losers.take_children()
    }

    /// What the body never asked for, of all that was read, once it has returned: the code has lost a step.
    pub(crate) fn left_over(&self) -> Result<(), Mismatch> {
        match self.slots.iter().find_map(|(at, slot)| Some((at, slot.record.as_ref()?))) {
            None => Ok(()),
            Some((at, record)) => Err(Mismatch(format!(
                "at position {at} the history has {} {:?}, the code ended without asking for it{}",
                record.kind.as_str(),
                record.name,
                record.advice()
            ))),
        }
    }

    /// Where to read before `left_over` is the whole truth.
    pub(crate) fn rest(&self) -> Option<Position> {
        if self.left_over().is_err() {
            return None;
        }
        self.slots.keys().next().cloned().or_else(|| self.first_gap(Position::first(), None))
    }

    /// A position without a record may not have lanes below it either: there the history has a branch. None of
    /// them was asked for, because nothing has opened them.
    fn refuse_lanes_below(&self, at: &Position, kind: Kind, name: &str) -> Result<Answer, Mismatch> {
        if self.is_exhausted() {
            return Ok(Answer::Nothing);
        }
        let (from, to) = at.range_below();
        if self.slots.range((Included(&from), Excluded(&to))).next().is_some() {
            return Err(Mismatch(format!(
                "at position {at} the history has a branch, the code asks for {} {name:?}",
                kind.as_str()
            )));
        }
        Ok(self.first_gap(from, Some(&to)).map_or(Answer::Nothing, Answer::Unread))
    }

    /// Take in what was read. Answers where to read next, so that a gap is not left half open: every look brings
    /// a full page of what was unknown or closes a gap, and so the number of reads is bounded by the records.
    pub(crate) fn read(&mut self, page: Page) -> Option<Position> {
        let to = match (page.more, page.records.last()) {
            (false, _) => None,
            (true, Some((last, _))) => Some(last.next()),
            (true, None) => return None,
        };
        self.page += 1;
        if let (Some((first, _)), Some((last, _))) = (page.records.first(), page.records.last()) {
            self.pages.push_back((self.page, first.clone(), last.clone()));
        }
        let half_open = self.gap_around(&page.from).filter(|(start, end)| *start < page.from && reaches(&to, end));
        let gaps = self.gaps(page.from.clone(), to.as_ref());
        // Whoever asked for this very position is answered now, whatever has become of its record.
        let asked = self.slots.remove(&page.from).is_some();
        let (came, before_it) = (page.records.len(), self.records);
        for (at, record) in page.records {
            let gap = gaps.partition_point(|(start, _)| *start <= at).checked_sub(1);
            let unknown = gap.is_some_and(|gap| before(&at, gaps[gap].1.as_ref())) || (asked && at == page.from);
            if !at.is_in(&self.root) {
                continue;
            }
            if self.losers.have(&at) {
                self.losers.lose(&record);
                continue;
            }
            // What is known and has no slot was handed out, or written by this attempt.
            if unknown || self.slots.get(&at).is_some_and(|slot| slot.record.is_none()) {
                self.load(at, record);
            }
        }
        self.learn(page.from.clone(), to);
        if self.is_full() {
            self.make_room();
            return None;
        }
        let few = (self.records - before_it) * 2 < came;
        half_open
            .map(|(start, _)| start)
            .or_else(|| if few { self.given_up_before(&page.from, came / 2) } else { None })
    }

    /// The first of up to so many places before this one that had to make room: where to read when most of a page
    /// was known, because the body asks backwards.
    fn given_up_before(&self, at: &Position, most: usize) -> Option<Position> {
        let back = self.slots.range((Unbounded, Excluded(at))).rev().take(most);
        back.take_while(|(_, slot)| slot.record.is_none()).last().map(|(at, _)| at.clone())
    }

    fn load(&mut self, at: Position, record: Record) {
        self.records += 1;
        self.bytes += record.bytes();
        self.slots.insert(at, Slot { page: self.page, record: Some(Box::new(record)) });
    }

    fn unload(&mut self, record: &Record) {
        self.records -= 1;
        self.bytes -= record.bytes();
    }

    fn is_full(&self) -> bool {
        self.records > KEPT_RECORDS || self.bytes > KEPT_BYTES
    }

    /// Let go of the records of the oldest pages. Not of the latest: somebody is about to ask for it.
    fn make_room(&mut self) {
        while self.is_full()
            && let Some((number, first, last)) = self.pages.pop_front_if(|(number, ..)| *number < self.page)
        {
            for (_, slot) in self.slots.range_mut((Included(first), Included(last))) {
                if slot.page == number
                    && let Some(record) = slot.record.take()
                {
                    self.records -= 1;
                    self.bytes -= record.bytes();
                }
            }
        }
    }

    fn knows(&self, at: &Position) -> bool {
        let stretch = self.known.range((Unbounded, Included(at))).next_back();
        stretch.is_some_and(|(_, end)| before(at, end.as_ref()))
    }

    /// Whether everything was read, and asked for.
    fn is_exhausted(&self) -> bool {
        let whole = |(from, to): (&Position, &Option<Position>)| *from == Position::first() && to.is_none();
        self.slots.is_empty() && self.known.first_key_value().is_some_and(whole)
    }

    /// Note that a stretch was read.
    fn learn(&mut self, mut from: Position, mut to: Option<Position>) {
        let reached = self.known.range((Unbounded, Included(&from))).next_back();
        if let Some((start, end)) = reached.filter(|(_, end)| end.as_ref().is_none_or(|end| *end >= from)) {
            (from, to) = (start.clone(), further(to, end.clone()));
        }
        while let Some((start, _)) = self.known.range((Included(&from), Unbounded)).next()
            && to.as_ref().is_none_or(|to| start <= to)
        {
            let start = start.clone();
            let end = self.known.remove(&start).flatten();
            to = further(to, end);
        }
        self.known.insert(from, to);
    }

    /// What was not read of a stretch.
    fn gaps(&self, from: Position, to: Option<&Position>) -> Vec<(Position, Option<Position>)> {
        let mut gaps = Vec::new();
        let mut at = from;
        let first = self.known.range((Unbounded, Included(&at))).next_back().map_or(&at, |(start, _)| start);
        for (start, end) in self.known.range((Included(first.clone()), Unbounded)) {
            if !before(start, to) {
                break;
            }
            if at < *start {
                gaps.push((at.clone(), Some(start.clone())));
            }
            let Some(end) = end else { return gaps };
            if *end > at {
                at.clone_from(end);
            }
        }
        if before(&at, to) {
            gaps.push((at, to.cloned()));
        }
        gaps
    }

    fn first_gap(&self, from: Position, to: Option<&Position>) -> Option<Position> {
        self.gaps(from, to).into_iter().next().map(|(start, _)| start)
    }

    /// The whole gap in which a position lies, if it does.
    fn gap_around(&self, at: &Position) -> Option<(Position, Option<Position>)> {
        let start = match self.known.range((Unbounded, Included(at))).next_back() {
            None => Position::first(),
            Some((_, end)) => end.clone().filter(|end| end <= at)?,
        };
        let end = self.known.range((Excluded(at), Unbounded)).next().map(|(next, _)| next.clone());
        Some((start, end))
    }
}

/// Whether a position lies before an end; `None` is the end of everything.
fn before(at: &Position, end: Option<&Position>) -> bool {
    end.is_none_or(|end| at < end)
}

/// The later of two ends.
fn further(one: Option<Position>, other: Option<Position>) -> Option<Position> {
    Some(one?.max(other?))
}

/// Whether what ends at `one` ends no earlier than `other`.
fn reaches(one: &Option<Position>, other: &Option<Position>) -> bool {
    match (one, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => one >= other,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn at(lane: &str, seq: i32) -> Position {
        Position { lane: lane.into(), seq }
    }

    fn record(kind: Kind, name: &str, output: &str) -> Record {
        Record { kind, name: name.into(), outcome: Ok(output.into()), ended_at: DateTime::UNIX_EPOCH }
    }

    /// What stands in a database, how often it was read, and the most that was in memory.
    struct Stored {
        records: BTreeMap<Position, Record>,
        history: History,
        reads: usize,
        most: (usize, usize),
    }

    impl Stored {
        fn new(records: impl IntoIterator<Item = (Position, Record)>) -> Self {
            let records = records.into_iter().collect();
            let mut stored = Self { records, history: History::unread(), reads: 0, most: (0, 0) };
            assert!(stored.read(Position::first()).is_none());
            stored.reads = 0;
            stored
        }

        fn steps(positions: impl IntoIterator<Item = Position>, output: &str) -> Self {
            Self::new(positions.into_iter().map(|at| (at, record(Kind::Step, "work", output))))
        }

        fn read(&mut self, from: Position) -> Option<Position> {
            self.reads += 1;
            let mut page = Page { from: from.clone(), records: Vec::new(), more: false };
            let mut bytes = 0;
            for (at, record) in self.records.range(from..) {
                bytes += record.bytes();
                page.more = page.records.len() == PAGE_RECORDS || (bytes > PAGE_BYTES && !page.records.is_empty());
                if page.more {
                    break;
                }
                page.records.push((at.clone(), record.clone()));
            }
            let next = self.history.read(page);
            self.most.0 = self.most.0.max(self.history.records);
            self.most.1 = self.most.1.max(self.history.bytes);
            next
        }

        fn read_on(&mut self, from: Position) {
            let mut next = Some(from);
            while let Some(from) = next {
                next = self.read(from);
            }
        }

        fn ask(&mut self, at: &Position, kind: Kind, name: &str) -> Result<Option<Record>, Mismatch> {
            loop {
                match self.history.ask(at, kind, name)? {
                    Answer::Recorded(record) => return Ok(Some(record)),
                    Answer::Nothing => return Ok(None),
                    Answer::Unread(from) => self.read_on(from),
                }
            }
        }

        fn has(&mut self, at: &Position) -> bool {
            self.ask(at, Kind::Step, "work").unwrap().is_some()
        }

        fn open_branch(&mut self, at: &Position) -> Result<(), Mismatch> {
            while let Some(from) = self.history.ask_branch(at)? {
                self.read_on(from);
            }
            Ok(())
        }

        fn left_over(&mut self) -> Result<(), Mismatch> {
            while let Some(from) = self.history.rest() {
                self.read_on(from);
            }
            self.history.left_over()
        }
    }

    #[test]
    fn a_record_answers_once_and_only_for_its_name() {
        let mut h = Stored::new([(at("", 0), record(Kind::Step, "charge", "1"))]);
        assert!(h.ask(&at("", 1), Kind::Step, "ship").unwrap().is_none());
        assert!(h.ask(&at("", 0), Kind::Step, "charge").unwrap().is_some());
        assert!(h.left_over().is_ok());

        let mut h = Stored::new([(at("", 0), record(Kind::Step, "charge", "1"))]);
        let mismatch = h.ask(&at("", 0), Kind::Step, "refund").unwrap_err().to_string();
        assert!(mismatch.contains("\"charge\"") && mismatch.contains("\"refund\""), "{mismatch}");
    }

    #[test]
    fn a_step_may_become_transactional_but_not_a_sleep() {
        let charge = (at("", 0), record(Kind::Step, "charge", "1"));
        let mut h = Stored::new([charge, (at("", 1), record(Kind::Sleep, "sleep", "1"))]);
        assert!(h.ask(&at("", 0), Kind::Transaction, "charge").unwrap().is_some());
        assert!(h.ask(&at("", 1), Kind::Step, "sleep").is_err());
    }

    #[test]
    fn a_branch_and_a_step_do_not_answer_for_each_other() {
        // Whether they came with the claim or have yet to be read.
        for before in [0, 3 * PAGE_RECORDS as i32] {
            let lane = format!("{}.1", before + 3);
            let positions = (0..before).map(|n| at("", n)).chain([at(&lane, 0), at("", before + 4)]);
            let mut h = Stored::steps(positions, "1");
            assert!((0..before).all(|n| h.has(&at("", n))));
            // The lanes of 3 say nothing about 30.
            assert!(h.ask(&at("", (before + 3) * 10), Kind::Step, "work").unwrap().is_none());
            assert!(h.open_branch(&at("", before + 4)).is_err());
            assert!(h.open_branch(&at("", before + 3)).is_ok());
            assert!(h.ask(&at("", before + 3), Kind::Step, "work").unwrap_err().to_string().contains("a branch"));
        }
    }

    #[test]
    fn what_was_never_asked_for_shows_at_the_end() {
        let mut h = Stored::steps([at("", 2), at("", 1)], "1");
        assert!(h.left_over().unwrap_err().to_string().contains("position 1"));

        let mut h = Stored::steps((0..5_001).map(|n| at("", n)), "1");
        assert!((0..5_000).all(|n| h.has(&at("", n))));
        assert!(h.left_over().unwrap_err().to_string().contains("position 5000"));

        // In a lane that nothing has opened, between others.
        let lanes = (0..3_000).map(|n| at(&format!("0.{n}"), 0));
        let mut h = Stored::steps(lanes.chain([at("0.2", 1)]), "1");
        assert!((0..3_000).all(|n| h.has(&at(&format!("0.{n}"), 0))));
        assert!(h.left_over().unwrap_err().to_string().contains("position 0.2.1"));
    }

    #[test]
    fn a_history_that_came_with_the_claim_is_never_read_again() {
        let mut h = Stored::steps((0..PAGE_RECORDS as i32).map(|n| at("", n)), "1");
        assert!((0..PAGE_RECORDS as i32).all(|n| h.has(&at("", n))));
        assert!((0..100).all(|n| !h.has(&at("", PAGE_RECORDS as i32 + n)) && !h.has(&at(&n.to_string(), 0))));
        assert!(h.left_over().is_ok());
        assert_eq!(h.reads, 0);

        let mut fresh = Stored { history: History::default(), ..Stored::steps([], "1") };
        assert!(!fresh.has(&at("", 0)) && fresh.left_over().is_ok());
        assert_eq!(fresh.reads, 0);
    }

    #[test]
    fn a_long_lane_is_read_page_by_page() {
        let mut h = Stored::steps((0..100_000).map(|n| at("", n)), "1");
        assert!((0..100_000).all(|n| h.has(&at("", n))));
        assert!((0..1_000).all(|n| !h.has(&at("", 100_000 + n))));
        assert!(h.left_over().is_ok());
        assert_eq!((h.reads, h.most.0), (99, PAGE_RECORDS));
        assert_eq!((h.history.records, h.history.bytes, h.history.known.len()), (0, 0, 1));
    }

    #[test]
    fn a_wide_fan_out_is_read_in_few_pages_and_little_memory() {
        for lanes in [10_000_usize, 100_000] {
            let mut h = Stored::steps((0..lanes).map(|n| at(&format!("5.{n}"), 0)), "1");
            assert!((0..lanes).all(|n| h.has(&at(&format!("5.{n}"), 0))));
            assert!(h.left_over().is_ok());
            // Once for each number of digits.
            let sweeps = lanes.ilog10() as usize + 1;
            assert!(h.reads <= sweeps * lanes / PAGE_RECORDS, "{lanes} lanes: {} reads", h.reads);
            assert!(h.most.0 <= KEPT_RECORDS + PAGE_RECORDS, "{} records in memory", h.most.0);
            assert_eq!((h.history.records, h.history.slots.len()), (0, 0));
        }
    }

    #[test]
    fn lanes_that_go_on_together_are_read_in_few_pages() {
        const LANES: usize = 50;
        let lanes = || (0..LANES).map(|n| format!("0.{n}"));
        let mut h = Stored::steps(lanes().flat_map(|lane| (0..2_000).map(move |seq| at(&lane, seq))), "1");
        // Each lane a few hundred steps at a time, as it is when each waits for its page.
        for from in (0..2_000).step_by(250) {
            for lane in lanes() {
                assert!((from..from + 250).all(|seq| h.has(&at(&lane, seq))));
            }
        }
        assert!(h.left_over().is_ok());
        assert!(h.reads <= LANES * 8, "{} reads", h.reads);
        assert!(h.most.0 <= KEPT_RECORDS + PAGE_RECORDS, "{} records in memory", h.most.0);
    }

    #[test]
    fn large_values_are_in_memory_one_at_a_time() {
        let output = "x".repeat(300 * 1024);
        let mut h = Stored::steps((0..40).map(|n| at("", n)), &output);
        assert!((0..40).all(|n| h.has(&at("", n))));
        assert!(h.most.1 <= PAGE_BYTES, "{} bytes in memory", h.most.1);

        // A page holds one record at least, and those that were read too early make room.
        let output = "x".repeat(3 * PAGE_BYTES);
        let mut h = Stored::steps((0..30).map(|n| at(&format!("0.{n}"), 0)), &output);
        assert!((0..30).all(|n| h.has(&at(&format!("0.{n}"), 0))));
        assert!(h.left_over().is_ok());
        assert!(h.most.1 <= KEPT_BYTES + 4 * PAGE_BYTES, "{} bytes in memory", h.most.1);
    }

    #[test]
    fn any_order_of_asking_finds_everything_once_and_reads_little() {
        let lanes = ["", "1", "1.0", "10", "2.3", "9", "90.1"];
        let positions: Vec<_> = lanes.iter().flat_map(|lane| (0..3_000).map(|seq| at(lane, seq))).collect();
        for seed in 0..4 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut h = Stored::steps(positions.iter().cloned(), "1");
            let mut order = positions.clone();
            // Blocks in any order, some of them backwards.
            let mut blocks: Vec<Vec<_>> = order.chunks_mut(700).map(|block| block.to_vec()).collect();
            random.shuffle(&mut blocks);
            for block in &mut blocks {
                if random.bool() {
                    block.reverse();
                }
                assert!(block.iter().all(|at| h.has(at)));
                // What this attempt records itself is not taken for history later.
                let own = at("3", i32::try_from(h.reads).unwrap());
                if h.ask(&own, Kind::Step, "own").unwrap().is_none() {
                    h.records.insert(own, record(Kind::Step, "own", "1"));
                }
            }
            assert!(h.left_over().is_ok());
            assert!(h.reads <= 4 * blocks.len(), "{} reads for {} blocks", h.reads, blocks.len());
            assert!(h.most.0 <= KEPT_RECORDS + PAGE_RECORDS, "{} records in memory", h.most.0);
        }
    }
}
