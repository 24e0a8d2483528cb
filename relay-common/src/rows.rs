//! Rows of the tracer's maps that both sides read. `W` is the shared word of the kernel side, and `u64` in user space, which reads copies.

use crate::recipe::{KEPT, input::ENTRY_COUNT};

/// What one CPU counts beside its buffer: events that were not recorded, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Account<W> {
    /// Events of the recorder, left out.
    pub own: W,
    /// Events while the session was not recording, left out.
    pub outside: W,
    /// Events of tasks or CPUs that were not chosen, or whose condition does not hold: left out.
    pub unwanted: W,
    /// Over an event's limit.
    pub suppressed: W,
    /// Entries of pairs, kept until the return.
    pub entries: W,
    /// Returns whose entry is not known.
    pub unpaired: W,
    /// Values that could not be fetched because their address could not be read.
    pub faults: W,
    /// Entries that their returns have found.
    pub returned: W,
    /// Records of the session's own, which no event has made.
    pub notes: W,
    /// System calls that are no event: what runs at some runs at all.
    pub other_calls: W,
    /// Of these, those of 32-bit programs.
    pub compat_calls: W,
    /// When a full buffer was last spoken of, in nanoseconds of the monotonic clock.
    pub noticed: W,
}

/// What one CPU counts of an event. Times are in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tally<W> {
    /// When the next record would come if they came evenly.
    pub next: W,
    /// Records that were over the limit.
    pub suppressed: W,
    /// When its first sample came. At their rate more were due than came where the kernel did not run the program.
    pub first: W,
    /// When its last sample came.
    pub last: W,
    /// How many samples came.
    pub samples: W,
    /// Entries of a pair.
    pub entries: W,
    /// Entries that their returns have found.
    pub returned: W,
    /// Entries whose thread has ended, as another thread of its number shows.
    pub ended: W,
    /// Entries that their thread has left without a return that was seen.
    pub unseen: W,
}

/// Words of the calls that a thread is in, as they are kept: how many calls, its task, its number, when the outermost began, and the rest of that.
pub const CALLS_WORDS: usize = 3 + CALL_HEAD + ENTRY_COUNT as usize + KEPT as usize / 8;
/// Words of the system call that a task is in: its event and one, its thread, when it began, and the rest of that.
pub const WAITING_WORDS: usize = WAITING_HEAD + ENTRY_COUNT as usize + KEPT as usize / 8;
/// Words that come first of that.
pub const WAITING_HEAD: usize = 8;
/// Words that come first of each call.
pub const CALL_HEAD: usize = 4;

/// What has ended the recording. Times are in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Trigger<W> {
    /// How long recording goes on after the record, in nanoseconds. User space's.
    pub after: W,
    /// The record's time; zero until there is one.
    pub time: W,
    /// Its event's id.
    pub event: W,
    /// The CPU that it was recorded on.
    pub cpu: W,
    /// When recording ends; zero until that is known. Written last.
    pub end: W,
}

/// A cgroup in the unified hierarchy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cgroup {
    /// How far below the root it is.
    pub level: u64,
    /// Its id, which is its folder's inode.
    pub id: u64,
}

const _: () = assert!(size_of::<Account<u64>>() == 96 && size_of::<Tally<u64>>() == 72);
const _: () = assert!(size_of::<Trigger<u64>>() == 40 && size_of::<Cgroup>() == 16);
