//! Entries that wait for their return: what was fetched at the entry of a function or a system call, kept for the thread.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use relay_common::{
    Word as _,
    recipe::{KEPT, input},
};
use relay_ebpf::sys::{self, BpfWord, Cells, Workspace};

use crate::recipe::{recipe, workspace};

/// How many calls of one function by one thread can be under way (recursion), and be paired.
const DEPTH: u64 = 4;
/// Words of a payload that are kept.
const WORDS: usize = KEPT as usize / 8;

/// The calls of one function that one thread is in.
#[repr(C)]
pub(crate) struct Calls {
    /// How many.
    depth: BpfWord,
    calls: [Call; DEPTH as usize],
}

/// One call.
#[repr(C)]
struct Call {
    /// When it began, the stack pointer then, and the bytes of the payload.
    head: Cells<4>,
    inputs: Cells<{ input::ENTRY_COUNT as usize }>,
    payload: Cells<WORDS>,
}

const TIME: u64 = 0;
const STACK: u64 = 1;
const LEN: u64 = 2;

/// By thread and event.
#[btf_map]
static CALLS: HashMap<u64, Calls, 1> = HashMap::new();

/// A thread that is in no call.
#[btf_map]
static NO_CALLS: Array<Calls, 1> = Array::new();

/// What stands for a return whose entry is not known.
pub(crate) const UNPAIRED: u64 = u64::MAX;

#[inline(always)]
fn key(event: u32, current: u64) -> u64 {
    let tid = current & 0xffff_ffff;
    // Every CPU has an idle task, and all of them have the number 0.
    let who = if tid == 0 { 1 << 32 | u64::from(sys::cpu()) } else { tid };
    who << 16 | u64::from(event)
}

relay_ebpf::subprogram! {
    /// Keeps the payload, up to `end`, for the return. One that cannot be kept is missed at its return, and counted there.
    pub(crate) fn enter(level: u32, event: u32, current: u64, end: u64) -> u64 {
        let (Some(workspace), Some(recipe)) = (workspace(level), recipe(event)) else { return 0 };
        let key = key(event, current);
        if sys::value(&CALLS, key).is_none()
            && let Some(none) = NO_CALLS.get(0)
        {
            let _ = sys::insert(&CALLS, key, none);
        }
        let Some(calls) = sys::value(&CALLS, key) else { return 0 };
        let mut depth = calls.depth.peek();
        let stack = if recipe.stack_pointer < input::WORDS { workspace.inputs.get(recipe.stack_pointer.into()) } else { 0 };
        for _ in 0..DEPTH {
            // A call whose frame would lie below this one has returned unseen: the kernel has room for so many returns only.
            if stack != 0 && depth != 0 && call(calls, depth - 1).head.get(STACK) <= stack {
                depth -= 1;
            }
        }
        let _ = calls.depth.swap(depth + 1);
        if depth < DEPTH {
            keep(call(calls, depth), workspace, stack, end);
        }
        0
    }
}

#[inline(always)]
fn call(calls: &Calls, depth: u64) -> &Call {
    // VERIFIER: the mask stays in the code only if the compiler does not know that it changes nothing.
    &calls.calls[(sys::unknown(depth) & (DEPTH - 1)) as usize]
}

#[inline(always)]
fn keep(call: &Call, workspace: &Workspace, stack: u64, end: u64) {
    const MOST: u64 = KEPT as u64;
    let len = if end < MOST { end } else { MOST };
    call.head.set(STACK, stack);
    call.head.set(LEN, len);
    call.inputs.copy_from(0, u64::from(input::ENTRY_COUNT) * 8, workspace.inputs.address(0));
    call.payload.copy_from(0, len, workspace.payload());
    call.head.set(TIME, sys::clock());
}

relay_ebpf::subprogram! {
    /// Takes the payload of the entry, and returns its end, or [`UNPAIRED`].
    pub(crate) fn leave(level: u32, event: u32, current: u64, now: u64) -> u64 {
        let Some(workspace) = workspace(level) else { return UNPAIRED };
        let key = key(event, current);
        let Some(calls) = sys::value(&CALLS, key) else { return UNPAIRED };
        let Some(depth) = calls.depth.peek().checked_sub(1) else { return UNPAIRED };
        let mut end = UNPAIRED;
        if depth < DEPTH {
            let call = call(calls, depth);
            end = call.head.get(LEN);
            workspace.inputs.set(input::DURATION.into(), now.saturating_sub(call.head.get(TIME)));
            workspace.inputs.copy_from(input::ENTRY.into(), u64::from(input::ENTRY_COUNT) * 8, call.inputs.address(0));
            let _ = workspace.fetch(0, end, sys::Address::Kernel(call.payload.address(0)));
        }
        if depth == 0 {
            sys::remove(&CALLS, key);
        } else {
            let _ = calls.depth.swap(depth);
        }
        end
    }
}
