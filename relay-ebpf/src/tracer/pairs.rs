//! Entries that wait for their return: what was fetched at the entry of a function, kept for the thread; of a system call in `waiting`.

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    macros::btf_map,
};
use relay_common::{
    Word as _,
    recipe::{KEPT, Recipe, flag, input},
    rows::{CALL_HEAD, CALLS_WORDS, Tally},
};
use relay_ebpf::sys::{self, BpfWord, Cells, KernelAddress, Workspace};

use crate::{
    account::count,
    choose::SINCE,
    recipe::{recipe, tally, workspace},
    waiting,
};

/// How many calls that have returned unseen are given up at one event.
const GIVEN_UP: usize = 64;
/// Frames of one function that called itself are at least so many bytes apart: the return address, and what aligns the stack (x86-64 and
/// arm64 ABI). The stack pointer at a return is less than that above the one at its entry; the frame of a trampoline is the same at both
/// (`arch_prepare_bpf_trampoline`, which passes one address to the programs of the entry and of the exit).
const FRAME: u64 = 16;
/// Words of a payload that are kept.
const WORDS: usize = KEPT as usize / 8;

/// The calls of one function that one thread is in.
#[repr(C)]
pub(crate) struct Calls {
    /// How many.
    depth: BpfWord,
    /// The thread's task. Its number goes to another thread when it has ended.
    task: BpfWord,
    /// Its number.
    thread: BpfWord,
    /// The outermost. Those that it made are in [`DEEPER`].
    first: PairedCall,
}

/// One call.
#[repr(C)]
pub(crate) struct PairedCall {
    /// When it began, its frame, the bytes of the payload, and its key.
    head: Cells<CALL_HEAD>,
    inputs: Cells<{ input::ENTRY_COUNT as usize }>,
    payload: Cells<WORDS>,
}

// What user space looks at when the recording has ended.
const _: () = assert!(size_of::<Calls>() == CALLS_WORDS * 8);

const TIME: u64 = 0;
const PLACE: u64 = 1;
const LEN: u64 = 2;
const KEY: u64 = 3;

/// By thread and event, as [`key`] has it. A call that never returns, since its thread has ended, stays until the room is needed: then those go that were not
/// used for longest. A call knows its key, so that one that goes while a program looks at it is not taken for another.
#[btf_map]
static CALLS: LruHashMap<u64, Calls, 1> = LruHashMap::new();

/// By thread, event and depth.
#[btf_map]
static DEEPER: LruHashMap<u64, PairedCall, 1> = LruHashMap::new();

/// A thread that is in no call.
#[btf_map]
static NO_CALLS: Array<Calls, 1> = Array::new();

/// Stands for a return whose entry is not known.
pub(crate) const UNPAIRED: u64 = u64::MAX;
/// Stands for a return that was recorded before.
pub(crate) const TOLD: u64 = u64::MAX - 1;

/// Under which the calls of the current thread are kept.
#[inline(always)]
fn key(event: u32, current: u64) -> u64 {
    let tid = current & 0x7fff_ffff;
    // Every CPU has an idle task, and all of them have the number 0; no thread's number has so many bits.
    let who = if tid == 0 { 1 << 31 | u64::from(sys::cpu()) } else { tid };
    who << 16 | u64::from(event)
}

/// Counts calls of the event that a key is of.
#[inline(always)]
pub(crate) fn tell(key: u64, of: impl FnOnce(&Tally<BpfWord>) -> &BpfWord, calls: u64) {
    if let Some(tally) = tally(u32::from(key as u16)) {
        of(tally).count(calls);
    }
}

/// The call that is so many calls deep: the outermost is 0.
#[inline(always)]
fn call(calls: &'static Calls, key: u64, depth: u64) -> Option<&'static PairedCall> {
    if depth == 0 { Some(&calls.first) } else { sys::value(&DEEPER, depth << 48 | key) }
}

/// Gives up the innermost calls that have returned unseen, whose frames are below `limit`: the kernel watches a bounded number of returns,
/// skips programs that would interrupt themselves, and a thread can jump over some. Returns how many calls are left.
#[inline(always)]
fn give_up(calls: &'static Calls, key: u64, limit: u64) -> u64 {
    // VERIFIER: the depth is kept in memory from one step to the next, so that all ways into a step look the same.
    let before = calls.depth.peek();
    for _ in 0..GIVEN_UP {
        let depth = calls.depth.peek();
        if depth == 0 || call(calls, key, depth - 1).is_some_and(|call| call.head.get(PLACE) >= limit) {
            break;
        }
        sys::remove(&DEEPER, (depth - 1) << 48 | key);
        let _ = calls.depth.swap(depth - 1);
    }
    let left = calls.depth.peek();
    tell(key, |tally| &tally.unseen, before.saturating_sub(left));
    left
}

/// From now on the thread is in so many calls.
#[inline(always)]
fn set_depth(calls: &'static Calls, key: u64, depth: u64) {
    // Before it goes: should it stay, nobody takes what is left in it.
    let _ = calls.depth.swap(depth);
    if depth == 0 {
        sys::remove(&CALLS, key);
    }
}

relay_ebpf::subprogram! {
    /// A call begins that is not to be kept: gives up those that the thread must have left, lest its return take another's entry. `inputs` is
    /// where the recipe's inputs are.
    pub(crate) fn forget(event: u32, current: u64, inputs: u64) -> u64 {
        let Some(recipe) = recipe(event) else { return 0 };
        if recipe.flags & flag::SINGLE != 0 {
            waiting::forget(recipe);
            return 0;
        }
        let key = key(event, current);
        let Some(calls) = sys::value(&CALLS, key) else { return 0 };
        let frame = match recipe.frame {
            input::FRAME => inputs,
            word if word < input::WORDS => sys::kernel_u64(KernelAddress::new(inputs.wrapping_add(u64::from(word) * 8))),
            _ => 0,
        };
        set_depth(calls, key, left(calls, key, frame));
        0
    }
}

/// How many calls the thread is in, now that one begins in this frame.
#[inline(always)]
fn left(calls: &'static Calls, key: u64, frame: u64) -> u64 {
    let task = sys::task();
    if calls.task.swap(task) != task {
        tell(key, |tally| &tally.ended, calls.depth.peek());
        0
    } else if frame == 0 {
        calls.depth.peek()
    } else {
        // A call whose frame would lie here or below has returned.
        give_up(calls, key, frame.wrapping_add(1))
    }
}

relay_ebpf::subprogram! {
    /// Keeps the payload, up to `end`, for the return. One that cannot be kept is missed at its return, and counted there.
    pub(crate) fn enter(level: u32, event: u32, current: u64, end: u64) -> u64 {
        let (Some(workspace), Some(recipe)) = (workspace(level), recipe(event)) else { return 0 };
        if recipe.flags & flag::SINGLE != 0 {
            waiting::enter(workspace, event, recipe, current, end);
            return 0;
        }
        let key = key(event, current);
        tell(key, |tally| &tally.entries, 1);
        if sys::value(&CALLS, key).is_none()
            && let Some(none) = NO_CALLS.get(0)
        {
            let _ = sys::insert(&CALLS, key, none);
        }
        let Some(calls) = sys::value(&CALLS, key) else { return 0 };
        let frame = frame(workspace, recipe);
        let depth = left(calls, key, frame);
        let _ = calls.depth.swap(depth + 1);
        let _ = calls.thread.swap(current & 0x7fff_ffff);
        if depth != 0
            && let Some(none) = NO_CALLS.get(0)
        {
            let _ = sys::insert(&DEEPER, depth << 48 | key, &none.first);
        }
        if let Some(call) = call(calls, key, depth) {
            keep(call, workspace, frame, end);
            call.head.set(KEY, depth << 48 | key);
        }
        0
    }
}

/// Where the call's frame is. Zero where it has no say, or the kernel does not tell it at returns.
#[inline(always)]
fn frame(workspace: &Workspace, recipe: &Recipe) -> u64 {
    if recipe.frame < input::WORDS { workspace.inputs.get(recipe.frame.into()) } else { 0 }
}

#[inline(always)]
fn keep(call: &PairedCall, workspace: &Workspace, frame: u64, end: u64) {
    const MOST: u64 = KEPT as u64;
    let len = if end < MOST { end } else { MOST };
    call.head.set(PLACE, frame);
    call.head.set(LEN, len);
    call.inputs.copy_from(0, u64::from(input::ENTRY_COUNT) * 8, workspace.inputs.address(0));
    call.payload.copy_from(0, len, workspace.payload());
    call.head.set(TIME, sys::clock());
}

relay_ebpf::subprogram! {
    /// Takes the payload of the entry, and returns its end, [`UNPAIRED`], or [`TOLD`].
    pub(crate) fn leave(level: u32, event: u32, current: u64, now: u64) -> u64 {
        let (Some(workspace), Some(recipe)) = (workspace(level), recipe(event)) else { return UNPAIRED };
        if recipe.flags & flag::SINGLE != 0 {
            return waiting::leave(workspace, event, recipe, now);
        }
        let key = key(event, current);
        let Some(calls) = sys::value(&CALLS, key) else { return UNPAIRED };
        if calls.task.peek() != sys::task() {
            // Of another thread, which had the number before.
            tell(key, |tally| &tally.ended, calls.depth.peek());
            sys::remove(&CALLS, key);
            return UNPAIRED;
        }
        let frame = frame(workspace, recipe);
        // Calls that this one made are further down.
        let mut depth = if frame == 0 { calls.depth.peek() } else { give_up(calls, key, frame.wrapping_sub(FRAME - 1)) };
        let mut end = UNPAIRED;
        if depth != 0
            && let Some(call) = call(calls, key, depth - 1)
        {
            let begin = call.head.get(PLACE);
            if frame != 0 && (begin > frame || begin <= frame.wrapping_sub(FRAME)) {
                // One that made this one, which there was no room to keep; or one of many that it made.
                let _ = calls.depth.swap(depth);
                return UNPAIRED;
            }
            let len = call.head.get(LEN);
            workspace.inputs.set(input::DURATION.into(), now.saturating_sub(call.head.get(TIME)));
            workspace.inputs.copy_from(input::ENTRY.into(), u64::from(input::ENTRY_COUNT) * 8, call.inputs.address(0));
            let _ = workspace.fetch(0, len, sys::Address::Kernel(call.payload.address(0)));
            // One that was kept before a pause of the recording may have returned in it: this is the return of another.
            if call.head.get(KEY) == (depth - 1) << 48 | key {
                if call.head.get(TIME) >= SINCE.peek() {
                    end = len;
                    count(|account| &account.returned);
                    tell(key, |tally| &tally.returned, 1);
                } else {
                    tell(key, |tally| &tally.unseen, 1);
                }
            }
        }
        depth = depth.saturating_sub(1);
        if depth != 0 {
            sys::remove(&DEEPER, depth << 48 | key);
        }
        set_depth(calls, key, depth);
        end
    }
}
