//! Writes a record for every kernel allocation of the slab allocator and for every time that one is freed.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "offsets in an event have 16 bits")]

#[path = "../../src/record.rs"]
mod record;

use aya_ebpf::programs::TracePointContext;
use record::Record;
use relay_ebpf::{channel, license, setting, sys, tracepoint};

channel!(ALLOCATIONS);
license!();

// Where the fields are, in bytes from the start of each event.
const CALL_SITE: u16 = 8;
const POINTER: u16 = 16;
// These differ between kernels: user space looks them up.
setting!(KMALLOC_BYTES_AT: u32 = sys::UNSET);
setting!(CACHE_BYTES_AT: u32 = sys::UNSET);

tracepoint!(on_kmalloc("kmem/kmalloc"), allocated);
tracepoint!(on_cache_alloc("kmem/kmem_cache_alloc"), allocated_from_cache);
tracepoint!(on_kfree("kmem/kfree"), freed);
tracepoint!(on_cache_free("kmem/kmem_cache_free"), freed);

#[inline(always)]
fn allocated(ctx: &TracePointContext) {
    write(ctx, sys::context_u64(ctx, KMALLOC_BYTES_AT.load() as u16));
}

#[inline(always)]
fn allocated_from_cache(ctx: &TracePointContext) {
    write(ctx, sys::context_u64(ctx, CACHE_BYTES_AT.load() as u16));
}

#[inline(always)]
fn freed(ctx: &TracePointContext) {
    write(ctx, 0);
}

#[inline(always)]
fn write(ctx: &TracePointContext, bytes: u64) {
    // Lost records are counted, and the report says so.
    if let Ok(record) = ALLOCATIONS.reserve(size_of::<Record>() as u64) {
        let (call_site, pointer) = (sys::context_u64(ctx, CALL_SITE), sys::context_u64(ctx, POINTER));
        record.store(0, Record { time: sys::clock(), call_site, pointer, bytes });
        record.commit();
    }
}
