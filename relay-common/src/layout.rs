//! What lies where in the memory that the kernel side and the daemon share.

use crate::{geometry::Geometry, word::Word};

/// Offset of `records_before` in the padding header.
pub const RECORDS_BEFORE_AT: u64 = 4;
/// Offset of `committed` in the padding header.
pub const COMMITTED_AT: u64 = 8;

/// Longest record, in bytes. So many bytes follow the last sub-buffer in memory and are never written: they let the
/// kernel's verifier bound offset and length apart, and a record of any length is written in place.
pub const MAX_RECORD: u64 = 64 << 10;

/// One CPU's row of the control map: what the writers change and what the reader changes, on lines of their own.
///
/// ```
/// use relay_common::{Control, Counters, Geometry};
/// use std::sync::atomic::AtomicU64;
///
/// let control = Control::<AtomicU64>::default();
/// assert_eq!(size_of_val(&control), 128);
/// assert_eq!(control.counters(Geometry::new(4096, 8)?), Counters::default());
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Control<W> {
    /// Changed by the kernel side only.
    pub producer: ProducerWords<W>,
    /// Changed by user space; hostile to the kernel side, which never lets it index anything.
    pub consumer: ConsumerWords<W>,
}

/// The writers' words.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// # use relay_common::{Buffer, Word};
/// let _ = memory.writer(&Plain, Mode::NoOverwrite).reserve(1000);
/// assert_eq!(memory.control().producer.lost_too_big.peek(), 1);
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct ProducerWords<W> {
    /// Bytes handed out since the channel was made, headers and padding included. Only ever exchanged.
    pub reserved: W,
    /// Records of laps that have been replaced.
    pub retired: W,
    /// Records lost because every sub-buffer was waiting for the reader (no-overwrite mode).
    pub lost_full: W,
    /// Records lost because no sub-buffer could hold them.
    pub lost_too_big: W,
    /// Records lost because a writer that was interrupted still owned the sub-buffer that was needed.
    pub lost_nested: W,
    /// Records lost because the CPU had no buffer.
    pub lost_no_buffer: W,
    /// The newest stamp, for clients whose clock may step back between contexts.
    pub last_stamp: W,
    /// Not zero from the first record that is lost as full to the next that is stored: between
    /// [`crate::Client::buf_full`] and [`crate::Client::buf_recovered`].
    pub full: W,
}

/// The reader's words.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// # use relay_common::{Buffer, Word};
/// let writer = memory.writer(&Plain, Mode::NoOverwrite);
/// writer.commit(&writer.reserve(48).unwrap());
/// memory.reader().release(1);
/// assert_eq!(memory.control().consumer.consumed.peek(), 1);
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct ConsumerWords<W> {
    /// Sub-buffers that the reader has done with.
    pub consumed: W,
    /// Not zero while the reader sleeps and wants to be woken.
    pub waiting: W,
    /// What it had taken by then: of two, `[consumed & 1]` is the one that goes with `consumed`. Whoever goes on after a reader that was
    /// killed begins there.
    pub taken: [Taken<W>; 2],
}

/// What a reader has taken.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, Taken, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// # use relay_common::{Buffer, Word};
/// let Taken { output, records, subbufs } = &memory.control().consumer.taken[0];
/// assert_eq!((output.peek(), records.peek(), subbufs.peek()), (0, 0, 0));
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Debug, Default)]
#[repr(C)]
pub struct Taken<W> {
    /// Bytes in the present output file.
    pub output: W,
    /// Records, those of earlier output files included.
    pub records: W,
    /// Sub-buffers, likewise, and empty ones included.
    pub subbufs: W,
}

impl<W: Word> ProducerWords<W> {
    /// Records lost to the buffer, all causes.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// # use relay_common::Buffer;
    /// let _ = memory.writer(&Plain, Mode::NoOverwrite).reserve(49);
    /// assert_eq!(memory.control().producer.lost(), 1);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    pub fn lost(&self) -> u64 {
        self.lost_full.peek().wrapping_add(self.lost_too_big.peek()).wrapping_add(self.lost_nested.peek())
    }
}

/// What user space asks of a channel's own program, by BPF_PROG_TEST_RUN; the second argument is the CPU whose buffer is meant.
///
/// ```
/// assert_eq!(relay_common::Request::Mark as u64, 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Request {
    /// Close the open sub-buffer: [`crate::Writer::flush`].
    Flush = 0,
    /// Flush, and close one more without a record: [`crate::Writer::mark`].
    Mark = 1,
}

/// A program that has done what it was asked returns this. The caller is given 0 where the kernel has not run it, since it was running on that
/// CPU already.
pub const REQUEST_HAS_RUN: i32 = 1;

/// What a CPU's control row says at one moment.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// # use relay_common::Buffer;
/// let writer = memory.writer(&Plain, Mode::NoOverwrite);
/// for _ in 0..6 {
///     if let Ok(record) = writer.reserve(48) {
///         writer.commit(&record);
///     }
/// }
/// let counters = memory.control().counters(Geometry::new(64, 4)?);
/// assert_eq!((counters.produced, counters.consumed, counters.lost_full), (4, 0, 2));
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sub-buffers closed since the channel was made.
    pub produced: u64,
    /// Sub-buffers that the reader has done with.
    pub consumed: u64,
    /// Records lost because every sub-buffer was waiting for the reader.
    pub lost_full: u64,
    /// Records lost because no sub-buffer could hold them.
    pub lost_too_big: u64,
    /// Records lost because an interrupted writer still owned the sub-buffer that was needed.
    pub lost_nested: u64,
    /// Records lost because the CPU had no buffer.
    pub lost_no_buffer: u64,
}

impl Counters {
    /// Records lost, all causes.
    ///
    /// ```
    /// # use relay_common::Counters;
    /// let counters = Counters { lost_full: 3, lost_nested: 1, ..Counters::default() };
    /// assert_eq!(counters.lost(), 4);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost_full.wrapping_add(self.lost_too_big).wrapping_add(self.lost_nested).wrapping_add(self.lost_no_buffer)
    }

    /// Whether every sub-buffer waits for the reader (`relay_buf_full`). In overwrite mode that means nothing.
    ///
    /// ```
    /// # use relay_common::{Counters, Geometry};
    /// let counters = Counters { produced: 9, consumed: 1, ..Counters::default() };
    /// assert!(counters.is_full(Geometry::new(4096, 8)?));
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn is_full(&self, geometry: Geometry) -> bool {
        self.produced.wrapping_sub(self.consumed).cast_signed() >= geometry.n_subbufs().cast_signed()
    }

    /// Whether no sub-buffer waits for the reader (`relay_buf_empty`). One may be open.
    ///
    /// ```
    /// # use relay_common::Counters;
    /// let counters = Counters { produced: 9, consumed: 9, ..Counters::default() };
    /// assert!(counters.is_empty());
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.produced == self.consumed
    }
}

impl<W: Word> Control<W> {
    /// What the row says now. Each number is exact; together they are of one moment only when nobody writes.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// # use relay_common::Buffer;
    /// assert!(memory.control().counters(Geometry::new(64, 4)?).is_empty());
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    pub fn counters(&self, geometry: Geometry) -> Counters {
        Counters {
            produced: geometry.number(self.producer.reserved.peek()),
            consumed: self.consumer.consumed.peek(),
            lost_full: self.producer.lost_full.peek(),
            lost_too_big: self.producer.lost_too_big.peek(),
            lost_nested: self.producer.lost_nested.peek(),
            lost_no_buffer: self.producer.lost_no_buffer.peek(),
        }
    }
}

/// One CPU's memory, as one side sees it. Places are bytes from the start of the buffer; implementations
/// keep them inside it whatever they are given.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// # use relay_common::Buffer;
/// memory.store_u32(20, 7);
/// assert_eq!(memory.load_u32(20), 7);
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
pub trait Buffer {
    /// The shared word of this side.
    type Word: Word;
    /// The CPU's row of the control map.
    fn control(&self) -> &Control<Self::Word>;
    /// The `committed` word of the sub-buffer that begins at `place`.
    fn committed(&self, place: u64) -> &Self::Word;
    /// Loads the native-endian u32 at `place`.
    fn load_u32(&self, place: u64) -> u32;
    /// Stores a native-endian u32 at `place`.
    fn store_u32(&self, place: u64, value: u32);
    /// Stores a native-endian u64 at `place`.
    fn store_u64(&self, place: u64, value: u64);
    /// Stores a zero byte at `place`.
    fn store_zero(&self, place: u64);
    /// Wakes the reader, which announced that it sleeps; says whether that worked.
    fn wake(&self) -> bool;
}

const _: () = assert!(size_of::<Control<u64>>() == 128, "docs/format.md: the control row");
