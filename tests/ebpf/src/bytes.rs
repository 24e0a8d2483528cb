//! Writes the bytes that user space asks for into a channel: the plainest client there can be.
#![no_std]
#![no_main]

use aya_ebpf::{
    btf_maps::Array,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use relay_ebpf::{channel, license, sys::KernelAddress};

channel!(BYTES);
license!();

/// What the next write writes.
#[btf_map]
static SOURCE: Array<[u8; 16384], 1> = Array::new();

/// Writes as many bytes of the source as the first argument says.
#[raw_tracepoint]
fn on_write(ctx: RawTracePointContext) {
    let len: u64 = ctx.arg(0);
    let Some(source) = SOURCE.get(0) else { return };
    if let Ok(record) = BYTES.reserve(len) {
        record.copy_from_kernel(0, len, KernelAddress::of(source));
        record.commit();
    }
}
