//! Spans side by side: on one lane no two are at the same time, since the bars of a track must not overlap.

use std::collections::BTreeMap;

/// A lane: of which trace and which span, and its number among these, from 0.
pub(super) type Lane = (usize, String, u64);

/// Where spans are put.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    of: BTreeMap<(usize, String), Free>,
}

/// The lanes of one span, by when the last on each has ended.
#[derive(Debug, Default)]
struct Free {
    since: BTreeMap<u64, Vec<u64>>,
    count: u64,
}

impl Lanes {
    /// A lane for a span, and whether it is a new one. Spans come in the order of their ends, so that a lane is free if its last one has ended before this one
    /// began.
    pub(super) fn put(&mut self, trace: usize, name: &str, start: u64, end: u64) -> (Lane, bool) {
        let free = self.of.entry((trace, name.to_owned())).or_default();
        let last = free.since.range(..=start).next_back().map(|(since, _)| *since);
        let lane = last.and_then(|since| {
            let lanes = free.since.get_mut(&since)?;
            let lane = lanes.pop();
            if lanes.is_empty() {
                free.since.remove(&since);
            }
            lane
        });
        let is_new = lane.is_none();
        let lane = lane.unwrap_or(free.count);
        free.count += u64::from(is_new);
        free.since.entry(end).or_default().push(lane);
        ((trace, name.to_owned(), lane), is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_of_a_lane_are_at_the_same_time() {
        let mut lanes = Lanes::default();
        let mut put = |start, end| {
            let ((.., lane), is_new) = lanes.put(0, "a", start, end);
            (lane, is_new)
        };
        assert_eq!(put(0, 10), (0, true));
        assert_eq!(put(5, 11), (1, true), "the first had not ended");
        assert_eq!(put(10, 12), (0, false), "the first had ended then");
        assert_eq!(put(1, 13), (2, true), "it began before any had ended");
        assert_eq!(put(12, 14), (0, false), "the one that was free for the shortest time");
        assert_eq!(lanes.put(0, "b", 20, 21), ((0, "b".to_owned(), 0), true));
        assert_eq!(lanes.put(1, "a", 20, 21), ((1, "a".to_owned(), 0), true));
    }
}
