//! Everything unsafe on the kernel side: shared words, map memory, helpers.
//!
//! Each function is safe to call with any argument; what makes it so stands at its `SAFETY` note.
#![expect(unsafe_code, reason = "the one file of the kernel side that may")]
#![expect(clippy::cast_possible_truncation, reason = "addresses have 64 bits in BPF; lengths are bounded before")]

#[cfg(target_arch = "bpf")]
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};
use core::{cell::UnsafeCell, ffi::c_void, fmt};

use aya_ebpf::{
    EbpfContext,
    btf_maps::{ArrayOfMaps, RingBuf},
    helpers,
};
use relay_common::{Buffer, Control, MAX_RECORD, Word, placeholder};

/// One small ring buffer per CPU, to wake its reader.
pub type WakersMap = ArrayOfMaps<RingBuf<u32, 4096>, 1>;

/// A constant that user space sets before loading. The verifier knows its value.
///
/// Not aya's `Global`, whose `MaybeUninit<T>` bpf-linker 0.10 puts into BTF under a name that the kernel refuses.
///
/// ```
/// use relay_ebpf::{setting, sys};
///
/// setting!(LIMIT: u32 = sys::UNSET);
///
/// fn is_over(value: u32) -> bool {
///     value > LIMIT.load()
/// }
/// ```
#[derive(Debug)]
#[repr(transparent)]
pub struct Setting<T>(T);

impl<T: Copy> Setting<T> {
    /// The value in the object, until user space sets it.
    ///
    /// ```
    /// # use relay_ebpf::sys::Setting;
    /// static LIMIT: Setting<u32> = Setting::new(relay_ebpf::sys::UNSET);
    /// ```
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value.
    ///
    /// ```
    /// # use relay_ebpf::sys::Setting;
    /// assert_eq!(Setting::new(7u32).load(), 7);
    /// ```
    #[inline(always)]
    pub fn load(&self) -> T {
        // The compiler must not take the object's value for it.
        // SAFETY: the pointer comes from a reference.
        unsafe { (&raw const self.0).read_volatile() }
    }

    /// Its parts, of which those are loaded that are used.
    #[inline(always)]
    pub(crate) fn load_parts(&self) -> T {
        // Through a pointer of which the compiler knows nothing: a volatile load would load all.
        let value = hidden(&raw const self.0);
        // SAFETY: the pointer comes from a reference.
        unsafe { value.read() }
    }
}

/// What a setting holds in the object. No constant of a program looks like it: the compiler lets equal constants share
/// their memory, and user space, setting the one, would change the other.
pub const UNSET: u32 = 0xA5C3_F00D;

/// Declares a [`Setting`](crate::sys::Setting) that user space must set before loading, by its name.
///
/// ```
/// relay_ebpf::setting!(LIMIT: u32 = relay_ebpf::sys::UNSET);
///
/// fn is_over(value: u32) -> bool {
///     value > LIMIT.load()
/// }
/// ```
#[macro_export]
macro_rules! setting {
    ($name:ident: $type:ty = $unset:expr) => {
        #[unsafe(no_mangle)]
        static $name: $crate::sys::Setting<$type> = $crate::sys::Setting::new($unset);
    };
}

/// Declares a program for tracepoints, under `$name`, that calls `$record` and then lets perf's own events on the
/// tracepoint go on. With `"category/name"` the object says which tracepoint is meant.
///
/// ```
/// use aya_ebpf::programs::TracePointContext;
/// use relay_ebpf::{channel, sys, tracepoint};
///
/// channel!(STARTS);
/// tracepoint!(on_exec("sched/sched_process_exec"), record);
///
/// fn record(_: &TracePointContext) {
///     let _ = STARTS.write(&sys::current().to_ne_bytes());
/// }
/// ```
///
/// Not aya's attribute, whose programs return 0: then perf, and whoever uses it beside us, would not see the event
/// (kernel/events/core.c, `perf_trace_run_bpf_submit`).
#[macro_export]
macro_rules! tracepoint {
    ($name:ident, $record:path) => {
        $crate::tracepoint!(@ $name, $record, "tracepoint");
    };
    ($name:ident($event:literal), $record:path) => {
        $crate::tracepoint!(@ $name, $record, concat!("tracepoint/", $event));
    };
    (@ $name:ident, $record:path, $section:expr) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = $section)]
        fn $name(ctx: *mut core::ffi::c_void) -> u32 {
            $crate::sys::refuse_private_stack();
            $crate::sys::program_begins();
            $record(&aya_ebpf::programs::TracePointContext::new(ctx));
            $crate::sys::program_ends();
            1
        }
    };
}

/// Declares the object's licence to the kernel, which wants a GPL-compatible one for the helpers that read its
/// memory. The source is MIT OR Apache-2.0.
///
/// ```
/// relay_ebpf::license!();
/// ```
#[macro_export]
macro_rules! license {
    () => {
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
    };
}

/// A word of a map's memory.
///
/// rustc's BPF target has neither atomic types nor fences; these intrinsics are what it does have (with
/// `-Ctarget-cpu=v3`). In BPF every fetching operation is a full barrier.
///
/// ```
/// use relay_ebpf::{relay_common::Word, sys::BpfWord};
///
/// static CALLS: BpfWord = BpfWord::zero();
///
/// fn called() {
///     CALLS.count(1);
/// }
/// # called();
/// # assert_eq!(CALLS.peek(), 1);
/// ```
#[repr(transparent)]
pub struct BpfWord(UnsafeCell<u64>);

// SAFETY: every access is a single load or atomic instruction.
unsafe impl Sync for BpfWord {}

impl BpfWord {
    /// A word that holds zero, for a static.
    ///
    /// ```
    /// # use relay_ebpf::{relay_common::Word, sys::BpfWord};
    /// assert_eq!(BpfWord::zero().peek(), 0);
    /// ```
    #[must_use]
    pub const fn zero() -> Self {
        Self(UnsafeCell::new(0))
    }
}

impl fmt::Debug for BpfWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BpfWord")
    }
}

#[cfg(target_arch = "bpf")]
impl Word for BpfWord {
    #[inline(always)]
    fn peek(&self) -> u64 {
        // SAFETY: the pointer comes from a reference; volatile, since user space writes too.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn exchange_if(&self, old: u64, new: u64) -> bool {
        const SEQ_CST: AtomicOrdering = AtomicOrdering::SeqCst;
        // Not what it says of its success: for that the compiler makes a number, and looks at it.
        // SAFETY: the pointer comes from a reference.
        let seen = unsafe { atomic_cxchg::<u64, SEQ_CST, SEQ_CST>(self.0.get(), old, new).0 };
        unknown(seen) == old
    }

    #[inline(always)]
    fn fetch_add(&self, amount: u64) -> u64 {
        // SAFETY: the pointer comes from a reference.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), amount) }
    }

    #[inline(always)]
    fn swap(&self, new: u64) -> u64 {
        // SAFETY: the pointer comes from a reference.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(self.0.get(), new) }
    }

    #[inline(always)]
    fn count(&self, amount: u64) {
        // SAFETY: the pointer comes from a reference. The result is unused: the non-fetching form, relaxed, is enough.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0.get(), amount) };
    }
}

/// On the host, where this crate is compiled only to check its examples.
#[cfg(not(target_arch = "bpf"))]
impl Word for BpfWord {
    fn peek(&self) -> u64 {
        self.host().peek()
    }
    fn exchange_if(&self, old: u64, new: u64) -> bool {
        self.host().exchange_if(old, new)
    }
    fn fetch_add(&self, amount: u64) -> u64 {
        Word::fetch_add(self.host(), amount)
    }
    fn swap(&self, new: u64) -> u64 {
        Word::swap(self.host(), new)
    }
    fn count(&self, amount: u64) {
        self.host().count(amount);
    }
}

#[cfg(not(target_arch = "bpf"))]
impl BpfWord {
    fn host(&self) -> &core::sync::atomic::AtomicU64 {
        // SAFETY: the pointer comes from a reference, and every access goes through here.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(self.0.get()) }
    }
}

/// Stores a number at any address inside a map's value. The compiler makes a store for every byte of what may not be aligned; the kernel takes one
/// store for all where its machine has such (kernel/bpf/verifier.c, `check_ptr_alignment`), as x86-64 and arm64 have.
#[cfg(target_arch = "bpf")]
macro_rules! store_unaligned {
    ($to:expr, $value:expr, $type:ident) => {
        store_unaligned!($to, 0, $value, $type)
    };
    ($to:expr, $skip:literal, $value:expr, $type:ident) => {
        // SAFETY: the caller's pointer has room for a number of that type, so many bytes on, in a map's value; the verifier checks it.
        unsafe {
            core::arch::asm!(
                concat!("*(", stringify!($type), " *)({0} + ", stringify!($skip), ") = {1}"),
                in(reg) $to,
                in(reg) u64::from($value),
                options(nostack),
            )
        }
    };
}

#[cfg(not(target_arch = "bpf"))]
macro_rules! store_unaligned {
    ($to:expr, $value:expr, $type:ident) => {
        store_unaligned!($to, 0, $value, $type)
    };
    ($to:expr, $skip:literal, $value:expr, $type:ident) => {
        // SAFETY: the caller's pointer has room for a number of that type, so many bytes on.
        unsafe { $to.add($skip).cast::<$type>().write_unaligned($value) }
    };
}

/// Stores a word so many bytes behind a pointer: where they are one of these, by the store alone, without an addition before it.
macro_rules! store_behind {
    ($to:expr, $skip:expr, $value:expr, [$($known:literal)*]) => {
        match $skip {
            $($known if is_known($skip) => store_unaligned!($to, $known, $value, u64),)*
            skip => {
                // SAFETY: the caller's pointer has room for a word there.
                let to = unsafe { $to.add(skip as usize) };
                store_unaligned!(to, $value, u64);
            }
        }
    };
}

#[cfg(target_arch = "bpf")]
macro_rules! copy_fields {
    ($ctx:expr, $to:expr) => {
        // SAFETY: it loads a number into a register, and jumps to the next instruction. What takes its place loads from the context and stores to a map's
        // value, as much as the caller has room for; the verifier checks both.
        unsafe {
            const { assert!(placeholder::FIELDS_LEN == 39) };
            core::arch::asm!(
                "r0 = {}",
                concat!(nothing!(), nothing!(), nothing!(), nothing!(), nothing!(), "goto +0\n", "goto +0\n", "goto +0\n"),
                const placeholder::FIELDS,
                in("r1") $ctx,
                in("r2") $to,
                out("r0") _,
                options(nostack),
            )
        }
    };
}

/// Seven jumps to the next instruction.
#[cfg(target_arch = "bpf")]
macro_rules! nothing {
    () => {
        "goto +0\ngoto +0\ngoto +0\ngoto +0\ngoto +0\ngoto +0\ngoto +0\n"
    };
}

#[cfg(not(target_arch = "bpf"))]
macro_rules! copy_fields {
    ($ctx:expr, $to:expr) => {
        let _ = ($ctx, $to);
    };
}

/// Loads a number from any address inside a map's value, likewise.
#[cfg(target_arch = "bpf")]
macro_rules! load_unaligned {
    ($from:expr, $type:ident) => {{
        let number: u64;
        // SAFETY: the caller's pointer has a number of that type in a map's value; the verifier checks it.
        unsafe {
            core::arch::asm!(
                concat!("{1} = *(", stringify!($type), " *)({0} + 0)"),
                in(reg) $from,
                out(reg) number,
                options(nostack, readonly),
            );
        }
        number
    }};
}

#[cfg(not(target_arch = "bpf"))]
macro_rules! load_unaligned {
    ($from:expr, $type:ident) => {
        // SAFETY: the caller's pointer has a number of that type.
        u64::from(unsafe { $from.cast::<$type>().read_unaligned() })
    };
}

/// The buffer of a CPU: of the one that runs the program, but for requests of user space.
///
/// ```
/// use relay_ebpf::{relay_common::Client, sys::CpuBuffer};
///
/// /// A client of channels in eBPF.
/// struct Mine;
///
/// impl Client<CpuBuffer> for Mine {}
/// ```
#[derive(Clone, Copy)]
pub struct CpuBuffer {
    control: &'static Control<BpfWord>,
    memory: *mut u8,
    /// The buffer's size less one. The map's value is longer by `MAX_RECORD`.
    mask: u64,
    wakers: &'static WakersMap,
}

impl fmt::Debug for CpuBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CpuBuffer")
    }
}

impl CpuBuffer {
    /// `memory` is the value of the CPU's inner map, of `buffer_size + MAX_RECORD` bytes: `Channel` looked it up.
    #[inline(always)]
    pub(crate) fn new(
        control: &'static Control<BpfWord>,
        memory: *mut u8,
        buffer_size: u64,
        wakers: &'static WakersMap,
    ) -> Self {
        Self { control, memory, mask: buffer_size - 1, wakers }
    }

    #[inline(always)]
    fn at<T>(&self, place: u64) -> *mut T {
        // VERIFIER: the mask bounds the offset; what is accessed from there on is bounded apart, by the tail of MAX_RECORD
        // bytes after the buffer.
        let offset = (place & self.mask) as usize;
        // SAFETY: less than the size of the map's value.
        unsafe { self.memory.add(offset) }.cast()
    }

    /// Stores a value at `place + skip`. Does nothing when `skip` and its size are more than `MAX_RECORD`. `place` is a multiple
    /// of `align`.
    #[inline(always)]
    pub(crate) fn store<T: Copy>(&self, place: u64, align: u64, skip: u64, value: T) {
        const { assert!(size_of::<T>() as u64 <= MAX_RECORD) };
        let Some((to, _)) = self.room(place, skip, size_of::<T>() as u64) else { return };
        let natural = align_of::<T>() as u64;
        // Both are constants, so one of these is compiled: for BPF an unaligned store is a store for every byte.
        if align.is_multiple_of(natural) && skip.is_multiple_of(natural) {
            // SAFETY: the room is inside the map's value, whose start is aligned, and reserved by one writer.
            unsafe { to.cast::<T>().write(value) }
        } else {
            // SAFETY: the room is inside the map's value, and reserved by one writer.
            unsafe { to.cast::<T>().write_unaligned(value) }
        }
    }

    /// Stores 8 bytes at `place + before + skip`, by one instruction whatever the alignment, when that ends within `len`; whether it did. It does not when
    /// `before` is a quarter of [`MAX_RECORD`] or more, or `skip` half of it.
    #[inline(always)]
    pub(crate) fn store_word(&self, place: u64, len: u64, before: u64, skip: u64, value: u64) -> bool {
        const HALF: u64 = MAX_RECORD / 2;
        let fits = before < HALF / 2 && skip < HALF && before + skip + 8 <= len;
        if fits {
            // VERIFIER: as in `room`.
            let (before, skip) = (unknown(before) & (HALF / 2 - 1), unknown(skip) & (HALF - 1));
            // SAFETY: less than the buffer's size, plus less than the tail.
            let to = unsafe { self.at::<u8>(place).add(before as usize) };
            store_behind!(to, skip, value, [0 4 8 12 16 20 24 28 32 36 40 44 48 52 56 60 64 68 72 76 80 84 88 92 96]);
        }
        fits
    }

    /// Copies a tracepoint's fields, as many bytes as [`fields_size`] says, to `place + skip`: by loads and stores that user space puts in
    /// (`relay_common::placeholder`). The kernel refuses a program that loads beyond an event's own fields (kernel/events/core.c, `max_ctx_offset`).
    #[inline(always)]
    pub(crate) fn copy_fields(&self, place: u64, skip: u64, ctx: *mut c_void) {
        if let Some((to, _)) = self.room(place, skip, placeholder::MAX_FIELDS.into()) {
            copy_fields!(ctx, to);
        }
    }

    /// Copies `len` bytes of kernel memory to `place + skip`; zeros for what cannot be read. Does nothing when `skip + len` is
    /// more than `MAX_RECORD`.
    #[inline(always)]
    pub(crate) fn copy_from_kernel(&self, place: u64, skip: u64, len: u64, source: KernelAddress) {
        if let Some((to, len)) = self.room(place, skip, len) {
            // SAFETY: the helper reads any address safely and writes `len` bytes to `to`, where there is room.
            unsafe { helpers::generated::bpf_probe_read_kernel(to.cast(), len as u32, source.0) };
        }
    }

    /// The same with the memory of the process that is current.
    #[inline(always)]
    pub(crate) fn copy_from_user(&self, place: u64, skip: u64, len: u64, source: UserAddress) {
        if let Some((to, len)) = self.room(place, skip, len) {
            // SAFETY: as above; it does not wait for memory that is paged out.
            unsafe { helpers::generated::bpf_probe_read_user(to.cast(), len as u32, source.0) };
        }
    }

    /// Where `len` bytes have room at `place + skip`, and `len` as the verifier has seen it checked.
    #[inline(always)]
    fn room(&self, place: u64, skip: u64, len: u64) -> Option<(*mut u8, u64)> {
        const HALF: u64 = MAX_RECORD / 2;
        let most = if is_known(skip) && skip == 0 { MAX_RECORD } else { HALF };
        if len == 0 || len > most || skip >= HALF {
            return None;
        }
        // VERIFIER: bounds on both, within the tail; each gets half of it, since the verifier does not follow a bound on one that depends on
        // the other. And by a mask: a number that was compared may be one register, and what is used be loaded anew from the stack, which
        // verifiers up to 6.12 do not take for the same.
        let (skip, len) = (unknown(skip) & (HALF - 1), (unknown(len - 1) & (most - 1)) + 1);
        // SAFETY: less than the buffer's size, plus at most the tail.
        Some((unsafe { self.at::<u8>(place).add(skip as usize) }, len))
    }
}

/// Keeps the kernel from giving the program that calls this a stack of its own.
///
/// Since Linux 6.13 a program with 64 bytes of stack or more gets one private stack for each CPU, on the promise that a program never runs twice on
/// one CPU (kernel/bpf/verifier.c, `bpf_enable_priv_stack`). That promise is the hook's, and not every hook keeps it: uprobes have no guard
/// against recursion, and a program that is attached to hooks with different guards has none in effect. Two runs then share one stack, and
/// exchange values that the verifier has bounded. A program with a tail call gets no private stack: the kernel looks for one
/// (`check_max_stack_depth`) before it removes what is never reached.
///
/// [`Channel::reserve`](crate::channel::Channel::reserve) and the macros of this crate call it; a program that does neither need not. User space
/// takes it out where the kernel has no private stacks (`relay_daemon::bpf`).
///
/// ```
/// relay_ebpf::sys::refuse_private_stack();
/// ```
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn refuse_private_stack() {
    // SAFETY: the branch is always taken, so that nothing is called; the verifier knows the register's value, and removes the call.
    unsafe { core::arch::asm!("r0 = 0", "if r0 == 0 goto +1", "call 12", out("r0") _, options(nomem, nostack)) };
}

#[cfg(not(target_arch = "bpf"))]
#[doc(hidden)]
pub fn refuse_private_stack() {}

/// A placeholder (`relay_common::placeholder`) that may become a call, and so changes the registers that calls change.
#[cfg(target_arch = "bpf")]
macro_rules! placeholder {
    ($number:expr $(, $rest:literal)*) => {
        // SAFETY: it loads a number into a register, and jumps to the next instruction. What may take its place calls functions of the kernel
        // that touch no memory of the program but, below all that it uses, its stack.
        unsafe {
            core::arch::asm!(
                "r0 = {}" $(, $rest)*,
                const $number,
                out("r0") _, out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _,
                options(nostack),
            )
        }
    };
}

#[cfg(not(target_arch = "bpf"))]
macro_rules! placeholder {
    ($number:expr $(, $rest:literal)*) => {
        let _ = $number;
    };
}

/// The program begins. From here to [`program_ends`] it is not preempted, if user space has found that its hook lets it be, and that the kernel can
/// switch that off.
///
/// ```
/// relay_ebpf::sys::program_begins();
/// relay_ebpf::sys::program_ends();
/// ```
#[inline(always)]
pub fn program_begins() {
    placeholder!(placeholder::PROGRAM_BEGINS);
}

/// The program ends. On every path there is one of these for a [`program_begins`].
#[inline(always)]
pub fn program_ends() {
    const { assert!(placeholder::PROGRAM_ENDS_LEN == 7) };
    placeholder!(placeholder::PROGRAM_ENDS, "goto +0", "goto +0", "goto +0", "goto +0", "goto +0", "goto +0");
}

/// A record is to be written. From here to [`record_ends`] a program is not preempted that may be where it is not, and calls no global function.
///
/// ```
/// relay_ebpf::sys::record_begins();
/// relay_ebpf::sys::record_ends();
/// ```
#[inline(always)]
pub fn record_begins() {
    placeholder!(placeholder::RECORD_BEGINS);
}

/// The record is written. On every path there is one of these for a [`record_begins`].
#[inline(always)]
pub fn record_ends() {
    placeholder!(placeholder::RECORD_ENDS);
}

/// Whether programs of different CPUs share their workspaces.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn is_shared() -> bool {
    let number: u64;
    // SAFETY: it loads a number into a register.
    unsafe {
        core::arch::asm!("{} = {}", lateout(reg) number, const placeholder::SHARED, options(pure, nomem, nostack));
    }
    number != 0
}

#[cfg(not(target_arch = "bpf"))]
#[doc(hidden)]
#[must_use]
pub fn is_shared() -> bool {
    false
}

/// Bytes of the fields that [`Record::copy_fields`](crate::channel::Record::copy_fields) copies.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn fields_size() -> u64 {
    let number: u64;
    // SAFETY: it loads a number into a register.
    unsafe {
        core::arch::asm!("{} = {}", lateout(reg) number, const placeholder::FIELDS_SIZE, options(pure, nomem, nostack));
    }
    number
}

#[cfg(not(target_arch = "bpf"))]
#[doc(hidden)]
#[must_use]
pub fn fields_size() -> u64 {
    0
}

/// The same number, of which the compiler knows nothing, unless it is a constant.
///
/// VERIFIER: what the compiler knows of a number it does not check again, and the verifier, which does not know it, refuses.
#[cfg(target_arch = "bpf")]
#[doc(hidden)]
#[inline(always)]
pub fn unknown(number: u64) -> u64 {
    if is_known(number) {
        return number;
    }
    let mut number = number;
    // SAFETY: a move of a register to itself. Without any instruction the kernel would refuse the line information.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// The same pointer, of which the compiler knows nothing.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "the block does not read what it points to")]
fn hidden<T>(pointer: *const T) -> *const T {
    let mut pointer = pointer;
    // SAFETY: a move of a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags)) };
    pointer
}

#[cfg(not(target_arch = "bpf"))]
fn hidden<T>(pointer: *const T) -> *const T {
    core::hint::black_box(pointer)
}

/// Whether the number is a constant, once everything is inlined.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn is_known(number: u64) -> bool {
    core::intrinsics::is_val_statically_known(number)
}

#[cfg(not(target_arch = "bpf"))]
#[doc(hidden)]
pub fn unknown(number: u64) -> u64 {
    number
}

#[cfg(not(target_arch = "bpf"))]
fn is_known(_: u64) -> bool {
    false
}

impl Buffer for CpuBuffer {
    type Word = BpfWord;

    #[inline(always)]
    fn control(&self) -> &Control<BpfWord> {
        self.control
    }

    #[inline(always)]
    fn committed(&self, place: u64) -> &BpfWord {
        // VERIFIER: what is atomic must be seen to be aligned, and a sub-buffer's place that has been on the stack is not.
        let offset = (place + relay_common::COMMITTED_AT) & self.mask & !7;
        // SAFETY: less than the size of the map's value.
        let word: *mut BpfWord = unsafe { self.memory.add(offset as usize) }.cast();
        // SAFETY: inside the map's value, aligned since sub-buffers are, and never freed while the program runs.
        unsafe { &*word }
    }

    #[inline(always)]
    fn load_u32(&self, place: u64) -> u32 {
        // SAFETY: inside the map's value.
        unsafe { self.at::<u32>(place).read_volatile() }
    }

    #[inline(always)]
    fn store_u32(&self, place: u64, value: u32) {
        // SAFETY: inside the map's value; one writer at a time owns the word.
        unsafe { self.at::<u32>(place).write_volatile(value) }
    }

    #[inline(always)]
    fn store_u64(&self, place: u64, value: u64) {
        // SAFETY: inside the map's value; one writer at a time owns the word.
        unsafe { self.at::<u64>(place).write_volatile(value) }
    }

    #[inline(always)]
    fn store_zero(&self, place: u64) {
        // SAFETY: inside the map's value; one writer at a time owns the byte.
        unsafe { self.at::<u8>(place).write_volatile(0) }
    }

    #[inline(always)]
    fn wake(&self) -> bool {
        wake(self.wakers, cpu())
    }
}

/// Wakes the reader of a CPU; whether that was possible. One that does not sleep looks for nothing once.
#[inline(always)]
pub(crate) fn wake(wakers: &'static WakersMap, cpu: u32) -> bool {
    let Some(waker) = wakers.get(cpu) else { return false };
    waker.output(cpu, u64::from(aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP)).is_ok()
}

/// Nanoseconds of the monotonic clock.
///
/// ```
/// fn since(start: u64) -> u64 {
///     relay_ebpf::sys::clock() - start
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn clock() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { helpers::generated::bpf_ktime_get_ns() }
}

/// The CPU that runs the program.
///
/// ```
/// fn is_first() -> bool {
///     relay_ebpf::sys::cpu() == 0
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn cpu() -> u32 {
    // SAFETY: the helper has no arguments.
    unsafe { helpers::bpf_get_smp_processor_id() }
}

/// Process and thread that are current, as the kernel packs them: `tgid << 32 | tid`.
///
/// ```
/// fn process() -> u64 {
///     relay_ebpf::sys::current() >> 32
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn current() -> u64 {
    helpers::bpf_get_current_pid_tgid()
}

/// The task that is current: the address of the kernel's `struct task_struct`. No two tasks have one at the same time, whatever their
/// numbers.
///
/// ```
/// fn is_same(task: u64) -> bool {
///     relay_ebpf::sys::task() == task
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn task() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { helpers::generated::bpf_get_current_task() }
}

/// The registers of the system call that a program at `sys_enter` or `sys_exit` was given by their types (`struct pt_regs`): a pointer that the
/// verifier knows, so that each of them is a load.
#[derive(Clone, Copy)]
pub struct Registers(*const u64);

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registers")
    }
}

impl Registers {
    /// Those that the first argument of a program with types points to.
    #[inline(always)]
    #[must_use]
    pub fn first_argument(ctx: &aya_ebpf::programs::RawTracePointContext) -> Self {
        Self(ctx.arg::<*const u64>(0))
    }

    /// An argument of the call, of six (arch/x86/include/asm/syscall.h and arch/arm64/include/asm/syscall.h, `syscall_get_arguments`).
    #[inline(always)]
    #[must_use]
    pub fn argument(self, index: usize, is_of_32_bits: bool) -> u64 {
        // Words of the structure (arch/x86/include/asm/ptrace.h, arch/arm64/include/asm/ptrace.h).
        const X86_64: [usize; 6] = [14, 13, 12, 7, 9, 8];
        const I386: [usize; 6] = [5, 11, 12, 13, 14, 4];
        const ARM64: [usize; 6] = [34, 1, 2, 3, 4, 5];
        let places = match (IS_ARM64, is_of_32_bits) {
            (true, _) => ARM64,
            (false, true) => I386,
            (false, false) => X86_64,
        };
        self.word(places[index])
    }

    /// The call's number, as a signed number of 32 bits (`syscall_get_nr`).
    #[inline(always)]
    #[must_use]
    pub fn call(self) -> u64 {
        // VERIFIER: arm64's `syscallno` has 32 bits, and no more than a member is loaded.
        let number = if IS_ARM64 { self.half(70) } else { self.word(15) as u32 };
        i64::from(number.cast_signed()).cast_unsigned()
    }

    /// Half a word of the structure.
    #[inline(always)]
    fn half(self, index: usize) -> u32 {
        // SAFETY: as in `word`.
        unsafe { self.0.cast::<u32>().wrapping_add(index).read_volatile() }
    }

    #[inline(always)]
    fn word(self, index: usize) -> u64 {
        // SAFETY: the kernel gives programs with types a pointer to its own structure, and refuses one that loads what is not in it.
        unsafe { self.0.wrapping_add(index).read_volatile() }
    }
}

/// The machine that the programs are compiled for.
const IS_ARM64: bool = cfg!(bpf_target_arch = "aarch64");

/// The task that is current, as programs of a kind that is given types see it: each of its members is a load.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

impl Task {
    /// The one that is current.
    #[inline(always)]
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: the helper has no arguments.
        Self(unsafe { helpers::generated::bpf_get_current_task_btf() }.cast())
    }

    /// The number at so many bytes into the kernel's `struct task_struct`.
    #[inline(always)]
    #[must_use]
    pub fn number(self, at: u32) -> u32 {
        // SAFETY: the kernel refuses a program that loads what is not in the structure.
        let member = unsafe { self.0.add(at as usize) }.cast::<u32>();
        // SAFETY: as above.
        unsafe { member.read_volatile() }
    }
}

/// The cookie of the attachment through which the program was reached.
///
/// ```
/// use aya_ebpf::programs::TracePointContext;
///
/// fn which(ctx: &TracePointContext) -> u64 {
///     relay_ebpf::sys::cookie(ctx)
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn cookie(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: the helper is given the program's own context.
    unsafe { helpers::generated::bpf_get_attach_cookie(ctx.as_ptr()) }
}

/// The u32 at an address; zero when it cannot be read.
///
/// ```
/// # use relay_ebpf::sys::{self, KernelAddress};
/// fn flags(structure: u64) -> u32 {
///     sys::kernel_u32(KernelAddress::new(structure))
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn kernel_u32(from: KernelAddress) -> u32 {
    // SAFETY: the helper reads any address safely.
    unsafe { helpers::bpf_probe_read_kernel(from.0.cast::<u32>()) }.unwrap_or(0)
}

/// The u64 at an address; zero when it cannot be read.
///
/// ```
/// # use relay_ebpf::sys::{self, KernelAddress};
/// fn first(structure: u64) -> u64 {
///     sys::kernel_u64(KernelAddress::new(structure))
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn kernel_u64(from: KernelAddress) -> u64 {
    // SAFETY: the helper reads any address safely.
    unsafe { helpers::bpf_probe_read_kernel(from.0.cast::<u64>()) }.unwrap_or(0)
}

/// The u32 at `offset` bytes into the context; zero when it cannot be read.
///
/// ```
/// use aya_ebpf::programs::TracePointContext;
///
/// /// A field that the tracepoint's `format` has at offset 24.
/// fn pid(ctx: &TracePointContext) -> u32 {
///     relay_ebpf::sys::context_u32(ctx, 24)
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn context_u32(ctx: &impl EbpfContext, offset: u16) -> u32 {
    kernel_u32(KernelAddress::in_context(ctx, offset.into()))
}

/// The u64 at `offset` bytes into the context; zero when it cannot be read.
///
/// ```
/// use aya_ebpf::programs::TracePointContext;
///
/// /// A field that the tracepoint's `format` has at offset 16.
/// fn pointer(ctx: &TracePointContext) -> u64 {
///     relay_ebpf::sys::context_u64(ctx, 16)
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn context_u64(ctx: &impl EbpfContext, offset: u16) -> u64 {
    kernel_u64(KernelAddress::in_context(ctx, offset.into()))
}

/// An address to copy from. Anything may be there, or nothing: it is only ever given to a helper that checks.
///
/// ```
/// use relay_ebpf::sys::KernelAddress;
///
/// /// An argument of a kprobe.
/// fn argument(register: u64) -> KernelAddress {
///     KernelAddress::new(register)
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct KernelAddress(*const c_void);

impl KernelAddress {
    /// `offset` bytes into the context.
    ///
    /// ```
    /// use aya_ebpf::programs::TracePointContext;
    /// use relay_ebpf::sys::KernelAddress;
    ///
    /// fn fields(ctx: &TracePointContext) -> KernelAddress {
    ///     KernelAddress::in_context(ctx, 8)
    /// }
    /// ```
    #[inline(always)]
    pub fn in_context(ctx: &impl EbpfContext, offset: u64) -> Self {
        Self(ctx.as_ptr().wrapping_byte_add(offset as usize))
    }

    /// As a number.
    ///
    /// ```
    /// assert_eq!(relay_ebpf::sys::KernelAddress::new(7).address(), 7);
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn address(self) -> u64 {
        self.0.addr() as u64
    }

    /// As a number of which the verifier knows nothing: it lets no subprogram have the context's address.
    ///
    /// ```
    /// # use relay_ebpf::sys::KernelAddress;
    /// fn of(address: KernelAddress) -> u64 {
    ///     address.unknown_address()
    /// }
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn unknown_address(self) -> u64 {
        kernel_u64(Self::of(&self.0))
    }

    /// Of a value.
    ///
    /// ```
    /// let comm = [0u8; 16];
    /// assert_ne!(relay_ebpf::sys::KernelAddress::of(&comm).address(), 0);
    /// ```
    #[inline(always)]
    pub fn of<T>(value: &T) -> Self {
        Self(core::ptr::from_ref(value).cast())
    }

    /// Of bytes.
    ///
    /// ```
    /// assert_ne!(relay_ebpf::sys::KernelAddress::of_bytes(b"text").address(), 0);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn of_bytes(bytes: &[u8]) -> Self {
        Self(bytes.as_ptr().cast())
    }

    /// A number that is one, as probes get them.
    ///
    /// ```
    /// assert_eq!(relay_ebpf::sys::KernelAddress::new(7).address(), 7);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Self(core::ptr::without_provenance(address as usize))
    }
}

/// Copies kernel memory to memory of the program's own; what cannot be read is zeros.
///
/// ```
/// use aya_ebpf::programs::TracePointContext;
/// use relay_ebpf::sys::{self, KernelAddress};
///
/// fn first_word(ctx: &TracePointContext) -> u64 {
///     let mut word = [0; 8];
///     sys::copy_from_kernel(&mut word, KernelAddress::in_context(ctx, 8));
///     u64::from_ne_bytes(word)
/// }
/// ```
#[inline(always)]
pub fn copy_from_kernel(to: &mut [u8], source: KernelAddress) {
    // SAFETY: the helper writes to all of `to`, and reads nothing that cannot be read.
    let _ = unsafe { helpers::bpf_probe_read_kernel_buf(source.0.cast(), to) };
}

/// An address in the process that is current, to copy from. Anything may be there, or nothing.
///
/// ```
/// use relay_ebpf::sys::UserAddress;
///
/// /// An argument of a system call.
/// fn argument(register: u64) -> UserAddress {
///     UserAddress::new(register)
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct UserAddress(*const c_void);

impl UserAddress {
    /// A number that is one, as probes and system calls get them.
    ///
    /// ```
    /// assert_eq!(relay_ebpf::sys::UserAddress::new(7).address(), 7);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Self(core::ptr::without_provenance(address as usize))
    }

    /// As a number.
    ///
    /// ```
    /// assert_eq!(relay_ebpf::sys::UserAddress::new(7).address(), 7);
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn address(self) -> u64 {
        self.0.addr() as u64
    }
}

/// Writes text into `text` as the kernel's `printf` does (`bpf_snprintf`, Linux 5.13), a NUL after it, and returns its length
/// without the NUL. What does not fit is cut off; a format that the kernel does not like gives no text.
///
/// ```
/// use relay_ebpf::sys;
///
/// fn text(pid: u64) -> [u8; 32] {
///     let mut text = [0; 32];
///     sys::format(&mut text, b"pid %d\0", &[pid]);
///     text
/// }
/// ```
#[inline(always)]
pub fn format<const LEN: usize, const ARGS: usize>(
    text: &mut [u8; LEN],
    format: &'static [u8],
    arguments: &[u64; ARGS],
) -> u64 {
    // SAFETY: the lengths are those of the arrays; the kernel checks the format and that it is a constant ending with NUL, and
    // reads strings safely.
    let written = unsafe {
        helpers::generated::bpf_snprintf(
            text.as_mut_ptr().cast(),
            LEN as u32,
            format.as_ptr().cast_mut().cast(),
            arguments.as_ptr().cast_mut().cast(),
            (ARGS * 8) as u32,
        )
    };
    // The NUL counts, and so does what was cut off.
    (written.max(1).cast_unsigned() - 1).min(LEN as u64 - 1)
}

/// The name of the thread that is current, NUL-padded.
///
/// ```
/// fn is_shell() -> bool {
///     relay_ebpf::sys::comm().starts_with(b"bash\0")
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn comm() -> [u8; 16] {
    helpers::bpf_get_current_comm().unwrap_or_default()
}

/// Declares a function that the verifier checks by itself, once, and not again where it is called ("global function"). It takes and
/// returns numbers alone.
///
/// ```
/// relay_ebpf::subprogram! {
///     /// Twice the number.
///     fn twice(number: u64) -> u64 {
///         number * 2
///     }
/// }
/// ```
#[macro_export]
macro_rules! subprogram {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),*) -> u64 $body:block) => {
        $(#[$meta])*
        #[unsafe(no_mangle)]
        #[inline(never)]
        $vis extern "C" fn $name($($argument: $type),*) -> u64 $body
    };
}

/// Declares a program of the section `$section`, under `$name`, that calls `$record` with its context and returns 0.
///
/// ```
/// use aya_ebpf::programs::ProbeContext;
/// use relay_ebpf::{channel, program, sys};
///
/// channel!(CALLS);
/// program!(on_call("kprobe"): ProbeContext, record);
///
/// fn record(_: &ProbeContext) {
///     let _ = CALLS.write(&sys::current().to_ne_bytes());
/// }
/// ```
#[macro_export]
macro_rules! program {
    ($name:ident($section:literal): $context:ty, $record:path) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = $section)]
        fn $name(ctx: *mut core::ffi::c_void) -> u32 {
            $crate::sys::refuse_private_stack();
            $crate::sys::program_begins();
            $record(&<$context>::new(ctx.cast()));
            $crate::sys::program_ends();
            0
        }
    };
}

/// Declares a program that user space runs by BPF_PROG_TEST_RUN, under `$name`, which calls `$record` with its context. It returns
/// [`REQUEST_HAS_RUN`](relay_common::REQUEST_HAS_RUN).
///
/// ```
/// use aya_ebpf::programs::RawTracePointContext;
/// use relay_ebpf::{channel, request, sys};
///
/// channel!(CALLS);
/// request!(on_request, record);
///
/// fn record(_: &RawTracePointContext) {
///     let _ = CALLS.write(&sys::current().to_ne_bytes());
/// }
/// ```
#[macro_export]
macro_rules! request {
    ($name:ident, $record:path) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "raw_tracepoint")]
        fn $name(ctx: *mut core::ffi::c_void) -> i32 {
            $crate::sys::refuse_private_stack();
            $record(&aya_ebpf::programs::RawTracePointContext::new(ctx));
            $crate::relay_common::REQUEST_HAS_RUN
        }
    };
}

/// Flags of a stack: the process's, each frame as build id and offset (`BPF_F_USER_STACK | BPF_F_USER_BUILD_ID`).
pub const USER_STACK_WITH_BUILD_IDS: u64 = 1 << 8 | 1 << 11;

/// User and group that are current, as the kernel packs them: `gid << 32 | uid`.
///
/// ```
/// fn is_root() -> bool {
///     relay_ebpf::sys::user() as u32 == 0
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn user() -> u64 {
    helpers::bpf_get_current_uid_gid()
}

/// The id of the current task's cgroup in the unified hierarchy.
///
/// ```
/// fn cgroup() -> u64 {
///     relay_ebpf::sys::cgroup()
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn cgroup() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { helpers::generated::bpf_get_current_cgroup_id() }
}

/// The id of the ancestor of the current task's cgroup that is so many levels below the root; the cgroup itself counts. Zero when there is
/// none.
///
/// ```
/// fn is_in(id: u64, level: u32) -> bool {
///     relay_ebpf::sys::cgroup_at(level) == id
/// }
/// ```
#[inline(always)]
#[must_use]
pub fn cgroup_at(level: u32) -> u64 {
    // SAFETY: the helper checks the level.
    unsafe { helpers::generated::bpf_get_current_ancestor_cgroup_id(level.cast_signed()) }
}

/// A map whose keys programs make up: a hash map, or one that, when it is full, gives up what was not used for longest.
///
/// ```
/// use aya_ebpf::{btf_maps::LruHashMap, macros::btf_map};
/// use relay_ebpf::sys::{self, BpfWord};
///
/// #[btf_map]
/// static CALLS: LruHashMap<u64, BpfWord, 16> = LruHashMap::new();
///
/// fn begin() -> bool {
///     sys::insert(&CALLS, sys::current(), &BpfWord::zero())
/// }
/// ```
pub trait Table {
    /// What it has for each key.
    type Value: Sync + 'static;
    /// As [`value`].
    fn look_up(&'static self, key: u64) -> Option<&'static Self::Value>;
    /// As [`insert`].
    fn put(&self, key: u64, value: &Self::Value) -> bool;
    /// As [`remove`].
    fn take(&self, key: u64);
}

macro_rules! table {
    ($($map:ident),+) => {$(
        impl<V: Sync + 'static, const ENTRIES: usize> Table for aya_ebpf::btf_maps::$map<u64, V, ENTRIES> {
            type Value = V;
            #[inline(always)]
            fn look_up(&'static self, key: u64) -> Option<&'static V> {
                // SAFETY: an element's memory stays a `V` for as long as the program runs (the map is allocated in advance); `Sync`: only
                // shared words are in it.
                unsafe { self.get(key) }
            }
            #[inline(always)]
            fn put(&self, key: u64, value: &V) -> bool {
                self.insert(key, value, 0).is_ok()
            }
            #[inline(always)]
            fn take(&self, key: u64) {
                let _ = self.remove(key);
            }
        }
    )+};
}

table!(HashMap, LruHashMap);

/// A value of a map whose key a program makes up. `None` when there is none.
///
/// ```
/// use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
/// use relay_ebpf::sys::{self, BpfWord};
///
/// #[btf_map]
/// static CALLS: HashMap<u64, BpfWord, 16> = HashMap::new();
///
/// fn calls() -> Option<&'static BpfWord> {
///     sys::value(&CALLS, sys::current())
/// }
/// ```
///
/// What was taken out of a map, or given up, may be given to another key while a program looks at it: whoever uses the value sees to it
/// that this does not happen, or can do with any content.
#[inline(always)]
#[must_use]
pub fn value<T: Table>(map: &'static T, key: u64) -> Option<&'static T::Value> {
    map.look_up(key)
}

/// Puts a value into a map; whether there was room. A copy is made.
///
/// ```
/// use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
/// use relay_ebpf::sys::{self, BpfWord};
///
/// #[btf_map]
/// static CALLS: HashMap<u64, BpfWord, 16> = HashMap::new();
///
/// fn begin() -> bool {
///     sys::insert(&CALLS, sys::current(), &BpfWord::zero())
/// }
/// ```
#[inline(always)]
pub fn insert<T: Table>(map: &T, key: u64, value: &T::Value) -> bool {
    map.put(key, value)
}

/// Takes the value of a key out of a map, if there is one.
///
/// ```
/// use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
/// use relay_ebpf::sys::{self, BpfWord};
///
/// #[btf_map]
/// static CALLS: HashMap<u64, BpfWord, 16> = HashMap::new();
///
/// fn end() {
///     sys::remove(&CALLS, sys::current());
/// }
/// ```
#[inline(always)]
pub fn remove<T: Table>(map: &T, key: u64) {
    map.take(key);
}

/// Words of a map's value that a program copies to and from as bytes. Whoever uses them sees to it that one program at a time does, or can
/// do with any content.
#[repr(transparent)]
pub struct Cells<const WORDS: usize>(UnsafeCell<[u64; WORDS]>);

// SAFETY: every access is a single load or store, or a copy by a helper.
unsafe impl<const WORDS: usize> Sync for Cells<WORDS> {}

impl<const WORDS: usize> fmt::Debug for Cells<WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cells")
    }
}

impl<const WORDS: usize> Cells<WORDS> {
    /// Words that hold zero, for a static.
    ///
    /// ```
    /// # use relay_ebpf::sys::Cells;
    /// assert_eq!(Cells::<4>::zero().get(3), 0);
    /// ```
    #[must_use]
    pub const fn zero() -> Self {
        Self(UnsafeCell::new([0; WORDS]))
    }

    /// The word of an index, taken modulo their number, which is a power of two.
    ///
    /// ```
    /// # use relay_ebpf::sys::Cells;
    /// let cells = Cells::<4>::zero();
    /// cells.set(1, 7);
    /// assert_eq!(cells.get(1), 7);
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn get(&self, index: u64) -> u64 {
        // SAFETY: `word` is inside.
        unsafe { self.word(index).read_volatile() }
    }

    /// Sets the word of an index.
    ///
    /// ```
    /// # use relay_ebpf::sys::Cells;
    /// Cells::<4>::zero().set(1, 7);
    /// ```
    #[inline(always)]
    pub fn set(&self, index: u64, value: u64) {
        // SAFETY: `word` is inside.
        unsafe { self.word(index).write_volatile(value) }
    }

    /// Copies `len` bytes of kernel memory to the words from `index` on; nothing when they have no room there. One of `index` and `len` is a
    /// constant.
    #[inline(always)]
    pub fn copy_from(&self, index: u64, len: u64, source: KernelAddress) {
        let len = unknown(len);
        if len <= (WORDS as u64).saturating_sub(index) * 8 {
            // SAFETY: the helper reads any address safely, and there is room for what it writes.
            unsafe { helpers::generated::bpf_probe_read_kernel(self.word(index).cast(), len as u32, source.0) };
        }
    }

    /// Where the word of an index is, to copy from.
    #[inline(always)]
    pub fn address(&self, index: u64) -> KernelAddress {
        KernelAddress(self.word(index).cast_const().cast())
    }

    #[inline(always)]
    fn word(&self, index: u64) -> *mut u64 {
        const { assert!(WORDS.is_power_of_two()) };
        // VERIFIER: the mask bounds the offset.
        // SAFETY: less than the length.
        unsafe { self.0.get().cast::<u64>().add(index as usize & (WORDS - 1)) }
    }
}

/// Bytes of a workspace for what stands before the payload.
pub const CONTEXT_SPACE: usize = 8192;
/// Bytes of a workspace for the payload, without a tail that is never passed on.
pub const PAYLOAD_SPACE: usize = 8192;
/// Most bytes that are fetched at once: the tail.
pub const PIECE: usize = 8192;
/// Bytes for a text that is looked at.
const TEXT_SPACE: usize = relay_common::recipe::MAX_TEXT;
const _: () = assert!(relay_common::recipe::MAX_STRING as usize <= PIECE);

/// Memory in which a program makes up a record whose length it does not know in advance.
#[repr(C)]
pub struct Workspace {
    /// Not zero while a program uses it.
    busy: BpfWord,
    /// What recipes start from: `relay_common::recipe::input`.
    pub inputs: Cells<{ relay_common::recipe::input::WORDS as usize }>,
    text: UnsafeCell<[u8; TEXT_SPACE]>,
    context: UnsafeCell<[u8; CONTEXT_SPACE]>,
    payload: UnsafeCell<[u8; PAYLOAD_SPACE + PIECE]>,
}

// SAFETY: of the programs that a CPU runs, one at a time uses a workspace: the one that has set `busy`.
unsafe impl Sync for Workspace {}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workspace")
    }
}

impl Workspace {
    /// Takes it, unless a program that was interrupted has.
    #[inline(always)]
    pub fn claim(&self) -> bool {
        self.busy.swap(1) == 0
    }

    /// Gives it back.
    #[inline(always)]
    pub fn release(&self) {
        let _ = self.busy.swap(0);
    }

    /// Where what stands before the payload is.
    #[inline(always)]
    pub fn context(&self) -> KernelAddress {
        KernelAddress(self.context.get().cast())
    }

    /// Where the payload is.
    #[inline(always)]
    pub fn payload(&self) -> KernelAddress {
        KernelAddress(self.payload.get().cast())
    }

    /// Stores a number in front of the payload, at a multiple of 4.
    #[inline(always)]
    pub fn store_context(&self, at: u64, value: u32) {
        let at = at as usize & (CONTEXT_SPACE - 4);
        // SAFETY: in bounds.
        let place = unsafe { self.context.get().cast::<u8>().add(at) };
        // SAFETY: a multiple of 4 in bounds is aligned, since the workspace is.
        unsafe { place.cast::<u32>().write_volatile(value) }
    }

    /// Stores the stack of a context in front of the payload, `at` so many bytes, less than 4096: the innermost frames of `FRAME` bytes,
    /// [`MAX_FRAMES`](relay_common::recipe::context::MAX_FRAMES) of them at most; returns how many bytes.
    #[inline(always)]
    pub fn store_stack<const FRAME: usize>(&self, ctx: &impl EbpfContext, at: u64, flags: u64) -> u64 {
        let most = const {
            let most = relay_common::recipe::context::MAX_FRAMES as usize * FRAME;
            assert!(most <= CONTEXT_SPACE / 2);
            most
        };
        // VERIFIER: the mask bounds where, the constant how much.
        let at = (unknown(at) as usize) & (CONTEXT_SPACE / 2 - 1);
        // SAFETY: in bounds.
        let to = unsafe { self.context.get().cast::<u8>().add(at) };
        // SAFETY: there is room for what the helper writes.
        let len = unsafe { helpers::generated::bpf_get_stack(ctx.as_ptr(), to.cast(), most as u32, flags) };
        if len < 0 { 0 } else { len.cast_unsigned() }
    }

    /// Where in the payload, kept inside it.
    #[inline(always)]
    fn at(&self, at: u64) -> *mut u8 {
        // VERIFIER: the mask bounds the offset; the tail is as long as what is accessed from there on at most.
        let at = (unknown(at) as usize) & (PAYLOAD_SPACE - 1);
        // SAFETY: in bounds.
        unsafe { self.payload.get().cast::<u8>().add(at) }
    }

    /// Fetches `len` bytes into the payload, at most [`PIECE`] of them; whether they could be read. Zeros where not.
    #[inline(always)]
    pub fn fetch(&self, at: u64, len: u64, from: Address) -> bool {
        let (to, len) = (self.at(at), unknown(len));
        if len > PIECE as u64 {
            return false;
        }
        0 == match from {
            // SAFETY: the helper reads any address safely, and there is room for what it writes.
            Address::Kernel(from) => unsafe {
                helpers::generated::bpf_probe_read_kernel(to.cast(), len as u32, from.0)
            },
            // SAFETY: as above.
            Address::User(from) => unsafe { helpers::generated::bpf_probe_read_user(to.cast(), len as u32, from.0) },
        }
    }

    /// Fetches a string into the payload, at most `most` bytes with its NUL, and those at most [`PIECE`]; returns how many, NUL included.
    /// `None` when it cannot be read.
    #[inline(always)]
    pub fn fetch_string(&self, at: u64, most: u64, from: Address) -> Option<u64> {
        let (to, most) = (self.at(at), unknown(most));
        if most > PIECE as u64 {
            return None;
        }
        let len = match from {
            // SAFETY: the helper reads any address safely, and there is room for what it writes.
            Address::Kernel(from) => unsafe {
                helpers::generated::bpf_probe_read_kernel_str(to.cast(), most as u32, from.0)
            },
            // SAFETY: as above.
            Address::User(from) => unsafe {
                helpers::generated::bpf_probe_read_user_str(to.cast(), most as u32, from.0)
            },
        };
        u64::try_from(len).ok()
    }

    /// The number of `size` bytes, at most 8, at an address.
    #[inline(always)]
    pub fn number(&self, size: u64, from: Address) -> Option<u64> {
        let (mut number, size) = (0u64, unknown(size));
        if size > 8 {
            return None;
        }
        let to = (&raw mut number).cast();
        let error = match from {
            // SAFETY: the helper reads any address safely, and there is room for what it writes.
            Address::Kernel(from) => unsafe { helpers::generated::bpf_probe_read_kernel(to, size as u32, from.0) },
            // SAFETY: as above.
            Address::User(from) => unsafe { helpers::generated::bpf_probe_read_user(to, size as u32, from.0) },
        };
        (error == 0).then_some(number)
    }

    /// Stores the low `size` bytes of a number in the payload: 1, 2, 4 or 8.
    #[inline(always)]
    pub fn store_number(&self, at: u64, size: u64, number: u64) {
        let to = self.at(at);
        match size {
            8 => store_unaligned!(to, number, u64),
            4 => store_unaligned!(to, number as u32, u32),
            2 => store_unaligned!(to, number as u16, u16),
            1 => store_unaligned!(to, number as u8, u8),
            _ => {}
        }
    }

    /// The number of `size` bytes in the payload: 1, 2, 4 or 8.
    #[inline(always)]
    pub fn payload_number(&self, at: u64, size: u64) -> u64 {
        let from = self.at(at);
        match size {
            8 => load_unaligned!(from, u64),
            4 => load_unaligned!(from, u32),
            2 => load_unaligned!(from, u16),
            1 => load_unaligned!(from, u8),
            _ => 0,
        }
    }

    /// Takes a text of the payload to be looked at: `len` bytes, or up to its NUL, at most `MAX_TEXT` in all with a NUL.
    #[inline(always)]
    pub fn take_text(&self, at: u64, len: u64) {
        let from = KernelAddress(self.at(at).cast());
        self.take_text_from(from, len);
    }

    /// The same with kernel memory.
    #[inline(always)]
    pub fn take_text_from(&self, from: KernelAddress, len: u64) {
        // With room for the NUL that the helper adds. VERIFIER: what is checked is what is passed on.
        let most = unknown(len.wrapping_add(1));
        let most = if most < TEXT_SPACE as u64 { most } else { TEXT_SPACE as u64 };
        // SAFETY: the helper reads any address safely, and there is room for what it writes.
        unsafe {
            helpers::generated::bpf_probe_read_kernel_str(self.text.get().cast(), most as u32, from.0);
        }
    }

    /// A byte of the text.
    #[inline(always)]
    pub fn text(&self, at: usize) -> u8 {
        // SAFETY: the index is less than the length.
        let byte = unsafe { self.text.get().cast::<u8>().add(at & (TEXT_SPACE - 1)) };
        // SAFETY: in bounds.
        unsafe { byte.read_volatile() }
    }
}

/// An address in one of the two memories.
#[derive(Clone, Copy, Debug)]
pub enum Address {
    /// The kernel's.
    Kernel(KernelAddress),
    /// The current process's.
    User(UserAddress),
}

impl Address {
    /// On x86-64 and arm64 a number says by its highest bit whose address it is.
    #[inline(always)]
    #[must_use]
    pub const fn of(number: u64) -> Self {
        if number >> 63 == 0 { Self::User(UserAddress::new(number)) } else { Self::Kernel(KernelAddress::new(number)) }
    }
}
