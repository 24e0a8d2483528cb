//! The writer's end of relay channels in eBPF: what a program declares, and how it writes.
//!
//! [`channel!`](crate::channel!) declares a channel; user space makes its maps, at the geometry and in the mode it wants
//! (`relay_daemon::channel`). Programs of every type may write to it, and interrupt one another while they do.
//!
//! # What a program must keep to
//!
//! * **One loaded program, one kind of hook.** What keeps the kernel from running a program twice at once on a CPU differs from hook to hook: kprobes, samples and
//!   perf's tracepoints have one guard in common, raw tracepoints, fentry and fexit another, tracepoints of system calls the first or the second, and uprobes
//!   none. A program that is wanted at two kinds is loaded twice.
//! * **No private stack.** Since Linux 6.13 the kernel gives programs stacks of their own, and trusts that guard; two runs at once then write over each other's
//!   values, and outside of maps. [`Channel::reserve`], [`program!`](crate::program!) and [`tracepoint!`](crate::tracepoint!) keep the kernel from it
//!   ([`sys::refuse_private_stack`]), so a program that reserves need do nothing more. There the JIT must be on.
//! * **Short from reserve to commit.** A task that is preempted in between keeps the sub-buffer from its reader until it runs again, and when the others have filled the
//!   buffer by then, they lose records as *nested*. Programs at uprobes, fentry and fexit can be preempted, since Linux 7.0 raw tracepoints' too.
//!
//! ```
//! use relay_ebpf::channel;
//!
//! channel!(LOG);
//!
//! /// Called by any program.
//! fn note(pid: u32) {
//!     // Lost records are counted by cause; there is nothing more to do about them here.
//!     let _ = LOG.write(&pid.to_ne_bytes());
//! }
//! ```

use core::mem::ManuallyDrop;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps},
    programs::{RawTracePointContext, TracePointContext},
};
use relay_common::{
    Buffer as _, Client, Control, Counters, Geometry, Lost, Mode, Request, Reservation, TRIES, Word as _, Writer,
};

use crate::sys::{self, BpfWord, CpuBuffer, KernelAddress, Setting, UserAddress, WakersMap};

/// One row per possible CPU.
pub type ControlMap = Array<Control<BpfWord>, 1, { BPF_F_MMAPABLE as usize }>;
/// One buffer per CPU. Here only the shape is declared: user space makes outer and inner maps at run time,
/// and the verifier checks against those.
pub type BuffersMap = ArrayOfMaps<Array<u8, 1>, 1>;

/// What user space sets before loading; constants to the verifier.
///
/// ```
/// use relay_ebpf::channel::Settings;
///
/// // What `channel!` declares, and user space overrides.
/// const UNSET: Settings = Settings::UNSET;
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Settings {
    /// The geometry (`Geometry::words`).
    pub geometry: [u64; 3],
    /// Not zero for overwrite mode.
    pub overwrite: u64,
}

impl Settings {
    /// What stands in the object until user space sets it.
    pub const UNSET: Self = Self { geometry: [sys::UNSET as u64; 3], overwrite: sys::UNSET as u64 };
}

/// Declares a channel as a constant of type [`Channel`], with its maps, its settings and the program that user space runs to
/// flush the buffer of a CPU.
///
/// `channel!(NAME)` is a channel of plain records. `channel!(NAME: Type = value)` has a [`Client`]: callbacks at the start
/// and the end of every sub-buffer, and when the buffer is full. In the object there are then the maps `NAME_CONTROL`,
/// `NAME_BUFFERS` and `NAME_WAKERS`, the setting `NAME_SETTINGS` and the program `NAME_request`. Any number of channels may
/// be declared, each with a geometry of its own.
///
/// ```
/// use relay_common::{Buffer, Client};
/// use relay_ebpf::{channel, sys::CpuBuffer};
///
/// /// Every sub-buffer begins with its number.
/// #[derive(Clone, Copy)]
/// struct Numbered;
///
/// impl Client<CpuBuffer> for Numbered {
///     const HEADER: u64 = 8;
///     const ALIGN: u64 = 8;
///     fn subbuf_start(&self, buffer: &CpuBuffer, place: u64, number: u64, _stamp: u64) {
///         buffer.store_u64(place, number);
///     }
/// }
///
/// channel!(PLAIN);
/// channel!(pub NUMBERED: Numbered = Numbered);
/// ```
#[doc(alias = "relay_open")]
#[macro_export]
macro_rules! channel {
    ($(#[$meta:meta])* $vis:vis $name:ident) => {
        $crate::channel!($(#[$meta])* $vis $name: $crate::relay_common::Plain = $crate::relay_common::Plain);
    };
    ($(#[$meta:meta])* $vis:vis $name:ident: $client:ty = $value:expr) => {
        $(#[$meta])*
        $vis const $name: $crate::channel::Channel<$client> = {
            #[unsafe(link_section = ".maps")]
            #[unsafe(export_name = concat!(stringify!($name), "_CONTROL"))]
            static CONTROL: $crate::channel::ControlMap = $crate::channel::ControlMap::new();
            #[unsafe(link_section = ".maps")]
            #[unsafe(export_name = concat!(stringify!($name), "_BUFFERS"))]
            static BUFFERS: $crate::channel::BuffersMap = $crate::channel::BuffersMap::new();
            #[unsafe(link_section = ".maps")]
            #[unsafe(export_name = concat!(stringify!($name), "_WAKERS"))]
            static WAKERS: $crate::sys::WakersMap = $crate::sys::WakersMap::new();
            #[unsafe(export_name = concat!(stringify!($name), "_SETTINGS"))]
            static SETTINGS: $crate::sys::Setting<$crate::channel::Settings> =
                $crate::sys::Setting::new($crate::channel::Settings::UNSET);
            #[unsafe(link_section = "raw_tracepoint")]
            #[unsafe(export_name = concat!(stringify!($name), "_request"))]
            extern "C" fn request(ctx: *mut core::ffi::c_void) -> i32 {
                $name.request(ctx);
                $crate::relay_common::REQUEST_HAS_RUN
            }
            $crate::channel::Channel::declare(&CONTROL, &BUFFERS, &WAKERS, &SETTINGS, $value)
        };
    };
}

/// A channel, as [`channel!`](crate::channel!) declares it. Every method is about the buffer of the CPU that runs the program.
///
/// ```
/// use relay_ebpf::{channel, channel::Channel, relay_common::Plain};
///
/// channel!(LOG);
/// channel!(ERRORS);
///
/// /// Writes to any channel of plain records.
/// fn note(channel: &Channel<Plain>, code: u32) {
///     let _ = channel.write(&code.to_ne_bytes());
/// }
///
/// fn both() {
///     note(&LOG, 1);
///     note(&ERRORS, 2);
/// }
/// ```
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Channel<C> {
    control: &'static ControlMap,
    buffers: &'static BuffersMap,
    wakers: &'static WakersMap,
    settings: &'static Setting<Settings>,
    client: C,
}

impl<C: Client<CpuBuffer> + Copy> Channel<C> {
    /// What [`channel!`](crate::channel!) uses.
    #[doc(hidden)]
    pub const fn declare(
        control: &'static ControlMap,
        buffers: &'static BuffersMap,
        wakers: &'static WakersMap,
        settings: &'static Setting<Settings>,
        client: C,
    ) -> Self {
        Self { control, buffers, wakers, settings, client }
    }

    /// Stores a record of these bytes (`relay_write`). None takes no room.
    ///
    /// ```
    /// relay_ebpf::channel!(LOG);
    /// fn log() -> Result<(), relay_common::Lost> {
    ///     LOG.write(b"here")
    /// }
    /// ```
    ///
    /// # Errors
    /// Why it was lost. That is counted already.
    #[inline(always)]
    #[doc(alias = "relay_write")]
    pub fn write(&self, bytes: &[u8]) -> Result<(), Lost> {
        if !bytes.is_empty() {
            let record = self.reserve(bytes.len() as u64)?;
            record.copy_from_kernel(0, bytes.len() as u64, KernelAddress::of_bytes(bytes));
            record.commit();
        }
        Ok(())
    }

    /// Takes room for a record of `len` bytes, to be filled in place (`relay_reserve`). It is committed when it is dropped.
    ///
    /// ```
    /// relay_ebpf::channel!(LOG);
    /// fn log(pid: u32, address: u64) {
    ///     if let Ok(record) = LOG.reserve(12) {
    ///         record.store(0, pid);
    ///         record.store(4, address);
    ///         record.commit();
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// Why it was lost. That is counted already.
    #[inline(always)]
    #[doc(alias = "relay_reserve")]
    pub fn reserve(&self, len: u64) -> Result<Record<C>, Lost> {
        sys::refuse_private_stack();
        let Some(buffer) = self.buffer() else {
            if let Some(control) = self.control.get(sys::cpu()) {
                control.producer.lost_no_buffer.count(1);
            }
            return Err(Lost::NoBuffer);
        };
        let reservation = match self.writer(&buffer).reserve_open(len) {
            Some(reservation) => reservation,
            None => self.reserve_anew(&buffer, len)?,
        };
        Ok(Record { channel: *self, buffer, reservation, len })
    }

    /// The same where the open sub-buffer has no room for more than it.
    #[inline(always)]
    fn reserve_anew(&self, buffer: &CpuBuffer, len: u64) -> Result<Reservation, Lost> {
        let mut reservation = Reservation::NONE;
        // Not in `anew`: that takes more of the stack the more it does, and leaves less to whoever calls it.
        for _ in 0..TRIES {
            // Copies, to have an address: what has one the compiler keeps on the stack, and the common path should not be there.
            match anew(&{ *self }, &{ *buffer }, len, &mut reservation) {
                GRANTED => return Ok(reservation),
                FULL => return Err(Lost::Full),
                TOO_BIG => return Err(Lost::TooBig),
                NESTED => return Err(Lost::Nested),
                _ => {}
            }
        }
        Err(self.writer(buffer).give_up())
    }

    /// Counts a record as lost to nesting that its client could not even ask room for.
    ///
    /// ```
    /// relay_ebpf::channel!(LOG);
    /// fn log_nothing() {
    ///     LOG.count_nested();
    /// }
    /// ```
    #[inline(always)]
    pub fn count_nested(&self) {
        if let Some(control) = self.control.get(sys::cpu()) {
            control.producer.lost_nested.count(1);
        }
    }

    /// Closes the open sub-buffer, if there is one, so that the reader gets it (`relay_flush`, for one CPU). Loses nothing.
    ///
    /// ```
    /// relay_ebpf::channel!(LOG);
    /// fn log_at_once() {
    ///     let _ = LOG.write(b"here");
    ///     LOG.flush();
    /// }
    /// ```
    #[inline(always)]
    #[doc(alias = "relay_flush")]
    pub fn flush(&self) {
        if let Some(buffer) = self.buffer() {
            self.writer(&buffer).flush();
        }
    }

    /// Sub-buffers produced and consumed, and records lost by cause (`relay_stats`).
    ///
    /// ```
    /// relay_ebpf::channel!(LOG);
    /// fn lost() -> u64 {
    ///     LOG.counters().map_or(0, |counters| counters.lost())
    /// }
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn counters(&self) -> Option<Counters> {
        Some(self.control.get(sys::cpu())?.counters(self.geometry()))
    }

    /// Whether every sub-buffer waits for the reader (`relay_buf_full`): the next record that needs a new one is lost, in
    /// no-overwrite mode.
    ///
    /// ```
    /// relay_ebpf::channel!(LOG);
    /// fn has_room() -> bool {
    ///     !LOG.is_full()
    /// }
    /// ```
    #[inline(always)]
    #[must_use]
    #[doc(alias = "relay_buf_full")]
    pub fn is_full(&self) -> bool {
        self.counters().is_some_and(|counters| counters.is_full(self.geometry()))
    }

    /// Whether no sub-buffer waits for the reader (`relay_buf_empty`). One may be open.
    ///
    /// ```
    /// relay_ebpf::channel!(LOG);
    /// fn reader_keeps_up() -> bool {
    ///     LOG.is_empty()
    /// }
    /// ```
    #[inline(always)]
    #[must_use]
    #[doc(alias = "relay_buf_empty")]
    pub fn is_empty(&self) -> bool {
        self.counters().is_none_or(|counters| counters.is_empty())
    }

    /// What user space asked for, by running the channel's own program.
    #[doc(hidden)]
    #[inline(always)]
    pub fn request(&self, ctx: *mut core::ffi::c_void) {
        sys::refuse_private_stack();
        let ctx = RawTracePointContext::new(ctx);
        let cpu: u32 = ctx.arg(1);
        // It runs on that CPU, or, while that is offline, on another: then nobody else writes to the buffer. Should the CPU come online
        // meanwhile, two CPUs write to it: docs/architecture.md, "Flush is a program", has why that harms nothing.
        let Some(buffer) = self.buffer_of(cpu) else { return };
        let writer = self.writer(&buffer);
        let before = buffer.control().producer.reserved.peek();
        if ctx.arg::<u64>(0) == Request::Mark as u64 {
            writer.mark();
        } else {
            writer.flush();
        }
        // A buffer wakes the reader of the CPU that runs the program: to know whose it is would cost every record.
        if cpu != sys::cpu() && buffer.control().producer.reserved.peek() != before {
            let _ = sys::wake(self.wakers, cpu);
        }
    }

    #[inline(always)]
    fn buffer(&self) -> Option<CpuBuffer> {
        self.buffer_of(sys::cpu())
    }

    #[inline(always)]
    fn buffer_of(&self, cpu: u32) -> Option<CpuBuffer> {
        let control = self.control.get(cpu)?;
        let memory = self.buffers.get_value_ptr_mut(cpu, &0)?;
        Some(CpuBuffer::new(control, memory, self.geometry().buffer_size(), self.wakers))
    }

    #[inline(always)]
    fn writer<'a>(&'a self, buffer: &'a CpuBuffer) -> Writer<'a, CpuBuffer, C> {
        let mode = if self.settings.load_parts().overwrite != 0 { Mode::Overwrite } else { Mode::NoOverwrite };
        Writer { buffer, client: &self.client, geometry: self.geometry(), mode }
    }

    #[inline(always)]
    fn geometry(&self) -> Geometry {
        Geometry::from_words(self.settings.load_parts().geometry)
    }
}

/// What [`anew`] has done.
const GRANTED: u64 = 0;
const FULL: u64 = 1;
const TOO_BIG: u64 = 2;
const NESTED: u64 = 3;
const NOT_NOW: u64 = 4;

/// Apart: once a sub-buffer, and large enough to take all registers from what is done for every record.
// VERIFIER: it returns a number, since a function without leaves in `r0` what it last had there, and the kernel lets no pointer to a stack be returned; and it
// gets memory that holds something, since the compiler may copy to the stack what was never set.
#[cold]
#[inline(never)]
fn anew<C: Client<CpuBuffer> + Copy>(
    channel: &Channel<C>,
    buffer: &CpuBuffer,
    len: u64,
    reservation: &mut Reservation,
) -> u64 {
    match channel.writer(buffer).look_and_reserve(len) {
        Some(Ok(granted)) => {
            *reservation = granted;
            GRANTED
        }
        Some(Err(Lost::TooBig)) => TOO_BIG,
        Some(Err(Lost::Full)) => FULL,
        Some(Err(Lost::Nested | Lost::NoBuffer)) => NESTED,
        None => NOT_NOW,
    }
}

/// Room for one record in the buffer of this CPU. Dropping it commits it: the reader then gets it. Bytes that were not stored hold
/// what an earlier record left there.
///
/// ```
/// # relay_ebpf::channel!(LOG);
/// fn log(pid: u32) {
///     if let Ok(record) = LOG.reserve(4) {
///         record.store(0, pid);
///         record.commit();
///     }
/// }
/// ```
#[must_use = "a record is to be filled"]
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Record<C: Client<CpuBuffer> + Copy> {
    channel: Channel<C>,
    buffer: CpuBuffer,
    reservation: Reservation,
    len: u64,
}

impl<C: Client<CpuBuffer> + Copy> Record<C> {
    /// When it was reserved, by the client's clock; zero for a client without.
    ///
    /// ```
    /// # relay_ebpf::channel!(LOG);
    /// fn log() {
    ///     if let Ok(record) = LOG.reserve(8) {
    ///         record.store(0, record.stamp());
    ///     }
    /// }
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.reservation.stamp
    }

    /// Stores a value `at` so many bytes into the record; nothing if it does not fit there.
    ///
    /// ```
    /// # relay_ebpf::channel!(LOG);
    /// fn log(pid: u32, bytes: u64) {
    ///     if let Ok(record) = LOG.reserve(12) {
    ///         record.store(0, pid);
    ///         record.store(4, bytes);
    ///     }
    /// }
    /// ```
    #[inline(always)]
    pub fn store<T: Copy>(&self, at: u64, value: T) {
        if self.has(at, size_of::<T>() as u64) {
            self.buffer.store(self.reservation.place, C::ALIGN, at, value);
        }
    }

    /// Stores 8 bytes `at` so many bytes into the record, at once whatever the alignment; nothing if they do not fit there.
    ///
    /// ```
    /// # relay_ebpf::channel!(LOG);
    /// fn log(address: u64) {
    ///     if let Ok(record) = LOG.reserve(12) {
    ///         record.store(0, 1u32);
    ///         record.store_word(4, address);
    ///     }
    /// }
    /// ```
    #[inline(always)]
    pub fn store_word(&self, at: u64, value: u64) {
        self.store_word_after(0, at, value);
    }

    /// The same `at` so many bytes after `before`, which is less than 16 KiB, and whether they fit there: where `at` is a constant, each word is a comparison and
    /// a store.
    ///
    /// ```
    /// # relay_ebpf::channel!(LOG);
    /// fn log(name: &[u8; 16], first: u64, second: u64) {
    ///     if let Ok(record) = LOG.reserve(32) {
    ///         record.store(0, *name);
    ///         record.store_word_after(16, 0, first);
    ///         record.store_word_after(16, 8, second);
    ///     }
    /// }
    /// ```
    #[inline(always)]
    pub fn store_word_after(&self, before: u64, at: u64, value: u64) -> bool {
        self.buffer.store_word(self.reservation.place, self.len, before, at, value)
    }

    /// Copies a tracepoint's fields `at` so many bytes into the record, by a program that user space has made for their size
    /// ([`sys::fields_size`]); nothing if they do not fit there.
    #[inline(always)]
    pub fn copy_fields(&self, at: u64, ctx: &TracePointContext) {
        if self.has(at, sys::fields_size()) {
            self.buffer.copy_fields(self.reservation.place, at, ctx.as_ptr());
        }
    }

    /// Copies `len` bytes of kernel memory `at` so many bytes into the record; nothing if they do not fit there. What cannot
    /// be read is zeros. Each of `at` and `len` is at most 32 KiB, `len` of 64 KiB where `at` is a constant zero.
    ///
    /// ```
    /// # relay_ebpf::channel!(LOG);
    /// # use relay_ebpf::sys::KernelAddress;
    /// fn log(structure: u64) {
    ///     if let Ok(record) = LOG.reserve(64) {
    ///         record.copy_from_kernel(0, 64, KernelAddress::new(structure));
    ///     }
    /// }
    /// ```
    #[inline(always)]
    pub fn copy_from_kernel(&self, at: u64, len: u64, source: KernelAddress) {
        if self.has(at, len) {
            self.buffer.copy_from_kernel(self.reservation.place, at, len, source);
        }
    }

    /// Copies `len` bytes of the current process's memory `at` so many bytes into the record; nothing if they do not fit
    /// there. What cannot be read, since it is not in memory or not there, is zeros.
    ///
    /// ```
    /// # relay_ebpf::channel!(LOG);
    /// # use relay_ebpf::sys::UserAddress;
    /// fn log(buffer: u64, len: u64) {
    ///     if let Ok(record) = LOG.reserve(len) {
    ///         record.copy_from_user(0, len, UserAddress::new(buffer));
    ///     }
    /// }
    /// ```
    #[inline(always)]
    pub fn copy_from_user(&self, at: u64, len: u64, source: UserAddress) {
        if self.has(at, len) {
            self.buffer.copy_from_user(self.reservation.place, at, len, source);
        }
    }

    /// Makes the record visible to the reader.
    ///
    /// ```
    /// # relay_ebpf::channel!(LOG);
    /// fn log(pid: u32) {
    ///     if let Ok(record) = LOG.reserve(4) {
    ///         record.store(0, pid);
    ///         record.commit();
    ///     }
    /// }
    /// ```
    #[inline(always)]
    pub fn commit(self) {
        // Not by dropping: that the compiler may make a function of, which gets the record by address, and the verifier loses sight of
        // what is in it.
        let record = ManuallyDrop::new(self);
        record.channel.writer(&record.buffer).commit(&record.reservation);
    }

    #[inline(always)]
    fn has(&self, at: u64, len: u64) -> bool {
        at <= self.len && len <= self.len - at
    }
}

impl<C: Client<CpuBuffer> + Copy> Drop for Record<C> {
    #[inline(always)]
    fn drop(&mut self) {
        self.channel.writer(&self.buffer).commit(&self.reservation);
    }
}
