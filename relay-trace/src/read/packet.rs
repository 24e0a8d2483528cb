//! One packet of a `cpuN` file and the records in it, every length checked before it is used. What the bytes of a payload mean is
//! `schema.rs`' concern. `docs/format.md`, sections 2.2 and 2.3, has the layout.

use relay_common::trace::{
    CONTENT_SIZE_AT, CPU_ID_AT, EVENTS_DISCARDED_AT, MAGIC, PACKET_HEADER, PACKET_SEQ_NUM_AT, PACKET_SIZE_AT,
    RECORD_ALIGN, RECORD_HEADER, STREAM_ID_AT, TIMESTAMP_BEGIN_AT, TIMESTAMP_END_AT, UUID_AT,
};

/// Bytes of a packet's header.
#[expect(clippy::cast_possible_truncation, reason = "80")]
pub const HEADER: usize = PACKET_HEADER as usize;
/// Bytes before a record's payload.
#[expect(clippy::cast_possible_truncation, reason = "20")]
pub const BEFORE_PAYLOAD: usize = RECORD_HEADER as usize;
#[expect(clippy::cast_possible_truncation, reason = "4")]
const ALIGN: usize = RECORD_ALIGN as usize;
/// No packet is longer, in bytes: it is the content of a sub-buffer.
pub const LONGEST: u64 = 16 << 20;

/// What is wrong with a place in a file.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Flaw {
    /// There is no packet.
    #[error("no packet begins here")]
    NoPacket,
    /// The packet is another trace's.
    #[error("the packet is of another trace")]
    Foreign,
    /// Two fields of the packet's header contradict each other, or the file.
    #[error("the packet's header is damaged: {0}")]
    Header(&'static str),
    /// The file ends within the packet.
    #[error("the file ends within a packet: {missing} bytes are missing")]
    CutOff {
        /// How many.
        missing: u64,
    },
    /// While the trace was followed, pieces went before they were read.
    #[error(
        "{0} packets before it could not be followed: their pieces were removed or compressed before they were read"
    )]
    Missed(u64),
    /// A record does not fit into its packet.
    #[error("a record of {length} bytes does not fit into its packet")]
    TooLong {
        /// What the record claims, its header included.
        length: usize,
    },
    /// Too few bytes for a record's header, or bytes between records that are not zero.
    #[error("the bytes after the last record are not a record")]
    Rest,
    /// An event that the session does not have.
    #[error("a record of event {0}, which the session does not have")]
    Unknown(u16),
    /// The payload is shorter than the event's fields.
    #[error("a record of {name} has {length} bytes and needs at least {least}")]
    TooShort {
        /// The event's.
        name: String,
        /// Bytes there are.
        length: usize,
        /// Bytes there must be.
        least: usize,
    },
    /// The time falls.
    #[error("a record's time is {back} ns before that of the one before it")]
    Falls {
        /// By how much.
        back: u64,
    },
    /// The time is past the packet's end.
    #[error("a record's time is {after} ns after its packet's end")]
    Late {
        /// By how much.
        after: u64,
    },
}

/// The header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When it was opened; nanoseconds of the monotonic clock.
    pub begin: u64,
    /// When it was closed.
    pub end: u64,
    /// Bytes of the packet, this header included.
    pub len: u64,
    /// The sub-buffer's number.
    pub sequence: u64,
    /// Records that the CPU had lost when the packet was closed.
    pub discarded: u64,
    /// The CPU.
    pub cpu: u32,
}

impl Header {
    /// Reads the header of a trace's packet.
    ///
    /// # Errors
    /// What does not add up. A packet of the right trace is told by its first 20 bytes ([`mark`]).
    pub fn parse(bytes: &[u8], uuid: [u8; 16], cpu: u32) -> Result<Self, Flaw> {
        if bytes.len() < HEADER || number::<4>(bytes, 0) != u64::from(MAGIC) {
            return Err(Flaw::NoPacket);
        }
        if bytes[at(UUID_AT)..at(STREAM_ID_AT)] != uuid {
            return Err(Flaw::Foreign);
        }
        let bits = number::<8>(bytes, at(CONTENT_SIZE_AT));
        let header = Self {
            begin: number::<8>(bytes, at(TIMESTAMP_BEGIN_AT)),
            end: number::<8>(bytes, at(TIMESTAMP_END_AT)),
            len: bits / 8,
            sequence: number::<8>(bytes, at(PACKET_SEQ_NUM_AT)),
            discarded: number::<8>(bytes, at(EVENTS_DISCARDED_AT)),
            cpu,
        };
        let wrong = if !bits.is_multiple_of(8) || !(PACKET_HEADER..=LONGEST).contains(&header.len) {
            "a length that no packet has"
        } else if number::<8>(bytes, at(PACKET_SIZE_AT)) != bits {
            "its two lengths differ"
        } else if number::<4>(bytes, at(STREAM_ID_AT)) != 0 {
            "a stream that the trace does not have"
        } else if number::<4>(bytes, at(CPU_ID_AT)) != u64::from(cpu) {
            "another CPU's"
        } else if header.end < header.begin {
            "it ends before it begins"
        } else {
            return Ok(header);
        };
        Err(Flaw::Header(wrong))
    }
}

/// The bytes that every packet of a trace begins with.
#[must_use]
pub fn mark(uuid: [u8; 16]) -> [u8; 20] {
    let mut mark = [0; 20];
    mark[..4].copy_from_slice(&MAGIC.to_le_bytes());
    mark[4..].copy_from_slice(&uuid);
    mark
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Nanoseconds of the monotonic clock.
    pub timestamp: u64,
    /// The event's.
    pub id: u16,
    /// The thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// Context and payload.
    pub payload: &'a [u8],
}

/// Walks the records of a packet's bytes. After an error there is nothing more: where the next record begins is not known.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// The records of `packet` from byte `at` on, which is where a record begins or the packet ends.
    #[must_use]
    pub fn new(packet: &'a [u8], at: usize) -> Self {
        Self { packet, at }
    }

    /// Where the next record begins, in bytes from the packet's start; at the end, the packet's length.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.packet.get(self.at..)?;
        if rest.is_empty() {
            return None;
        }
        if rest.len() < BEFORE_PAYLOAD {
            return Some(Err(Flaw::Rest));
        }
        let payload = usize::from(u16::from_le_bytes([rest[10], rest[11]]));
        let length = BEFORE_PAYLOAD + payload;
        let Some(payload) = rest.get(BEFORE_PAYLOAD..length) else { return Some(Err(Flaw::TooLong { length })) };
        let record = Record {
            timestamp: number::<8>(rest, 0),
            id: u16::from_le_bytes([rest[8], rest[9]]),
            tid: word(rest, 12),
            pid: word(rest, 16),
            payload,
        };
        // The last record ends the packet; between two there is a gap up to the next multiple.
        let next = (self.at + length).next_multiple_of(ALIGN);
        match self.packet.get(self.at + length..next) {
            None => self.at = self.packet.len(),
            Some(gap) if gap.iter().all(|byte| *byte == 0) => self.at = next,
            Some(_) => return Some(Err(Flaw::Rest)),
        }
        Some(Ok(record))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "offsets in a header of 80 bytes")]
const fn at(offset: u64) -> usize {
    offset as usize
}

/// The little-endian number of `N` bytes, at most 8, at `at`; the caller has checked the length.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(word)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// How many records of a packet are not later than the cut, and where they end, in bytes; nothing of a packet that begins later.
#[must_use]
pub fn before(packet: &[u8], cut: u64) -> (u64, usize) {
    if packet.len() < HEADER || number::<8>(packet, at(TIMESTAMP_BEGIN_AT)) > cut {
        return (0, 0);
    }
    let mut records = Records::new(packet, HEADER);
    let (mut kept, mut end) = (0, HEADER);
    loop {
        let begin = records.at();
        match records.next() {
            Some(Ok(record)) if record.timestamp <= cut => {
                // Without the gap that follows: a packet ends with its last record.
                (kept, end) = (kept + 1, begin + BEFORE_PAYLOAD + record.payload.len());
            }
            _ => return (kept, end),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const UUID: [u8; 16] = *b"0123456789abcdef";

    /// A packet of records, each of a time, an event and a payload.
    pub(crate) fn packet(header: Header, records: &[(u64, u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        for (timestamp, id, payload) in records {
            bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
            bytes.extend(timestamp.to_le_bytes());
            bytes.extend(id.to_le_bytes());
            bytes.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
            bytes.extend([7, 0, 0, 0, 5, 0, 0, 0]);
            bytes.extend(*payload);
        }
        let bits = (bytes.len() as u64 * 8).to_le_bytes();
        bytes[..20].copy_from_slice(&mark(UUID));
        for (at, field) in [
            (24, header.begin.to_le_bytes()),
            (32, header.end.to_le_bytes()),
            (40, bits),
            (48, bits),
            (56, header.sequence.to_le_bytes()),
            (64, header.discarded.to_le_bytes()),
            (72, u64::from(header.cpu).to_le_bytes()),
        ] {
            bytes[at..at + 8].copy_from_slice(&field);
        }
        bytes
    }

    pub(crate) const PLAIN: Header = Header { begin: 10, end: 90, len: 0, sequence: 0, discarded: 0, cpu: 1 };

    #[test]
    fn what_was_written_is_read() {
        let bytes = packet(PLAIN, &[(20, 0, b"abcde"), (30, 1, b""), (30, 2, b"xyz")]);
        let header = Header::parse(&bytes, UUID, 1).unwrap();
        assert_eq!(header, Header { len: bytes.len() as u64, ..PLAIN });
        let records: Result<Vec<_>, _> = Records::new(&bytes, HEADER).collect();
        let records = records.unwrap();
        let seen: Vec<_> = records.iter().map(|r| (r.timestamp, r.id, r.payload)).collect();
        assert_eq!(seen, [(20, 0, &b"abcde"[..]), (30, 1, b""), (30, 2, b"xyz")]);
        assert_eq!((records[0].tid, records[0].pid), (7, 5));
    }

    #[test]
    fn every_damage_has_a_name() {
        let good = packet(PLAIN, &[(20, 0, b"abcde"), (30, 1, b"x")]);
        let damaged = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Header::parse(&bytes, UUID, 1)
                .map(|_| ())
                .and_then(|()| Records::new(&bytes, HEADER).try_for_each(|r| r.map(|_| ())))
        };
        assert_eq!(damaged(0, 0), Err(Flaw::NoPacket));
        assert_eq!(damaged(9, 0), Err(Flaw::Foreign));
        for at in [20, 32, 40, 41, 48, 72] {
            assert!(matches!(damaged(at, 3), Err(Flaw::Header(_))), "{at}");
        }
        assert_eq!(damaged(HEADER + 11, 1), Err(Flaw::TooLong { length: 20 + 5 + 256 }));
        assert_eq!(damaged(HEADER + 10, 4), Err(Flaw::Rest));
        assert_eq!(damaged(HEADER + 25, 9), Err(Flaw::Rest));
        assert_eq!(Header::parse(&good[..79], UUID, 1), Err(Flaw::NoPacket));
        assert_eq!(Records::new(&good[..HEADER + 12], HEADER).next(), Some(Err(Flaw::Rest)));
    }

    #[test]
    fn a_packet_ends_with_the_last_record_before_the_cut() {
        let bytes = packet(
            Header { begin: 10, end: 40, ..PLAIN },
            &[(10, 0, b"one"), (20, 0, b"three"), (20, 1, b""), (30, 0, b"x")],
        );
        let ends = [(9, 0, 0), (10, 1, 103), (19, 1, 103), (20, 3, 152), (30, 4, 173), (99, 4, 173)];
        assert_eq!(bytes.len(), 173);
        for (cut, records, end) in ends {
            assert_eq!(before(&bytes, cut), (records, end), "at {cut}");
        }
        assert_eq!(before(&bytes[..HEADER - 1], 99), (0, 0));
        let empty = packet(Header { begin: 10, end: 10, ..PLAIN }, &[]);
        assert_eq!(before(&empty, 10), (0, HEADER));
    }
}
