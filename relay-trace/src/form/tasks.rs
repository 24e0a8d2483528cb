//! `.relayd/tasks`: what threads were called, and from when on. `.relayd/cgroups.json`: the paths of cgroups, by id, where records have such ids.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags, open};

use super::{folder::Folder, replace};

/// The name of the threads' file in the trace's own folder.
pub const FILE: &str = "tasks";
/// That of the file that older relayds wrote: the names that threads had last.
pub const LAST_FILE: &str = "tasks.json";
/// That of the cgroups'.
pub const CGROUPS_FILE: &str = "cgroups.json";

/// Notices that are kept of a trace, at most.
pub const MOST: usize = 1 << 20;
/// Bytes of one in the file.
const SIZE: usize = 32;
/// Notices that a file can have: while it is added to, more than are kept.
const MOST_WRITTEN: usize = MOST + MOST / 4;
/// The most bytes that a file can have.
const LONGEST: u64 = (MOST_WRITTEN * SIZE) as u64;

/// A thread's name, with NULs at its end.
pub type Name = [u8; 16];

/// Something that is known of threads' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskNote {
    /// In nanoseconds of the monotonic clock.
    pub time: u64,
    /// What.
    pub what: Noted,
}

/// What is known at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// From then on a thread, by its id, has this name.
    Named(u32, Name),
    /// Some of the kernel's notices between a time and this one were not had.
    Missing {
        /// From when on.
        since: u64,
        /// How many; 0 when that is not known.
        notices: u64,
    },
}

impl TaskNote {
    const NAMED: u32 = 0;
    const MISSING: u32 = 1;

    fn bytes(&self) -> [u8; SIZE] {
        let mut rest = [0; 16];
        let (thread, kind) = match self.what {
            Noted::Named(thread, name) => {
                rest = name;
                (thread, Self::NAMED)
            }
            Noted::Missing { since, notices } => {
                rest[..8].copy_from_slice(&since.to_le_bytes());
                rest[8..].copy_from_slice(&notices.to_le_bytes());
                (0, Self::MISSING)
            }
        };
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&self.time.to_le_bytes());
        bytes[8..12].copy_from_slice(&thread.to_le_bytes());
        bytes[12..16].copy_from_slice(&kind.to_le_bytes());
        bytes[16..].copy_from_slice(&rest);
        bytes
    }

    /// `None` for a kind that is not known yet.
    fn parse(bytes: &[u8; SIZE]) -> Option<Self> {
        let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let what = match short(12) {
            Self::NAMED => Noted::Named(short(8), std::array::from_fn(|i| bytes[16 + i])),
            Self::MISSING => Noted::Missing { since: long(16), notices: long(24) },
            _ => return None,
        };
        Some(Self { time: long(0), what })
    }
}

/// As much of a name as the kernel keeps: 15 bytes.
#[must_use]
pub fn shortened(name: &[u8]) -> Name {
    let mut short = [0; 16];
    let len = name.len().min(15);
    short[..len].copy_from_slice(&name[..len]);
    short
}

/// What a trace has kept of its threads' names, in any order; nothing when it has kept none.
///
/// # Errors
/// When the file cannot be read, or is too long.
pub fn read(folder: &Folder) -> Result<Vec<TaskNote>> {
    let path = folder.path().join(FILE);
    let bytes = folder.read(FILE, LONGEST).with_context(|| format!("reading {}", path.display()))?.unwrap_or_default();
    // Whoever was killed while it wrote has left a part at the end.
    Ok(bytes.as_chunks().0.iter().filter_map(TaskNote::parse).collect())
}

/// The names that threads had last, of a trace of an older relayd; none of another.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read_last(folder: &Folder) -> Result<BTreeMap<u32, String>> {
    folder.read_json(LAST_FILE, LONGEST)
}

/// The paths of cgroups, by id; none when a trace has not kept them.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read_cgroups(folder: &Folder) -> Result<BTreeMap<u64, String>> {
    folder.read_json(CGROUPS_FILE, LONGEST)
}

/// Writes all that is known of threads' names; of more than can be read, the last.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path, told: &[TaskNote]) -> Result<()> {
    let path = folder.join(FILE);
    replace(&path, &bytes(&told[told.len().saturating_sub(MOST_WRITTEN)..]))
        .with_context(|| format!("writing {}", path.display()))
}

/// Adds what has become known to what [`write()`] has written.
///
/// # Errors
/// When it cannot be written, or would be more than is read.
pub fn append(folder: &Path, told: &[TaskNote]) -> Result<()> {
    let path = folder.join(FILE);
    let add = || {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(open(&path, flags, Mode::empty())?);
        let bytes = bytes(told);
        if file.metadata()?.len() + bytes.len() as u64 > LONGEST {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        file.write_all(&bytes)
    };
    add().with_context(|| format!("adding to {}", path.display()))
}

fn bytes(told: &[TaskNote]) -> Vec<u8> {
    told.iter().flat_map(TaskNote::bytes).collect()
}

/// Writes the paths of cgroups.
///
/// # Errors
/// When it cannot be written.
pub fn write_cgroups(folder: &Path, cgroups: &BTreeMap<u64, String>) -> Result<()> {
    let path = folder.join(CGROUPS_FILE);
    let text = serde_json::to_vec(cgroups).context("writing cgroups as JSON")?;
    replace(&path, &text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let name = *b"bad\xff name\n\0\0\0\0\0\0";
        let first = TaskNote { time: 5, what: Noted::Named(7, name) };
        let missing = TaskNote { time: u64::MAX, what: Noted::Missing { since: 3, notices: 9 } };
        let last = TaskNote { time: 6, what: Noted::Named(u32::MAX, shortened(b"0123456789abcdef")) };
        write(root.path(), &[first]).unwrap();
        append(root.path(), &[missing, last]).unwrap();
        // A part, and a kind of later times.
        let mut bytes = std::fs::read(root.path().join(FILE)).unwrap();
        bytes.extend([9; SIZE + 5]);
        std::fs::write(root.path().join(FILE), bytes).unwrap();
        let folder = Folder::open(root.path()).unwrap();
        assert_eq!(read(&folder).unwrap(), [first, missing, last]);
        assert_eq!(last.what, Noted::Named(u32::MAX, *b"0123456789abcde\0"));
    }
}
