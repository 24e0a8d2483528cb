//! What the benchmarks compare the tracer with, on the same hook: a program that does nothing, one that only reads the clock and copies the
//! bytes (no recorder can be faster), a BPF ring buffer, and a BPF perf buffer. And records without a hook, in batches, through a channel and a ring buffer.
#![no_std]
#![no_main]

use aya_ebpf::{
    btf_maps::{PerCpuArray, PerfEventByteArray, RingBuf},
    macros::{btf_map, raw_tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use relay_common::{Client, ProducerWords, Word as _};
use relay_ebpf::{
    channel, license, subprogram,
    sys::{self, BpfWord, Cells, CpuBuffer, KernelAddress},
    tracepoint,
};

license!();

/// Words before the payload, as large as the tracer's record header where that is aligned to eight bytes: time, ids, task.
const HEADER_WORDS: usize = 3;
/// Bytes of the payload of `raw_syscalls:sys_enter`: a number and six arguments.
const PAYLOAD: usize = 56;
/// Bytes of a record.
const RECORD: usize = HEADER_WORDS * 8 + PAYLOAD;
/// Common fields, before the payload.
const FIELDS_AT: u64 = 8;
/// Who reads looks by himself.
const NO_WAKEUP: u64 = 1;
/// Records of a batch, as in the kernel's own benchmark of ring buffers (tools/testing/selftests/bpf/benchs/bench_ringbufs.c).
const BATCH: u32 = 500;

tracepoint!(nothing, do_nothing);
tracepoint!(bound, copy);
tracepoint!(ring_buffer, write_to_ring_buffer);
tracepoint!(perf_buffer, write_to_perf_buffer);

/// Records that did not fit into the ring buffer.
#[btf_map]
static LOST: PerCpuArray<BpfWord, 1> = PerCpuArray::new();
#[btf_map]
static COPY: PerCpuArray<Cells<16>, 1> = PerCpuArray::new();
/// What larger records are copied from.
#[btf_map]
static SOURCE: PerCpuArray<Cells<128>, 1> = PerCpuArray::new();
#[btf_map]
static RING: RingBuf<u64, 4096> = RingBuf::new();
#[btf_map]
static PERF: PerfEventByteArray = PerfEventByteArray::new();

fn do_nothing(_ctx: &TracePointContext) {}

#[raw_tracepoint]
fn raw_nothing(_ctx: RawTracePointContext) {}

/// The words before the payload.
#[inline(always)]
fn header() -> [u64; HEADER_WORDS] {
    [sys::clock(), (PAYLOAD as u64) << 16, sys::current()]
}

#[inline(always)]
fn copy(ctx: &TracePointContext) {
    let Some(copy) = COPY.get(0) else { return };
    for (index, word) in (0..).zip(header()) {
        copy.set(index, word);
    }
    copy.copy_from(HEADER_WORDS as u64, PAYLOAD as u64, KernelAddress::in_context(ctx, FIELDS_AT));
}

#[inline(always)]
fn lost() {
    if let Some(lost) = LOST.get(0) {
        lost.count(1);
    }
}

#[inline(always)]
fn write_to_ring_buffer(ctx: &TracePointContext) {
    let Some(mut record) = RING.reserve_bytes(RECORD, 0) else { return lost() };
    for (place, word) in record.as_chunks_mut().0.iter_mut().zip(header()) {
        *place = word.to_ne_bytes();
    }
    let (_, payload) = record.split_at_mut(HEADER_WORDS * 8);
    sys::copy_from_kernel(payload, KernelAddress::in_context(ctx, FIELDS_AT));
    record.submit(NO_WAKEUP);
}

/// The kernel copies the record from the stack, and counts what has no room.
#[inline(always)]
fn write_to_perf_buffer(ctx: &TracePointContext) {
    let mut record = [0; RECORD];
    for (place, word) in record.as_chunks_mut().0.iter_mut().zip(header()) {
        *place = word.to_ne_bytes();
    }
    let (_, payload) = record.split_at_mut(HEADER_WORDS * 8);
    sys::copy_from_kernel(payload, KernelAddress::in_context(ctx, FIELDS_AT));
    PERF.output(ctx, &record, 0);
}

/// The clock.
#[derive(Clone, Copy)]
struct Stamped;

impl Client<CpuBuffer> for Stamped {
    const ALIGN: u64 = 8;
    #[inline(always)]
    fn stamp(&self, _: &ProducerWords<BpfWord>) -> u64 {
        sys::clock()
    }
}

/// Records of eight bytes without a clock.
#[derive(Clone, Copy)]
struct Bare;

impl Client<CpuBuffer> for Bare {
    const ALIGN: u64 = 8;
}

channel!(STAMPED: Stamped = Stamped);
channel!(BARE: Bare = Bare);

// VERIFIER: checked once each, and not five hundred times; an argument that is not used is not passed, which is refused.
subprogram! {
    fn write_stamped(number: u64) -> u64 {
        if let Ok(record) = STAMPED.reserve(8) {
            record.store(0, record.stamp());
            record.commit();
        }
        number
    }
}
subprogram! {
    fn write_bare(number: u64) -> u64 {
        if let Ok(record) = BARE.reserve(8) {
            record.store(0, number);
            record.commit();
        }
        number
    }
}

/// Records of larger sizes, copied from memory: to the channel, and to the ring buffer.
macro_rules! sized {
    ($($size:literal: $write:ident, $reserve:ident);+) => { $(
        subprogram! {
            fn $write(number: u64) -> u64 {
                if let (Some(source), Ok(record)) = (SOURCE.get(0), BARE.reserve($size)) {
                    record.copy_from_kernel(0, $size, KernelAddress::of(source));
                    record.commit();
                }
                number
            }
        }
        subprogram! {
            fn $reserve(number: u64) -> u64 {
                match (SOURCE.get(0), RING.reserve_bytes($size, 0)) {
                    (Some(source), Some(mut record)) => {
                        sys::copy_from_kernel(&mut record, KernelAddress::of(source));
                        record.submit(NO_WAKEUP);
                    }
                    (None, Some(record)) => record.discard(NO_WAKEUP),
                    (_, None) => lost(),
                }
                number
            }
        }
    )+ };
}
sized!(64: write_64, reserve_64; 256: write_256, reserve_256; 1024: write_1024, reserve_1024);

subprogram! {
    fn reserve_stamped(number: u64) -> u64 {
        submit(sys::clock());
        number
    }
}
subprogram! {
    fn reserve_bare(number: u64) -> u64 {
        submit(number);
        number
    }
}
subprogram! {
    /// What it costs to be called.
    fn call(number: u64) -> u64 {
        number
    }
}

#[inline(always)]
fn submit(word: u64) {
    match RING.reserve_bytes(8, 0) {
        Some(mut record) => {
            record.copy_from_slice(&word.to_ne_bytes());
            record.submit(NO_WAKEUP);
        }
        None => lost(),
    }
}

macro_rules! batches {
    ($($name:ident: $write:ident),+) => { $(
        #[raw_tracepoint]
        fn $name(_ctx: RawTracePointContext) {
            for number in 0..BATCH {
                $write(number.into());
            }
        }
    )+ };
}

batches!(batch_of_nothing: call, batch_to_channel: write_bare, batch_to_channel_stamped: write_stamped,
    batch_to_ring: reserve_bare, batch_to_ring_stamped: reserve_stamped, batch_of_64_to_channel: write_64,
    batch_of_256_to_channel: write_256, batch_of_1024_to_channel: write_1024, batch_of_64_to_ring: reserve_64,
    batch_of_256_to_ring: reserve_256, batch_of_1024_to_ring: reserve_1024);
