//! The kernel side of a relay channel, for any eBPF program.
//!
//! [`mod@channel`] is what a program writes through. It knows sub-buffers and nothing of what the bytes mean; the
//! protocol itself is in [`relay_common`]. [`mod@klog`] logs text into a channel. [`sys`] holds every unsafe operation of the
//! kernel side.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "BPF has no core::sync::atomic"))]

pub mod channel;
pub mod klog;
pub mod sys;

pub use relay_common;

/// No path of these programs panics; one that did would not pass the verifier.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
