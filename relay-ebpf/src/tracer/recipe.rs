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
    recipe::{
        FAULT, FetchKind, HIDDEN, MAX_FETCHES, MAX_STEPS, MAX_STRINGS, MAX_TESTS, Operator, PASS, Recipe,
        SHARED_WORKSPACES, Subject, Test, input,
    },
    rows::Tally,
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

/// What is counted of each event, by its id.
#[btf_map]
static TALLIES: PerCpuArray<Tally<BpfWord>, 1> = PerCpuArray::new();

#[inline(always)]
pub(crate) fn tally(event: u32) -> Option<&'static Tally<BpfWord>> {
    TALLIES.get(event)
}

/// How many workspaces a program looks at where all CPUs share them.
const PROBES: u32 = 32;
/// So far apart: every workspace comes up in turn, since their number is a power of two, and tasks with numbers in a row, as the threads of a
/// process have, do not get into one another's way.
const STRIDE: u32 = 37;

#[inline(always)]
pub(crate) fn recipe(event: u32) -> Option<&'static Recipe> {
    RECIPES.get(event)
}

#[inline(always)]
pub(crate) fn workspace(level: u32) -> Option<&'static Workspace> {
    WORKSPACES.get(level)
}

/// Takes a workspace of this CPU; `None` when programs that were interrupted have them all.
///
/// Where programs can be preempted, and the kernel cannot keep them from it, those that were are not interrupted one by the other, and may be as
/// many as there are tasks. There the map is another, made by user space: an array that all CPUs share.
#[inline(always)]
pub(crate) fn claim() -> Option<(u32, &'static Workspace)> {
    if sys::is_shared() {
        let first = sys::current() as u32;
        for probe in 0..PROBES {
            let level = first.wrapping_add(probe * STRIDE) & (SHARED_WORKSPACES - 1);
            if let Some(workspace) = workspace(level)
                && workspace.claim()
            {
                return Some((level, workspace));
            }
        }
        return None;
    }
    for level in 0..LEVELS {
        if let Some(workspace) = workspace(level)
            && workspace.claim()
        {
            // VERIFIER: read back from memory, so that it does not know which it is, and check all that follows for each.
            workspace.inputs.set(input::SCRATCH.into(), level.into());
            return Some((workspace.inputs.get(input::SCRATCH.into()) as u32, workspace));
        }
    }
    None
}

/// Fetches the values `first..last` into the payload, whose strings go to `end`; returns the new end.
#[inline(always)]
pub(crate) fn gather(level: u32, event: u32, first: u8, last: u8, end: u64) -> u64 {
    let mut end = end;
    for index in 0..MAX_FETCHES {
        if index >= usize::from(first) && index < usize::from(last) {
            end = fetch(level, event, index as u32, end);
        }
    }
    end
}

relay_ebpf::subprogram! {
    /// Fetches one value; returns the new end of the payload.
    fn fetch(level: u32, event: u32, index: u32, end: u64) -> u64 {
        let (Some(workspace), Some(recipe)) = (workspace(level), recipe(event)) else { return end };
        let Some(fetch) = recipe.fetches.get(index as usize) else { return end };
        workspace.inputs.set(FAULTED, 0);
        let index = workspace.inputs.get(fetch.index.into()).wrapping_mul(fetch.scale.into());
        let mut value = workspace.inputs.get(fetch.source.into()).wrapping_add(index).wrapping_add_signed(fetch.offsets[0].into());
        for step in 0..MAX_STEPS {
            if step < usize::from(fetch.steps) {
                value = load(workspace, value, 8).wrapping_add_signed(fetch.offsets[step + 1].into());
            }
        }
        let (at, len) = (u64::from(fetch.to), u64::from(fetch.len));
        let mut end = end;
        if fetch.kind == FetchKind::String as u8 {
            end += string(workspace, at, end, len, |most| workspace.fetch_string(end, most, Address::of(value)));
        } else if fetch.kind == FetchKind::Strings as u8 {
            end += string(workspace, at, end, len, |most| {
                let len = strings(level, end, most, value);
                if len == 0 && workspace.inputs.get(FAULTED) != 0 { None } else { Some(len) }
            });
        } else if fetch.kind == FetchKind::Bytes as u8 {
            if !workspace.fetch(at, len, Address::of(value)) {
                workspace.inputs.set(FAULTED, 1);
            }
        } else {
            if fetch.kind == FetchKind::Load as u8 {
                value = load(workspace, value, len);
            }
            value <<= fetch.left & 63;
            let right = fetch.right & 63;
            value = if fetch.signed != 0 { (value.cast_signed() >> right).cast_unsigned() } else { value >> right };
            workspace.store_number(at, u64::from(fetch.size), value);
        }
        if workspace.inputs.get(FAULTED) != 0 {
            count(|account| &account.faults);
        }
        end
    }
}

/// Not zero when something could not be read. VERIFIER: kept in memory, since it would follow both of its values through all that comes after.
const FAULTED: u64 = input::SCRATCH as u64;

/// The number of `len` bytes at an address; zero when it cannot be read.
#[inline(always)]
fn load(workspace: &Workspace, address: u64, len: u64) -> u64 {
    let loaded = workspace.number(len, Address::of(address));
    if loaded.is_none() {
        workspace.inputs.set(FAULTED, 1);
    }
    loaded.unwrap_or(0)
}

/// What stands for a text that could not be read.
const TEXT: [u8; 8] = *b"(fault)\0";

/// Fetches a string, or several, to the end of the payload, and stores their location word; returns how many bytes there are. `fetch` is given how
/// many may be, and says how many there were.
#[inline(always)]
fn string(workspace: &Workspace, at: u64, end: u64, most: u64, fetch: impl FnOnce(u64) -> Option<u64>) -> u64 {
    let room = u64::from(HIDDEN).saturating_sub(end);
    let most = if most < room { most } else { room };
    if most < TEXT.len() as u64 {
        workspace.store_number(at, 4, end + COMMON_FIELDS);
        return 0;
    }
    let (offset, len) = match fetch(most) {
        Some(len) => (end + COMMON_FIELDS, len),
        None => {
            workspace.inputs.set(FAULTED, 1);
            workspace.store_number(end, 8, u64::from_le_bytes(TEXT));
            (FAULT, TEXT.len() as u64)
        }
    };
    workspace.store_number(at, 4, offset | len << 16);
    len
}

relay_ebpf::subprogram! {
    /// Fetches the strings that an array of addresses points to, to `end`, at most so many bytes; returns how many.
    fn strings(level: u32, end: u64, most: u64, from: u64) -> u64 {
        const CUT: [u8; 2] = *b"..";
        const CUT_LEN: u64 = CUT.len() as u64 + 1;
        let Some(workspace) = workspace(level) else { return 0 };
        // VERIFIER: how far it has come is kept in memory, so that all ways into a step look the same.
        workspace.inputs.set(input::LISTED.into(), 0);
        for index in 0..=MAX_STRINGS {
            let len = workspace.inputs.get(input::LISTED.into());
            let Some(address) = workspace.number(8, Address::of(from.wrapping_add(index * 8))) else {
                workspace.inputs.set(FAULTED, 1);
                if len == 0 {
                    return 0;
                }
                break;
            };
            if address == 0 {
                return len;
            }
            let left = most.saturating_sub(CUT_LEN).saturating_sub(len);
            if index == MAX_STRINGS || left < TEXT.len() as u64 {
                break;
            }
            // One byte more tells a text that fits exactly from one that does not.
            if let Some(fetched) = workspace.fetch_string(end + len, left + 1, Address::of(address)) {
                if fetched > left {
                    workspace.store_number(end + len + left - 1, 1, 0);
                    workspace.inputs.set(input::LISTED.into(), len + left);
                    break;
                }
                workspace.inputs.set(input::LISTED.into(), len + fetched);
            } else {
                workspace.inputs.set(FAULTED, 1);
                workspace.store_number(end + len, 8, u64::from_le_bytes(TEXT));
                workspace.inputs.set(input::LISTED.into(), len + TEXT.len() as u64);
            }
        }
        let len = workspace.inputs.get(input::LISTED.into());
        workspace.store_number(end + len, 2, u16::from_le_bytes(CUT).into());
        workspace.store_number(end + len + 2, 1, b'.'.into());
        len + CUT_LEN
    }
}

/// Whether the event's condition holds.
#[inline(always)]
pub(crate) fn holds(level: u32, event: u32, recipe: &Recipe) -> bool {
    let mut next = 0;
    for index in 0..MAX_TESTS {
        if next == index as u64 && index < usize::from(recipe.n_tests) {
            next = test(level, event, index as u32);
        }
    }
    next == u64::from(PASS)
}

relay_ebpf::subprogram! {
    /// The next test after this one, [`PASS`] or `FAIL`.
    fn test(level: u32, event: u32, index: u32) -> u64 {
        let (Some(workspace), Some(recipe)) = (workspace(level), recipe(event)) else { return 0 };
        let Some(test) = recipe.tests.get(index as usize) else { return 0 };
        // What a text that could not be read would have said is not known: the record is kept.
        if test.subject == Subject::Located as u8
            && workspace.payload_number(test.at.into(), 4) & 0xffff == FAULT
        {
            return u64::from(PASS);
        }
        let is_true = if test.operator == Operator::Matches as u8 { matches(workspace, test) } else { compare(workspace, test) };
        u64::from(if is_true { test.yes } else { test.no })
    }
}

#[inline(always)]
fn compare(workspace: &Workspace, test: &Test) -> bool {
    let number = if test.subject == Subject::Input as u8 {
        // What is known of any task is asked for by the test that needs it.
        match test.at {
            input::PID => sys::current() >> 32,
            input::TID => sys::current() & 0xffff_ffff,
            input::UID => sys::user() & 0xffff_ffff,
            input::CPU => sys::cpu().into(),
            at => workspace.inputs.get(at.into()),
        }
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

/// Whether the text of a test matches its pattern.
#[inline(always)]
fn matches(workspace: &Workspace, test: &Test) -> bool {
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
        let place =
            if test.subject == Subject::Located as u8 { offset.wrapping_sub(COMMON_FIELDS) } else { at + 4 + offset };
        workspace.take_text(place, len);
    }
    patterns::text_matches(test.pattern.into(), workspace)
}

relay_ebpf::subprogram! {
    /// Counts a sample, whatever becomes of it.
    pub(crate) fn sampled(event: u32) -> u64 {
        if let Some(tally) = tally(event) {
            let now = sys::clock();
            if tally.first.peek() == 0 {
                let _ = tally.first.swap(now);
            }
            let _ = tally.last.swap(now);
            tally.samples.count(1);
        }
        0
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
    let Some(limit) = tally(event) else { return true };
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
