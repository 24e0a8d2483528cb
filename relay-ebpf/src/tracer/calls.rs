//! System calls through two hooks: which event a call is, by its number.

use aya_ebpf::{
    btf_maps::Array,
    macros::btf_map,
    programs::{RawTracePointContext, TracePointContext},
};
use relay_common::{
    Word as _,
    trace::{ALL_CALLS, CALL_IS_CHOSEN, CALL_NUMBERS, COMMON_FIELDS, Cookie},
};
use relay_ebpf::{
    setting,
    sys::{self, BpfWord, KernelAddress, Registers, Task},
};

use crate::{PID_AT, TID_AT, account::count};

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
    found(sys::context_u64(ctx, NUMBER_AT), is_of_32_bits(), sys::cookie(ctx) as u32)
}

/// The event of a call of that number in the part of the table that begins at `begin`.
#[inline(always)]
fn found(number: u64, is_compat: bool, begin: u32) -> Option<Cookie> {
    let place = if is_compat { CALL_NUMBERS } else { number as u32 };
    if (is_compat || number < CALL_NUMBERS.into())
        && let Some(word) = SYSTEM_CALLS.get(begin + place)
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

/// Words of the tracepoint of all calls that begin: the number and six arguments.
pub(crate) const ENTRY_WORDS: usize = 7;
/// Of that of all calls that return: the number and what is returned.
pub(crate) const EXIT_WORDS: usize = 2;

/// A system call that begins or returns, as the kernel passes it to programs with types: `WORDS` says which. What is recorded of it are words, the
/// same that perf's tracepoints of all calls have (include/trace/events/syscalls.h).
#[derive(Clone, Copy)]
pub(crate) struct Call<const WORDS: usize> {
    registers: Registers,
    pub(crate) number: u64,
    pub(crate) result: u64,
    pub(crate) is_compat: bool,
    /// Who makes it, `tgid << 32 | tid`.
    pub(crate) current: u64,
    /// The cookie, a constant: the event of all calls, or where in the table number 0 is.
    order: u32,
}

impl<const WORDS: usize> Call<WORDS> {
    #[inline(always)]
    pub(crate) fn of(ctx: &RawTracePointContext) -> Self {
        let registers = Registers::first_argument(ctx);
        let second: u64 = ctx.arg(1);
        let number = if WORDS == EXIT_WORDS { registers.call() } else { second };
        let task = Task::current();
        Self {
            registers,
            number,
            result: second,
            is_compat: task.number(COMPAT_AT.load()) & COMPAT_BITS.load() != 0,
            current: u64::from(task.number(PID_AT.load())) << 32 | u64::from(task.number(TID_AT.load())),
            order: sys::cookie(ctx) as u32,
        }
    }

    /// Its event, if there is one. If not, that is counted.
    #[inline(always)]
    pub(crate) fn event(&self) -> Option<Cookie> {
        if self.is_any() {
            let size = COMMON_FIELDS as u16 + WORDS as u16 * 8;
            return Some(Cookie { id: self.order as u16, size, last_loc: 0, relative: false, entry: false });
        }
        found(self.number, self.is_compat, self.order)
    }

    /// Whether its event is that of all calls, with all words.
    #[inline(always)]
    pub(crate) fn is_any(&self) -> bool {
        self.order & ALL_CALLS != 0
    }

    /// Bytes of the event's fields.
    #[inline(always)]
    pub(crate) fn len(event: Cookie) -> u64 {
        u64::from(event.size).saturating_sub(COMMON_FIELDS).min(WORDS as u64 * 8)
    }

    /// An argument, of six.
    #[inline(always)]
    pub(crate) fn argument(&self, index: usize, is_of_32_bits: bool) -> u64 {
        self.registers.argument(index, is_of_32_bits)
    }

    /// Gives each word, by its index, to `store`.
    #[inline(always)]
    pub(crate) fn each(&self, store: impl Fn(u64, u64)) {
        store(0, self.number);
        if WORDS == EXIT_WORDS {
            store(1, self.result);
        } else if self.is_compat {
            self.arguments(true, store);
        } else {
            self.arguments(false, store);
        }
    }

    #[inline(always)]
    fn arguments(&self, is_compat: bool, store: impl Fn(u64, u64)) {
        for index in 1..WORDS {
            store(index as u64, self.argument(index - 1, is_compat));
        }
    }
}

/// Whether the current task is in a system call of 32 bits. After one that has executed a program, that is the program's kind.
#[inline(always)]
pub(crate) fn is_of_32_bits() -> bool {
    sys::kernel_u32(KernelAddress::new(sys::task().wrapping_add(COMPAT_AT.load().into()))) & COMPAT_BITS.load() != 0
}
