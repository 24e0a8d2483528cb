//! Records by key: how many each value of some fields has, the sum of a field, and how the numbers of one are spread.
//!
//! Workers make a [`SliceTotals`] of each slice, and [`Totals`] adds these up in the order of slices: so there is one table, and which keys are in it does not
//! depend on timing.

use std::collections::HashMap;

use super::{
    key::{self, Key, Keys},
    spread::Spread,
};
use crate::read::{names::Names, slices::Seen, trace::Trace};

/// Bytes that keys and what is kept of them may take; records of keys that come later are counted as one.
const BOUND: usize = 96 << 20;
/// What a key takes beside its texts, and a slot of a histogram: from `HashMap`'s and `BTreeMap`'s layout, rounded up.
const BYTES_A_KEY: usize = 200;
const BYTES_A_SLOT: usize = 24;

/// Which fields are looked at.
#[derive(Clone, Debug, Default)]
pub struct TotalFields {
    /// How the numbers of this one are spread.
    pub spread: Option<String>,
    /// The sum of this one.
    pub sum: Option<String>,
    /// Separately for each of the values of these.
    pub by: Vec<String>,
}

/// What one key has.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Records.
    pub records: u64,
    /// The sum of one field.
    pub sum: i128,
    /// The numbers of one field.
    pub spread: Spread,
}

/// All keys.
#[derive(Debug, Default)]
pub struct Totals {
    groups: HashMap<Box<[Key]>, Group>,
    /// Records of keys for which there was no room.
    pub others: Group,
    bytes: usize,
}

/// What the records of one slice have.
#[derive(Debug, Default)]
pub struct SliceTotals {
    groups: HashMap<Box<[Key]>, Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    records: u64,
    sum: i128,
    numbers: Vec<i128>,
}

impl TotalFields {
    /// Whether none is looked at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spread.is_none() && self.sum.is_none() && self.by.is_empty()
    }
}

impl Totals {
    /// Adds what a slice has.
    pub fn add(&mut self, part: SliceTotals) {
        for (key, numbers) in part.groups {
            let group = match self.groups.get_mut(&key) {
                Some(group) => group,
                None if self.bytes >= BOUND => &mut self.others,
                None => {
                    let text = |key: &Key| if let Key::Text(text) = key { text.len() } else { 0 };
                    self.bytes += BYTES_A_KEY + key.iter().map(text).sum::<usize>() + size_of_val(&*key);
                    self.groups.entry(key).or_default()
                }
            };
            group.records += numbers.records;
            group.sum = group.sum.saturating_add(numbers.sum);
            let new = numbers.numbers.into_iter().filter(|number| group.spread.add(*number)).count();
            self.bytes += new * BYTES_A_SLOT;
        }
    }

    /// The keys in any order, and what each has.
    #[must_use]
    pub fn into_groups(self) -> Vec<(Box<[Key]>, Group)> {
        self.groups.into_iter().collect()
    }
}

/// Makes parts.
pub(super) struct Counter<'t> {
    fields: &'t TotalFields,
    keys: Keys,
    key: Vec<Key>,
}

impl<'t> Counter<'t> {
    pub(super) fn new(traces: &'t [Trace], fields: &'t TotalFields) -> Self {
        Self { fields, keys: Keys::new(traces), key: Vec::new() }
    }

    /// Adds a record to a part, if it has all the fields.
    pub(super) fn record(&mut self, seen: &Seen<'_>, names: &Names, part: &mut SliceTotals) {
        let fields = self.fields;
        if fields.is_empty() {
            return;
        }
        let number = |name: &Option<String>| name.as_ref().map(|name| key::number(seen, name));
        let (Some(sum), Some(of_spread)) =
            (number(&fields.sum).unwrap_or(Some(0)), number(&fields.spread).unwrap_or(Some(0)))
        else {
            return;
        };
        self.key.clear();
        self.key.extend(fields.by.iter().map_while(|name| self.keys.of(seen, names, name)));
        if self.key.len() == fields.by.len() {
            part.add(&self.key, sum, fields.spread.as_ref().map(|_| of_spread));
        }
    }
}

impl SliceTotals {
    /// Adds a record with this key.
    pub fn add(&mut self, key: &[Key], sum: i128, number: Option<i128>) {
        if !self.groups.contains_key(key) {
            self.groups.insert(key.into(), Numbers::default());
        }
        if let Some(group) = self.groups.get_mut(key) {
            group.records += 1;
            group.sum = group.sum.saturating_add(sum);
            group.numbers.extend(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(keys: impl Iterator<Item = i128>) -> SliceTotals {
        let numbers = |key: i128| Numbers { records: 2, sum: key, numbers: vec![key, 1] };
        SliceTotals { groups: keys.map(|key| (vec![Key::Number(key)].into(), numbers(key))).collect() }
    }

    #[test]
    fn parts_add_up() {
        let mut totals = Totals::default();
        totals.add(part(0..3));
        totals.add(part(2..5));
        assert_eq!(totals.others.records, 0);
        let mut groups = totals.into_groups();
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        let records: Vec<_> =
            groups.iter().map(|(_, group)| (group.records, group.sum, group.spread.numbers())).collect();
        assert_eq!(records, [(2, 0, 2), (2, 1, 2), (4, 4, 4), (2, 3, 2), (2, 4, 2)]);
    }

    #[test]
    fn keys_beyond_the_bound_are_counted_as_one() {
        let mut totals = Totals::default();
        let keys = 2_000_000;
        for begin in (0..keys).step_by(100_000) {
            totals.add(part(begin..begin + 100_000));
        }
        let others = totals.others.clone();
        let groups = totals.into_groups();
        assert!(groups.len() > 100_000 && others.records > 0, "{} keys", groups.len());
        let all = groups.iter().map(|(_, group)| group.records).sum::<u64>() + others.records;
        assert_eq!(all, 2 * u64::try_from(keys).unwrap());
    }
}
