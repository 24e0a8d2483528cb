//! The `committed` word of a place in the buffer: bytes and records, counted together.

use crate::geometry::Geometry;

/// Bytes in the low 40 bits and records in the high 24, both since the channel was made and over all laps
/// of the place, so that one fetch-add per record keeps both. A byte counts whether it holds a record, a header,
/// an alignment gap or padding: every lap adds exactly `subbuf_size`.
///
/// ```
/// use relay_common::{Committed, Geometry};
///
/// // Two records, with all the bytes of the first lap.
/// let committed = Committed(Committed::amount(1, 4000) + Committed::amount(1, 96));
/// assert!(committed.is_complete(Geometry::new(4096, 8)?, 1));
/// assert_eq!(committed.records(), 2);
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed(pub u64);

const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;
const RECORDS_MASK: u32 = (1 << (64 - BYTES_BITS)) - 1;

impl Committed {
    /// What to add for `records` records and `bytes` bytes.
    ///
    /// ```
    /// # use relay_common::{Committed, Geometry};
    /// assert_eq!(Committed(Committed::amount(3, 100)).records(), 3);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn amount(records: u64, bytes: u64) -> u64 {
        (records << BYTES_BITS).wrapping_add(bytes)
    }

    /// Whether every byte of `laps` laps is committed, and none of the next.
    ///
    /// ```
    /// # use relay_common::{Committed, Geometry};
    /// assert!(!Committed(Committed::amount(1, 100)).is_complete(Geometry::new(4096, 8)?, 1));
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn is_complete(self, geometry: Geometry, laps: u64) -> bool {
        self.holds(geometry, laps, 0)
    }

    /// Whether exactly `used` bytes of lap `lap` are committed, and all laps before it.
    ///
    /// ```
    /// # use relay_common::{Committed, Geometry};
    /// assert!(Committed(Committed::amount(1, 4096 + 100)).holds(Geometry::new(4096, 8)?, 1, 100));
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn holds(self, geometry: Geometry, lap: u64, used: u64) -> bool {
        self.bytes() == geometry.subbuf_size().wrapping_mul(lap).wrapping_add(used) & BYTES_MASK
    }

    /// Bytes committed, modulo 2^40.
    ///
    /// ```
    /// # use relay_common::{Committed, Geometry};
    /// assert_eq!(Committed(Committed::amount(3, 100)).bytes(), 100);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 & BYTES_MASK
    }

    /// Records committed, modulo 2^24: what the next lap keeps as its `records_before`.
    ///
    /// ```
    /// # use relay_common::{Committed, Geometry};
    /// assert_eq!(Committed(Committed::amount((1 << 24) + 3, 100)).records(), 3);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn records(self) -> u32 {
        (self.0 >> BYTES_BITS) as u32
    }

    /// Records of lap `lap`, which this count completes or is in, given what the lap started with.
    ///
    /// The lap in which the byte part passes 2^40 carries one into the records when its last byte is
    /// committed; that one is taken off.
    ///
    /// ```
    /// # use relay_common::{Committed, Geometry};
    /// let (geometry, before) = (Geometry::new(4096, 8)?, Committed(Committed::amount(5, 4096)));
    /// let after = Committed(before.0 + Committed::amount(2, 4096));
    /// assert_eq!(after.records_of(geometry, 1, before.records()), 2);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn records_of(self, geometry: Geometry, lap: u64, records_before: u32) -> u32 {
        let end = geometry.subbuf_size().wrapping_mul(lap + 1) & BYTES_MASK;
        let carry = (end == 0 && self.bytes() == 0) as u32;
        self.records().wrapping_sub(records_before).wrapping_sub(carry) & RECORDS_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lap_that_wraps_the_bytes_does_not_count_its_carry() {
        let geometry = Geometry::new(4096, 2).unwrap();
        let laps = (1u64 << BYTES_BITS) / 4096;
        // The last lap before the wrap: 7 records in it, 5 in all laps before.
        let before = Committed(Committed::amount(5, (laps - 1) * 4096));
        assert!(before.is_complete(geometry, laps - 1));
        let after = Committed(before.0.wrapping_add(Committed::amount(7, 4096)));
        assert!(after.is_complete(geometry, laps));
        assert_eq!(after.records_of(geometry, laps - 1, before.records()), 7);
        // Opened, nothing committed: the carry is in what the lap started with.
        assert_eq!(after.records_of(geometry, laps, after.records()), 0);
        // The next lap starts from the count as it stands, carry included.
        let next = Committed(after.0.wrapping_add(Committed::amount(3, 4096)));
        assert!(next.is_complete(geometry, laps + 1));
        assert_eq!(next.records_of(geometry, laps, after.records()), 3);
    }

    #[test]
    fn the_record_count_wraps_at_24_bits() {
        let geometry = Geometry::new(4096, 2).unwrap();
        let before = Committed(Committed::amount((1 << 24) - 2, 4096));
        let after = Committed(before.0.wrapping_add(Committed::amount(5, 4096)));
        assert_eq!(after.records_of(geometry, 1, before.records()), 5);
    }
}
