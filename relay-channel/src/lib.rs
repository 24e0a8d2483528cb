//! User space of a relay channel that eBPF programs write to, for any program of yours: `relay-ebpf` is its kernel side.
//!
//! [`channel`] makes the maps that the kernel side writes to; [`consumer`] and [`readers`] are librelay: they take ready sub-buffers and
//! give them to an [`output`], a `cpuN` file; [`snapshot`] copies what is being written. [`mod@klog`] is a client of both. [`pins`] keeps what is to outlive a process. [`machine`] asks the machine what it has, [`bpf`]
//! makes objects fit its kernel.
//!
//! Examples that need root are compiled and not run: `tests/kernel/library.rs` runs what they show.

pub mod bpf;
pub mod channel;
pub mod consumer;
mod hotplug;
pub mod klog;
pub mod machine;
pub mod output;
pub mod pins;
pub mod readers;
pub mod snapshot;
#[doc(hidden)]
pub mod sys;
