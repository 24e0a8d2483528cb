//! A channel of one CPU on plain memory, with a reader that writes into a vector, for tests of the protocol.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use relay_common::{
    Buffer, Client, Closing, Control, Corrupt, Geometry, Lost, MAX_RECORD, Mode, Producer, Reader, Reservation, Word,
    Writer,
};

/// Byte `j` of the `i`-th write of a script, as the vectors define it.
pub(crate) fn pattern(i: usize, len: usize) -> Vec<u8> {
    (0..len).map(|j| u8::try_from((1 + 31 * i + 7 * j) % 256).unwrap()).collect()
}

#[derive(Debug)]
pub(crate) struct Memory {
    control: Control<AtomicU64>,
    committed: Vec<AtomicU64>,
    bytes: Vec<AtomicU8>,
    geometry: Geometry,
    pub(crate) wakes: AtomicU64,
}

impl Buffer for Memory {
    type Word = AtomicU64;
    fn control(&self) -> &Control<AtomicU64> {
        &self.control
    }
    fn committed(&self, place: u64) -> &AtomicU64 {
        &self.committed[usize::try_from(self.geometry.number(place)).unwrap()]
    }
    fn load_u32(&self, place: u64) -> u32 {
        let place = usize::try_from(place).unwrap();
        u32::from_ne_bytes([0, 1, 2, 3].map(|i| self.bytes[place + i].load(Relaxed)))
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

impl Memory {
    fn new(geometry: Geometry) -> Self {
        let zeros = |n: u64| (0..n).map(|_| AtomicU64::new(0)).collect();
        Self {
            control: Control::default(),
            committed: zeros(geometry.n_subbufs()),
            // 0xEE: what a test sees if bytes come out that nobody wrote.
            bytes: (0..geometry.buffer_size()).map(|_| AtomicU8::new(0xEE)).collect(),
            geometry,
            wakes: AtomicU64::new(0),
        }
    }

    pub(crate) fn store(&self, place: u64, bytes: &[u8]) {
        for (place, byte) in (usize::try_from(place).unwrap()..).zip(bytes) {
            self.bytes[place].store(*byte, Relaxed);
        }
    }

    pub(crate) fn load(&self, place: u64, len: u64) -> Vec<u8> {
        let range = usize::try_from(place).unwrap()..usize::try_from(place + len).unwrap();
        self.bytes[range].iter().map(|b| b.load(Relaxed)).collect()
    }
}

/// A client without a header of its own: the bytes are the records, as in relay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<const ALIGN: u64>;

impl<const ALIGN: u64> Client<Memory> for Bytes<ALIGN> {
    const HEADER: u64 = 0;
    const ALIGN: u64 = ALIGN;
    fn stamp(&self, _: &Producer<AtomicU64>) -> u64 {
        0
    }
    fn stamped(&self, _: &Producer<AtomicU64>, _: u64) {}
    fn open(&self, _: &Memory, _: u64, _: u64, _: u64) {}
    fn close(&self, _: &Memory, _: u64, _: Closing) {}
}

/// Counters of the control row, read at rest.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) reserved: u64,
    pub(crate) lost_full: u64,
    pub(crate) lost_too_big: u64,
    pub(crate) lost_nested: u64,
}

#[derive(Debug)]
pub(crate) struct Sim<C = Bytes<1>> {
    pub(crate) memory: Memory,
    pub(crate) client: C,
    pub(crate) geometry: Geometry,
    pub(crate) mode: Mode,
    pub(crate) file: Vec<u8>,
    pub(crate) subbufs_processed: u64,
    pub(crate) subbufs_overrun: u64,
    pub(crate) max_backlog: u64,
    pub(crate) records_read: u64,
}

impl Sim {
    pub(crate) fn new(geometry: Geometry, mode: Mode) -> Self {
        Self::with_client(geometry, mode, Bytes)
    }
}

impl<C: Client<Memory>> Sim<C> {
    pub(crate) fn with_client(geometry: Geometry, mode: Mode, client: C) -> Self {
        let (subbufs_processed, subbufs_overrun, max_backlog, records_read) = (0, 0, 0, 0);
        let (memory, file) = (Memory::new(geometry), Vec::new());
        Self { memory, client, geometry, mode, file, subbufs_processed, subbufs_overrun, max_backlog, records_read }
    }

    pub(crate) fn writer(&self) -> Writer<'_, Memory, C> {
        Writer { buffer: &self.memory, client: &self.client, geometry: self.geometry, mode: self.mode }
    }

    pub(crate) fn reader(&self) -> Reader<'_, Memory> {
        Reader { buffer: &self.memory, geometry: self.geometry }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Lost> {
        if bytes.is_empty() {
            return Ok(());
        }
        let reservation = self.reserve(bytes.len())?;
        self.memory.store(reservation.place, bytes);
        self.writer().commit(&reservation);
        Ok(())
    }

    pub(crate) fn reserve(&self, len: usize) -> Result<Reservation, Lost> {
        assert!(len as u64 <= MAX_RECORD);
        self.writer().reserve(len as u64)
    }

    pub(crate) fn flush(&self) {
        self.writer().flush();
    }

    /// Takes at most `most` sub-buffers, as librelay's loop does.
    pub(crate) fn drain(&mut self, most: u64) {
        self.try_drain(most).unwrap();
    }

    pub(crate) fn try_drain(&mut self, most: u64) -> Result<(), Corrupt> {
        let pass = self.reader().pass(self.consumed(), self.mode)?;
        self.subbufs_overrun += pass.overrun;
        if pass.overrun > 0 {
            self.reader().release(pass.first);
        }
        let batch = pass.backlog.min(most);
        self.max_backlog = self.max_backlog.max(batch);
        for number in pass.first..pass.first + batch {
            let Some(subbuf) = self.reader().subbuf(number)? else { break };
            self.file.extend(self.memory.load(subbuf.place, subbuf.len));
            assert!(self.reader().survived(number), "nobody writes during a drain");
            self.subbufs_processed += 1;
            self.records_read += u64::from(subbuf.records);
            self.reader().release(number + 1);
        }
        Ok(())
    }

    pub(crate) fn produced(&self) -> u64 {
        self.reader().produced()
    }

    pub(crate) fn consumed(&self) -> u64 {
        self.memory.control.consumer.consumed.peek()
    }

    pub(crate) fn control(&self) -> Counters {
        let producer = &self.memory.control.producer;
        Counters {
            reserved: producer.reserved.peek(),
            lost_full: producer.lost_full.peek(),
            lost_too_big: producer.lost_too_big.peek(),
            lost_nested: producer.lost_nested.peek(),
        }
    }
}
