//! The pieces of a trace on the disk: when one ends, and what becomes of it then. What is in them is `rotation`'s, which are kept `kept`'s.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    archive,
    kept::{KeptPieces, is_for_want_of_room, remove},
    rules::Rules,
};
use relay_trace::form::pieces::{numbers, path};

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait before a piece that could not be made is tried once more.
const PAUSE: Duration = Duration::from_secs(10);

/// The pieces of a recording.
#[derive(Debug)]
pub(crate) struct Pieces {
    kept: KeptPieces,
    rules: Rules,
    /// When the one that is being written is old enough.
    due: Option<Instant>,
    /// When the next is tried, after one that could not be made.
    retry: Option<Instant>,
    /// When the disk is looked at again.
    look: Instant,
    /// Compresses one after the other.
    compressor: Option<(mpsc::Sender<PathBuf>, JoinHandle<()>)>,
}

impl Pieces {
    /// Begins with the pieces of a trace that are there, `ended` by number: those that a recorder has left uncompressed which was killed.
    ///
    /// `trace` is its directory as [`directory::TraceDirectory::absolute`] has it.
    pub(crate) fn new(rules: Rules, trace: PathBuf, ended: u64) -> Result<Self> {
        let due = rules.time.map(|time| Instant::now() + time);
        let compressor = rules.compress.then(|| {
            let (pieces, to_do) = mpsc::channel::<PathBuf>();
            let work = move || {
                for piece in to_do {
                    if let Err(error) = archive::compress(&piece) {
                        log::error!("{} stays uncompressed: {error:#}", piece.display());
                    }
                }
            };
            (pieces, thread::spawn(work))
        });
        let there = numbers(&trace)?.into_iter().map(|number| path(&trace, number)).collect::<Vec<_>>();
        let kept = KeptPieces::new(trace, rules, ended);
        let pieces = Self { kept, rules, due, retry: None, look: Instant::now(), compressor };
        there.into_iter().for_each(|piece| pieces.compress(piece));
        Ok(pieces)
    }

    /// Those that are there, for whoever needs room.
    pub(crate) fn kept(&self) -> &KeptPieces {
        &self.kept
    }

    /// The trace's directory was renamed: the pieces that follow go beside it.
    pub(crate) fn follow(&mut self, trace: PathBuf) {
        self.kept.follow(trace);
    }

    /// The trace's directory.
    pub(crate) fn trace(&self) -> PathBuf {
        self.kept.trace()
    }

    /// Whether a piece of so many bytes ends now.
    pub(crate) fn is_due(&self, bytes: u64) -> bool {
        let now = Instant::now();
        self.retry.is_none_or(|retry| now >= retry)
            && (self.rules.size.is_some_and(|size| bytes >= size) || self.due.is_some_and(|due| now >= due))
    }

    /// A piece could not be made: not at once again, unless there is more room now.
    pub(crate) fn failed(&mut self, why: &anyhow::Error) {
        if !is_for_want_of_room(why) || !self.kept.make_room() {
            self.retry = Some(Instant::now() + PAUSE);
        }
    }

    /// A piece has ended that has so many records: compresses it, and removes those that are too many.
    pub(crate) fn ended(&mut self, piece: PathBuf, records: u64) -> Result<()> {
        // In step with the beginning, however late one has ended.
        let now = Instant::now();
        while let (Some(due), Some(time)) = (self.due.filter(|due| *due <= now), self.rules.time) {
            self.due = Some(due + time);
        }
        self.retry = None;
        self.compress(piece);
        self.kept.ended(records)
    }

    /// Looks at the disk, if it is time to, and makes room. To be called ten times a second or so.
    pub(crate) fn keep_free(&mut self) -> Result<()> {
        if self.rules.min_free.is_none() || Instant::now() < self.look {
            return Ok(());
        }
        self.look = Instant::now() + LOOK;
        self.kept.keep_rules()
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

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use anyhow::anyhow;
    use relay_trace::form::{
        directory,
        pieces::{PARTIAL, archive as archive_of},
        session::{CpuAccount, SessionFile},
    };

    use super::{super::archive::with_end, *};

    fn make(trace: &Path, number: u64) -> PathBuf {
        let piece = path(trace, number);
        fs::create_dir_all(piece.join(directory::PRIVATE)).unwrap();
        fs::write(piece.join("cpu0"), number.to_string()).unwrap();
        let mut session: SessionFile = serde_json::from_str(include_str!("../../../tests/fuzz/session.json")).unwrap();
        session.cpus = vec![CpuAccount { recorded: 10 * number, unwritten: number, ..CpuAccount::default() }];
        session.write(&piece.join(directory::PRIVATE)).unwrap();
        piece
    }

    /// What a session tells of removed pieces.
    fn told(pieces: &Pieces) -> (u64, u64) {
        let mut session: SessionFile = serde_json::from_str(include_str!("../../../tests/fuzz/session.json")).unwrap();
        pieces.kept().tell(&mut session);
        (session.pieces_removed, session.records_removed)
    }

    #[test]
    fn the_newest_are_kept_compressed_or_not() {
        let root = tempfile::tempdir().unwrap();
        let trace = root.path().join("trace");
        let rules = Rules { size: Some(1), keep: Some(2), ..Rules::default() };
        let mut pieces = Pieces::new(rules, trace.clone(), 3).unwrap();
        assert!(!pieces.is_due(0) && pieces.is_due(1));
        let all: Vec<PathBuf> = (1..=4).map(|number| make(&trace, number)).collect();
        archive::compress(&all[1]).unwrap();
        archive::compress(&all[2]).unwrap();
        fs::write(archive_of(&all[0], PARTIAL), "a half").unwrap();
        assert_eq!(numbers(&trace).unwrap(), [1, 2, 3, 4]);
        pieces.ended(all[3].clone(), 36).unwrap();
        assert_eq!(numbers(&trace).unwrap(), [3, 4]);
        assert!(archive_of(&all[2], "").exists() && all[3].exists());
        // 9 and 18, of the second from its archive.
        assert_eq!(told(&pieces), (2, 27));
        assert_eq!(told(&pieces), (0, 0));
        pieces.failed(&anyhow!("no reason"));
        assert!(!pieces.is_due(1));
    }

    #[test]
    fn a_full_disk_takes_the_oldest_and_never_the_one_that_is_made() {
        let root = tempfile::tempdir().unwrap();
        let trace = root.path().join("trace");
        let full = || anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull)).context("making a piece");
        let (first, second) = (make(&trace, 1), make(&trace, 2));
        let mut all = Pieces::new(Rules { size: Some(1), ..Rules::default() }, trace.clone(), 1).unwrap();
        assert!(!all.kept().make_room(), "no rule lets one go");
        all.failed(&full());
        assert!(first.exists() && !all.is_due(1));
        let rules = Rules { size: Some(1), keep: Some(10), ..Rules::default() };
        let mut some = Pieces::new(rules, trace.clone(), 1).unwrap();
        some.failed(&full());
        assert!(!first.exists() && some.is_due(1), "there is room: it is tried at once");
        some.failed(&full());
        assert!(second.exists() && !some.is_due(1));
        assert_eq!(told(&some), (1, 9));
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
