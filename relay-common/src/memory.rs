//! A buffer on the heap: a channel of one CPU without a kernel, to try a client of the channel on, and for the tests.

extern crate alloc;

use alloc::{boxed::Box, vec::Vec};
use core::{
    array,
    sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

use crate::{
    geometry::Geometry,
    layout::{Buffer, Control},
    reader::Reader,
    writer::{Client, Mode, Writer},
};

/// What a byte that nobody has written holds: a test sees it if it comes out.
pub const UNWRITTEN: u8 = 0xEE;

/// One CPU's buffer and control row.
///
/// ```
/// use relay_common::{Geometry, Mode, Plain, memory::Memory};
///
/// let memory = Memory::new(Geometry::new(64, 4)?);
/// let writer = memory.writer(&Plain, Mode::NoOverwrite);
/// let record = writer.reserve(5).unwrap();
/// memory.store(record.place, b"hello");
/// writer.commit(&record);
/// writer.flush();
/// let subbuf = memory.reader().subbuf(0).unwrap().unwrap();
/// assert_eq!(memory.load(subbuf.place, subbuf.len), b"hello");
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Debug)]
pub struct Memory {
    control: Control<AtomicU64>,
    committed: Box<[AtomicU64]>,
    bytes: Box<[AtomicU8]>,
    geometry: Geometry,
    wakes: AtomicU64,
}

impl Memory {
    /// A new channel's memory.
    ///
    /// ```
    /// use relay_common::{Geometry, memory::{Memory, UNWRITTEN}};
    ///
    /// let memory = Memory::new(Geometry::new(64, 4)?);
    /// assert_eq!(memory.load(0, 2), [UNWRITTEN; 2]);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self {
            control: Control::default(),
            committed: (0..geometry.n_subbufs()).map(|_| AtomicU64::new(0)).collect(),
            bytes: (0..geometry.buffer_size()).map(|_| AtomicU8::new(UNWRITTEN)).collect(),
            geometry,
            wakes: AtomicU64::new(0),
        }
    }

    /// A writer on this buffer.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let record = memory.writer(&Plain, Mode::Overwrite).reserve(8).unwrap();
    /// assert_eq!(record.place, 16);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[must_use]
    pub fn writer<'a, C: Client<Self>>(&'a self, client: &'a C, mode: Mode) -> Writer<'a, Self, C> {
        Writer { buffer: self, client, geometry: self.geometry, mode }
    }

    /// A reader of this buffer.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// assert_eq!(memory.reader().produced(), 0);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[must_use]
    pub fn reader(&self) -> Reader<'_, Self> {
        Reader { buffer: self, geometry: self.geometry }
    }

    /// Stores bytes from `place` on, as far as the buffer goes.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// memory.store(20, &[1, 2, 3]);
    /// assert_eq!(memory.load(21, 2), [2, 3]);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    pub fn store(&self, place: u64, bytes: &[u8]) {
        for (to, byte) in self.range(place, bytes.len() as u64).iter().zip(bytes) {
            to.store(*byte, Relaxed);
        }
    }

    /// The `len` bytes from `place` on, as far as the buffer goes.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// assert_eq!(memory.load(250, 100).len(), 6, "the buffer has 256 bytes");
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[must_use]
    pub fn load(&self, place: u64, len: u64) -> Vec<u8> {
        self.range(place, len).iter().map(|byte| byte.load(Relaxed)).collect()
    }

    /// How often the reader was woken.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// # use relay_common::{Buffer, ReaderWord};
    /// memory.control().consumer.waiting.announce(1);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// writer.commit(&writer.reserve(8).unwrap());
    /// writer.flush();
    /// assert_eq!(memory.wakes(), 1);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[must_use]
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Relaxed)
    }

    fn range(&self, place: u64, len: u64) -> &[AtomicU8] {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.bytes.len());
        &self.bytes[index(place)..index(place.saturating_add(len))]
    }
}

impl Buffer for Memory {
    type Word = AtomicU64;

    fn control(&self) -> &Control<AtomicU64> {
        &self.control
    }

    fn committed(&self, place: u64) -> &AtomicU64 {
        // Apart from the bytes: a word of its own needs no alignment of theirs.
        let number = self.geometry.number(self.geometry.place(place));
        &self.committed[usize::try_from(number).unwrap_or(0)]
    }

    fn load_u32(&self, place: u64) -> u32 {
        let bytes = self.range(place, 4);
        u32::from_ne_bytes(array::from_fn(|i| bytes.get(i).map_or(UNWRITTEN, |byte| byte.load(Relaxed))))
    }

    fn store_u32(&self, place: u64, value: u32) {
        self.store(place, &value.to_ne_bytes());
    }

    fn store_u64(&self, place: u64, value: u64) {
        self.store(place, &value.to_ne_bytes());
    }

    fn store_zero(&self, place: u64) {
        self.store(place, &[0]);
    }

    fn wake(&self) -> bool {
        self.wakes.fetch_add(1, Relaxed);
        true
    }
}
