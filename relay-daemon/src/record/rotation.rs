//! A trace in pieces: `DIR-piece-000001` and so on, each a trace of its own; `DIR` has what is newest.
//!
//! A CPU's file ends between two of its sub-buffers, so that nothing is lost and nothing is twice. It is then renamed into the piece's
//! directory, and a new one takes its place. The sub-buffers' numbers and the count of what was lost go on from piece to piece;
//! [`SessionFile::before`] has what the pieces before had. When a piece ends, and what becomes of it then, is `pieces`'.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::{Context as _, Result, bail};
use relay_common::Buffer as _;

use super::{
    ending::told_by,
    kept::{KeptPieces, Yielding},
};
use crate::session::PinnedSession;
use relay_channel::{channel::Channel, consumer::Consumer, output::CpuFile};
use relay_trace::{
    form::{
        clock::Instant,
        directory::{self, TraceDirectory},
        pieces,
        session::{self, CpuAccount, SessionFile},
    },
    read::{trace::Trace, verify},
};

/// How often a CPU is told that what it has lost is to stand in the piece that ends.
const TELL_TRIES: u32 = 4;

/// What a CPU's reader had taken when its file was ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PieceEnd {
    records: u64,
    subbufs: u64,
    bytes: u64,
    max_backlog: u64,
    /// What its last packet tells of losses.
    told: u64,
}

/// Ends a CPU's file, on the thread of its reader: what has come up to now is in it, and what comes from now on in the next.
pub(crate) fn cut(
    consumer: &mut Consumer,
    channel: &Channel,
    session: &SessionFile,
    (trace, piece): (&Path, &Path),
    kept: KeptPieces,
) -> Result<PieceEnd> {
    let cpu = consumer.buffer().cpu();
    let before = before(session, cpu);
    take_up_to_now(consumer, channel)?;
    for _ in 0..TELL_TRIES {
        if kept.told(cpu) == Some(consumer.buffer().control().producer.lost()) {
            break;
        }
        channel.mark(cpu)?;
        take_up_to_now(consumer, channel)?;
    }
    let told = match (kept.told(cpu), consumer.consumed().checked_sub(1)) {
        (Some(told), _) => told,
        (None, Some(last)) => told_by(consumer.buffer(), last)?,
        (None, None) => 0,
    };
    let statistics = consumer.statistics();
    let part = PieceEnd {
        records: statistics.records.load(Relaxed).saturating_sub(before.recorded),
        subbufs: statistics.subbufs_processed.load(Relaxed).saturating_sub(before.subbufs_processed),
        bytes: statistics.bytes.load(Relaxed),
        max_backlog: statistics.max_backlog.load(Relaxed),
        told,
    };
    let name = directory::cpu_file(cpu);
    let (from, to) = (trace.join(&name), piece.join(&name));
    fs::rename(&from, &to).with_context(|| format!("moving {} to {}", from.display(), to.display()))?;
    match CpuFile::create(trace, cpu) {
        Ok(file) => consumer.replace_output(Box::new(Yielding::new(file, Arc::clone(consumer.buffer()), kept))),
        Err(error) => {
            // The consumer still has the old one.
            fs::rename(&to, &from).with_context(|| format!("moving {} back", to.display()))?;
            return Err(error);
        }
    }
    Ok(part)
}

/// Takes what has been recorded by now; what comes meanwhile may be as much again, and again. What there is no room for is left to the next piece.
fn take_up_to_now(consumer: &mut Consumer, channel: &Channel) -> Result<()> {
    channel.flush(consumer.buffer().cpu())?;
    let buffer = Arc::clone(consumer.buffer());
    let end = buffer.reader().produced();
    while consumer.consumed() < end && consumer.pass(1)? > 0 {}
    Ok(())
}

/// What a piece has of a CPU: of what was counted by its end, what the pieces before it have not. Without a part the CPU's file goes on in
/// the next piece.
fn own(counted: &CpuAccount, part: Option<&PieceEnd>, before: &CpuAccount) -> CpuAccount {
    let mut own = counted.since(before);
    if let Some(part) = part {
        (own.recorded, own.subbufs_processed) = (part.records, part.subbufs);
        (own.bytes, own.max_backlog) = (part.bytes, part.max_backlog);
    }
    // What was lost since the last packet is the next piece's. Which causes that had is not known; that it adds up, is.
    let told = part.map_or(0, |part| part.told.saturating_sub(before.told()));
    own.lost_nested = own.lost_nested.min(told);
    own.lost_too_big = own.lost_too_big.min(told - own.lost_nested);
    own.lost_full = told - own.lost_nested - own.lost_too_big;
    own
}

/// What the pieces before this one have of a CPU.
fn before(session: &SessionFile, cpu: u32) -> CpuAccount {
    let found = session.before.iter().find(|before| before.cpu == cpu);
    found.cloned().unwrap_or_else(|| CpuAccount { cpu, ..CpuAccount::default() })
}

/// The accounts of a piece, of what was counted by its end.
pub(crate) fn accounts(
    session: &SessionFile,
    counted: &[CpuAccount],
    parts: &BTreeMap<u32, PieceEnd>,
) -> Vec<CpuAccount> {
    counted.iter().map(|counted| own(counted, parts.get(&counted.cpu), &before(session, counted.cpu))).collect()
}

/// Goes on with the next piece: a piece with these accounts has ended.
pub(crate) fn go_on(session: &mut SessionFile, piece: &SessionFile) {
    for own in &piece.cpus {
        let mut all = before(session, own.cpu);
        all.add(own);
        session.before.retain(|before| before.cpu != own.cpu);
        session.before.push(all);
    }
    session.pieces += 1;
    session.clock.start = piece.clock.end.unwrap_or(session.clock.start);
}

/// After a kill: where a CPU's file goes on. `len` is what its reader had noted; the file may have been renamed since.
pub(crate) fn resume_at(trace: &Path, session: &SessionFile, cpu: u32, len: u64) -> u64 {
    let name = directory::cpu_file(cpu);
    let here = fs::metadata(trace.join(&name)).map_or(0, |file| file.len());
    let was_moved = pieces::path(trace, session.pieces + 1).join(&name).exists();
    if was_moved && here < len { 0 } else { len }
}

/// After a kill: completes the piece whose files were being moved, by what is in them, and says in the session what the pieces have that it
/// does not know of.
pub(crate) fn complete(pinned: &PinnedSession, trace: &Path, session: &mut SessionFile) -> Result<()> {
    loop {
        let path = pieces::path(trace, session.pieces + 1);
        if fs::symlink_metadata(&path).is_err() {
            return Ok(());
        }
        if directory::open_private(&path).ok().and_then(|private| private.len_of(session::FILE)).is_none() {
            // Killed while it made the directory, before any file was moved.
            return directory::remove(&path);
        }
        let piece = complete_one(pinned, trace, &path, session)?;
        go_on(session, &piece);
        session.write(&trace.join(directory::PRIVATE))?;
    }
}

fn complete_one(pinned: &PinnedSession, trace: &Path, path: &Path, session: &SessionFile) -> Result<SessionFile> {
    let piece = TraceDirectory::open(path)?;
    let mut written = SessionFile::read(piece.own_files())?;
    if written.uuid != session.uuid {
        bail!("{} is in the way: it is of another trace; move it", path.display());
    }
    if written.cpus.is_empty() {
        let walked = verify::verify(&Trace::open(path, &mut |_, _| ())?, |_| ())?;
        let part = |found: &verify::Walked| PieceEnd {
            records: found.records,
            subbufs: found.packets,
            bytes: found.bytes,
            max_backlog: 0,
            told: found.discarded,
        };
        let parts = walked.cpus.iter().map(|(cpu, found)| (*cpu, part(found))).collect();
        written.cpus = accounts(session, &pinned.accounts()?, &parts);
        written.clock.end = Some(Instant::now());
        // Names that the trace had then.
        for name in directory::NAMES {
            let _ = fs::copy(trace.join(directory::PRIVATE).join(name), piece.private().join(name));
        }
        piece.release_reserve()?;
        written.write(&piece.private())?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionFile {
        serde_json::from_str(include_str!("../../../tests/fuzz/session.json")).unwrap()
    }

    #[test]
    fn the_accounts_of_pieces_add_up_to_the_whole() {
        let mut session = session();
        let counted = |lost_full, lost_nested| CpuAccount {
            filtered: lost_full,
            lost_full,
            lost_nested,
            ..CpuAccount::default()
        };
        let part = |records, told| PieceEnd { records, subbufs: 1, bytes: 4000, max_backlog: 2, told };
        // What was lost after the last packet of a piece had been closed is the next one's; of the third, the file could not be moved.
        let pieces = [
            (counted(5, 0), Some(part(100, 3)), (100, 3, 0)),
            (counted(5, 4), Some(part(50, 8)), (50, 1, 4)),
            (counted(9, 6), None, (0, 0, 0)),
            (counted(9, 6), Some(part(70, 15)), (70, 5, 2)),
        ];
        for (counted, part, (records, full, nested)) in pieces {
            let parts = part.into_iter().map(|part| (0, part)).collect();
            let mut piece = session.clone();
            piece.cpus = accounts(&session, &[counted], &parts);
            let [own] = &piece.cpus[..] else { panic!("{:?}", piece.cpus) };
            assert_eq!((own.recorded, own.lost_full, own.lost_nested), (records, full, nested));
            assert_eq!(own.bytes, part.map_or(0, |part| part.bytes));
            go_on(&mut session, &piece);
            assert!(part.is_none_or(|part| before(&session, 0).told() == part.told));
        }
        let all = before(&session, 0);
        assert_eq!((session.pieces, all.recorded, all.filtered), (4, 220, 9));
        assert_eq!((all.lost_full, all.lost_nested, all.bytes), (9, 6, 0));
    }

    #[test]
    fn a_file_goes_on_where_it_was_left_or_anew_when_it_was_moved() {
        let root = tempfile::tempdir().unwrap();
        let trace = root.path().join("trace");
        let piece = pieces::path(&trace, 1);
        [&trace, &piece].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let session = session();
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
