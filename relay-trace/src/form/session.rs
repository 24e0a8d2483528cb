//! `.relayd/session.json`: the session's own facts, and at the end its account.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{clock::Instant, folder::Folder, replace};

/// The format that this relayd writes, and the newest that it reads: `docs/format.md`. It grows when an older relayd would
/// misread a trace.
pub const FORMAT: u32 = 1;

/// Its name in the trace's own folder.
pub const FILE: &str = "session.json";
/// The most bytes that it can have: every event of a kernel takes a tenth of that.
pub const LONGEST: u64 = 32 << 20;

/// The session's own event: its events have changed.
pub const CHANGE: &str = "relayd:change";

/// What `session.json` holds. `docs/format.md` has the fields' meanings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionFile {
    /// Of what is in the directory ([`FORMAT`]).
    #[serde(default = "first_format")]
    pub format: u32,
    /// Of relayd.
    pub version: String,
    /// Of the trace: in every packet, and in `metadata`.
    pub uuid: String,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// The machine, as uname(1) calls it: `x86_64`, `aarch64`.
    #[serde(default)]
    pub machine: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// The command line.
    pub command: Vec<String>,
    /// `no-overwrite` or `overwrite`.
    pub mode: String,
    /// Bytes of a sub-buffer.
    pub subbuf_size: u64,
    /// Sub-buffers per CPU.
    pub n_subbufs: u64,
    /// What stands before every payload, in the order of the bytes.
    #[serde(default)]
    pub context: Vec<String>,
    /// Clocks at start and end.
    pub clock: SessionClock,
    /// What was recorded.
    pub events: Vec<SessionEvent>,
    /// The account of every possible CPU. Empty until the end.
    pub cpus: Vec<CpuAccount>,
    /// What the kernel says of each program. Empty until the end.
    pub programs: Vec<Program>,
    /// What the kernel says of the programs that follow processes (`--follow`): what they have missed are processes that are not followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub helpers: Vec<Program>,
    /// Hits of kprobes that the kernel itself passed over: inside another probe, or without room to watch for the return. `None` until the
    /// end, where there are no kprobes, and before Linux 6.7.
    pub kprobes_missed: Option<u64>,
    /// Of a trace in pieces: how many there were before this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pieces: u64,
    /// How many of them the recorder has removed to keep within its room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pieces_removed: u64,
    /// How many records those had.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub records_removed: u64,
    /// What they have in all, by CPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<CpuAccount>,
    /// Why recording stopped before it was asked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What `relayd repair` had to do, if it has made this trace of a damaged one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
}

/// What was missing where a trace was repaired.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Repaired {
    /// Bytes of the damaged trace that could not be read.
    pub bytes_left_out: u64,
    /// Whether the damaged trace had an account. If not, `lost_full` stands for all losses that the packets tell.
    pub had_account: bool,
}

/// Clocks at start and end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SessionClock {
    /// When every event was attached, and recording began.
    pub start: Instant,
    /// When recording ended, before the first event was detached. `null` until then.
    pub end: Option<Instant>,
}

/// An event of the session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionEvent {
    /// In every record.
    pub id: u16,
    /// `category:name` of a tracepoint, `kind:…` of anything else.
    pub name: String,
    /// Bytes of the payload's fixed part.
    pub size: usize,
    /// tracefs' `format` file as it stands, or a description of the same form.
    pub format: String,
    /// Records that were over the event's limit, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<u64>,
    /// Of samples: how many were due and did not reach the program, because another one was running on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    /// Where entries and returns are paired: what has become of the entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Pairs>,
    /// When it was added to a session that was running, in nanoseconds of the monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    /// When it was removed from the session, while that went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
}

/// What has become of the entries of an event: each has returned, or is counted by why it has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs {
    /// Entries, kept for their returns.
    pub entries: u64,
    /// Entries that their returns have found.
    pub returned: u64,
    /// Entries whose thread has ended: it exited, or was killed.
    pub ended: u64,
    /// Entries in a process's function whose thread was there at the end, and had executed another program meanwhile.
    #[serde(default)]
    pub executed: u64,
    /// Entries whose thread was there at the end, and had not returned.
    pub under_way: u64,
    /// Entries whose thread has gone on without a return that was seen: it jumped out of the call, or returned during a pause, or the kernel did
    /// not run the program.
    pub unseen: u64,
    /// Entries that there was no room to keep.
    pub no_room: u64,
}

impl Pairs {
    /// Entries without a return.
    #[must_use]
    pub fn unreturned(&self) -> u64 {
        [self.executed, self.under_way, self.unseen, self.no_room].into_iter().fold(self.ended, u64::saturating_add)
    }
}

impl std::fmt::Display for Pairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entries, returned, ended, executed, under_way, unseen, no_room } = self;
        let unreturned = self.unreturned();
        write!(
            f,
            "{entries} entries, {returned} returned, {unreturned} unreturned (thread ended {ended}, program replaced {executed}, \
             under way {under_way}, return unseen {unseen}, no room {no_room})"
        )
    }
}

impl SessionEvent {
    /// Whether it is recorded by now: it was not removed, and is not the session's own.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.removed.is_none() && self.name != CHANGE
    }

    /// Samples a second of each CPU, if it is such an event.
    #[must_use]
    pub fn hertz(&self) -> Option<u64> {
        self.name.strip_prefix("profile:hz:")?.parse().ok()
    }

    /// Whether the kernel prints a field of it as the text that it points to. Those of system calls point into processes.
    #[must_use]
    pub fn prints_strings(&self) -> bool {
        let is_pointer = |line: &str| {
            line.trim_start()
                .strip_prefix("field:")
                .is_some_and(|field| field.starts_with("const char *") || field.starts_with("char *"))
        };
        !self.name.starts_with("syscalls:") && self.format.contains("print fmt:") && self.format.lines().any(is_pointer)
    }

    /// Whether the kernel prints an address of it by name.
    #[must_use]
    pub fn prints_symbols(&self) -> bool {
        let print = self.format.split_once("print fmt:").map_or("", |(_, print)| print);
        ["%pS", "%ps", "%pB", "%pF", "%pf"].iter().any(|conversion| print.contains(conversion))
    }
}

/// The account of one CPU: `recorded - overrun - unwritten` records are in its file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAccount {
    /// Its number.
    pub cpu: u32,
    /// Records stored in the buffer.
    pub recorded: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Sub-buffers taken, empty ones included.
    pub subbufs_processed: u64,
    /// Most sub-buffers taken in one pass.
    pub max_backlog: u64,
    /// Events that were left out on purpose.
    pub filtered: u64,
    /// Of these, those that came before recording began or after it ended.
    pub filtered_outside: u64,
    /// Of these, those of tasks or CPUs that were not chosen, or whose condition does not hold.
    pub filtered_unwanted: u64,
    /// Events over their limit.
    pub suppressed: u64,
    /// Entries of pairs: the record is made at the return.
    pub entries: u64,
    /// Returns whose entry is not known: it came before recording began, or there was no room to keep it.
    pub unpaired: u64,
    /// Values that could not be fetched since their address could not be read.
    pub faults: u64,
    /// Entries that their returns have found here. The others' calls have not returned, or were not seen to.
    pub returned: u64,
    /// Records of the session's own, or losses of such: no run of an event's program has made them.
    pub notes: u64,
    /// System calls that are not events. Where many are, programs run at every one.
    pub other_calls: u64,
    /// Of these, those of 32-bit programs.
    pub compat_calls: u64,
    /// Lost: every sub-buffer was waiting for the reader.
    pub lost_full: u64,
    /// Lost: no sub-buffer could hold it.
    pub lost_too_big: u64,
    /// Lost: an interrupted writer owned the sub-buffer that was needed.
    pub lost_nested: u64,
    /// Lost: the CPU had no buffer.
    pub lost_no_buffer: u64,
    /// Recorded, then overwritten unread.
    pub overrun: u64,
    /// Recorded, but not in the file: writing it failed.
    pub unwritten: u64,
}

impl CpuAccount {
    /// The numbers that only grow.
    fn counts(&mut self) -> [&mut u64; 19] {
        let Self {
            cpu: _,
            recorded,
            bytes: _,
            subbufs_processed,
            max_backlog: _,
            filtered,
            filtered_outside,
            filtered_unwanted,
            suppressed,
            entries,
            unpaired,
            faults,
            returned,
            notes,
            other_calls,
            compat_calls,
            lost_full,
            lost_too_big,
            lost_nested,
            lost_no_buffer,
            overrun,
            unwritten,
        } = self;
        [
            recorded,
            subbufs_processed,
            filtered,
            filtered_outside,
            filtered_unwanted,
            suppressed,
            entries,
            unpaired,
            faults,
            returned,
            notes,
            other_calls,
            compat_calls,
            lost_full,
            lost_too_big,
            lost_nested,
            lost_no_buffer,
            overrun,
            unwritten,
        ]
    }

    /// What has come since an earlier account of the same CPU. Bytes and backlog stay: they are of a file.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let (mut since, mut before) = (self.clone(), before.clone());
        for (count, before) in since.counts().into_iter().zip(before.counts()) {
            *count = count.saturating_sub(*before);
        }
        since
    }

    /// Adds another account of the same CPU, but bytes and backlog.
    pub fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for (count, other) in self.counts().into_iter().zip(other.counts()) {
            *count = count.saturating_add(*other);
        }
    }

    /// Records lost that packets tell of.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.lost().saturating_sub(self.lost_no_buffer)
    }

    /// Records in the file.
    #[must_use]
    pub fn in_file(&self) -> u64 {
        self.recorded.saturating_sub(self.overrun).saturating_sub(self.unwritten)
    }

    /// Records lost, all causes.
    #[must_use]
    pub fn lost(&self) -> u64 {
        [self.lost_too_big, self.lost_nested, self.lost_no_buffer].into_iter().fold(self.lost_full, u64::saturating_add)
    }
}

/// What the kernel says of a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// How often the kernel did not run it because another program was running on the CPU: these events never reached relayd.
    /// `None` where the kernel does not count that: before Linux 6.7.
    pub recursion_misses: Option<u64>,
    /// How often it ran, when that was counted (`--bpf-stats`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Traces without a number have the first format.
const fn first_format() -> u32 {
    1
}

impl SessionFile {
    /// Reads the file in a trace's own folder.
    ///
    /// # Errors
    /// When there is none, it is damaged, or a newer relayd wrote it.
    pub fn read(folder: &Folder) -> Result<Self> {
        let path = folder.path().join(FILE);
        let text = folder.read(FILE, LONGEST).with_context(|| format!("reading {}", path.display()))?;
        let text = text.with_context(|| format!("{} is missing", path.display()))?;
        Self::parse(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Reads the file's content.
    ///
    /// # Errors
    /// When it is damaged, or a newer relayd wrote it.
    pub fn parse(text: &[u8]) -> Result<Self> {
        /// What even a format that is not known yet will have.
        #[derive(Deserialize)]
        struct Head {
            #[serde(default = "first_format")]
            format: u32,
            #[serde(default)]
            version: String,
        }
        let head: Head = serde_json::from_slice(text).context("it is damaged")?;
        if head.format > FORMAT {
            bail!(
                "relayd {} wrote it, in format {}; this relayd reads formats up to {FORMAT}: use a newer one",
                head.version,
                head.format
            );
        }
        serde_json::from_slice(text).context("it is damaged")
    }

    /// Writes the file, whole or not at all, and returns its length in bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<u64> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self).context("writing the session as JSON")?;
        replace(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
        Ok(text.len() as u64)
    }
}
