//! How numbers are spread: a log-linear histogram, 64 slots to each power of two.
//!
//! It is our own since there may be one for each of many keys. hdrhistogram keeps every slot up to the largest value, 17 KB for
//! nanoseconds up to a second; this one keeps those that were hit.

use std::collections::BTreeMap;

/// Slots of a power of two. A value is told from its slot's middle by at most 1/128.
const SLOTS: u64 = 64;

/// Numbers, and how often each was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    slots: BTreeMap<u16, u64>,
    numbers: u64,
    negative: u64,
    sum: i128,
    min: i128,
    max: i128,
}

impl Spread {
    /// Adds a number. It is true when the number took a slot that had not been hit.
    pub fn add(&mut self, number: i128) -> bool {
        let is_first = self.numbers == 0;
        self.min = if is_first { number } else { self.min.min(number) };
        self.max = if is_first { number } else { self.max.max(number) };
        self.numbers += 1;
        self.sum = self.sum.saturating_add(number);
        if number < 0 {
            self.negative += 1;
            return false;
        }
        let count = self.slots.entry(slot(u64::try_from(number).unwrap_or(u64::MAX))).or_default();
        *count += 1;
        *count == 1
    }

    /// How many there are.
    #[must_use]
    pub fn numbers(&self) -> u64 {
        self.numbers
    }

    /// How many of them are below zero.
    #[must_use]
    pub fn negative(&self) -> u64 {
        self.negative
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> i128 {
        self.sum
    }

    /// The least; 0 when there is none.
    #[must_use]
    pub fn min(&self) -> i128 {
        self.min
    }

    /// The largest; 0 when there is none.
    #[must_use]
    pub fn max(&self) -> i128 {
        self.max
    }

    /// The mean; 0 when there is none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.numbers.max(1) as f64
    }

    /// The number that so many thousandths of all are not above, to a hundredth.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> i128 {
        let wanted = u128::from(self.numbers) * u128::from(thousandths);
        let wanted = u64::try_from(wanted.div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        if wanted <= self.negative {
            // How they are spread is not kept.
            return self.min;
        }
        let mut seen = self.negative;
        let slot = self.slots.iter().find(|(_, count)| {
            seen += *count;
            seen >= wanted
        });
        slot.map_or(self.max, |(slot, _)| i128::from(middle(*slot)).clamp(self.min, self.max))
    }

    /// How many are 0, 1, 2–3, 4–7 and so on, up to the largest.
    #[must_use]
    pub fn powers(&self) -> Vec<u64> {
        let mut powers = Vec::new();
        for (slot, count) in &self.slots {
            let power = (u64::BITS - middle(*slot).leading_zeros()) as usize;
            if powers.len() <= power {
                powers.resize(power + 1, 0);
            }
            powers[power] += count;
        }
        powers
    }
}

/// The slot of a number: itself below [`SLOTS`], from there on its power of two and the 6 bits below the highest.
fn slot(number: u64) -> u16 {
    if number < SLOTS {
        return u16::try_from(number).unwrap_or(0);
    }
    let power = u64::from(u64::BITS - 1 - number.leading_zeros());
    let slot = (power - 5) * SLOTS + (number >> (power - 6)) - SLOTS;
    // At most 58 * 64 + 63.
    u16::try_from(slot).unwrap_or(u16::MAX)
}

/// The number in the middle of a slot.
fn middle(slot: u16) -> u64 {
    let slot = u64::from(slot);
    if slot < SLOTS {
        return slot;
    }
    let shift = slot / SLOTS - 1;
    let first = (SLOTS + slot % SLOTS) << shift;
    first + ((1 << shift) - 1) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_number_is_counted_where_it_lies() {
        let mut spread = Spread::default();
        for number in [0, 1, 64, 64, 1 << 40, i128::from(u64::MAX), -5] {
            spread.add(number);
        }
        assert_eq!((spread.numbers(), spread.negative(), spread.min(), spread.max()), (7, 1, -5, u64::MAX.into()));
        let powers = spread.powers();
        assert_eq!((powers.len(), powers[0], powers[1], powers[7], powers[41], powers[64]), (65, 1, 1, 2, 1, 1));
        assert_eq!((spread.quantile(1), spread.quantile(500), spread.quantile(1000)), (-5, 64, spread.quantile(999)));
        assert_eq!(Spread::default().quantile(500), 0);
    }

    proptest! {
        #[test]
        fn a_slot_tells_a_number_to_a_hundredth(number: u64) {
            let middle = middle(slot(number));
            prop_assert_eq!(slot(middle), slot(number));
            prop_assert!(middle.abs_diff(number) <= number / 100, "{} for {}", middle, number);
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_numbers(mut numbers in prop::collection::vec(0u64..1 << 40, 1..300), thousandths in 1u64..=1000) {
            let mut spread = Spread::default();
            for number in &numbers {
                spread.add((*number).into());
            }
            numbers.sort_unstable();
            let rank = (numbers.len() * usize::try_from(thousandths).unwrap()).div_ceil(1000).max(1);
            let (exact, told) = (i128::from(numbers[rank - 1]), spread.quantile(thousandths));
            prop_assert!((told - exact).abs() <= exact / 100, "{} for {}", told, exact);
        }
    }
}
