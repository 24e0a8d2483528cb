//! Follows a recipe: fetches values into a workspace, and tells whether the record is wanted.
//!
//! Nothing here sees the program's own context: what is needed of it lies in the workspace's inputs. So each of these functions is
//! checked by the verifier once, whatever calls it.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
};
use relay_common::{
    Word as _,
    recipe::{FAULT, Fetch, HIDDEN, Kind, MAX_FETCHES, MAX_STEPS, MAX_TESTS, Operator, PASS, Recipe, Subject, Test},
    trace::COMMON_FIELDS,
};
use relay_ebpf::sys::{self, Address, BpfWord, KernelAddress, Workspace};

use crate::{account::count, patterns};

/// What is to be done at each event, by its id.
#[btf_map]
static RECIPES: Array<Recipe, 1> = Array::new();

/// How many programs may interrupt one another on a CPU and each make up a record: task, softirq, interrupt, NMI.
const LEVELS: u32 = 4;

#[btf_map]
static WORKSPACES: PerCpuArray<Workspace, { LEVELS as usize }> = PerCpuArray::new();

/// One CPU's count of an event against its limit.
#[repr(C)]
struct Limit {
    /// When the next record would come if they came evenly, in nanoseconds.
    next: BpfWord,
    /// Records that were over the limit.
    suppressed: BpfWord,
}

/// By event id.
#[btf_map]
static LIMITS: PerCpuArray<Limit, 1> = PerCpuArray::new();

#[inline(always)]
pub(crate) fn recipe(event: u32) -> Option<&'static Recipe> {
    RECIPES.get(event)
}

#[inline(always)]
pub(crate) fn workspace(level: u32) -> Option<&'static Workspace> {
    WORKSPACES.get(level)
}

/// Takes a workspace of this CPU; `None` when programs that were interrupted have them all.
#[inline(always)]
pub(crate) fn claim() -> Option<(u32, &'static Workspace)> {
    for level in 0..LEVELS {
        if let Some(workspace) = workspace(level)
            && workspace.claim()
        {
            // VERIFIER: which of them it is must not matter, or all that follows is checked for each.
            return Some((sys::unknown(level.into()) as u32, workspace));
        }
    }
    None
}

relay_ebpf::subprogram! {
    /// Fetches the values `first..last` into the payload, whose strings go to `end`; returns the new end.
    pub(crate) fn gather(level: u32, event: u32, first: u32, last: u32, end: u64) -> u64 {
        let (Some(workspace), Some(recipe)) = (workspace(level), recipe(event)) else { return 0 };
        let mut end = end;
        for index in 0..MAX_FETCHES {
            if index >= first as usize && index < last as usize {
                end = fetch(workspace, &recipe.fetches[index], end);
            }
        }
        end
    }
}

/// Fetches one value.
#[inline(always)]
fn fetch(workspace: &Workspace, fetch: &Fetch, end: u64) -> u64 {
    let mut value = workspace.inputs.get(fetch.source.into()).wrapping_add_signed(fetch.offsets[0].into());
    let mut whole = true;
    for step in 0..MAX_STEPS {
        if step < usize::from(fetch.steps) {
            let loaded = workspace.number(8, Address::of(value));
            whole &= loaded.is_some();
            value = loaded.map_or(0, |loaded| loaded.wrapping_add_signed(fetch.offsets[step + 1].into()));
        }
    }
    let from = Address::of(value);
    let (at, len) = (u64::from(fetch.to), u64::from(fetch.len));
    let mut end = end;
    if fetch.kind == Kind::String as u8 {
        let (location, stored) = string(workspace, end, len, from, &mut whole);
        workspace.store_number(at, 4, location);
        end += stored;
    } else if fetch.kind == Kind::Bytes as u8 {
        whole &= workspace.fetch(at, len, from);
    } else {
        if fetch.kind == Kind::Load as u8 {
            let loaded = workspace.number(len, from);
            whole &= loaded.is_some();
            value = loaded.unwrap_or(0);
        }
        value <<= fetch.left & 63;
        let right = fetch.right & 63;
        value = if fetch.signed != 0 { (value.cast_signed() >> right).cast_unsigned() } else { value >> right };
        workspace.store_number(at, u64::from(fetch.size), value);
    }
    if !whole {
        count(|account| &account.faults);
    }
    end
}

/// Fetches a string to the end of the payload; returns its location word, and how many bytes it has there.
#[inline(always)]
fn string(workspace: &Workspace, end: u64, most: u64, from: Address, whole: &mut bool) -> (u64, u64) {
    const TEXT: [u8; 8] = *b"(fault)\0";
    let room = u64::from(HIDDEN).saturating_sub(end);
    let most = if most < room { most } else { room };
    if most < TEXT.len() as u64 {
        return (end + COMMON_FIELDS, 0);
    }
    match workspace.fetch_string(end, most, from) {
        Some(len) => (end + COMMON_FIELDS | len << 16, len),
        None => {
            *whole = false;
            workspace.store_number(end, 8, u64::from_le_bytes(TEXT));
            (FAULT | (TEXT.len() as u64) << 16, TEXT.len() as u64)
        }
    }
}

relay_ebpf::subprogram! {
    /// Not zero when the event's condition holds.
    pub(crate) fn holds(level: u32, event: u32) -> u64 {
        let (Some(workspace), Some(recipe)) = (workspace(level), recipe(event)) else { return 0 };
        let mut next = 0;
        for index in 0..MAX_TESTS {
            if usize::from(next) == index {
                let test = &recipe.tests[index];
                let is_true = if test.operator == Operator::Matches as u8 {
                    matches(level, event, index as u32) != 0
                } else {
                    compare(workspace, test)
                };
                next = if is_true { test.yes } else { test.no };
            }
        }
        u64::from(next == PASS)
    }
}

#[inline(always)]
fn compare(workspace: &Workspace, test: &Test) -> bool {
    let number = if test.subject == Subject::Input as u8 {
        workspace.inputs.get(test.at.into())
    } else {
        let number = workspace.payload_number(test.at.into(), test.size.into());
        let shift = 64u32.wrapping_sub(u32::from(test.size) * 8) & 63;
        if test.signed != 0 { ((number << shift).cast_signed() >> shift).cast_unsigned() } else { number }
    };
    let (number, value) = (number & test.mask, test.value);
    if test.operator == Operator::Equal as u8 {
        return number == value;
    }
    // VERIFIER, and sense: with the highest bit turned over, signed numbers are in the order of unsigned ones.
    let turn = if test.signed != 0 { 1 << 63 } else { 0 };
    let (number, value) = (number ^ turn, value ^ turn);
    if test.operator == Operator::Less as u8 { number < value } else { number <= value }
}

relay_ebpf::subprogram! {
    /// Not zero when the text of a test matches its pattern.
    fn matches(level: u32, event: u32, index: u32) -> u64 {
        let (Some(workspace), Some(recipe)) = (workspace(level), recipe(event)) else { return 0 };
        let Some(test) = recipe.tests.get(index as usize) else { return 0 };
        let (at, size) = (u64::from(test.at), u64::from(test.size));
        if test.subject == Subject::Comm as u8 {
            let comm = sys::comm();
            workspace.take_text_from(KernelAddress::of_bytes(&comm), comm.len() as u64);
        } else if test.subject == Subject::Text as u8 {
            workspace.take_text(at, size);
        } else {
            let location = workspace.payload_number(at, 4);
            let (offset, len) = (location & 0xffff, location >> 16 & 0xffff);
            // In the kernel's layout the common fields come before the payload.
            let place = if test.subject == Subject::Located as u8 { offset.wrapping_sub(COMMON_FIELDS) } else { at + 4 + offset };
            workspace.take_text(place, len);
        }
        u64::from(patterns::text_matches(test.pattern.into(), workspace))
    }
}

/// Whether one more record is within the event's limit. If not, it is counted.
///
/// Records that come evenly at the highest rate follow one another by `interval`; `next` is when the next would come. It may be
/// ahead of the clock by `burst`.
#[inline(always)]
pub(crate) fn is_within_limit(recipe: &Recipe, event: u32) -> bool {
    if recipe.interval == 0 {
        return true;
    }
    let Some(limit) = LIMITS.get(event) else { return true };
    let (now, next) = (sys::clock(), limit.next.peek());
    if next > now + recipe.burst {
        limit.suppressed.count(1);
        count(|account| &account.suppressed);
        return false;
    }
    let from = if next > now { next } else { now };
    // That it fails means that an event in an interrupt took its turn in between: both are recorded.
    let _ = limit.next.exchange_if(next, from + recipe.interval);
    true
}
