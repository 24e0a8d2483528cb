//! The reader's half of the protocol: which sub-buffers can be taken, and what has been recorded.
//!
//! The words come from memory that others may write to. What does not add up is reported as [`Corrupt`]; no
//! length leaves this file unchecked.

use core::fmt;

use crate::{
    committed::Committed,
    geometry::{Geometry, HEADER},
    layout::{Buffer, ConsumerWords, Control, ProducerWords, RECORDS_BEFORE_AT, Taken},
    word::ReaderWord,
    writer::Mode,
};

/// A sub-buffer that can be taken.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// let writer = memory.writer(&Plain, Mode::NoOverwrite);
/// for _ in 0..3 {
///     writer.commit(&writer.reserve(24).unwrap());
/// }
/// let subbuf = memory.reader().subbuf(0).unwrap().unwrap();
/// assert_eq!((subbuf.number, subbuf.place, subbuf.len, subbuf.records), (0, 16, 48, 2));
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subbuf {
    /// Its number since the channel was made.
    pub number: u64,
    /// Where its content begins in the buffer's memory: after the padding header.
    pub place: u64,
    /// Bytes of content: the client's header and the records, without padding.
    pub len: u64,
    /// Records in it.
    pub records: u32,
}

/// What has been written since the channel was made, at one instant.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// let writer = memory.writer(&Plain, Mode::NoOverwrite);
/// for _ in 0..3 {
///     writer.commit(&writer.reserve(24).unwrap());
/// }
/// let count = memory.reader().count().unwrap();
/// assert_eq!((count.produced, count.recorded, count.closed), (1, 3, 2));
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Sub-buffers closed.
    pub produced: u64,
    /// Records written, overwritten ones included.
    pub recorded: u64,
    /// Of these, the ones in sub-buffers that are closed.
    pub closed: u64,
}

/// What can be read now.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// let writer = memory.writer(&Plain, Mode::NoOverwrite);
/// for _ in 0..3 {
///     writer.commit(&writer.reserve(24).unwrap());
/// }
/// let pass = memory.reader().pass(0, Mode::NoOverwrite).unwrap();
/// assert_eq!((pass.first, pass.overrun, pass.backlog), (0, 0, 1));
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The first sub-buffer to take.
    pub first: u64,
    /// Sub-buffers before it that were overwritten unread.
    pub overrun: u64,
    /// Sub-buffers from `first` on that are closed.
    pub backlog: u64,
}

/// Shared memory that holds what the protocol never writes.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// let corrupt = memory.reader().pass(5, Mode::NoOverwrite).unwrap_err();
/// assert_eq!(corrupt.to_string(), "5 sub-buffers consumed of 0 produced");
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrupt {
    /// A closed sub-buffer's padding is more than its size less the header.
    Padding {
        /// The sub-buffer's number.
        number: u64,
        /// What its header says, in bytes.
        padding: u32,
    },
    /// More sub-buffers consumed than produced, or a position that ran backwards.
    Positions {
        /// Sub-buffers produced.
        produced: u64,
        /// Sub-buffers consumed.
        consumed: u64,
    },
    /// The count of sub-buffers consumed is not what its reader last wrote.
    Consumed {
        /// What the reader wrote.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// In no-overwrite mode, more sub-buffers unread than there are.
    Overwritten {
        /// Sub-buffers produced.
        produced: u64,
        /// Sub-buffers consumed.
        consumed: u64,
    },
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Padding { number, padding } => {
                write!(f, "sub-buffer {number} is closed with an impossible padding of {padding} bytes")
            }
            Self::Positions { produced, consumed } => {
                write!(f, "{consumed} sub-buffers consumed of {produced} produced")
            }
            Self::Consumed { expected, found } => {
                write!(f, "{expected} sub-buffers were consumed, and the control row says {found}")
            }
            Self::Overwritten { produced, consumed } => {
                write!(f, "{produced} sub-buffers produced over {consumed} consumed in no-overwrite mode")
            }
        }
    }
}

impl core::error::Error for Corrupt {}

/// The one reader of a CPU's buffer.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// let writer = memory.writer(&Plain, Mode::NoOverwrite);
/// for _ in 0..3 {
///     writer.commit(&writer.reserve(24).unwrap());
/// }
/// let reader = memory.reader();
/// let pass = reader.pass(0, Mode::NoOverwrite).unwrap();
/// for number in pass.first..pass.first + pass.backlog {
///     let Some(subbuf) = reader.subbuf(number).unwrap() else { break };
///     assert_eq!(memory.load(subbuf.place, subbuf.len).len(), 48);
///     reader.release(number + 1);
/// }
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a, B> {
    /// The CPU's memory.
    pub buffer: &'a B,
    /// How it is cut.
    pub geometry: Geometry,
}

impl<B: Buffer> Reader<'_, B>
where
    B::Word: ReaderWord,
{
    /// What a reader that has done with `consumed` sub-buffers finds now.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::Overwrite);
    /// for _ in 0..10 {
    ///     writer.commit(&writer.reserve(48).unwrap());
    /// }
    /// let pass = memory.reader().pass(0, Mode::Overwrite).unwrap();
    /// assert_eq!((pass.first, pass.overrun, pass.backlog), (6, 6, 4));
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    ///
    /// # Errors
    /// When the positions contradict each other.
    pub fn pass(&self, consumed: u64, mode: Mode) -> Result<Pass, Corrupt> {
        let reserved = self.reserved();
        let produced = self.geometry.number(reserved);
        let n_subbufs = self.geometry.n_subbufs();
        // Of those that were opened, the newest n_subbufs are intact.
        let oldest = reserved.div_ceil(self.geometry.subbuf_size()).saturating_sub(n_subbufs);
        if consumed > produced {
            return Err(Corrupt::Positions { produced, consumed });
        }
        if mode == Mode::NoOverwrite && oldest > consumed {
            return Err(Corrupt::Overwritten { produced, consumed });
        }
        let first = consumed.max(oldest);
        Ok(Pass { first, overrun: first - consumed, backlog: produced - first })
    }

    /// Sub-buffers that have been closed since the channel was made, or will be when their last writer commits.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// for _ in 0..3 {
    ///     writer.commit(&writer.reserve(24).unwrap());
    /// }
    /// assert_eq!(memory.reader().produced(), 1);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    pub fn produced(&self) -> u64 {
        self.geometry.number(self.reserved())
    }

    /// Whether a sub-buffer is open: what a flush would close.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// for _ in 0..3 {
    ///     writer.commit(&writer.reserve(24).unwrap());
    /// }
    /// assert!(memory.reader().is_open());
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    pub fn is_open(&self) -> bool {
        self.geometry.offset(self.reserved()) != 0
    }

    /// Sub-buffer `number`, if it is closed and every writer has committed.
    ///
    /// In overwrite mode the content is valid only if it [`Self::survived`] until it was copied.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// for _ in 0..3 {
    ///     writer.commit(&writer.reserve(24).unwrap());
    /// }
    /// assert!(memory.reader().subbuf(0).unwrap().is_some());
    /// assert!(memory.reader().subbuf(1).unwrap().is_none(), "it is open");
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    ///
    /// # Errors
    /// When its header cannot be what a writer wrote.
    pub fn subbuf(&self, number: u64) -> Result<Option<Subbuf>, Corrupt> {
        let Self { buffer, geometry } = *self;
        let produced = self.produced();
        if number >= produced {
            return if number > produced { Err(Corrupt::Positions { produced, consumed: number }) } else { Ok(None) };
        }
        let place = geometry.place(geometry.begin(number));
        let lap = geometry.lap(number);
        // Acquire: pairs with the writers' fetch_add; their bytes are visible when their count is.
        let committed = Committed(buffer.committed(place).acquire());
        if !committed.is_complete(geometry, lap + 1) {
            return Ok(None);
        }
        let padding = buffer.load_u32(place);
        let Some(len) = (geometry.subbuf_size() - HEADER).checked_sub(u64::from(padding)) else {
            return Err(Corrupt::Padding { number, padding });
        };
        let records = committed.records_of(geometry, lap, buffer.load_u32(place + RECORDS_BEFORE_AT));
        Ok(Some(Subbuf { number, place: place + HEADER, len, records }))
    }

    /// Whether sub-buffer `number` had not been overwritten when this is called: asked after a copy, it says whether
    /// the copy is good.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// for _ in 0..3 {
    ///     writer.commit(&writer.reserve(24).unwrap());
    /// }
    /// assert!(memory.reader().survived(0));
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    pub fn survived(&self, number: u64) -> bool {
        // Pairs with the writers' exchange of `reserved`, which comes before any store into the new lap.
        B::Word::fence_loads();
        self.reserved() <= self.geometry.begin(number.saturating_add(self.geometry.n_subbufs()))
    }

    /// Gives every sub-buffer before `consumed` back to the writers (`relay_subbufs_consumed`): at most what has been
    /// produced. Callers never go back behind what they have given back before.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// for _ in 0..3 {
    ///     writer.commit(&writer.reserve(24).unwrap());
    /// }
    /// # use relay_common::Buffer;
    /// memory.reader().release(1);
    /// assert!(memory.control().counters(Geometry::new(64, 4)?).is_empty());
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[doc(alias = "relay_subbufs_consumed")]
    pub fn release(&self, consumed: u64) {
        // Release: whoever sees it may overwrite what has been read.
        self.buffer.control().consumer.consumed.publish(consumed.min(self.produced()));
    }

    /// What has been written since the channel was made, exactly; `None` while a writer is at work.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// for _ in 0..3 {
    ///     writer.commit(&writer.reserve(24).unwrap());
    /// }
    /// assert_eq!(memory.reader().count().unwrap().recorded, 3);
    /// let record = writer.reserve(4).unwrap();
    /// assert_eq!(memory.reader().count(), None);
    /// # writer.commit(&record);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    pub fn count(&self) -> Option<Count> {
        let Self { buffer, geometry } = *self;
        let reserved = self.reserved();
        let (mut held, mut open) = (0u64, 0);
        let opened = reserved.div_ceil(geometry.subbuf_size());
        for number in opened.saturating_sub(geometry.n_subbufs())..opened {
            let begin = geometry.begin(number);
            let place = geometry.place(begin);
            let committed = Committed(buffer.committed(place).acquire());
            let lap = geometry.lap(number);
            let used = geometry.subbuf_size().min(reserved - begin);
            if !committed.holds(geometry, lap, used) {
                return None;
            }
            let records_before = buffer.load_u32(place + RECORDS_BEFORE_AT);
            let records = u64::from(committed.records_of(geometry, lap, records_before));
            held += records;
            if used < geometry.subbuf_size() {
                open = records;
            }
        }
        // After the places: every opener up to here has committed, and had retired the lap before by then.
        let recorded = buffer.control().producer.retired.acquire().wrapping_add(held);
        B::Word::fence_loads();
        let count = Count { produced: geometry.number(reserved), recorded, closed: recorded.wrapping_sub(open) };
        (self.reserved() == reserved).then_some(count)
    }

    /// Makes the channel as new: no sub-buffer produced or consumed, every counter zero (`relay_reset`). The bytes of
    /// records and of the client's headers stay.
    ///
    /// The caller sees to it that nobody writes or reads meanwhile: a writer at work would leave counts that never add up.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// for _ in 0..3 {
    ///     writer.commit(&writer.reserve(24).unwrap());
    /// }
    /// memory.reader().reset();
    /// assert_eq!(memory.reader().count().unwrap().recorded, 0);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    pub fn reset(&self) {
        let Self { buffer, geometry } = *self;
        for number in 0..geometry.n_subbufs() {
            let place = geometry.begin(number);
            buffer.store_u32(place, 0);
            buffer.store_u32(place + RECORDS_BEFORE_AT, 0);
            buffer.committed(place).publish(0);
        }
        let Control { producer, consumer } = buffer.control();
        let ProducerWords { reserved, retired, lost_full, lost_too_big, lost_nested, lost_no_buffer, last_stamp, full } =
            producer;
        let ConsumerWords { consumed, waiting, taken } = consumer;
        for Taken { output, records, subbufs } in taken {
            [output, records, subbufs].into_iter().for_each(|word| word.publish(0));
        }
        for word in [retired, lost_full, lost_too_big, lost_nested, lost_no_buffer, last_stamp, full]
            .into_iter()
            .chain([waiting, consumed, reserved])
        {
            word.publish(0);
        }
    }

    fn reserved(&self) -> u64 {
        self.buffer.control().producer.reserved.acquire()
    }
}
