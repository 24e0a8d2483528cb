//! The writers' half of the protocol: reserve, commit, switch, flush.
//!
//! Any number of writers of one CPU may interrupt one another at any instruction. What is reserved is
//! decided by one exchange of `reserved`; what is visible, by one add to `committed`. Whoever moves
//! `reserved` past the end of a sub-buffer closes it, whoever moves it past the beginning of one opens
//! it, so that each happens once a lap. `docs/architecture.md` argues each step.

use core::fmt;

use crate::{
    committed::Committed,
    geometry::{Geometry, HEADER, align_up},
    layout::{Buffer, MAX_RECORD, ProducerWords, RECORDS_BEFORE_AT},
    word::Word,
};

/// How often a writer that was interrupted between its look and its exchange tries again.
// VERIFIER: of 64 bits, since half a word on the stack shares it with others, and the loop's end is lost from sight.
pub const TRIES: u64 = 8;

/// What happens to new records when the reader is behind.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// for mode in [Mode::NoOverwrite, Mode::Overwrite] {
///     let memory = Memory::new(Geometry::new(64, 2)?);
///     let writer = memory.writer(&Plain, mode);
///     let stored = (0..5).filter(|_| writer.reserve(48).map(|record| writer.commit(&record)).is_ok()).count();
///     assert_eq!(stored, if mode == Mode::Overwrite { 5 } else { 2 });
/// }
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are lost, and counted.
    NoOverwrite,
    /// They replace the oldest, which are counted by the reader as overrun.
    Overwrite,
}

/// The callbacks of a channel's user (`struct rchan_callbacks`), and what it puts into every sub-buffer beside the
/// records. The channel gives the place and the moment, and does not look at the bytes.
///
/// They run in the middle of a write, in whatever context that is: short, without waiting, and never writing to the
/// same channel. While a CPU is offline, user space has its buffer closed on another: whose buffer it is, only the buffer says.
///
/// ```
/// use relay_common::{Buffer, Client, Geometry, Mode, memory::Memory};
///
/// /// Every sub-buffer begins with its number.
/// struct Numbered;
///
/// impl<B: Buffer> Client<B> for Numbered {
///     const HEADER: u64 = 8;
///     fn subbuf_start(&self, buffer: &B, place: u64, number: u64, _stamp: u64) {
///         buffer.store_u64(place, number);
///     }
/// }
///
/// let memory = Memory::new(Geometry::new(64, 4)?);
/// let writer = memory.writer(&Numbered, Mode::NoOverwrite);
/// for _ in 0..2 {
///     writer.commit(&writer.reserve(40).unwrap());
/// }
/// let second = memory.reader().subbuf(1).unwrap().unwrap();
/// assert_eq!(memory.load(second.place, 8), 1u64.to_ne_bytes());
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[doc(alias = "rchan_callbacks")]
pub trait Client<B: Buffer> {
    /// Bytes of the client's own header, right after the padding header (`subbuf_start_reserve`).
    #[doc(alias = "subbuf_start_reserve")]
    const HEADER: u64 = 0;
    /// Every record begins at a multiple of this from the sub-buffer's start, in bytes: a power of two.
    const ALIGN: u64 = 1;
    /// The client's clock. It is read between the look at `reserved` and the exchange, so that stamps rise in the
    /// order of the buffer. May be read again for the same record.
    #[inline(always)]
    fn stamp(&self, _producer: &ProducerWords<B::Word>) -> u64 {
        0
    }
    /// The exchange succeeded: `stamp` is taken.
    #[inline(always)]
    fn stamped(&self, _producer: &ProducerWords<B::Word>, _stamp: u64) {}
    /// Sub-buffer `number` was opened: `place` is that of the client's header. Once for every sub-buffer.
    #[inline(always)]
    fn subbuf_start(&self, _buffer: &B, _place: u64, _number: u64, _stamp: u64) {}
    /// A sub-buffer is being closed: `place` is that of the client's header. Once for every sub-buffer.
    #[inline(always)]
    fn subbuf_end(&self, _buffer: &B, _place: u64, _closing: Closing) {}
    /// A record was lost because every sub-buffer waits for the reader, and the one before it was not. Called once, until
    /// [`Self::buf_recovered`]; but a writer that is interrupted just before it calls may call after one that recovers.
    #[inline(always)]
    fn buf_full(&self, _buffer: &B) {}
    /// After [`Self::buf_full`], a record is being stored again.
    #[inline(always)]
    fn buf_recovered(&self, _buffer: &B) {}
}

/// A client that adds nothing: the content of a sub-buffer is its records, end to end, as in relay.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// let writer = memory.writer(&Plain, Mode::NoOverwrite);
/// writer.commit(&writer.reserve(10).unwrap());
/// writer.flush();
/// assert_eq!(memory.reader().subbuf(0).unwrap().unwrap().len, 10);
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl<B: Buffer> Client<B> for Plain {}

/// What is known when a sub-buffer is closed.
///
/// ```
/// use relay_common::{Buffer, Client, Closing};
///
/// /// Sub-buffers begin with the length of their content and what was lost before they ended.
/// struct Told;
///
/// impl<B: Buffer> Client<B> for Told {
///     const HEADER: u64 = 16;
///     fn subbuf_end(&self, buffer: &B, place: u64, closing: Closing) {
///         buffer.store_u64(place, closing.content);
///         buffer.store_u64(place + 8, closing.lost);
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Closing {
    /// The stamp of the write that closes.
    pub stamp: u64,
    /// Bytes that the reader will get: all but padding header and padding.
    pub content: u64,
    /// Records that this CPU's buffer had lost when the closing write was decided: full, too big and nested. Never falls.
    pub lost: u64,
}

/// Why a record was not stored. It is counted already.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// # use relay_common::Lost;
/// assert_eq!(memory.writer(&Plain, Mode::NoOverwrite).reserve(49).unwrap_err(), Lost::TooBig);
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Every sub-buffer waits for the reader.
    Full,
    /// No sub-buffer could hold it.
    TooBig,
    /// A writer that was interrupted still owns the sub-buffer that is needed.
    Nested,
    /// The CPU has no buffer.
    NoBuffer,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "every sub-buffer waits for the reader",
            Self::TooBig => "no sub-buffer could hold the record",
            Self::Nested => "an interrupted writer still owns the sub-buffer that is needed",
            Self::NoBuffer => "the CPU has no buffer",
        })
    }
}

impl core::error::Error for Lost {}

/// Room for one record, to be filled and then committed. Dropping it instead would keep the sub-buffer
/// from ever being complete.
///
/// ```
/// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
/// # let memory = Memory::new(Geometry::new(64, 4)?);
/// let writer = memory.writer(&Plain, Mode::NoOverwrite);
/// let record = writer.reserve(4).unwrap();
/// memory.store(record.place, b"text");
/// writer.commit(&record);
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Debug)]
#[must_use = "room that is not committed blocks the reader"]
pub struct Reservation {
    /// Where the record begins in the buffer's memory, in bytes.
    pub place: u64,
    /// When it was reserved, by the client's clock.
    pub stamp: u64,
    /// Where its sub-buffer begins in the buffer's memory.
    subbuf: u64,
    /// What it adds to `committed`.
    amount: u64,
    /// Not zero: it ends where its sub-buffer does, and so closes it.
    closes: u64,
    /// With this many records lost so far, if it does. VERIFIER: no `Option`, since the compiler may keep its number on the stack even where there is none.
    lost: u64,
}

impl Reservation {
    /// No room at all, for what is to be overwritten.
    #[doc(hidden)]
    pub const NONE: Self = Self { place: 0, stamp: 0, subbuf: 0, amount: 0, closes: 0, lost: 0 };
}

/// A writer on one CPU's buffer.
///
/// ```
/// use relay_common::{Geometry, Mode, Plain, Writer, memory::Memory};
///
/// let geometry = Geometry::new(64, 4)?;
/// let memory = Memory::new(geometry);
/// let writer = Writer { buffer: &memory, client: &Plain, geometry, mode: Mode::NoOverwrite };
/// assert!(writer.reserve(48).is_ok());
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a, B, C> {
    /// The CPU's memory.
    pub buffer: &'a B,
    /// The channel's user.
    pub client: &'a C,
    /// How the buffer is cut.
    pub geometry: Geometry,
    /// What to do when the reader is behind.
    pub mode: Mode,
}

/// One look at the buffer: what a writer would do if nobody moves `reserved` meanwhile.
struct Look {
    reserved: u64,
    offset: u64,
    stamp: u64,
    lost: u64,
}

impl<B: Buffer, C: Client<B>> Writer<'_, B, C> {
    /// Bytes of a sub-buffer before its first record.
    const FIRST: u64 = align_up(HEADER + C::HEADER, C::ALIGN);

    /// Reserves room for a record of `len` bytes.
    ///
    /// One of no bytes is a record like others, without bytes; `relay_write` leaves it out, and so do this project's callers.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// let record = writer.reserve(20).unwrap();
    /// assert_eq!(record.place, 16, "after the padding header");
    /// # writer.commit(&record);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    ///
    /// # Errors
    /// The cause of the loss, which has been counted.
    #[inline(always)]
    pub fn reserve(&self, len: u64) -> Result<Reservation, Lost> {
        match self.reserve_open(len) {
            Some(reservation) => Ok(reservation),
            None => self.reserve_anew(len),
        }
    }

    /// Room in the open sub-buffer, with more behind it: nearly always there is. `None` has changed nothing: then there is [`Self::reserve_anew`].
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// assert!(writer.reserve_open(20).is_none(), "no sub-buffer is open");
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    pub fn reserve_open(&self, len: u64) -> Option<Reservation> {
        let Self { buffer, client, geometry, .. } = *self;
        let producer = &buffer.control().producer;
        let reserved = producer.reserved.peek();
        let begin = align_up(reserved, C::ALIGN);
        if len > MAX_RECORD || geometry.offset(reserved) == 0 || !geometry.in_one_subbuf(reserved, begin + len) {
            return None;
        }
        let stamp = client.stamp(producer);
        if !producer.reserved.exchange_if(reserved, begin + len) {
            return None;
        }
        client.stamped(producer, stamp);
        self.zero(reserved, begin);
        let place = geometry.place(begin);
        let amount = Committed::amount(1, begin + len - reserved);
        Some(Reservation { place, stamp, subbuf: geometry.subbuf(reserved), amount, closes: 0, lost: 0 })
    }

    /// Looks, and takes room wherever it is; again when others have moved on since. A function of its own, where the compiler makes one of it, leaves more
    /// registers to what is done for every record.
    ///
    /// ```
    /// # use relay_common::{Geometry, Lost, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// assert_eq!(writer.reserve_anew(49).err(), Some(Lost::TooBig));
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    ///
    /// # Errors
    /// The cause of the loss, which has been counted.
    #[inline(always)]
    pub fn reserve_anew(&self, len: u64) -> Result<Reservation, Lost> {
        for _ in 0..TRIES {
            if let Some(result) = self.look_and_reserve(len) {
                return result;
            }
        }
        Err(self.give_up())
    }

    /// Counts a record for which there was no look after which nobody had moved on.
    #[doc(hidden)]
    #[inline(always)]
    pub fn give_up(&self) -> Lost {
        self.buffer.control().producer.lost_nested.count(1);
        Lost::Nested
    }

    /// One such look; `None` when others have moved on since.
    #[doc(hidden)]
    #[inline(always)]
    pub fn look_and_reserve(&self, len: u64) -> Option<Result<Reservation, Lost>> {
        let producer = &self.buffer.control().producer;
        if len > MAX_RECORD || Self::FIRST + len > self.geometry.subbuf_size() {
            producer.lost_too_big.count(1);
            return Some(Err(Lost::TooBig));
        }
        let look = self.look();
        let first_free = align_up(look.offset, C::ALIGN);
        if look.offset == 0 || first_free + len > self.geometry.subbuf_size() {
            return self.reserve_next(&look, len);
        }
        let begin = look.reserved - look.offset + first_free;
        if !producer.reserved.exchange_if(look.reserved, begin + len) {
            return None;
        }
        self.client.stamped(producer, look.stamp);
        self.zero(look.reserved, begin);
        Some(Ok(self.granted(&look, begin, len, first_free - look.offset)))
    }

    /// Takes room in the next sub-buffer, and switches to it.
    #[inline(always)]
    fn reserve_next(&self, look: &Look, len: u64) -> Option<Result<Reservation, Lost>> {
        let Self { buffer, client, geometry, mode } = *self;
        let producer = &buffer.control().producer;
        let base = self.next_begin(look);
        let number = geometry.number(base);
        if mode == Mode::NoOverwrite && self.is_full(number) {
            // However old the look is: others cannot have opened it either, since `consumed` only rises.
            // What is there becomes readable, as in relay.
            if look.offset != 0 && !self.close_at(look, base) {
                return None;
            }
            producer.lost_full.count(1);
            if producer.full.peek() == 0 && producer.full.exchange_if(0, 1) {
                client.buf_full(buffer);
            }
            return Some(Err(Lost::Full));
        }
        if geometry.n_subbufs() == 1 && look.offset != 0 {
            // The place to open is the one to close: never both at once, or the old lap's closing words would land in the new.
            self.close_at(look, base);
            return None;
        }
        let before = Committed(buffer.committed(geometry.place(base)).peek());
        if !before.is_complete(geometry, geometry.lap(number)) {
            if producer.reserved.peek() != look.reserved {
                return None;
            }
            producer.lost_nested.count(1);
            return Some(Err(Lost::Nested));
        }
        if !producer.reserved.exchange_if(look.reserved, base + Self::FIRST + len) {
            return None;
        }
        client.stamped(producer, look.stamp);
        if look.offset != 0 {
            self.close_rest(look);
        }
        self.open(number, before, look.stamp);
        if mode == Mode::NoOverwrite && producer.full.peek() != 0 && producer.full.exchange_if(1, 0) {
            client.buf_recovered(buffer);
        }
        Some(Ok(self.granted(look, base + Self::FIRST, len, Self::FIRST)))
    }

    /// Makes a record visible, once its bytes are written.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// let record = writer.reserve(48).unwrap();
    /// assert_eq!(memory.reader().subbuf(0), Ok(None), "its writer is at work");
    /// writer.commit(&record);
    /// assert_eq!(memory.reader().subbuf(0).unwrap().unwrap().records, 1);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    pub fn commit(&self, reservation: &Reservation) {
        if reservation.closes != 0 {
            self.close(reservation.subbuf, 0, reservation.stamp, reservation.lost);
        }
        self.add(reservation.subbuf, reservation.amount);
    }

    /// Closes the open sub-buffer, if there is one. Never loses anything. From any CPU.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// let writer = memory.writer(&Plain, Mode::NoOverwrite);
    /// writer.commit(&writer.reserve(20).unwrap());
    /// assert_eq!(memory.reader().produced(), 0);
    /// writer.flush();
    /// assert_eq!(memory.reader().produced(), 1);
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    pub fn flush(&self) {
        for _ in 0..TRIES {
            let Some(look) = self.look_from_anywhere() else { continue };
            if look.offset == 0 {
                return;
            }
            if self.close_at(&look, self.next_begin(&look)) {
                return;
            }
        }
        // Writers that came in between have written; the next flush is not far.
    }

    /// Flushes, then opens a sub-buffer and closes it with no record: the client's header alone, to tell what
    /// is known now. Does nothing when there is no room.
    ///
    /// ```
    /// # use relay_common::{Geometry, Mode, Plain, memory::Memory};
    /// # let memory = Memory::new(Geometry::new(64, 4)?);
    /// memory.writer(&Plain, Mode::NoOverwrite).mark();
    /// let subbuf = memory.reader().subbuf(0).unwrap().unwrap();
    /// assert_eq!((subbuf.len, subbuf.records), (0, 0));
    /// # Ok::<(), relay_common::GeometryError>(())
    /// ```
    #[inline(always)]
    pub fn mark(&self) {
        let Self { buffer, client, geometry, mode } = *self;
        let producer = &buffer.control().producer;
        if Self::FIRST > geometry.subbuf_size() {
            return;
        }
        self.flush();
        let Some(look) = self.look_from_anywhere() else { return };
        let number = geometry.number(look.reserved);
        if look.offset != 0 || (mode == Mode::NoOverwrite && self.is_full(number)) {
            return;
        }
        let before = Committed(buffer.committed(geometry.place(look.reserved)).peek());
        if !before.is_complete(geometry, geometry.lap(number))
            || !producer.reserved.exchange_if(look.reserved, look.reserved + geometry.subbuf_size())
        {
            return;
        }
        client.stamped(producer, look.stamp);
        self.open(number, before, look.stamp);
        let subbuf = geometry.subbuf(look.reserved);
        self.close(subbuf, geometry.subbuf_size() - Self::FIRST, look.stamp, look.lost);
        self.add(subbuf, Committed::amount(0, geometry.subbuf_size()));
    }

    /// Stamp and losses are read after `reserved` and before the exchange: both rise in the order of the buffer.
    #[inline(always)]
    fn look(&self) -> Look {
        self.look_at(self.buffer.control().producer.reserved.peek())
    }

    /// The same after a full barrier, for whoever runs on another CPU than the buffer's writers: losses and stamps that they have told
    /// are seen. `None` when others have moved on since.
    #[inline(always)]
    fn look_from_anywhere(&self) -> Option<Look> {
        let reserved = &self.buffer.control().producer.reserved;
        let now = reserved.peek();
        // Not an add of nothing: the compiler makes a plain load of it.
        reserved.exchange_if(now, now).then(|| self.look_at(now))
    }

    #[inline(always)]
    fn look_at(&self, reserved: u64) -> Look {
        let producer = &self.buffer.control().producer;
        Look {
            reserved,
            offset: self.geometry.offset(reserved),
            stamp: self.client.stamp(producer),
            lost: producer.lost(),
        }
    }

    /// Where the sub-buffer begins that is opened next.
    #[inline(always)]
    fn next_begin(&self, look: &Look) -> u64 {
        if look.offset == 0 { look.reserved } else { look.reserved - look.offset + self.geometry.subbuf_size() }
    }

    /// Whether the reader still needs the place of sub-buffer `number`. `consumed` may be anything: it only decides
    /// between a loss and an overwrite.
    #[inline(always)]
    fn is_full(&self, number: u64) -> bool {
        let behind = number.wrapping_sub(self.buffer.control().consumer.consumed.peek());
        behind.cast_signed() >= self.geometry.n_subbufs().cast_signed()
    }

    #[inline(always)]
    fn granted(&self, look: &Look, begin: u64, len: u64, before: u64) -> Reservation {
        Reservation {
            place: self.geometry.place(begin),
            stamp: look.stamp,
            subbuf: self.geometry.subbuf(begin - before),
            amount: Committed::amount(1, len + before),
            closes: u64::from(self.geometry.offset(begin + len) == 0),
            lost: look.lost,
        }
    }

    /// Clears an alignment gap, so that nothing of an earlier lap shows through.
    #[inline(always)]
    fn zero(&self, from: u64, to: u64) {
        if from == to {
            return;
        }
        for i in 0..C::ALIGN - 1 {
            if from + i < to {
                self.buffer.store_zero(self.geometry.place(from + i));
            }
        }
    }

    /// Opens sub-buffer `number`, of which the place held `before`: read before the exchange, since afterwards writers
    /// that interrupt may have committed into the new lap already.
    #[inline(always)]
    fn open(&self, number: u64, before: Committed, stamp: u64) {
        let Self { buffer, client, geometry, .. } = *self;
        let place = geometry.place(geometry.begin(number));
        let lap = geometry.lap(number);
        if lap != 0 {
            let records_before = buffer.load_u32(place + RECORDS_BEFORE_AT);
            let retired = before.records_of(geometry, lap - 1, records_before);
            buffer.control().producer.retired.count(u64::from(retired));
        }
        buffer.store_u32(place + RECORDS_BEFORE_AT, before.records());
        self.zero(place + HEADER + C::HEADER, place + Self::FIRST);
        client.subbuf_start(buffer, place + HEADER, number, stamp);
    }

    /// Closes the sub-buffer that a look found open, unless others have moved on since; says whether it did. `base` is where the
    /// next begins.
    #[inline(always)]
    fn close_at(&self, look: &Look, base: u64) -> bool {
        let producer = &self.buffer.control().producer;
        let closed = producer.reserved.exchange_if(look.reserved, base);
        if closed {
            self.client.stamped(producer, look.stamp);
            self.close_rest(look);
        }
        closed
    }

    /// Writes the closing words of the sub-buffer that a look found open, and commits its unused rest.
    #[inline(always)]
    fn close_rest(&self, look: &Look) {
        let subbuf = self.geometry.subbuf(look.reserved);
        let padding = self.geometry.subbuf_size() - look.offset;
        self.close(subbuf, padding, look.stamp, look.lost);
        self.add(subbuf, Committed::amount(0, padding));
    }

    /// Writes what only whoever closes knows. Not by an opener, ever: one that was interrupted may resume after
    /// others have filled and closed its sub-buffer.
    #[inline(always)]
    fn close(&self, subbuf: u64, padding: u64, stamp: u64, lost: u64) {
        let Self { buffer, client, geometry, .. } = *self;
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_SUBBUF_SIZE")]
        buffer.store_u32(subbuf, padding as u32);
        let content = geometry.subbuf_size() - HEADER - padding;
        client.subbuf_end(buffer, subbuf + HEADER, Closing { stamp, content, lost });
    }

    /// Commits, and wakes the reader if that makes the sub-buffer complete and the reader sleeps. The closer is too
    /// early for that: a writer that it interrupted may still have to commit.
    #[inline(always)]
    fn add(&self, subbuf: u64, amount: u64) {
        let Self { buffer, geometry, .. } = *self;
        let before = buffer.committed(subbuf).fetch_add(amount);
        let waiting = &buffer.control().consumer.waiting;
        // Nobody enters a lap before the last is complete: no multiple but this lap's end is reached by an add of bytes. One of a record of
        // no bytes may leave the lap's beginning as it is; the reader is then woken for nothing.
        if geometry.offset(before.wrapping_add(amount)) == 0
            // Ordered after the add, as the reader's re-check is after its announcement: one of the two sees the other.
            && waiting.swap(0) != 0
            && !buffer.wake()
        {
            // Not woken: leave the request for the next one to complete. A failure is rare, and the reader's timer bounds it.
            let _ = waiting.swap(1);
        }
    }
}
