//! What a CPU counts beside its buffer: events that were not recorded, and why.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use relay_common::{Word as _, rows::Account};
use relay_ebpf::sys::{self, BpfWord};

#[btf_map]
static ACCOUNT: PerCpuArray<Account<BpfWord>, 1> = PerCpuArray::new();

/// Counts one.
#[inline(always)]
pub(crate) fn count(of: impl FnOnce(&Account<BpfWord>) -> &BpfWord) {
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
