//! relayd's user-space half, and the library for other clients of the channel.
//!
//! Layers, each ignorant of those below it in this list: [`channel`] makes the maps that the kernel side writes to;
//! [`consumer`] and [`readers`] are librelay: they take ready sub-buffers and write `cpuN` files; [`mod@klog`] and [`tracer`] are
//! clients of both, and say what the bytes mean. [`pins`] keeps what is to outlive a process. [`machine`] asks the machine what it has, [`environment`] whether
//! this process may record there. [`reading`] needs none of them to run: it
//! reads what the tracer has written.
//!
//! Examples that need root are compiled and not run: `tests/kernel/library.rs` runs what they show.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("relayd knows the registers of x86-64 and arm64, and of no other machine");

pub mod bpf;
pub mod channel;
pub mod consumer;
pub mod environment;
mod hotplug;
pub mod klog;
pub mod machine;
pub mod pins;
pub mod readers;
#[doc(hidden)]
pub mod reading;
#[doc(hidden)]
pub mod sys;
#[doc(hidden)]
pub mod tracer;
