//! What a CPU counts beside its buffer: events that were not recorded, and why.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use relay_common::Word as _;
use relay_ebpf::sys::{self, BpfWord};

/// One CPU's counts. User space reads them as words in this order (`relay_common::trace::Account`).
#[repr(C)]
pub(crate) struct Account {
    /// Events of the recorder, left out.
    pub(crate) own: BpfWord,
    /// Events while the session was not recording, left out.
    pub(crate) outside: BpfWord,
    /// Events of tasks or CPUs that were not chosen, or whose condition does not hold: left out.
    pub(crate) unwanted: BpfWord,
    /// Over an event's limit.
    pub(crate) suppressed: BpfWord,
    /// Entries of pairs, kept until the return.
    pub(crate) entries: BpfWord,
    /// Returns whose entry is not known.
    pub(crate) unpaired: BpfWord,
    /// Values that could not be fetched because their address could not be read.
    pub(crate) faults: BpfWord,
    /// Entries that their returns have found.
    pub(crate) returned: BpfWord,
    /// Records of the session's own, which no event has made.
    pub(crate) notes: BpfWord,
    /// System calls that are no event: what runs at some runs at all.
    pub(crate) other_calls: BpfWord,
    /// When a full buffer was last spoken of, in nanoseconds.
    noticed: BpfWord,
}

#[btf_map]
static ACCOUNT: PerCpuArray<Account, 1> = PerCpuArray::new();

/// Counts one.
#[inline(always)]
pub(crate) fn count(of: impl FnOnce(&Account) -> &BpfWord) {
    if let Some(account) = ACCOUNT.get(0) {
        of(account).count(1);
    }
}

/// Least time between two notices of one CPU, in nanoseconds.
const NOTICE_INTERVAL: u64 = 1_000_000_000;

/// Whether to speak now: at most once a second on each CPU.
#[inline(always)]
pub(crate) fn may_notice() -> bool {
    let Some(account) = ACCOUNT.get(0) else { return false };
    let (now, last) = (sys::clock(), account.noticed.peek());
    (last == 0 || now.saturating_sub(last) > NOTICE_INTERVAL) && account.noticed.exchange_if(last, now)
}
