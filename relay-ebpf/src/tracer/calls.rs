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

/// For each layer, first of entries and then of exits, the cookie of each number's event, and of that of all calls of 32 bits.
#[btf_map]
static SYSTEM_CALLS: Array<BpfWord, 1> = Array::new();

/// The event of the call that begins or ends, if there is one. If not, that is counted. The attachment's cookie says where in the table number 0 is.
#[inline(always)]
pub(crate) fn event(ctx: &TracePointContext) -> Option<Cookie> {
    let number = sys::context_u64(ctx, NUMBER_AT);
    let is_compat = is_of_32_bits();
    let place = if is_compat { CALL_NUMBERS } else { number as u32 };
    if (is_compat || number < CALL_NUMBERS.into())
        && let Some(word) = SYSTEM_CALLS.get(sys::cookie(ctx) as u32 + place)
    {
        let cookie = word.peek();
        if cookie & CALL_IS_CHOSEN != 0 {
            return Some(Cookie::unpack(cookie));
        }
    }
    count(|account| &account.other_calls);
    if is_compat {
        count(|account| &account.compat_calls);
    }
    None
}

/// Whether the current task is in a system call of 32 bits. After one that has executed a program, that is the program's kind.
#[inline(always)]
pub(crate) fn is_of_32_bits() -> bool {
    sys::kernel_u32(KernelAddress::new(sys::task().wrapping_add(COMPAT_AT.load().into()))) & COMPAT_BITS.load() != 0
}
