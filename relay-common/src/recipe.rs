//! What the tracer's programs do at an event beyond copying a tracepoint's fields: which values they fetch, which records they
//! keep, how many of them.
//!
//! User space resolves names, types and expressions; the kernel side only follows these tables. They know registers by number
//! and structures by offset, so that one program serves every function of every kernel.

/// Most values that one event fetches.
pub const MAX_FETCHES: usize = 20;
/// Most pointers that are followed to one value.
pub const MAX_STEPS: usize = 6;
/// Most comparisons of one event's condition.
pub const MAX_TESTS: usize = 24;
/// Most bytes of a text pattern: a position for each, and one for the end, are the bits of a word.
pub const MAX_PATTERN: usize = 63;
/// Most bytes of a text that are compared with a pattern, with a NUL at its end: what comes after is as if it were not there.
pub const MAX_TEXT: usize = 256;
/// Workspaces that all CPUs share, where programs can be preempted and the kernel cannot keep them from it: so many tasks can be inside a program
/// at once, and some more come to no harm. A power of two.
pub const SHARED_WORKSPACES: u32 = 512;
/// Where in the payload's space the values lie that only a condition needs: after what is recorded.
pub const HIDDEN: u16 = 7680;
/// Bytes of a payload that are kept from an entry to its return.
pub const KEPT: u16 = 512;
/// Most bytes of a string that is fetched, a NUL at its end included.
pub const MAX_STRING: u16 = 4096;

/// Most strings of a list.
pub const MAX_STRINGS: u64 = 64;

/// Offset in the location word of a string that could not be read. Its text is `(fault)`.
pub const FAULT: u64 = 0xffff;

/// The inputs of a recipe, in words of 8 bytes: where [`Fetch::source`] points.
pub mod input {
    /// Registers as the kernel has them in `struct pt_regs` (kprobes, uprobes), or the arguments as the kernel passes them (raw
    /// tracepoints, fentry; after them, at fexit, the value that is returned), or a system call's tracepoint from its number on.
    pub const FIRST: u16 = 0;
    /// How many of those there can be: arm64 has 31 registers, stack pointer, program counter and state.
    pub const COUNT: u16 = 34;
    /// At an exit, the words that came with the entry: the first of them.
    pub const ENTRY: u16 = 40;
    /// How many of those.
    pub const ENTRY_COUNT: u16 = 8;
    /// The current thread's process.
    pub const PID: u16 = 48;
    /// Thread.
    pub const TID: u16 = 49;
    /// User.
    pub const UID: u16 = 50;
    /// The CPU.
    pub const CPU: u16 = 51;
    /// Nanoseconds since the entry.
    pub const DURATION: u16 = 52;
    /// Of a function with a trampoline: the address of the arguments. They lie in the trampoline's frame, which a call has for itself.
    pub const FRAME: u16 = 53;
    /// Bytes of a list of strings so far.
    pub const LISTED: u16 = 61;
    /// A word that programs use for themselves.
    pub const SCRATCH: u16 = 62;
    /// Always zero.
    pub const ZERO: u16 = 63;
    /// All words.
    pub const WORDS: u16 = 64;
}

/// Whose events are recorded.
pub mod choice {
    /// Chosen processes alone.
    pub const PID: u32 = 1;
    /// Chosen threads.
    pub const TID: u32 = 2;
    /// Chosen users.
    pub const UID: u32 = 4;
    /// Chosen CPUs.
    pub const CPU: u32 = 8;
    /// Tasks in chosen cgroups, or below them.
    pub const CGROUP: u32 = 16;
    /// Threads whose name matches a pattern: one of the first of the session's patterns.
    pub const NAME: u32 = 32;
    /// Most cgroups.
    pub const MAX_CGROUPS: u32 = 8;
    /// Most patterns of names.
    pub const MAX_NAMES: u32 = 8;

    /// The key of a chosen number: what it numbers, one of the bits above, in the upper half.
    #[inline(always)]
    #[must_use]
    pub const fn key(of: u32, number: u64) -> u64 {
        (of as u64) << 32 | number & 0xffff_ffff
    }
}

/// What stands before every payload when it is asked for: bits, in the order of the bytes.
pub mod context {
    /// u64: the id of the current task's cgroup.
    pub const CGROUP: u32 = 1;
    /// 16 bytes: the current thread's name.
    pub const COMM: u32 = 2;
    /// u32: its user.
    pub const UID: u32 = 4;
    /// The kernel's stack: addresses, innermost first.
    pub const KSTACK: u32 = 8;
    /// The process's stack: of each frame build id and offset in the file ([`FRAME`] bytes).
    pub const USTACK: u32 = 16;
    /// Bytes of a frame of the process's stack: s32 status, u8 `build_id[20]`, u64 offset, as the kernel has it
    /// (`struct bpf_stack_build_id`). With status 1 the offset counts in the file of that build id; with 2 it is an address.
    pub const FRAME: u64 = 32;
    /// Bytes of one of the kernel's: an address.
    pub const ADDRESS: u64 = 8;
    /// Most frames of each stack, however many the kernel would give (`kernel.perf_event_max_stack`): what stands before the kernel's, and all
    /// of its, then end where there is still room for the process's.
    pub const MAX_FRAMES: u64 = 127;
    const _: () = assert!(8 + 16 + 4 + 4 + MAX_FRAMES * ADDRESS < 4096);
}

/// What is stored of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FetchKind {
    /// The number itself.
    Value = 0,
    /// The number that it points to, of `len` bytes.
    Load = 1,
    /// `len` bytes from where it points to.
    Bytes = 2,
    /// The string that it points to, at most `len` bytes with its NUL. Stored after the fixed part; at `to` its location.
    String = 3,
    /// The strings that an array of addresses points to, up to one that is zero: at most [`MAX_STRINGS`], and `len` bytes with their NULs.
    /// Stored as a string is, one after the other; where they were cut, `...` without a NUL follows.
    Strings = 4,
}

/// One value to fetch.
///
/// It begins as the input `source` plus `scale` times the input `index` plus `offsets[0]`; then, `steps` times, the 8 bytes there are loaded and the next offset is added.
/// Addresses with the highest bit set are the kernel's, the others the current process's: so it is on x86-64 and arm64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Fetch {
    /// Index of the input.
    pub source: u16,
    /// Where the value is stored, in bytes from the payload's start.
    pub to: u16,
    /// Bytes to read: of a number, of bytes, or the most of a string.
    pub len: u16,
    /// [`FetchKind`].
    pub kind: u8,
    /// Pointers to follow, at most [`MAX_STEPS`].
    pub steps: u8,
    /// Of a number: bits to shift left, in 64, before it is shifted right. So bit fields are cut out.
    pub left: u8,
    /// Bits to shift right.
    pub right: u8,
    /// Not zero: shifted right as a signed number.
    pub signed: u8,
    /// Bytes of a number where it is stored: 1, 2, 4 or 8.
    pub size: u8,
    /// Index of the input that is added, times `scale`.
    pub index: u16,
    /// Zero where no other input is added.
    pub scale: u8,
    /// Zero.
    pub zero: u8,
    /// Added to the input, and to what each pointer loads.
    pub offsets: [i32; MAX_STEPS + 1],
    /// Zero.
    pub pad: u32,
}

/// How a test compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operator {
    /// Equal.
    Equal = 0,
    /// Less.
    Less = 1,
    /// Less or equal.
    LessOrEqual = 2,
    /// The text matches the pattern.
    Matches = 3,
}

/// What a test looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Subject {
    /// A number of `size` bytes at `at` in the payload.
    Payload = 0,
    /// An input: its index is `at`.
    Input = 1,
    /// A text of `size` bytes, or up to its NUL, at `at` in the payload.
    Text = 2,
    /// A text whose location word is at `at`; its offset counts from the payload's start less 8.
    Located = 3,
    /// The same, but the offset counts from the end of the location word.
    LocatedRelative = 4,
    /// The name of the current thread.
    Comm = 5,
}

/// A text pattern, as a machine that takes a byte a step. Its state is a set of positions in the pattern, one bit each: the text so
/// far matches the pattern up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Pattern {
    /// For every byte, the positions where it may stand.
    pub bytes: [u64; 256],
    /// The positions where any run of bytes may stand.
    pub runs: u64,
    /// The end of the pattern.
    pub end: u64,
}

/// An element of a [`Pattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyph {
    /// This byte.
    Byte(u8),
    /// Any one byte.
    Any,
    /// Any run of bytes.
    Run,
}

impl Pattern {
    /// The machine of a pattern; `None` when it has more than [`MAX_PATTERN`] elements.
    ///
    /// ```
    /// use relay_common::recipe::{Glyph, Pattern};
    ///
    /// let pattern = Pattern::new([Glyph::Byte(b'k'), Glyph::Run].into_iter()).unwrap();
    /// assert!(pattern.matches(b"kworker") && pattern.matches(b"k") && !pattern.matches(b"swapper"));
    /// ```
    #[must_use]
    pub fn new(glyphs: impl Iterator<Item = Glyph>) -> Option<Self> {
        let mut pattern = Self { bytes: [0; 256], runs: 0, end: 1 };
        for glyph in glyphs {
            let position = pattern.end;
            match glyph {
                // One run after another is one run: a step then never has to go over two of them.
                Glyph::Run if pattern.runs & position >> 1 != 0 => continue,
                Glyph::Run => pattern.runs |= position,
                Glyph::Any => pattern.bytes.iter_mut().for_each(|positions| *positions |= position),
                Glyph::Byte(byte) => pattern.bytes[usize::from(byte)] |= position,
            }
            pattern.end = position.checked_mul(2)?;
        }
        Some(pattern)
    }

    /// The state before the first byte.
    #[inline(always)]
    #[must_use]
    pub const fn start(runs: u64) -> u64 {
        1 | (1 & runs) << 1
    }

    /// The state after a byte for which `positions` is the row of [`Pattern::bytes`].
    #[inline(always)]
    #[must_use]
    pub const fn step(runs: u64, state: u64, positions: u64) -> u64 {
        let next = (state & positions) << 1 | state & runs;
        next | (next & runs) << 1
    }

    /// Whether all of the text matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        let start = Self::start(self.runs);
        text.iter().fold(start, |state, byte| Self::step(self.runs, state, self.bytes[usize::from(*byte)])) & self.end
            != 0
    }
}

/// The condition holds.
pub const PASS: u8 = 254;
/// The condition does not hold.
pub const FAIL: u8 = 255;

/// One comparison, and which comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Test {
    /// To compare with.
    pub value: u64,
    /// And-ed with the number first (after it was extended to 64 bits). All ones for a plain comparison.
    pub mask: u64,
    /// Where the subject is.
    pub at: u16,
    /// Its bytes: 1, 2, 4 or 8 of a number, up to [`MAX_TEXT`] of a text.
    pub size: u16,
    /// [`Subject`].
    pub subject: u8,
    /// [`Operator`].
    pub operator: u8,
    /// Not zero: the number is extended, and compared, as a signed one.
    pub signed: u8,
    /// Zero.
    pub zero: u8,
    /// Index of the pattern, of all the patterns of the session.
    pub pattern: u16,
    /// The next test where this one is true: a higher index than its own, [`PASS`] or [`FAIL`].
    pub yes: u8,
    /// The next where it is false.
    pub no: u8,
    /// Zeros.
    pub pad: [u8; 4],
}

/// All that is to be done at one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Recipe {
    /// Values to fetch. Empty for a tracepoint whose own fields are the payload.
    pub fetches: [Fetch; MAX_FETCHES],
    /// The condition.
    pub tests: [Test; MAX_TESTS],
    /// Nanoseconds between two records at the highest rate; zero for no limit.
    pub interval: u64,
    /// Nanoseconds' worth of records that may come at once.
    pub burst: u64,
    /// How many values to fetch.
    pub n_fetches: u8,
    /// How many of them are fetched at the entry, where entry and return are paired.
    pub n_entry: u8,
    /// How many comparisons; zero keeps every record.
    pub n_tests: u8,
    /// [`flag`]s.
    pub flags: u8,
    /// Bytes of the payload before its strings.
    pub size: u16,
    /// Index of the input that is the same at entry and return of one call, and less in calls that it makes: the stack pointer, or
    /// [`input::FRAME`]. [`input::WORDS`] where there is none.
    pub frame: u16,
    /// Of such calls as are never inside one another: how many events of the same call come before this one.
    pub lane: u16,
    /// Zeros.
    pub pad: [u16; 3],
}

/// Bits of [`Recipe::flags`].
pub mod flag {
    /// Entry and return are one record: the entry is kept for the thread until the return.
    pub const PAIR: u8 = 1;
    /// Such calls are never inside one another.
    pub const SINGLE: u8 = 2;
    /// Its record ends the recording.
    pub const TRIGGER: u8 = 4;
    /// A call that succeeds returns when the program is executed: on x86-64 the kernel shows the return of `execveat` as that of `execve`
    /// (arch/x86/kernel/process_64.c, `set_personality_64bit`).
    pub const AT_EXEC: u8 = 8;
}

impl Recipe {
    /// Does nothing but record.
    pub const EMPTY: Self = Self {
        fetches: [Fetch {
            source: 0,
            to: 0,
            len: 0,
            kind: 0,
            steps: 0,
            left: 0,
            right: 0,
            signed: 0,
            size: 0,
            index: 0,
            scale: 0,
            zero: 0,
            offsets: [0; MAX_STEPS + 1],
            pad: 0,
        }; MAX_FETCHES],
        tests: [Test {
            value: 0,
            mask: 0,
            at: 0,
            size: 0,
            subject: 0,
            operator: 0,
            signed: 0,
            zero: 0,
            pattern: 0,
            yes: 0,
            no: 0,
            pad: [0; 4],
        }; MAX_TESTS],
        interval: 0,
        burst: 0,
        n_fetches: 0,
        n_entry: 0,
        n_tests: 0,
        flags: 0,
        size: 0,
        frame: input::WORDS,
        lane: 0,
        pad: [0; 3],
    };
}

const _: () = assert!(size_of::<Fetch>() == 48 && size_of::<Test>() == 32);
const _: () = assert!(size_of::<Recipe>() == 1760 && size_of::<Pattern>() == 2064);
