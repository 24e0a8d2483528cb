//! How a buffer is cut into sub-buffers, and the arithmetic on positions that follows from it.

use core::fmt;

/// Bytes of the padding header at the start of every sub-buffer.
///
/// | offset | field | written by |
/// |---|---|---|
/// | 0 | u32 `padding`: unused bytes at the end, as librelay's | whoever closes |
/// | 4 | u32 `records_before`: records of all earlier laps, as [`crate::Committed::records`] | whoever opens |
/// | 8 | u64 `committed`: see [`crate::Committed`] | whoever writes |
pub const HEADER: u64 = 16;
/// Smallest sub-buffer, in bytes: the header and as much again.
pub const MIN_SUBBUF_SIZE: u64 = 2 * HEADER;
/// Largest sub-buffer, in bytes. A lap then holds fewer records than [`crate::Committed`] can count.
pub const MAX_SUBBUF_SIZE: u64 = 16 << 20;
/// Largest buffer of one CPU, in bytes: the kernel's verifier accepts offsets into a map value up to here
/// (measured on 6.18: 512 MiB accepted, 1 GiB refused).
pub const MAX_BUFFER_SIZE: u64 = 512 << 20;

/// Sub-buffer size and count, both powers of two, so that every place is found by shift and mask. Shifts and masks are kept both: to make one of
/// the other costs several instructions, and a record needs each.
///
/// ```
/// use relay_common::Geometry;
///
/// let geometry = Geometry::new(4096, 8)?;
/// assert_eq!(geometry.buffer_size(), 32768);
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    subbuf_mask: u64,
    buffer_mask: u64,
    subbuf_shift: u32,
    n_subbufs_shift: u32,
}

/// Why a geometry was refused.
///
/// ```
/// use relay_common::{Geometry, GeometryError};
///
/// assert_eq!(Geometry::new(5000, 8), Err(GeometryError::SubbufSize(5000)));
/// assert_eq!(Geometry::new(4096, 3), Err(GeometryError::SubbufCount(3)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// The sub-buffer size is under [`MIN_SUBBUF_SIZE`] or over [`MAX_SUBBUF_SIZE`], or no power of two.
    SubbufSize(u64),
    /// The count is zero or no power of two.
    SubbufCount(u64),
    /// The product is over [`MAX_BUFFER_SIZE`].
    BufferSize(u64),
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubbufSize(size) => write!(
                f,
                "a sub-buffer of {size} bytes is not a power of two from {MIN_SUBBUF_SIZE} to {MAX_SUBBUF_SIZE}"
            ),
            Self::SubbufCount(n) => write!(f, "{n} sub-buffers is not a power of two from 1 up"),
            Self::BufferSize(size) => {
                write!(f, "a buffer of {size} bytes per CPU is more than the {MAX_BUFFER_SIZE} that fit one map")
            }
        }
    }
}

impl core::error::Error for GeometryError {}

impl Geometry {
    /// A geometry of `n_subbufs` sub-buffers of `subbuf_size` bytes.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert!(Geometry::new(256 << 10, 8).is_ok());
    /// assert!(Geometry::new(16 << 20, 64).is_err(), "1 GiB for each CPU");
    /// ```
    ///
    /// # Errors
    /// When either is not a power of two in its range, or the product is too large.
    pub const fn new(subbuf_size: u64, n_subbufs: u64) -> Result<Self, GeometryError> {
        if !subbuf_size.is_power_of_two() || subbuf_size < MIN_SUBBUF_SIZE || subbuf_size > MAX_SUBBUF_SIZE {
            return Err(GeometryError::SubbufSize(subbuf_size));
        }
        if !n_subbufs.is_power_of_two() {
            return Err(GeometryError::SubbufCount(n_subbufs));
        }
        match subbuf_size.checked_mul(n_subbufs) {
            Some(size) if size <= MAX_BUFFER_SIZE => {
                Ok(Self::from_shifts(subbuf_size.trailing_zeros(), n_subbufs.trailing_zeros()))
            }
            Some(size) => Err(GeometryError::BufferSize(size)),
            None => Err(GeometryError::BufferSize(u64::MAX)),
        }
    }

    const fn from_shifts(subbuf_shift: u32, n_subbufs_shift: u32) -> Self {
        let subbuf_mask = (1 << subbuf_shift) - 1;
        let buffer_mask = (1 << (subbuf_shift + n_subbufs_shift)) - 1;
        Self { subbuf_mask, buffer_mask, subbuf_shift, n_subbufs_shift }
    }

    /// As three words, to hand it to the kernel side.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.words(), [0xfff, 0x7fff, 3 << 32 | 12]);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[must_use]
    pub const fn words(self) -> [u64; 3] {
        [self.subbuf_mask, self.buffer_mask, (self.n_subbufs_shift as u64) << 32 | self.subbuf_shift as u64]
    }

    /// From these words, unchecked: for the kernel side, whose constants come from a geometry that user space has checked.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// let geometry = Geometry::new(4096, 8)?;
    /// assert_eq!(Geometry::from_words(geometry.words()), geometry);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub const fn from_words([subbuf_mask, buffer_mask, shifts]: [u64; 3]) -> Self {
        Self { subbuf_mask, buffer_mask, subbuf_shift: shifts as u32, n_subbufs_shift: (shifts >> 32) as u32 }
    }

    /// Bytes in a sub-buffer, its header included.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.subbuf_size(), 4096);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn subbuf_size(self) -> u64 {
        self.subbuf_mask + 1
    }

    /// Sub-buffers in a buffer.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.n_subbufs(), 8);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn n_subbufs(self) -> u64 {
        1 << self.n_subbufs_shift
    }

    /// Bytes in a buffer.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.buffer_size(), 32768);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn buffer_size(self) -> u64 {
        self.buffer_mask + 1
    }

    /// How far into its sub-buffer a position is.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.offset(4096 + 20), 20);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn offset(self, position: u64) -> u64 {
        position & self.subbuf_mask
    }

    /// Whether two positions lie in the same sub-buffer.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// let geometry = Geometry::new(4096, 8)?;
    /// assert!(geometry.in_one_subbuf(4096, 8191));
    /// assert!(!geometry.in_one_subbuf(4096, 8192));
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn in_one_subbuf(self, a: u64, b: u64) -> bool {
        a ^ b <= self.subbuf_mask
    }

    /// Where in the buffer's memory the sub-buffer begins that a position is in.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.subbuf(9 * 4096 + 20), 4096);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn subbuf(self, position: u64) -> u64 {
        self.place(position) & !self.subbuf_mask
    }

    /// The number of the sub-buffer that a position is in.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.number(9 * 4096 + 20), 9);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn number(self, position: u64) -> u64 {
        position >> self.subbuf_shift
    }

    /// The position where sub-buffer `number` begins.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.begin(9), 9 * 4096);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn begin(self, number: u64) -> u64 {
        number << self.subbuf_shift
    }

    /// Where a position lies in the buffer's memory: less than [`Self::buffer_size`].
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.place(9 * 4096 + 20), 4096 + 20);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn place(self, position: u64) -> u64 {
        position & self.buffer_mask
    }

    /// The lap in which sub-buffer `number` uses its place.
    ///
    /// ```
    /// # use relay_common::Geometry;
    /// assert_eq!(Geometry::new(4096, 8)?.lap(9), 1);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn lap(self, number: u64) -> u64 {
        number >> self.n_subbufs_shift
    }
}

/// `value` rounded up to a multiple of `align`, a power of two.
#[inline(always)]
pub(crate) const fn align_up(value: u64, align: u64) -> u64 {
    value.wrapping_add(align - 1) & !(align - 1)
}
