//! Matches the two ends of spans, in the order of time.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use super::{SpanAccount, grammar::Match};
use crate::{
    answers::key::Key,
    read::{packet::Record, slices::Seen},
};

/// Spans that may be open at a time, of one definition; then the oldest is given up, for what never ends is oldest.
const OPEN: usize = 300_000;
/// Bytes that the records of their STARTs may have, likewise.
const BYTES: usize = 64 << 20;

/// What is kept of a START, or of an END.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) time: u64,
    pub(super) cpu: u32,
    pub(super) tid: u32,
    pub(super) comm: Key,
    /// The fields that are asked for, as far as this end has them.
    pub(super) fields: Box<[Option<Key>]>,
    /// The record, where spans are shown with all fields.
    pub(super) kept: Option<Arc<WaitingStart>>,
}

/// A record that is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WaitingStart {
    /// Of the trace's own clock.
    pub(super) timestamp: u64,
    pub(super) id: u16,
    pub(super) tid: u32,
    pub(super) pid: u32,
    /// Context and payload.
    pub(super) payload: Box<[u8]>,
}

impl WaitingStart {
    pub(super) fn new(seen: &Seen<'_>) -> Self {
        let Record { timestamp, id, tid, pid, payload } = seen.record;
        Self { timestamp, id, tid, pid, payload: payload.into() }
    }

    /// As it was read.
    pub(super) fn record(&self) -> Record<'_> {
        Record { timestamp: self.timestamp, id: self.id, tid: self.tid, pid: self.pid, payload: &self.payload }
    }
}

impl End {
    /// Bytes of the record that is kept.
    fn bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.payload.len())
    }
}

type Keys = Arc<[Key]>;

/// Open spans of one definition.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    matching: Match,
    open: HashMap<Keys, VecDeque<(u64, End)>>,
    /// By the order in which they began.
    ages: BTreeMap<u64, Keys>,
    begun: u64,
    /// Of the records of open STARTs.
    bytes: usize,
    /// ENDs of this moment that have no START: it may follow, from another CPU.
    early: Vec<(Keys, End)>,
    pub(super) account: SpanAccount,
}

impl Matcher {
    pub(super) fn new(matching: Match) -> Self {
        Self { matching, ..Self::default() }
    }

    /// Takes an END, and gives the spans that it ends, with their keys, oldest first. `may_be_early`: its START may still come, at this very time.
    pub(super) fn end(&mut self, keys: &Keys, end: End, may_be_early: bool, spans: &mut dyn FnMut(&Keys, &End, &End)) {
        self.pass(end.time);
        self.account.ends += 1;
        match self.take(keys, &end, spans) {
            true => {}
            false if may_be_early => self.early.push((Arc::clone(keys), end)),
            false => self.account.never_began += 1,
        }
    }

    /// Takes a START; one whose END was told at the same moment is a span of no time.
    pub(super) fn start(&mut self, keys: &Keys, start: End, spans: &mut dyn FnMut(&Keys, &End, &End)) {
        self.pass(start.time);
        self.account.starts += 1;
        if let Some(at) = self.early.iter().position(|(of, _)| of == keys) {
            let (_, end) = self.early.swap_remove(at);
            self.account.ended += 1;
            spans(keys, &start, &end);
            return;
        }
        let has = self.open.get(keys).is_some_and(|open| !open.is_empty());
        match self.matching {
            Match::First if has => {
                self.account.ignored += 1;
                return;
            }
            Match::Last | Match::Each if has => {
                self.account.replaced += 1;
                self.close(keys, true);
            }
            _ => {}
        }
        while self.ages.len() >= OPEN || self.bytes > BYTES {
            let Some((_, oldest)) = self.ages.first_key_value() else { break };
            let oldest = Arc::clone(oldest);
            self.account.given_up += 1;
            self.close(&oldest, true);
        }
        self.bytes += start.bytes();
        self.begun += 1;
        self.ages.insert(self.begun, Arc::clone(keys));
        self.open.entry(Arc::clone(keys)).or_default().push_back((self.begun, start));
    }

    /// The trace has ended.
    pub(super) fn finish(&mut self, last: u64) {
        self.pass(u64::MAX);
        self.account.open = self.ages.len() as u64;
        let oldest = self.ages.first_key_value().and_then(|(_, keys)| self.open.get(keys)?.front());
        self.account.oldest_open = oldest.map(|(_, start)| last.saturating_sub(start.time));
    }

    /// Time has moved on: what has not begun by then never began.
    fn pass(&mut self, time: u64) {
        if self.early.first().is_some_and(|(_, end)| end.time < time) {
            self.account.never_began += self.early.len() as u64;
            self.early.clear();
        }
    }

    fn take(&mut self, keys: &Keys, end: &End, spans: &mut dyn FnMut(&Keys, &End, &End)) -> bool {
        if self.matching == Match::Each {
            let Some((_, start)) = self.open.get(keys).and_then(|open| open.front()) else { return false };
            self.account.ended += 1;
            spans(keys, start, end);
            return true;
        }
        let mut any = false;
        while let Some(start) = self.close(keys, self.matching != Match::Nest) {
            any = true;
            self.account.ended += 1;
            spans(keys, &start, end);
            if self.matching != Match::All {
                break;
            }
        }
        any
    }

    /// Takes the oldest, or the newest, of those with a key.
    fn close(&mut self, keys: &Keys, oldest: bool) -> Option<End> {
        let open = self.open.get_mut(keys)?;
        let (number, start) = if oldest { open.pop_front() } else { open.pop_back() }?;
        if open.is_empty() {
            self.open.remove(keys);
        }
        self.ages.remove(&number);
        self.bytes = self.bytes.saturating_sub(start.bytes());
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(time: u64) -> End {
        End { time, cpu: 0, tid: 1, comm: Key::Number(0), fields: Box::new([]), kept: None }
    }

    fn keys(key: i128) -> Keys {
        vec![Key::Number(key)].into()
    }

    /// Spans as key, start and end, and the account.
    fn run(matching: Match, records: &[(bool, i128, u64)]) -> (Vec<(Keys, u64, u64)>, SpanAccount) {
        let mut matcher = Matcher::new(matching);
        let mut found = Vec::new();
        for (is_start, key, time) in records {
            let mut add = |keys: &Keys, start: &End, end: &End| found.push((Arc::clone(keys), start.time, end.time));
            match is_start {
                true => matcher.start(&keys(*key), end(*time), &mut add),
                false => matcher.end(&keys(*key), end(*time), true, &mut add),
            }
        }
        matcher.finish(100);
        (found, matcher.account)
    }

    #[test]
    fn each_word_says_what_a_second_start_is() {
        let records = [(true, 1, 1), (true, 1, 2), (false, 1, 3), (false, 1, 4)];
        let spans =
            |matching| run(matching, &records).0.into_iter().map(|(_, start, end)| (start, end)).collect::<Vec<_>>();
        assert_eq!(spans(Match::Last), [(2, 3)]);
        assert_eq!(spans(Match::First), [(1, 3)]);
        assert_eq!(spans(Match::Nest), [(2, 3), (1, 4)]);
        assert_eq!(spans(Match::Queue), [(1, 3), (2, 4)]);
        assert_eq!(spans(Match::All), [(1, 3), (2, 3)]);
        assert_eq!(spans(Match::Each), [(2, 3), (2, 4)]);
    }

    #[test]
    fn ends_of_one_moment_may_come_in_either_order() {
        let (spans, account) = run(Match::Last, &[(false, 1, 5), (true, 1, 5), (false, 2, 6), (true, 2, 7)]);
        assert_eq!(spans, [(keys(1), 5, 5)]);
        assert_eq!((account.never_began, account.open, account.oldest_open), (1, 1, Some(93)));
    }

    #[test]
    fn the_oldest_is_given_up_when_there_is_no_room() {
        let large = |time| {
            let kept = WaitingStart { timestamp: time, id: 0, tid: 1, pid: 1, payload: vec![0; BYTES / 2 + 1].into() };
            End { kept: Some(Arc::new(kept)), ..end(time) }
        };
        let mut matcher = Matcher::new(Match::Queue);
        let mut found = Vec::new();
        let mut add = |_: &Keys, start: &End, end: &End| found.push((start.time, end.time));
        (1..=3).for_each(|time| matcher.start(&keys(1), large(time), &mut add));
        (4..=6).for_each(|time| matcher.end(&keys(1), end(time), false, &mut add));
        assert_eq!(found, [(2, 4), (3, 5)], "the first was the oldest");
        assert_eq!((matcher.account.given_up, matcher.account.never_began, matcher.bytes), (1, 1, 0));
    }

    proptest! {
        #[test]
        fn the_account_adds_up(
            matching in prop::sample::select(vec![Match::Last, Match::First, Match::Nest, Match::Queue]),
            steps in prop::collection::vec((any::<bool>(), 0i128..4, 0u64..2), 0..200),
        ) {
            let mut time = 0;
            let records: Vec<_> = steps.iter().map(|(is_start, key, more)| { time += more; (*is_start, *key, time) }).collect();
            let (spans, account) = run(matching, &records);
            let starts = records.iter().filter(|(is_start, ..)| *is_start).count() as u64;
            let ends = records.len() as u64 - starts;
            prop_assert_eq!(account.starts, starts);
            prop_assert_eq!(account.ended, spans.len() as u64);
            prop_assert_eq!(starts, account.ended + account.replaced + account.ignored + account.given_up + account.open);
            prop_assert_eq!(ends, account.ended + account.never_began);
        }
    }
}
