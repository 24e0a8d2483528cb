//! Copies what a buffer in overwrite mode holds while programs write to it.

use bytes::BytesMut;
use relay_common::{Mode, Subbuf};

use crate::{
    consumer::{ConsumeError, copy_intact},
    output::{Bytes, Content, Output},
    sys::MappedBuffer,
};

/// What a [`snapshot`] holds of a CPU.
///
/// ```
/// use relay_channel::snapshot::Snapshot;
///
/// fn overrun(snapshot: &Snapshot) -> u64 {
///     snapshot.recorded - snapshot.taken
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Sub-buffers produced up to the cut: the snapshot ends with the last of them.
    pub produced: u64,
    /// Records recorded up to the cut.
    pub recorded: u64,
    /// Of these, the records that the snapshot holds. The others were overwritten before they could be copied.
    pub taken: u64,
    /// Sub-buffers taken.
    pub subbufs: u64,
    /// Bytes taken.
    pub bytes: u64,
}

/// Copies what a buffer in overwrite mode holds, oldest first, while programs write to it: whole records, in order, each
/// once. Nothing is given back; the buffer goes on as if nobody had looked.
///
/// What is in the open sub-buffer is left out: flush first. Returns `None` while a writer is at work: the cut must be an instant at
/// which every record is counted. On the buffer's own CPU, at a priority that writers' tasks do not have, that is nearly always.
///
/// # Errors
/// When the buffer is corrupt or the output does not take one.
pub fn snapshot(buffer: &MappedBuffer, output: &mut dyn Output) -> Result<Option<Snapshot>, ConsumeError> {
    let reader = buffer.reader();
    if reader.count().is_none() {
        return Ok(None);
    }
    // Memory for the copy before the cut: after it writers race with every fault on a page.
    let mut copy = BytesMut::new();
    copy.resize(usize::try_from(buffer.geometry().subbuf_size()).unwrap_or_default(), 0);
    let Some(count) = reader.count() else { return Ok(None) };
    let mut snapshot = Snapshot { produced: count.produced, recorded: count.closed, taken: 0, subbufs: 0, bytes: 0 };
    let pass = reader.pass(0, Mode::Overwrite);
    let first = pass.map_err(|corrupt| ConsumeError::Corrupt { cpu: buffer.cpu(), corrupt })?.first;
    for number in first..count.produced {
        // Complete when it was counted. If it no longer is, it has been overwritten.
        let Some(subbuf) = copy_to(buffer, number, &mut copy, output)? else { continue };
        snapshot.taken += u64::from(subbuf.records);
        snapshot.subbufs += 1;
        snapshot.bytes += subbuf.len;
    }
    Ok(Some(snapshot))
}

/// Copies one sub-buffer, if it is complete and not overwritten meanwhile; says whether it was.
pub fn copy_one(buffer: &MappedBuffer, number: u64, output: &mut dyn Output) -> Result<bool, ConsumeError> {
    copy_to(buffer, number, &mut BytesMut::new(), output).map(|copied| copied.is_some())
}

fn copy_to(
    buffer: &MappedBuffer,
    number: u64,
    copy: &mut BytesMut,
    output: &mut dyn Output,
) -> Result<Option<Subbuf>, ConsumeError> {
    let reader = buffer.reader();
    let corrupt = |corrupt| ConsumeError::Corrupt { cpu: buffer.cpu(), corrupt };
    let write = |output: &dyn Output, error| ConsumeError::Write { output: output.name(), error };
    let Some(subbuf) = reader.subbuf(number).map_err(corrupt)? else { return Ok(None) };
    if !copy_intact(&reader, buffer, &subbuf, copy).map_err(|error| write(output, error))? {
        return Ok(None);
    }
    let content = Content { subbuf, bytes: Bytes::Copied(copy) };
    output.append(&content).map_err(|error| write(output, error))?;
    Ok(Some(subbuf))
}
