//! System calls through two hooks: which event a call is, by its number.

use aya_ebpf::{btf_maps::Array, macros::btf_map, programs::TracePointContext};
use relay_common::{
    Word as _,
    trace::{CALL_IS_CHOSEN, CALL_NUMBERS, Cookie},
};
use relay_ebpf::{
    setting,
    sys::{self, BpfWord, KernelAddress},
};

use crate::account::count;

// Bits of a task that say that its system call is one of 32 bits, whose numbers mean others: their place, and the bits.
setting!(COMPAT_AT: u32 = sys::UNSET);
setting!(COMPAT_BITS: u32 = sys::UNSET);

/// The number's place in the contexts of `raw_syscalls:*`, in bytes (include/trace/events/syscalls.h).
const NUMBER_AT: u16 = 8;

/// For each layer, first of entries and then of exits, the cookie of each number's event.
#[btf_map]
static SYSTEM_CALLS: Array<BpfWord, 1> = Array::new();

/// The event of the call that begins or ends, if there is one. If not, that is counted. The attachment's cookie says where in the table number 0 is.
#[inline(always)]
pub(crate) fn event(ctx: &TracePointContext) -> Option<Cookie> {
    let number = sys::context_u64(ctx, NUMBER_AT);
    if number < CALL_NUMBERS.into()
        && let Some(word) = SYSTEM_CALLS.get(sys::cookie(ctx) as u32 + number as u32)
    {
        let cookie = word.peek();
        if cookie & CALL_IS_CHOSEN != 0 && !is_of_32_bits() {
            return Some(Cookie::unpack(cookie));
        }
    }
    count(|account| &account.other_calls);
    None
}

#[inline(always)]
fn is_of_32_bits() -> bool {
    sys::kernel_u32(KernelAddress::new(sys::task().wrapping_add(COMPAT_AT.load().into()))) & COMPAT_BITS.load() != 0
}
