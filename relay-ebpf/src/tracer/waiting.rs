//! System calls that wait for their return: what was fetched at the entry, kept for the task.
//!
//! A task is in one system call at most, so that its place is used again and again: nothing goes into a map, or out of it, at a call.

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    macros::btf_map,
};
use relay_common::{
    Word as _,
    recipe::{KEPT, Recipe, input},
    rows::{Tally, WAITING_HEAD, WAITING_WORDS},
};
use relay_ebpf::sys::{self, BpfWord, Cells, Workspace};

use crate::{
    account::count,
    choose::SINCE,
    pairs::{TOLD, UNPAIRED, tell},
};

/// Bytes that tasks are multiples of apart.
const TASK_ALIGN: u64 = 64;
/// Words of a payload that are kept.
const WORDS: usize = KEPT as usize / 8;

/// The system call that a task is in.
#[repr(C)]
pub(crate) struct Waiting {
    /// Its event and one, or zero; its thread, when it began, the bytes of the payload, and its key.
    head: Cells<{ WAITING_HEAD }>,
    inputs: Cells<{ input::ENTRY_COUNT as usize }>,
    payload: Cells<WORDS>,
}

const _: () = assert!(size_of::<Waiting>() == WAITING_WORDS * 8);

const EVENT: u64 = 0;
const THREAD: u64 = 1;
const TIME: u64 = 2;
const LEN: u64 = 3;
const KEY: u64 = 4;

/// In the place of the bytes of the payload, of a task in no call: the return that comes next has been recorded.
const AGAIN: u64 = u64::MAX;

/// By task. What is of a task that has ended goes when room is needed, as what was not used for longest. A call knows its key, so that one that goes
/// while a program looks at it is not taken for another.
#[btf_map]
static WAITING: LruHashMap<u64, Waiting, 1> = LruHashMap::new();

/// That of a task that is in no call.
#[btf_map]
static NOTHING: Array<Waiting, 1> = Array::new();

/// The key of the current task. By the task, not its number: a thread that executes a program takes the number of its process's first (fs/exec.c,
/// `de_thread`). Tasks lie at multiples of 64 bytes (kernel/fork.c, `fork_init`), so 48 bits tell them apart. Events of one call have different lanes.
#[inline(always)]
fn key(recipe: &Recipe) -> u64 {
    (sys::task() / TASK_ALIGN) << 16 | u64::from(recipe.lane)
}

#[inline(always)]
fn mark(event: u32) -> u64 {
    u64::from(event) + 1
}

/// Whether the current task is in a call of an event, as far as is known.
#[inline(always)]
pub(crate) fn is_in(event: u32, recipe: &Recipe) -> bool {
    sys::value(&WAITING, key(recipe)).is_some_and(|waiting| waiting.head.get(EVENT) == mark(event))
}

/// A call begins that is not to be kept: one that has not returned never will.
#[inline(always)]
pub(crate) fn forget(recipe: &Recipe) {
    if let Some(waiting) = sys::value(&WAITING, key(recipe)) {
        give_up(waiting, |tally| &tally.unseen);
        waiting.head.set(EVENT, 0);
        waiting.head.set(LEN, 0);
    }
}

/// The kernel will show the return of the call again that was recorded just now, as that of another call.
#[inline(always)]
pub(crate) fn expect_again(recipe: &Recipe) {
    if let Some(waiting) = sys::value(&WAITING, key(recipe))
        && waiting.head.get(EVENT) == 0
    {
        waiting.head.set(LEN, AGAIN);
    }
}

/// Counts the call that was there, if there is one.
#[inline(always)]
fn give_up(waiting: &Waiting, of: impl FnOnce(&Tally<BpfWord>) -> &BpfWord) {
    let mark = waiting.head.get(EVENT);
    if mark != 0 {
        tell(mark - 1, of, 1);
    }
}

/// Keeps the payload, up to `end`, for the return. One that cannot be kept is missed at its return, and counted there.
#[inline(always)]
pub(crate) fn enter(workspace: &Workspace, event: u32, recipe: &Recipe, current: u64, end: u64) {
    const MOST: u64 = KEPT as u64;
    let key = key(recipe);
    tell(event.into(), |tally| &tally.entries, 1);
    let Some(waiting) = find_or_make(key) else { return };
    let thread = current & 0x7fff_ffff;
    if waiting.head.get(THREAD) == thread {
        give_up(waiting, |tally| &tally.unseen);
    } else {
        give_up(waiting, |tally| &tally.ended);
    }
    waiting.head.set(THREAD, thread);
    // Without a value of the entry there is nothing in the payload yet.
    let len = if recipe.n_entry == 0 { 0 } else { end.min(MOST) };
    for index in 0..u64::from(input::ENTRY_COUNT) {
        waiting.inputs.set(index, workspace.inputs.get(index));
    }
    if len != 0 {
        waiting.payload.copy_from(0, len, workspace.payload());
    }
    waiting.head.set(LEN, len);
    waiting.head.set(EVENT, mark(event));
    waiting.head.set(TIME, sys::clock());
    waiting.head.set(KEY, key);
}

#[inline(always)]
fn find_or_make(key: u64) -> Option<&'static Waiting> {
    if let Some(waiting) = sys::value(&WAITING, key) {
        return Some(waiting);
    }
    let _ = sys::insert(&WAITING, key, NOTHING.get(0)?);
    sys::value(&WAITING, key)
}

/// Takes the payload of the entry, and returns its end, [`UNPAIRED`], or [`TOLD`].
#[inline(always)]
pub(crate) fn leave(workspace: &Workspace, event: u32, recipe: &Recipe, now: u64) -> u64 {
    let key = key(recipe);
    let Some(waiting) = sys::value(&WAITING, key) else { return UNPAIRED };
    let waits = waiting.head.get(EVENT);
    if waits != mark(event) {
        if waits == 0 && waiting.head.get(LEN) == AGAIN {
            waiting.head.set(LEN, 0);
            return TOLD;
        }
        return UNPAIRED;
    }
    waiting.head.set(EVENT, 0);
    let (begin, len) = (waiting.head.get(TIME), waiting.head.get(LEN));
    workspace.inputs.set(input::DURATION.into(), now.saturating_sub(begin));
    for index in 0..u64::from(input::ENTRY_COUNT) {
        workspace.inputs.set(u64::from(input::ENTRY) + index, waiting.inputs.get(index));
    }
    if len != 0 {
        let _ = workspace.fetch(0, len, sys::Address::Kernel(waiting.payload.address(0)));
    }
    // One that was kept before a pause of the recording may have returned in it: this is the return of another.
    if waiting.head.get(KEY) != key || begin < SINCE.peek() {
        tell(event.into(), |tally| &tally.unseen, 1);
        return UNPAIRED;
    }
    tell(event.into(), |tally| &tally.returned, 1);
    count(|account| &account.returned);
    len
}
