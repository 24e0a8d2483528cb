//! A trace in pieces: `DIR-piece-000001` and so on, each a trace of its own; `DIR` has what is newest.
//!
//! A CPU's file ends between two of its sub-buffers, so that nothing is lost and nothing is twice. It is then renamed into the piece's
//! directory, and a new one takes its place. The sub-buffers' numbers and the count of what was lost go on from piece to piece;
//! [`Session::before`] has what the pieces before had.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use relay_common::Buffer as _;

use super::{
    directory::{self, TraceDirectory},
    recorder::{told, told_by},
    session::{Cpu, Session},
    standing::Standing,
};
use crate::{
    channel::Channel,
    consumer::{Consumer, CpuFile},
    machine::Instant,
    reading::{trace::Trace, verify},
};

/// What stands between a trace's name and a piece's number.
const PIECE: &str = "-piece-";
/// What a compressed piece ends with.
const ARCHIVE: &str = ".tar.zst";
/// What one ends with that is being written.
const PARTIAL: &str = ".partial";
/// How often a CPU is told that what it has lost is to stand in the piece that ends.
const TELL_TRIES: u32 = 4;
/// The default of zstd itself.
const LEVEL: i32 = 3;

/// When a piece ends, and what becomes of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// When its files have so many bytes.
    pub size: Option<u64>,
    /// When so much time has passed.
    pub time: Option<Duration>,
    /// How many pieces are kept, beside the one that is being written.
    pub keep: Option<usize>,
    /// Whether pieces are compressed.
    pub compress: bool,
}

/// The pieces of a recording.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) rules: Rules,
    /// When the one that is being written is old enough.
    due: Option<std::time::Instant>,
    compressing: Vec<JoinHandle<Result<()>>>,
}

/// What a CPU's reader had taken when its file was ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    records: u64,
    subbufs: u64,
    bytes: u64,
    max_backlog: u64,
    /// What its last packet tells of losses.
    told: u64,
}

impl Pieces {
    pub(super) fn new(rules: Rules) -> Self {
        let due = rules.time.map(|time| std::time::Instant::now() + time);
        Self { rules, due, compressing: Vec::new() }
    }

    /// Whether a piece of so many bytes ends now.
    pub(super) fn is_due(&self, bytes: u64) -> bool {
        self.rules.size.is_some_and(|size| bytes >= size)
            || self.due.is_some_and(|due| std::time::Instant::now() >= due)
    }

    /// A piece has ended: compresses it, and removes those that are too many.
    pub(super) fn ended(&mut self, trace: &Path, piece: PathBuf) {
        // In step with the beginning, however late one has ended.
        let now = std::time::Instant::now();
        while let (Some(due), Some(time)) = (self.due.filter(|due| *due <= now), self.rules.time) {
            self.due = Some(due + time);
        }
        if self.rules.compress {
            let done = |handle: &JoinHandle<_>| handle.is_finished();
            let (done, still) = std::mem::take(&mut self.compressing).into_iter().partition(done);
            self.compressing = still;
            report(done);
            self.compressing.push(thread::spawn(move || compress(&piece)));
        }
        if let Err(error) = self.rules.keep.map_or(Ok(()), |keep| remove_oldest(trace, keep)) {
            log::error!("removing pieces of {}: {error:#}", trace.display());
        }
    }

    /// Waits until all pieces are compressed.
    pub(super) fn finish(mut self) {
        report(std::mem::take(&mut self.compressing));
    }
}

fn report(done: Vec<JoinHandle<Result<()>>>) {
    for handle in done {
        if let Err(error) = handle.join().unwrap_or_else(|_| Err(anyhow!("the thread panicked"))) {
            log::error!("a piece stays uncompressed: {error:#}");
        }
    }
}

/// Where a trace's piece of this number is.
pub(super) fn piece_path(trace: &Path, number: u64) -> PathBuf {
    let mut path = trace.as_os_str().to_owned();
    path.push(format!("{PIECE}{number:06}"));
    path.into()
}

/// Ends a CPU's file, on the thread of its reader: what has come up to now is in it, and what comes from now on in the next.
pub(super) fn cut(consumer: &mut Consumer, channel: &Channel, trace: &Path, piece: &Path) -> Result<Part> {
    let cpu = consumer.buffer().cpu();
    channel.flush(cpu)?;
    while consumer.pass(u64::MAX)? > 0 {}
    for _ in 0..TELL_TRIES {
        if consumer.buffer().control().producer.lost() == told(consumer.buffer())? {
            break;
        }
        channel.mark(cpu)?;
        while consumer.pass(u64::MAX)? > 0 {}
    }
    let statistics = consumer.statistics();
    let part = Part {
        records: statistics.records.load(Relaxed),
        subbufs: statistics.subbufs_processed.load(Relaxed),
        bytes: statistics.bytes.load(Relaxed),
        max_backlog: statistics.max_backlog.load(Relaxed),
        told: consumer.consumed().checked_sub(1).map_or(Ok(0), |last| told_by(consumer.buffer(), last))?,
    };
    let name = directory::cpu_file(cpu);
    let (from, to) = (trace.join(&name), piece.join(&name));
    fs::rename(&from, &to).with_context(|| format!("moving {} to {}", from.display(), to.display()))?;
    match CpuFile::create(trace, cpu) {
        Ok(file) => consumer.replace_output(Box::new(file)),
        Err(error) => {
            // The consumer still has the old one.
            fs::rename(&to, &from).with_context(|| format!("moving {} back", to.display()))?;
            return Err(error);
        }
    }
    Ok(part)
}

/// What all pieces up to a cut have, and what the last of them has, of a CPU.
pub(super) fn accounts(counted: &Cpu, part: Option<&Part>, before: &Cpu) -> (Cpu, Cpu) {
    let mut all = counted.clone();
    let Some(part) = part else {
        // It has no reader: what it has recorded is in no piece yet.
        let all = Cpu { recorded: before.recorded, subbufs_processed: before.subbufs_processed, ..all };
        return (all.clone(), all.since(before));
    };
    (all.recorded, all.subbufs_processed) = (part.records, part.subbufs);
    // What was lost since the last packet is the next piece's.
    all.lost_full = part.told.saturating_sub(all.lost_too_big).saturating_sub(all.lost_nested);
    let mut own = all.since(before);
    (own.bytes, own.max_backlog) = (part.bytes, part.max_backlog);
    (all, own)
}

/// After a kill: where a CPU's file goes on. `len` is what its reader had noted; the file may have been renamed since.
pub(super) fn resume_at(trace: &Path, session: &Session, cpu: u32, len: u64) -> u64 {
    let name = directory::cpu_file(cpu);
    let here = fs::metadata(trace.join(&name)).map_or(0, |file| file.len());
    let was_moved = piece_path(trace, session.pieces + 1).join(&name).exists();
    if was_moved && here < len { 0 } else { len }
}

/// After a kill: completes the piece whose files were being moved, by what is in them, and says in the session what the pieces have.
pub(super) fn complete(standing: &Standing, trace: &Path, session: &mut Session) -> Result<()> {
    let path = piece_path(trace, session.pieces + 1);
    if !path.join(directory::PRIVATE).join("session.json").exists() {
        return Ok(());
    }
    let piece = TraceDirectory::open(&path)?;
    let mut written = Session::read(&piece.private())?;
    if written.cpus.is_empty() {
        let walked = verify::verify(&Trace::open(&path)?, |_| ())?;
        let no_more = Cpu::default();
        for account in standing.accounts()? {
            let before = session.before.iter().find(|before| before.cpu == account.cpu).unwrap_or(&no_more);
            let mut own = Cpu { cpu: account.cpu, ..Cpu::default() };
            if let Some(found) = walked.cpus.get(&account.cpu) {
                (own.recorded, own.bytes, own.subbufs_processed) = (found.records, found.bytes, found.packets);
                // Of which cause is not known; all but always it is this one.
                own.lost_full = found.discarded.saturating_sub(before.told());
            }
            written.cpus.push(own);
        }
        written.clock.end = Some(Instant::now());
        written.write(&piece.private())?;
    }
    for own in &written.cpus {
        match session.before.iter_mut().find(|before| before.cpu == own.cpu) {
            Some(before) => before.add(own),
            None => session.before.push(Cpu { bytes: 0, max_backlog: 0, ..own.clone() }),
        }
    }
    session.pieces += 1;
    session.clock.start = written.clock.end.unwrap_or(session.clock.start);
    session.write(&trace.join(directory::PRIVATE))?;
    Ok(())
}

/// Removes the oldest pieces of a trace, so that `keep` stay.
fn remove_oldest(trace: &Path, keep: usize) -> Result<()> {
    let folder = match trace.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let start = format!("{}{PIECE}", trace.file_name().unwrap_or_default().to_string_lossy());
    let mut pieces = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let number =
            name.strip_prefix(&start).map(|rest| rest.trim_end_matches(ARCHIVE)).and_then(|n| n.parse::<u64>().ok());
        pieces.extend(number.map(|number| (number, folder.join(name))));
    }
    pieces.sort_unstable();
    pieces.dedup_by_key(|(number, _)| *number);
    let too_many = pieces.len().saturating_sub(keep);
    for (number, _) in &pieces[..too_many] {
        let path = piece_path(trace, *number);
        if path.exists() {
            directory::remove(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        let archive = archive(&path, "");
        match fs::remove_file(&archive) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", archive.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn archive(piece: &Path, end: &str) -> PathBuf {
    let mut path = piece.as_os_str().to_owned();
    path.push(format!("{ARCHIVE}{end}"));
    path.into()
}

/// Puts a piece into an archive beside it, and removes it.
fn compress(piece: &Path) -> Result<()> {
    let (partial, whole) = (archive(piece, PARTIAL), archive(piece, ""));
    let written = write_archive(piece, &partial).and_then(|()| Ok(fs::rename(&partial, &whole)?));
    if let Err(error) = written {
        // Best effort: it may be why there is no room.
        let _ = fs::remove_file(&partial);
        if !piece.exists() {
            // It was the oldest, and was removed meanwhile.
            return Ok(());
        }
        return Err(error.context(format!("writing {}", whole.display())));
    }
    // It may have been the oldest, and be gone by now.
    if piece.exists() {
        directory::remove(piece).with_context(|| format!("removing {}", piece.display()))?;
    }
    Ok(())
}

fn write_archive(piece: &Path, to: &Path) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(to)?;
    let mut archive = tar::Builder::new(zstd::Encoder::new(file, LEVEL)?);
    archive.append_dir_all(piece.file_name().unwrap_or_default(), piece)?;
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_of_pieces_add_up_to_the_whole() {
        let before = Cpu { recorded: 100, filtered: 10, lost_full: 5, subbufs_processed: 3, ..Cpu::default() };
        // Two were lost after the last packet of the piece had been closed.
        let counted = Cpu { filtered: 14, lost_full: 9, lost_nested: 1, ..Cpu::default() };
        let part = Part { records: 150, subbufs: 7, bytes: 4000, max_backlog: 2, told: 8 };
        let (all, own) = accounts(&counted, Some(&part), &before);
        assert_eq!((all.recorded, all.lost_full, all.lost_nested, all.told()), (150, 7, 1, 8));
        assert_eq!((own.recorded, own.filtered, own.lost_full, own.lost_nested, own.bytes), (50, 4, 2, 1, 4000));
        let mut sum = before.clone();
        sum.add(&own);
        assert_eq!((sum.recorded, sum.filtered, sum.told()), (all.recorded, all.filtered, all.told()));
        // A CPU whose file could not be moved: all that it has recorded is the next piece's.
        let (all, own) = accounts(&counted, None, &before);
        assert_eq!((all.recorded, own.recorded, own.bytes), (100, 0, 0));
    }

    #[test]
    fn a_file_goes_on_where_it_was_left_or_anew_when_it_was_moved() {
        let root = tempfile::tempdir().unwrap();
        let trace = root.path().join("trace");
        let piece = piece_path(&trace, 1);
        [&trace, &piece].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let session: Session = serde_json::from_str(include_str!("../../../tests/fuzz/session.json")).unwrap();
        fs::write(trace.join("cpu0"), "12345").unwrap();
        assert_eq!(resume_at(&trace, &session, 0, 5), 5);
        assert_eq!(resume_at(&trace, &session, 0, 3), 3);
        fs::rename(trace.join("cpu0"), piece.join("cpu0")).unwrap();
        assert_eq!(resume_at(&trace, &session, 0, 5), 0);
        fs::write(trace.join("cpu0"), "12").unwrap();
        assert_eq!(resume_at(&trace, &session, 0, 2), 2, "it was noted, and has been written to");
        assert_eq!(resume_at(&trace, &session, 0, 5), 0, "it was not noted yet");
    }
}
