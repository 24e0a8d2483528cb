//! A channel of one CPU on plain memory, with a reader that writes into a vector, for tests of the protocol.

#![allow(dead_code, reason = "each test binary uses a part")]

use relay_common::{
    Buffer as _, Client, Corrupt, Geometry, Lost, MAX_RECORD, Mode, Reader, Reservation, Word as _, Writer,
    memory::Memory,
};

/// A client without a header of its own: the bytes are the records, as in relay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<const ALIGN: u64>;

impl<const ALIGN: u64> Client<Memory> for Bytes<ALIGN> {
    const ALIGN: u64 = ALIGN;
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
        self.memory.control().consumer.consumed.peek()
    }

    pub(crate) fn control(&self) -> Counters {
        let producer = &self.memory.control().producer;
        Counters {
            reserved: producer.reserved.peek(),
            lost_full: producer.lost_full.peek(),
            lost_too_big: producer.lost_too_big.peek(),
            lost_nested: producer.lost_nested.peek(),
        }
    }
}
