//! klog: log text, as the kernel's `printf` makes it, from any eBPF program into a channel.
//!
//! A thin wrapper on [`Channel::write`](crate::channel::Channel::write), as klog was on `relay_write`: it knows text, and nothing of
//! probes. Every line is a record, and begins with the time; `relayd klog` shows them.

use relay_common::{Client, Lost};

use crate::{
    channel::Channel,
    sys::{self, CpuBuffer, KernelAddress, UserAddress},
};

/// Longest line, in bytes, with its time and its end: longer text is cut off. It is made on the stack: a program and the functions that it calls
/// have 512 bytes together, of which the channel takes 160 where it opens a sub-buffer.
pub const LINE: usize = 160;

/// Logs a line of text into a channel: `klog!(CHANNEL, "format", arguments…)`.
///
/// The format is the kernel's (`bpf_snprintf`), not Rust's: `%d %u %x %ld %lu %lx %s %p …`, with `%s` for a kernel string and `%pus` for a
/// user string. Arguments are integers, [`KernelAddress`]es and [`UserAddress`]es. The value is that of
/// [`Channel::write`](crate::channel::Channel::write).
///
/// ```
/// use relay_ebpf::{channel, klog, sys};
///
/// channel!(KLOG);
///
/// fn on_something(fd: i32) {
///     let comm = sys::comm();
///     let _ = klog!(KLOG, "%s uses descriptor %d", sys::KernelAddress::of(&comm), fd);
/// }
/// ```
#[macro_export]
macro_rules! klog {
    ($channel:expr, $format:literal $(, $argument:expr)* $(,)?) => {{
        static FORMAT: &[u8] = concat!("[%5llu.%06llu] ", $format, "\0").as_bytes();
        $crate::klog::line(&$channel, FORMAT, |seconds, micros| {
            [seconds, micros $(, $crate::klog::Argument::bits($argument))*]
        })
    }};
}

/// What [`klog!`](crate::klog!) takes as an argument.
///
/// ```
/// use relay_ebpf::klog::Argument;
///
/// assert_eq!((-1i32).bits(), u64::MAX);
/// ```
pub trait Argument {
    /// As the kernel's `printf` gets it.
    ///
    /// ```
    /// assert_eq!(relay_ebpf::klog::Argument::bits(7u8), 7);
    /// ```
    fn bits(self) -> u64;
}

macro_rules! integers {
    ($($unsigned:ty, $signed:ty);+) => { $(
        impl Argument for $unsigned {
            #[inline(always)]
            fn bits(self) -> u64 {
                self as u64
            }
        }
        impl Argument for $signed {
            #[inline(always)]
            fn bits(self) -> u64 {
                i64::from(self).cast_unsigned()
            }
        }
    )+ };
}
integers!(u8, i8; u16, i16; u32, i32; u64, i64);

impl Argument for KernelAddress {
    #[inline(always)]
    fn bits(self) -> u64 {
        self.address()
    }
}

impl Argument for UserAddress {
    #[inline(always)]
    fn bits(self) -> u64 {
        self.address()
    }
}

/// What [`klog!`](crate::klog!) calls: a format that begins with the time, and what makes the arguments of it.
///
/// # Errors
/// Why the line was lost.
#[doc(hidden)]
#[inline(always)]
pub fn line<C: Client<CpuBuffer> + Copy, const ARGS: usize>(
    channel: &Channel<C>,
    format: &'static [u8],
    arguments: impl FnOnce(u64, u64) -> [u64; ARGS],
) -> Result<(), Lost> {
    let now = sys::clock();
    let mut text = [0; LINE];
    let len = sys::format(&mut text, format, &arguments(now / 1_000_000_000, now / 1000 % 1_000_000));
    let record = channel.reserve(len + 1)?;
    record.copy_from_kernel(0, len, KernelAddress::of(&text));
    record.store(len, b'\n');
    record.commit();
    Ok(())
}
