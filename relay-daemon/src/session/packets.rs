//! User space's part in the tracer's packets: what is the same in all of a CPU's.

use std::io;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BytesMut};
use relay_common::{
    HEADER,
    trace::{CPU_ID_AT, MAGIC, STREAM_ID_AT, UUID_AT},
};

use relay_channel::{channel::Host, sys::MappedBuffer};

/// The trace that all packets of a channel belong to.
#[derive(Debug)]
pub(crate) struct OfTrace {
    pub(crate) uuid: [u8; 16],
}

/// A u64 of a packet's header, `at` so many bytes into it, as it is in a CPU's buffer now.
pub(crate) fn header_word(buffer: &MappedBuffer, number: u64, at: u64) -> Result<u64> {
    let mut word = BytesMut::with_capacity(size_of::<u64>());
    let geometry = buffer.geometry();
    let place = geometry.place(geometry.begin(number)) + HEADER + at;
    let read = buffer.copy_to(place, size_of::<u64>() as u64, &mut word);
    read.with_context(|| format!("reading a packet's header in the buffer of cpu {}", buffer.cpu()))?;
    Ok(word.get_u64_le())
}

impl Host for OfTrace {
    /// Writes what is the same in every packet of a CPU into every place of its buffer.
    fn buffer_made(&self, buffer: &MappedBuffer) -> io::Result<()> {
        let geometry = buffer.geometry();
        for number in 0..geometry.n_subbufs() {
            let packet = geometry.begin(number) + HEADER;
            buffer.store(packet, &MAGIC.to_le_bytes())?;
            buffer.store(packet + UUID_AT, &self.uuid)?;
            buffer.store(packet + STREAM_ID_AT, &0u32.to_le_bytes())?;
            buffer.store(packet + CPU_ID_AT, &buffer.cpu().to_le_bytes())?;
        }
        Ok(())
    }
}
