//! The pieces of a trace on the disk: when one ends, which are kept, and how they are compressed. What is in them is `rotation`'s.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use relay_trace::form::{
    archive, directory,
    pieces::{PARTIAL, archive as archive_of, numbers, path},
};

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait before a piece that could not be made is tried once more.
const PAUSE: Duration = Duration::from_secs(10);

/// When a piece ends, and what becomes of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// When its files have so many bytes.
    pub size: Option<u64>,
    /// When so much time has passed.
    pub time: Option<Duration>,
    /// How many pieces are kept, beside the one that is being written.
    pub keep: Option<usize>,
    /// How many bytes they may have together.
    pub keep_size: Option<u64>,
    /// How much of the file system is to stay free.
    pub min_free: Option<Free>,
    /// Whether pieces are compressed.
    pub compress: bool,
}

/// A part of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Free {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths.
    Percent(u8),
}

impl Rules {
    /// Whether there are to be any.
    pub(crate) fn make_pieces(&self) -> bool {
        self.size.is_some() || self.time.is_some()
    }
}

/// The pieces of a recording.
#[derive(Debug)]
pub(crate) struct Pieces {
    trace: PathBuf,
    rules: Rules,
    /// When the one that is being written is old enough.
    due: Option<Instant>,
    /// When the next is tried, after one that could not be made.
    retry: Option<Instant>,
    /// How many were removed to keep the rules.
    removed: u64,
    /// When the disk is looked at again.
    look: Instant,
    /// Compresses one after the other.
    compressor: Option<(mpsc::Sender<PathBuf>, JoinHandle<()>)>,
}

impl Pieces {
    /// Begins with the pieces of a trace that are there: those that a recorder has left uncompressed which was killed.
    ///
    /// `trace` is its directory as [`directory::TraceDirectory::absolute`] has it.
    pub(crate) fn new(rules: Rules, trace: PathBuf, removed: u64) -> Result<Self> {
        let due = rules.time.map(|time| Instant::now() + time);
        let compressor = rules.compress.then(|| {
            let (pieces, to_do) = mpsc::channel::<PathBuf>();
            let work = move || {
                for piece in to_do {
                    if let Err(error) = compress(&piece) {
                        log::error!("{} stays uncompressed: {error:#}", piece.display());
                    }
                }
            };
            (pieces, thread::spawn(work))
        });
        let pieces = Self { trace, rules, due, retry: None, removed, look: Instant::now(), compressor };
        for number in numbers(&pieces.trace)? {
            pieces.compress(path(&pieces.trace, number));
        }
        Ok(pieces)
    }

    /// The trace's directory was renamed: the pieces that follow go beside it.
    pub(crate) fn follow(&mut self, trace: PathBuf) {
        self.trace = trace;
    }

    /// The trace's directory.
    pub(crate) fn trace(&self) -> &Path {
        &self.trace
    }

    /// Whether a piece of so many bytes ends now.
    pub(crate) fn is_due(&self, bytes: u64) -> bool {
        let now = Instant::now();
        self.retry.is_none_or(|retry| now >= retry)
            && (self.rules.size.is_some_and(|size| bytes >= size) || self.due.is_some_and(|due| now >= due))
    }

    /// A piece could not be made: not at once again.
    pub(crate) fn failed(&mut self) {
        self.retry = Some(Instant::now() + PAUSE);
    }

    /// A piece has ended: compresses it, and removes those that are too many.
    pub(crate) fn ended(&mut self, piece: PathBuf) -> Result<()> {
        // In step with the beginning, however late one has ended.
        let now = Instant::now();
        while let (Some(due), Some(time)) = (self.due.filter(|due| *due <= now), self.rules.time) {
            self.due = Some(due + time);
        }
        self.retry = None;
        self.compress(piece);
        self.remove_oldest()
    }

    /// Looks at the disk, if it is time to, and makes room. To be called ten times a second or so.
    pub(crate) fn keep_free(&mut self) -> Result<()> {
        if self.rules.min_free.is_none() || Instant::now() < self.look {
            return Ok(());
        }
        self.look = Instant::now() + LOOK;
        self.remove_oldest()
    }

    /// How many were removed to keep the rules.
    pub(crate) fn removed(&self) -> u64 {
        self.removed
    }

    /// Removes the oldest pieces until the rules are kept, or none is left.
    fn remove_oldest(&mut self) -> Result<()> {
        let Rules { keep, keep_size, min_free, .. } = self.rules;
        if keep.is_none() && keep_size.is_none() && min_free.is_none() {
            return Ok(());
        }
        let numbers = numbers(&self.trace)?;
        let size = |number: &u64| if keep_size.is_some() { size_of(&self.trace, *number) } else { 0 };
        let mut pieces: VecDeque<(u64, u64)> = numbers.iter().map(|number| (*number, size(number))).collect();
        let mut bytes: u64 = pieces.iter().map(|(_, size)| size).sum();
        while keep.is_some_and(|most| pieces.len() > most)
            || keep_size.is_some_and(|most| bytes > most)
            || min_free.is_some_and(|least| is_scarce(&self.trace, least))
        {
            let Some((number, size)) = pieces.pop_front() else { break };
            remove(&self.trace, number)?;
            bytes -= size;
            self.removed += 1;
        }
        Ok(())
    }

    fn compress(&self, piece: PathBuf) {
        if let Some((pieces, _)) = &self.compressor {
            // It takes pieces as long as this lives.
            let _ = pieces.send(piece);
        }
    }

    /// Waits until all pieces are compressed.
    pub(crate) fn finish(self) {
        if let Some((pieces, thread)) = self.compressor {
            drop(pieces);
            if thread.join().is_err() {
                log::error!("the thread that compresses pieces has panicked");
            }
        }
    }
}

/// Makes room for the pieces of a trace that has `known` by now: others that would stand in their way are removed if `force`.
///
/// # Errors
/// When there are some, not `force`, and the trace is to have pieces; or they cannot be removed.
pub(crate) fn clear(trace: &Path, rules: &Rules, known: u64, force: bool) -> Result<()> {
    let others: Vec<u64> = numbers(trace)?.into_iter().filter(|number| *number > known).collect();
    if force {
        return others.into_iter().try_for_each(|number| remove(trace, number));
    }
    match others.first() {
        Some(first) if rules.make_pieces() => {
            let piece = path(trace, *first);
            bail!(
                "{}, or what it was compressed to, is of another trace: remove it, give another directory with -o, or replace the trace with --force",
                piece.display()
            )
        }
        _ => Ok(()),
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
fn remove(trace: &Path, number: u64) -> Result<()> {
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
fn remove_directory(piece: &Path) -> Result<()> {
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

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// Puts a piece into an archive beside it, and removes it. Either may have been removed meanwhile, when it was the oldest.
fn compress(piece: &Path) -> Result<()> {
    let (partial, whole) = (archive_of(piece, PARTIAL), archive_of(piece, ""));
    // An archive under this name is whole: whoever made it was killed before the piece was gone, and may have begun to remove it.
    let is_ours = |there: fs::Metadata| there.is_file() && there.uid() == rustix::process::geteuid().as_raw();
    let done = fs::symlink_metadata(&whole).ok().map(is_ours);
    if done == Some(false) {
        bail!("{} is somebody else's", whole.display());
    }
    if done.is_none() {
        let written = write_archive(piece, &partial).and_then(|()| Ok(fs::rename(&partial, &whole)?));
        if let Err(error) = written {
            // Best effort: it may be why there is no room.
            let _ = fs::remove_file(&partial);
            if piece.exists() {
                return Err(error.context(format!("writing {}", whole.display())));
            }
        }
    }
    remove_directory(piece)
}

fn write_archive(piece: &Path, to: &Path) -> Result<()> {
    // What a recorder that was killed has left.
    let _ = fs::remove_file(to);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(to)?;
    // On the disk, before the piece is not.
    Ok(archive::write(piece, file)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(trace: &Path, number: u64) -> PathBuf {
        let piece = path(trace, number);
        fs::create_dir_all(piece.join(directory::PRIVATE)).unwrap();
        fs::write(piece.join("cpu0"), number.to_string()).unwrap();
        piece
    }

    #[test]
    fn the_newest_are_kept_compressed_or_not() {
        let root = tempfile::tempdir().unwrap();
        let trace = root.path().join("trace");
        let rules = Rules { size: Some(1), keep: Some(2), ..Rules::default() };
        let mut pieces = Pieces::new(rules, trace.clone(), 0).unwrap();
        assert!(!pieces.is_due(0) && pieces.is_due(1));
        let all: Vec<PathBuf> = (1..=4).map(|number| make(&trace, number)).collect();
        compress(&all[1]).unwrap();
        compress(&all[2]).unwrap();
        fs::write(archive_of(&all[0], PARTIAL), "a half").unwrap();
        assert_eq!(numbers(&trace).unwrap(), [1, 2, 3, 4]);
        pieces.ended(all[3].clone()).unwrap();
        assert_eq!(numbers(&trace).unwrap(), [3, 4]);
        assert!(archive_of(&all[2], "").exists() && all[3].exists());
        pieces.failed();
        assert!(!pieces.is_due(1));
    }

    #[test]
    fn what_a_killed_recorder_has_left_is_compressed_and_what_is_whole_stays() {
        let root = tempfile::tempdir().unwrap();
        let trace = root.path().join("trace");
        let (first, second) = (make(&trace, 1), make(&trace, 2));
        fs::write(archive_of(&first, ""), "whole").unwrap();
        fs::write(archive_of(&second, PARTIAL), "a half").unwrap();
        // Its archive is whole, and it was being removed.
        let third = make(&trace, 3);
        fs::write(archive_of(&third, ""), "whole").unwrap();
        fs::rename(&third, with_end(&third, PARTIAL)).unwrap();
        Pieces::new(Rules { compress: true, ..Rules::default() }, trace.clone(), 0).unwrap().finish();
        assert!(!first.exists() && !second.exists() && !archive_of(&second, PARTIAL).exists());
        assert_eq!(fs::read(archive_of(&first, "")).unwrap(), b"whole");
        assert!(archive_of(&second, "").exists());
        assert!(archive_of(&third, "").exists() && !with_end(&third, PARTIAL).exists());
    }

    #[test]
    fn pieces_of_another_trace_are_replaced_only_by_force() {
        let root = tempfile::tempdir().unwrap();
        let trace = root.path().join("trace");
        let rules = Rules { size: Some(1), ..Rules::default() };
        clear(&trace, &rules, 0, false).unwrap();
        let piece = make(&trace, 7);
        let error = clear(&trace, &rules, 0, false).unwrap_err().to_string();
        assert!(error.contains("trace-piece-000007") && error.contains("--force"), "{error}");
        clear(&trace, &Rules::default(), 0, false).unwrap();
        clear(&trace, &rules, 7, false).unwrap();
        assert!(piece.exists());
        clear(&trace, &rules, 0, true).unwrap();
        assert!(!piece.exists());
    }
}
