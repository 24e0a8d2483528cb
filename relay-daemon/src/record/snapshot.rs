//! Writes what the buffers of a session hold as a trace of its own, cut at one instant on all CPUs, while programs write to them.
//!
//! Every CPU's thread flushes and copies by itself (`readers`), after the instant; what is later is cut off here. A program may have read its
//! clock before the instant and reserve after the flush: when all that were running have returned, such a record is the first of the next
//! sub-buffer, and is fetched.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::BytesMut;
use relay_common::trace::{
    CONTENT_SIZE_AT, CPU_ID_AT, EVENTS_DISCARDED_AT, MAGIC, PACKET_HEADER, PACKET_SEQ_NUM_AT, PACKET_SIZE_AT,
    TIMESTAMP_BEGIN_AT, TIMESTAMP_END_AT, UUID_AT,
};

use super::{addresses::Addresses, tasks::Tasks};
use crate::session::{PinnedSession, packets::header_word};
use relay_channel::{
    output::{Content, CpuFile, Output},
    readers::snapshot_all,
    snapshot::Snapshot,
    snapshot::copy_one,
    sys::MappedBuffer,
};
use relay_trace::{
    form::{clock::Instant, directory::TraceDirectory, metadata, new::NewDirectory, session::SessionFile},
    read::packet,
};

/// A `cpuN` file that has nothing later than the cut.
struct CutFile {
    file: CpuFile,
    cut: Arc<OnceLock<Instant>>,
    copy: BytesMut,
    /// Records in it.
    records: u64,
    /// Records that were copied and are later.
    later: u64,
    /// Of the records in it, those that came after the flush.
    fetched: u64,
    packets: u64,
    /// Losses that its last packet tells, and the number that comes after that packet's.
    told: u64,
    next: u64,
}

/// The files, which their CPUs' threads write and, after them, this one.
type Shared = Arc<Mutex<CutFile>>;

struct ToFile(Shared, String);

impl Output for ToFile {
    fn append(&mut self, content: &Content<'_>) -> io::Result<()> {
        lock(&self.0).append(content)
    }

    fn name(&self) -> String {
        self.1.clone()
    }
}

fn lock(file: &Shared) -> MutexGuard<'_, CutFile> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a snapshot of a session that no recorder accompanies into a directory that it makes, and returns its session. Names are those
/// that are known now.
///
/// # Errors
/// When the directory cannot be made or a file not be written, a buffer is corrupt, or writers leave no pause for a second. Nothing stays
/// behind then.
pub fn write(pinned: &PinnedSession, path: &Path) -> Result<SessionFile> {
    let new = NewDirectory::create(path, None)?;
    let mut directory = TraceDirectory::create(new.path(), false)?;
    let description = &pinned.description;
    let mut addresses = Addresses::watch(&description.session.events, description.context, &[]);
    let session = take(pinned, &directory, &mut addresses, &mut Tasks::new(description.context))?;
    directory.keep();
    new.put()?;
    Ok(session)
}

/// Writes the snapshot into a directory and returns its session. The directory is the caller's to keep.
///
/// # Errors
/// When a file cannot be written, a buffer is corrupt, or writers leave no pause for a second.
pub(crate) fn take(
    pinned: &PinnedSession,
    directory: &TraceDirectory,
    addresses: &mut Addresses,
    tasks: &mut Tasks,
) -> Result<SessionFile> {
    let channel = &pinned.channel;
    let (cut, files) = (Arc::new(OnceLock::new()), Mutex::new(BTreeMap::new()));
    if let Some(fired) = pinned.fired()? {
        // Nothing is written any more; what programs had begun by then may be later.
        let now = Instant::now();
        let _ = cut.set(if fired.end < now.monotonic { now.back_to(fired.end) } else { now });
    }
    let output = |cpu| {
        let file = CutFile::create(&directory.path(), cpu, &cut)?;
        let (name, file) = (file.file.name(), Arc::new(Mutex::new(file)));
        files.lock().unwrap_or_else(PoisonError::into_inner).insert(cpu, Arc::clone(&file));
        Ok(Box::new(ToFile(file, name)) as Box<dyn Output>)
    };
    let begin = || {
        let _ = cut.get_or_init(Instant::now);
    };
    let taken = snapshot_all(channel, begin, output)?;
    let files = files.into_inner().unwrap_or_else(PoisonError::into_inner);
    channel.wait_for_running_programs()?;
    for (cpu, snapshot) in &taken {
        if let (Some(buffer), Some(file)) = (channel.buffer(*cpu), files.get(cpu)) {
            fetch_rest(pinned, &buffer, snapshot, file)?;
        }
    }
    let mut session = pinned.description.session.clone();
    session.clock.end = cut.get().copied();
    session.cpus = pinned.accounts()?;
    let uuid = metadata::parse_uuid(&session.uuid).context("the session's UUID")?;
    for account in &mut session.cpus {
        let (Some(file), Some(snapshot)) = (files.get(&account.cpu), taken.get(&account.cpu)) else { continue };
        let mut file = lock(file);
        file.tell(
            uuid,
            account.cpu,
            snapshot.produced,
            account.lost_full + account.lost_too_big + account.lost_nested,
        )?;
        account.recorded = (snapshot.recorded + file.fetched).saturating_sub(file.later);
        account.overrun = account.recorded.saturating_sub(file.records);
        account.bytes = file.file.bytes();
        (account.subbufs_processed, account.max_backlog) = (file.packets, file.packets);
    }
    pinned.count(&mut session, tasks.executed())?;
    directory.write_metadata(&pinned.metadata()?)?;
    addresses.save(&directory.private())?;
    tasks.save(&directory.private())?;
    session.write(&directory.private())?;
    Ok(session)
}

/// Fetches what was recorded before the cut, and reserved after the flush: no program is left that could add to it.
fn fetch_rest(pinned: &PinnedSession, buffer: &MappedBuffer, snapshot: &Snapshot, file: &Shared) -> Result<()> {
    let reader = buffer.reader();
    let mut file = lock(file);
    let cut = file.cut.get().map_or(0, |cut| cut.monotonic);
    for number in snapshot.produced.. {
        if number >= reader.produced() && !reader.is_open() {
            return Ok(());
        }
        // In the midst of being opened it may still hold the time of an earlier lap: then its records tell.
        if header_word(buffer, number, TIMESTAMP_BEGIN_AT)? > cut {
            return Ok(());
        }
        if number >= reader.produced() {
            pinned.channel.flush(buffer.cpu())?;
        }
        let (records, later) = (file.records, file.later);
        let found = copy_one(buffer, number, &mut *file)?;
        file.fetched += file.records - records;
        let is_last = !found || file.later > later;
        file.later = later;
        if is_last {
            return Ok(());
        }
    }
    Ok(())
}

impl CutFile {
    fn create(folder: &Path, cpu: u32, cut: &Arc<OnceLock<Instant>>) -> Result<Self> {
        let (file, cut) = (CpuFile::create(folder, cpu)?, Arc::clone(cut));
        Ok(Self { file, cut, copy: BytesMut::new(), records: 0, later: 0, fetched: 0, packets: 0, told: 0, next: 0 })
    }

    /// Tells losses that no packet tells, by one without records.
    fn tell(&mut self, uuid: [u8; 16], cpu: u32, number: u64, lost: u64) -> Result<()> {
        if lost == self.told {
            return Ok(());
        }
        let cut = self.cut.get().map_or(0, |cut| cut.monotonic);
        let mut packet = vec![0; packet::HEADER];
        put(&mut packet, 0, &MAGIC.to_le_bytes());
        put(&mut packet, UUID_AT, &uuid);
        put(&mut packet, CPU_ID_AT, &cpu.to_le_bytes());
        for (at, value) in [
            (TIMESTAMP_BEGIN_AT, cut),
            (TIMESTAMP_END_AT, cut),
            (CONTENT_SIZE_AT, PACKET_HEADER * 8),
            (PACKET_SIZE_AT, PACKET_HEADER * 8),
            (PACKET_SEQ_NUM_AT, number.max(self.next)),
            (EVENTS_DISCARDED_AT, lost),
        ] {
            put(&mut packet, at, &value.to_le_bytes());
        }
        self.file.append_bytes(&packet).with_context(|| format!("writing {}", self.file.name()))?;
        (self.told, self.packets) = (lost, self.packets + 1);
        Ok(())
    }
}

impl Output for CutFile {
    fn append(&mut self, content: &Content<'_>) -> io::Result<()> {
        let cut = self.cut.get().map_or(u64::MAX, |cut| cut.monotonic);
        let mut copy = std::mem::take(&mut self.copy);
        copy.clear();
        content.copy_to(&mut copy)?;
        let (kept, end) = packet::before(&copy, cut);
        self.later += u64::from(content.subbuf.records).saturating_sub(kept);
        if end > 0 {
            if end < copy.len() {
                let bits = (end as u64 * 8).to_le_bytes();
                copy.truncate(end);
                put(&mut copy, CONTENT_SIZE_AT, &bits);
                put(&mut copy, PACKET_SIZE_AT, &bits);
            }
            let closed = number(&copy, TIMESTAMP_END_AT).min(cut);
            put(&mut copy, TIMESTAMP_END_AT, &closed.to_le_bytes());
            self.file.append_bytes(&copy)?;
            (self.records, self.packets) = (self.records + kept, self.packets + 1);
            self.told = number(&copy, EVENTS_DISCARDED_AT);
            self.next = number(&copy, PACKET_SEQ_NUM_AT).saturating_add(1);
        }
        self.copy = copy;
        Ok(())
    }

    fn name(&self) -> String {
        self.file.name()
    }
}

fn number(packet: &[u8], at: u64) -> u64 {
    let bytes = usize::try_from(at).ok().and_then(|at| packet.get(at..at + size_of::<u64>()));
    bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
}

fn put(packet: &mut [u8], at: u64, bytes: &[u8]) {
    if let Some(place) = usize::try_from(at).ok().and_then(|at| packet.get_mut(at..at + bytes.len())) {
        place.copy_from_slice(bytes);
    }
}
