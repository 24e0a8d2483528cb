//! Which pieces are kept: the oldest give way when they are too many or too large, and when the disk is full.

use std::{
    fs, io, mem,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};

use super::pieces::{Free, Rules};
use relay_channel::output::{Content, CpuFile, Output};
use relay_trace::form::{
    archive, directory,
    pieces::{PARTIAL, archive as archive_of, numbers, path},
    session::{Cpu, Session},
};

/// The pieces that have ended and are there. Whoever finds the disk full, on whatever thread, has the oldest removed.
#[derive(Clone, Debug)]
pub(crate) struct Kept(Arc<Mutex<OnDisk>>);

#[derive(Debug)]
struct OnDisk {
    trace: PathBuf,
    rules: Rules,
    /// How many have ended: one with a higher number is being made.
    ended: u64,
    /// Those that no session tells of yet.
    removed: Removals,
}

/// Pieces that were removed to keep the rules.
#[derive(Clone, Copy, Debug, Default)]
struct Removals {
    pieces: u64,
    records: u64,
}

impl Kept {
    pub(crate) fn new(trace: PathBuf, rules: Rules, ended: u64) -> Self {
        Self(Arc::new(Mutex::new(OnDisk { trace, rules, ended, removed: Removals::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, OnDisk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the oldest piece, if the rules allow for that and there is one; says whether it did.
    pub(crate) fn make_room(&self) -> bool {
        let mut on_disk = self.lock();
        let made = if on_disk.rules.remove_pieces() { on_disk.remove_oldest() } else { Ok(false) };
        made.unwrap_or_else(|error| {
            log::error!("making room: {error:#}");
            false
        })
    }

    /// The trace's directory was renamed: the pieces that follow are beside it.
    pub(crate) fn follow(&self, trace: PathBuf) {
        self.lock().trace = trace;
    }

    /// The trace's directory.
    pub(crate) fn trace(&self) -> PathBuf {
        self.lock().trace.clone()
    }

    /// One more has ended.
    pub(crate) fn ended(&self) -> Result<()> {
        let mut on_disk = self.lock();
        on_disk.ended += 1;
        on_disk.keep_rules()
    }

    /// Removes the oldest until the rules are kept, or none is left.
    pub(crate) fn keep_rules(&self) -> Result<()> {
        self.lock().keep_rules()
    }

    /// Has a session tell what was removed since; says whether there was anything.
    pub(crate) fn tell(&self, session: &mut Session) -> bool {
        let Removals { pieces, records } = mem::take(&mut self.lock().removed);
        session.pieces_removed += pieces;
        session.records_removed += records;
        pieces > 0
    }
}

impl OnDisk {
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
        let records = records_of(&piece).unwrap_or_else(|error| {
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
    let of_system = |cause: &rustix::io::Errno| is_full(&(*cause).into());
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_full) || cause.downcast_ref().is_some_and(of_system))
}

/// Not for a file that may not become larger (`EFBIG`): that would take the old pieces for nothing.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How many records are in a piece, compressed or not.
fn records_of(piece: &Path) -> Result<u64> {
    let session = match directory::open_private(piece) {
        Ok(private) => Session::read(&private)?,
        Err(_) => archive::session(&archive_of(piece, ""))?,
    };
    Ok(session.cpus.iter().map(Cpu::in_file).sum())
}

/// A CPU's file for which older pieces give way when the disk is full.
pub(crate) struct Yielding {
    file: CpuFile,
    kept: Kept,
}

impl Yielding {
    pub(crate) fn new(file: CpuFile, kept: Kept) -> Self {
        Self { file, kept }
    }
}

impl Output for Yielding {
    fn append(&mut self, content: &Content<'_>) -> io::Result<()> {
        loop {
            match self.file.append(content) {
                Err(error) if is_full(&error) && self.kept.make_room() => {}
                other => return other,
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
    let Ok(disk) = rustix::fs::statvfs(trace) else { return false };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let least = match least {
        Free::Bytes(bytes) => bytes,
        Free::Percent(part) => disk.f_blocks.saturating_mul(disk.f_frsize) / 100 * u64::from(part),
    };
    free < least
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

/// Removes a piece's directory, if it is there. Under its own name it is whole, or not there.
pub(crate) fn remove_directory(piece: &Path) -> Result<()> {
    // The recorder removes a piece that is too old while its compressor may be removing it.
    static REMOVING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = REMOVING.lock().unwrap_or_else(PoisonError::into_inner);
    let partial = with_end(piece, PARTIAL);
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    // What a recorder that was killed has left.
    if is_there(&partial) {
        directory::remove(&partial)?;
    }
    if is_there(piece) {
        directory::check_owner(piece)?;
        fs::rename(piece, &partial).with_context(|| format!("renaming {}", piece.display()))?;
        directory::remove(&partial)?;
    }
    Ok(())
}

pub(crate) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}
