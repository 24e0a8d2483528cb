//! The tracer's bytes: what a packet header, a record header and an attach cookie hold.
//!
//! The tracer is one client of the channel; nothing else in this crate depends on this module. The
//! packets are at the same time CTF 1.8, described by the trace's `metadata` file; `docs/format.md` is normative.

use crate::{
    layout::{Buffer, ProducerWords},
    word::Word,
    writer::{Client, Closing},
};

/// First word of every packet: CTF 1.8's magic number.
pub const MAGIC: u32 = 0xC1FC_1FC1;
/// Bytes of the packet header and context, right after the padding header.
pub const PACKET_HEADER: u64 = 80;
/// Offset of `u8 uuid[16]` in the packet header. Like the magic number, stream id and CPU, it is written once
/// into every place of the buffer by the daemon, and stays.
pub const UUID_AT: u64 = 4;
/// Offset of `u32 stream_id`.
pub const STREAM_ID_AT: u64 = 20;
/// Offset of `u64 timestamp_begin`, in nanoseconds of the monotonic clock.
pub const TIMESTAMP_BEGIN_AT: u64 = 24;
/// Offset of `u64 timestamp_end`.
pub const TIMESTAMP_END_AT: u64 = 32;
/// Offset of `u64 content_size`, in bits.
pub const CONTENT_SIZE_AT: u64 = 40;
/// Offset of `u64 packet_size`, in bits.
pub const PACKET_SIZE_AT: u64 = 48;
/// Offset of `u64 packet_seq_num`: the sub-buffer's number.
pub const PACKET_SEQ_NUM_AT: u64 = 56;
/// Offset of `u64 events_discarded`: what this CPU's buffer has lost so far.
pub const EVENTS_DISCARDED_AT: u64 = 64;
/// Offset of `u32 cpu_id`; a zero u32 follows.
pub const CPU_ID_AT: u64 = 72;

/// Every record begins at a multiple of this from the packet's start, in bytes.
pub const RECORD_ALIGN: u64 = 4;
/// Bytes before a record's payload.
pub const RECORD_HEADER: u64 = 20;
/// Longest payload, in bytes: what perf, whose buffer a tracepoint's fields are built in, allows
/// (`PERF_MAX_TRACE_SIZE`).
pub const MAX_PAYLOAD: u64 = 8192;
/// Bytes of the common fields at the start of every tracepoint's context, which a record leaves out.
pub const COMMON_FIELDS: u64 = 8;

/// What stands before every payload: 20 bytes, no gaps.
///
/// ```
/// use relay_common::trace::RecordHeader;
///
/// let header = RecordHeader::new(1_000_000, 3, 56, 100 << 32 | 101);
/// assert_eq!((header.pid, header.tid, size_of_val(&header)), (100, 101, 20));
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub struct RecordHeader {
    /// Nanoseconds of the monotonic clock.
    pub timestamp: u64,
    /// The event's id in this trace.
    pub id: u16,
    /// Bytes of payload that follow.
    pub len: u16,
    /// Thread that was current, in the initial PID namespace.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
}

impl RecordHeader {
    /// A header for `len` bytes of payload, at most [`MAX_PAYLOAD`], of the task `current`: `tgid << 32 | tid`, as the kernel
    /// packs them.
    ///
    /// ```
    /// # use relay_common::trace::RecordHeader;
    /// assert_eq!(RecordHeader::new(0, 3, 56, 0).len, 56);
    /// ```
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a length below 2^16, and the halves of a word")]
    pub const fn new(timestamp: u64, id: u16, len: u64, current: u64) -> Self {
        Self { timestamp, id, len: len as u16, tid: current as u32, pid: (current >> 32) as u32 }
    }

    /// Its bytes as two words, at 0 and 8, and the half of one that follows: three stores.
    ///
    /// ```
    /// # use relay_common::trace::RecordHeader;
    /// assert_eq!(RecordHeader::new(9, 3, 56, 100 << 32 | 101).words(), (9, 101 << 32 | 56 << 16 | 3, 100));
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> (u64, u64, u32) {
        (self.timestamp, self.id as u64 | (self.len as u64) << 16 | (self.tid as u64) << 32, self.pid)
    }
}

const _: () = assert!(size_of::<RecordHeader>() as u64 == RECORD_HEADER);

/// What one program needs to know of each tracepoint it serves: it travels with the attachment, as the
/// BPF cookie.
///
/// ```
/// use relay_common::trace::Cookie;
///
/// let cookie = Cookie { id: 3, size: 64, last_loc: 40, relative: false, entry: false };
/// assert_eq!(Cookie::unpack(cookie.pack()), cookie);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The event's id in this trace.
    pub id: u16,
    /// Bytes of the fixed part of the context, common fields included.
    pub size: u16,
    /// Offset in the context of the last dynamic field's location word; 0 when there is none. Dynamic data
    /// lie in the order of declaration, so that this one ends the payload.
    pub last_loc: u16,
    /// The location counts from the end of its own word (`__rel_loc`), not from the context's start.
    pub relative: bool,
    /// This is the entry of a pair of entry and return.
    pub entry: bool,
}

impl Cookie {
    /// As the 64 bits that the kernel keeps.
    ///
    /// ```
    /// # use relay_common::trace::Cookie;
    /// let cookie = Cookie { id: 3, size: 64, last_loc: 40, relative: true, entry: false };
    /// assert_eq!(cookie.pack(), 3 | 1 << 16 | 64 << 32 | 40 << 48);
    /// ```
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.id as u64
            | (self.relative as u64) << 16
            | (self.entry as u64) << 17
            | (self.size as u64) << 32
            | (self.last_loc as u64) << 48
    }

    /// From the 64 bits that the kernel kept.
    ///
    /// ```
    /// # use relay_common::trace::Cookie;
    /// assert_eq!(Cookie::unpack(3 | 64 << 32).size, 64);
    /// ```
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "fields of 16 bits")]
    pub const fn unpack(bits: u64) -> Self {
        Self {
            id: bits as u16,
            relative: bits >> 16 & 1 != 0,
            entry: bits >> 17 & 1 != 0,
            size: (bits >> 32) as u16,
            last_loc: (bits >> 48) as u16,
        }
    }
}

/// System calls have smaller numbers than this, on every architecture that the tracer knows.
pub const CALL_NUMBERS: u32 = 512;

/// Places in a table of system calls: one for each number, and the last for all calls of 32-bit programs, whose numbers mean others.
pub const CALL_PLACES: u32 = CALL_NUMBERS + 1;

/// Set in what the programs of all system calls have for a cookie where they serve one event, whatever the call: the event's id is below.
pub const ALL_CALLS: u32 = 1 << 30;

/// Set in the [`Cookie`] of a system call that is an event, where a table has one for each number: no bit of the cookie's own.
pub const CALL_IS_CHOSEN: u64 = 1 << 18;

/// What the daemon asks of the tracer's own program, as the first argument of its raw tracepoint context.
///
/// ```
/// assert_eq!(relay_common::trace::TracerRequest::Stop as u64, 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum TracerRequest {
    /// Record from now on. The calling process is the recorder, whose events are left out unless the second argument
    /// is not zero.
    Start = 0,
    /// Record nothing more.
    Stop = 1,
    /// From now on the processes that the caller starts are chosen, where processes are.
    Follow = 2,
    /// Record an event of the session's own: its id is in the upper half of the first argument, its payload is the second.
    Note = 3,
}

/// The clock of the tracer's records.
///
/// ```
/// use relay_common::trace::Clock;
///
/// /// A clock that stands still.
/// struct Noon;
///
/// impl Clock for Noon {
///     fn now(&self) -> u64 {
///         12 * 3600 * 1_000_000_000
///     }
///     fn steps_back(&self) -> bool {
///         false
///     }
/// }
/// ```
pub trait Clock {
    /// Nanoseconds of the monotonic clock.
    fn now(&self) -> u64;
    /// Whether a program of this session can run in NMI context, where the clock may run a little ahead of what is
    /// read after it (kernel/time/timekeeping.c, `ktime_get_mono_fast_ns`). CTF readers refuse a CPU whose time falls.
    fn steps_back(&self) -> bool;
}

/// The tracer as a client of the channel: sub-buffers are CTF packets, the stamp is the clock.
///
/// ```
/// use relay_common::{Geometry, Mode, memory::Memory, trace::{Clock, PACKET_HEADER, Packets}};
///
/// struct Noon;
///
/// impl Clock for Noon {
///     fn now(&self) -> u64 {
///         12 * 3600 * 1_000_000_000
///     }
///     fn steps_back(&self) -> bool {
///         false
///     }
/// }
///
/// let memory = Memory::new(Geometry::new(256, 4)?);
/// let packets = Packets { clock: Noon };
/// memory.writer(&packets, Mode::NoOverwrite).mark();
/// let packet = memory.reader().subbuf(0).unwrap().unwrap();
/// assert_eq!((packet.len, packet.records), (PACKET_HEADER, 0));
/// # Ok::<(), relay_common::GeometryError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Packets<K> {
    /// Where times come from.
    pub clock: K,
}

impl<B: Buffer, K: Clock> Client<B> for Packets<K> {
    const HEADER: u64 = PACKET_HEADER;
    const ALIGN: u64 = RECORD_ALIGN;

    #[inline(always)]
    fn stamp(&self, producer: &ProducerWords<B::Word>) -> u64 {
        if !self.clock.steps_back() {
            return self.clock.now();
        }
        let last = producer.last_stamp.peek();
        self.clock.now().max(last)
    }

    #[inline(always)]
    fn stamped(&self, producer: &ProducerWords<B::Word>, stamp: u64) {
        if !self.clock.steps_back() {
            return;
        }
        // A writer that interrupted since may have stored a later stamp: that one stays.
        let last = producer.last_stamp.peek();
        if last < stamp {
            let _ = producer.last_stamp.exchange_if(last, stamp);
        }
    }

    #[inline(always)]
    fn subbuf_start(&self, buffer: &B, place: u64, number: u64, stamp: u64) {
        buffer.store_u64(place + TIMESTAMP_BEGIN_AT, stamp);
        buffer.store_u64(place + PACKET_SEQ_NUM_AT, number);
    }

    #[inline(always)]
    fn subbuf_end(&self, buffer: &B, place: u64, closing: Closing) {
        buffer.store_u64(place + TIMESTAMP_END_AT, closing.stamp);
        buffer.store_u64(place + CONTENT_SIZE_AT, closing.content * 8);
        buffer.store_u64(place + PACKET_SIZE_AT, closing.content * 8);
        buffer.store_u64(place + EVENTS_DISCARDED_AT, closing.lost);
    }
}
