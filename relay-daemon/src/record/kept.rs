//! Which pieces are kept: the oldest give way when they are too many or too large, and when the disk is full.

use std::{
    collections::BTreeMap,
    fs, io, mem,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::io::Errno;

use relay_common::trace::EVENTS_DISCARDED_AT;

use super::{
    archive::{remove_directory, with_end},
    rules::{Free, Rules},
};
use crate::session::packets::header_word;
use relay_channel::{
    output::{Content, CpuFile, Output},
    sys::MappedBuffer,
};
use relay_trace::form::{
    archive, directory,
    pieces::{PARTIAL, archive as archive_of, numbers, path},
    session::{CpuAccount, SessionFile},
};

/// How long a reader waits for room before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that are left for making a piece, unless an eighth of the file system is less.
const FOR_A_PIECE: u64 = 4 << 20;

/// The pieces that have ended and are there. Whoever finds the disk full, on whatever thread, has the oldest removed.
#[derive(Clone, Debug)]
pub(crate) struct KeptPieces {
    on_disk: Arc<Mutex<OnDisk>>,
    /// Of each CPU, the losses that the packet tells of that was written last: where there is no room, that is not the last one that was made.
    told: Arc<Mutex<BTreeMap<u32, u64>>>,
    /// Nothing follows what is written now, and no piece is made any more.
    is_ending: Arc<AtomicBool>,
}

#[derive(Debug)]
struct OnDisk {
    trace: PathBuf,
    rules: Rules,
    /// How many have ended.
    ended: u64,
    /// How many records those have that have ended here and may be removed, by number: on a full disk a piece may have no account.
    records: BTreeMap<u64, u64>,
    /// Those that no session tells of yet.
    removed: Removals,
}

/// Pieces that were removed to keep the rules.
#[derive(Clone, Copy, Debug, Default)]
struct Removals {
    pieces: u64,
    records: u64,
}

impl KeptPieces {
    pub(crate) fn new(trace: PathBuf, rules: Rules, ended: u64) -> Self {
        let on_disk = OnDisk { trace, rules, ended, records: BTreeMap::new(), removed: Removals::default() };
        Self { on_disk: Arc::new(Mutex::new(on_disk)), told: Arc::default(), is_ending: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, OnDisk> {
        self.on_disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The losses that a CPU's file tells of, if anything was written to it since recording began or went on.
    pub(crate) fn told(&self, cpu: u32) -> Option<u64> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&cpu).copied()
    }

    /// Removes the oldest piece, if the rules allow for that and there is one; says whether it did.
    pub(crate) fn make_room(&self) -> bool {
        self.lock().make_room()
    }

    /// Whether there will be pieces that may give way.
    pub(crate) fn gives_way(&self) -> bool {
        !self.is_ending.load(Relaxed) && self.lock().rules.remove_pieces()
    }

    /// What is written from now on may take all the room there is.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Relaxed);
    }

    /// Whether so many bytes more would take the room in which the next piece is made, without which none could give way.
    fn needs_room(&self, bytes: u64) -> bool {
        let trace = self.trace();
        self.gives_way() && space(&trace).is_some_and(|(free, all)| free < bytes + FOR_A_PIECE.min(all / 8))
    }

    /// The trace's directory was renamed: the pieces that follow are beside it.
    pub(crate) fn follow(&self, trace: PathBuf) {
        self.lock().trace = trace;
    }

    /// The trace's directory.
    pub(crate) fn trace(&self) -> PathBuf {
        self.lock().trace.clone()
    }

    /// One more has ended, which has so many records.
    pub(crate) fn ended(&self, records: u64) -> Result<()> {
        let mut on_disk = self.lock();
        on_disk.ended += 1;
        let number = on_disk.ended;
        if on_disk.rules.remove_pieces() {
            on_disk.records.insert(number, records);
        }
        on_disk.keep_rules()
    }

    /// Removes the oldest until the rules are kept, or none is left.
    pub(crate) fn keep_rules(&self) -> Result<()> {
        self.lock().keep_rules()
    }

    /// Has a session tell what was removed since; says whether there was anything.
    pub(crate) fn tell(&self, session: &mut SessionFile) -> bool {
        let Removals { pieces, records } = mem::take(&mut self.lock().removed);
        session.pieces_removed += pieces;
        session.records_removed += records;
        pieces > 0
    }
}

impl OnDisk {
    fn make_room(&mut self) -> bool {
        let made = if self.rules.remove_pieces() { self.remove_oldest() } else { Ok(false) };
        made.unwrap_or_else(|error| {
            log::error!("making room: {error:#}");
            false
        })
    }

    fn keep_rules(&mut self) -> Result<()> {
        let Rules { keep, keep_size, min_free, .. } = self.rules;
        while keep.is_some_and(|most| self.numbers().is_ok_and(|pieces| pieces.len() > most))
            || keep_size.is_some_and(|most| self.bytes().is_ok_and(|bytes| bytes > most))
            || min_free.is_some_and(|least| is_scarce(&self.trace, least))
        {
            if !self.remove_oldest()? {
                break;
            }
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let mut numbers = numbers(&self.trace)?;
        numbers.retain(|number| *number <= self.ended);
        Ok(numbers)
    }

    fn bytes(&self) -> Result<u64> {
        Ok(self.numbers()?.into_iter().map(|number| size_of(&self.trace, number)).sum())
    }

    /// Removes the oldest piece, and says whether there was one.
    fn remove_oldest(&mut self) -> Result<bool> {
        let Some(&oldest) = self.numbers()?.first() else { return Ok(false) };
        let piece = path(&self.trace, oldest);
        let known = self.records.remove(&oldest).map_or_else(|| records_of(&piece), Ok);
        let records = known.unwrap_or_else(|error| {
            log::warn!("how many records are in {}, which is removed, is not counted: {error:#}", piece.display());
            0
        });
        remove(&self.trace, oldest)?;
        self.removed.pieces += 1;
        self.removed.records += records;
        Ok(true)
    }
}

/// Whether it is for want of room that something could not be made.
pub(crate) fn is_for_want_of_room(error: &anyhow::Error) -> bool {
    let of_system = |cause: &Errno| is_full(&(*cause).into());
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_full) || cause.downcast_ref().is_some_and(of_system))
}

/// Not for a file that may not become larger (`EFBIG`): that would take the old pieces for nothing.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How many records are in a piece, compressed or not.
fn records_of(piece: &Path) -> Result<u64> {
    let session = match directory::open_private(piece) {
        Ok(private) => SessionFile::read(&private)?,
        Err(_) => archive::session(&archive_of(piece, ""))?,
    };
    Ok(session.cpus.iter().map(CpuAccount::in_file).sum())
}

/// A CPU's file for which older pieces give way when the disk is full.
pub(crate) struct Yielding {
    file: CpuFile,
    /// Where its content is before it is written.
    buffer: Arc<MappedBuffer>,
    kept: KeptPieces,
    /// Since when there has been no room.
    full_since: Option<Instant>,
}

impl Yielding {
    pub(crate) fn new(file: CpuFile, buffer: Arc<MappedBuffer>, kept: KeptPieces) -> Self {
        Self { file, buffer, kept, full_since: None }
    }

    fn note_told(&self, content: &Content<'_>) {
        // Pieces are made without overwriting: the sub-buffer is the writers' again only after this.
        if let Ok(told) = header_word(&self.buffer, content.subbuf.number, EVENTS_DISCARDED_AT) {
            self.kept.told.lock().unwrap_or_else(PoisonError::into_inner).insert(self.buffer.cpu(), told);
        }
    }

    /// Whether the disk may have room again soon, though no piece is there that can give way: what has filled it is the piece that is being written, or
    /// made. That waits for the readers, so they come back later; what does not fit into their buffers meanwhile is lost, and counted.
    fn may_wait(&mut self) -> bool {
        self.kept.gives_way() && self.full_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE
    }
}

impl Output for Yielding {
    fn append(&mut self, content: &Content<'_>) -> io::Result<()> {
        while self.kept.needs_room(content.subbuf.len) {
            if !self.kept.make_room() {
                if self.may_wait() {
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, io::Error::from(Errno::NOSPC)));
                }
                break;
            }
        }
        loop {
            match self.file.append(content) {
                Ok(()) => {
                    self.full_since = None;
                    self.note_told(content);
                    return Ok(());
                }
                Err(error) if is_full(&error) && self.kept.make_room() => {}
                Err(error) if is_full(&error) && self.may_wait() => {
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn name(&self) -> String {
        self.file.name()
    }

    fn finish(&mut self) {
        self.file.finish();
    }

    fn bytes(&self) -> u64 {
        self.file.bytes()
    }
}

/// Bytes that a piece alone has on the disk, compressed or not.
fn size_of(trace: &Path, number: u64) -> u64 {
    let piece = path(trace, number);
    let files = |folder: &Path| -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        // What it shares with others is not gained by removing it.
        let own = entries.filter_map(|entry| entry.metadata().ok()).filter(|file| file.is_file() && file.nlink() == 1);
        own.map(|file| file.len()).sum()
    };
    let directories = [with_end(&piece, PARTIAL), piece.clone()];
    let in_directories: u64 = directories.iter().map(|path| files(path) + files(&path.join(directory::PRIVATE))).sum();
    let archives = [archive_of(&piece, PARTIAL), archive_of(&piece, "")];
    let archived: u64 = archives.iter().filter_map(|path| Some(fs::symlink_metadata(path).ok()?.len())).sum();
    in_directories + archived
}

/// Whether the file system of a trace has less room than it is to have. One that does not say has enough.
fn is_scarce(trace: &Path, least: Free) -> bool {
    let Some((free, all)) = space(trace) else { return false };
    let least = match least {
        Free::Bytes(bytes) => bytes,
        Free::Percent(part) => all / 100 * u64::from(part),
    };
    free < least
}

/// Bytes of a file system that are free for anyone, and all that it has; `None` where it does not say.
fn space(path: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}

/// Removes a piece, and what it was compressed to.
pub(crate) fn remove(trace: &Path, number: u64) -> Result<()> {
    let piece = path(trace, number);
    remove_directory(&piece)?;
    for archive in [archive_of(&piece, PARTIAL), archive_of(&piece, "")] {
        match fs::remove_file(&archive) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", archive.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
