//! The one recipe for the eBPF objects, for `cargo xtask` and for the build scripts that embed them.
#![forbid(unsafe_code)]

pub mod btf;
pub mod ebpf;
