//! The kernel side of a relay channel, for any eBPF program.
//!
//! [`mod@channel`] is what a program writes through. It knows sub-buffers and nothing of what the bytes mean; the
//! protocol itself is in [`relay_common`]. [`mod@klog`] logs text into a channel. [`sys`] holds every unsafe operation of the
//! kernel side.
//!
//! # Building a program of your own
//!
//! With a nightly Rust, rust-src, and the bpf-linker that fits its LLVM (`cargo xtask build-ebpf` in relayd's repository installs
//! both), a binary of its own package, `#![no_std]` and `#![no_main]`, and this `.cargo/config.toml`:
//!
//! ```toml
//! [build]
//! target = "bpfel-unknown-none"
//! rustflags = [
//!     "-Ctarget-cpu=v3", "-Cdebuginfo=2", "-Clinker=bpf-linker", "-Clink-arg=--btf",
//!     "--cfg=bpf_target_arch=\"x86_64\"",
//! ]
//!
//! [unstable]
//! build-std = ["core"]
//! ```
//!
//! Build it with `cargo build --release`. In user space `relay_channel::channel::load` takes the object. Where relayd's own
//! programs are not needed, `RELAYD_SKIP_EBPF=1` in the environment builds `relay-daemon` without them, on stable Rust.
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
