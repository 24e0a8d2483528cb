//! How eBPF objects are built: the one recipe, for the build scripts that embed them and for `cargo xtask`.
#![forbid(unsafe_code)]

pub mod btf;
pub mod ebpf;
