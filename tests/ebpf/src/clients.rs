//! Clients of three channels in one object: numbered records, records that carry a checksum, and callbacks that are counted.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "a place in a record of at most 32 words")]

use aya_ebpf::{
    btf_maps::PerCpuArray,
    macros::{btf_map, fentry, kprobe, perf_event, raw_tracepoint, uprobe},
    programs::{FEntryContext, PerfEventContext, ProbeContext, RawTracePointContext, TracePointContext},
};
use relay_common::{Client, Closing, ProducerWords, Word as _};
use relay_ebpf::{
    channel, license,
    sys::{self, BpfWord, CpuBuffer},
    tracepoint,
};

license!();

// Numbered records: the number is the client's stamp, so that it rises in the order of the buffer, without gaps. That takes
// writers that do not interrupt one another.

#[btf_map]
static NEXT: PerCpuArray<BpfWord, 1> = PerCpuArray::new();

/// A clock that counts the records of its CPU: every record moves it on.
#[derive(Clone, Copy)]
struct Numbers;

impl Client<CpuBuffer> for Numbers {
    const ALIGN: u64 = 8;
    #[inline(always)]
    fn stamp(&self, _: &ProducerWords<BpfWord>) -> u64 {
        NEXT.get(0).map_or(0, |next| next.peek())
    }
}

channel!(NUMBERED: Numbers = Numbers);

/// A record of 32 bytes for every system call: its number, and three words that follow from it.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn number(_ctx: RawTracePointContext) {
    if let Ok(record) = NUMBERED.reserve(32) {
        let number = record.stamp();
        record.store(0, number);
        record.store(8, !number);
        record.store(16, number ^ 0x5555_5555_5555_5555);
        record.store(24, number.wrapping_mul(3));
        if let Some(next) = NEXT.get(0) {
            let _ = next.swap(number + 1);
        }
        record.commit();
    }
}

// Records of many lengths, each with a checksum, from programs that interrupt one another.

channel!(CHECKED);

/// Most words of such a record.
const MOST: u64 = 32;

/// Writes a record of 4 to `MOST` words: length in bytes and writer, when it began, noise, when it ended, and a checksum.
#[inline(always)]
fn check(writer: u64) {
    let began = sys::clock();
    let words = 5 + (began >> 3) % (MOST - 5);
    let Ok(record) = CHECKED.reserve(words * 8) else { return };
    let mut sum = 0;
    let mut put = |at: u64, word: u64| {
        record.store(at * 8, word);
        sum ^= word.rotate_left(at as u32);
    };
    put(0, ((words * 8) << 32) | writer);
    put(1, began);
    for at in 2..MOST {
        if at < words - 2 {
            put(at, began.wrapping_mul(at | 1));
        }
    }
    put(words - 2, sys::clock());
    record.store((words - 1) * 8, sum);
    record.commit();
}

#[perf_event]
fn check_sample(_ctx: PerfEventContext) -> u32 {
    check(1);
    0
}

#[raw_tracepoint(tracepoint = "sys_enter")]
fn check_enter(_ctx: RawTracePointContext) {
    check(2);
}

#[raw_tracepoint(tracepoint = "sys_exit")]
fn check_exit(_ctx: RawTracePointContext) {
    check(3);
}

#[raw_tracepoint(tracepoint = "hrtimer_expire_entry")]
fn check_timer(_ctx: RawTracePointContext) {
    check(4);
}

#[raw_tracepoint(tracepoint = "sched_switch")]
fn check_switch(_ctx: RawTracePointContext) {
    check(5);
}

tracepoint!(check_tracepoint("sched/sched_process_exec"), on_tracepoint);

fn on_tracepoint(_ctx: &TracePointContext) {
    check(6);
}

#[uprobe]
fn check_uprobe(_ctx: ProbeContext) -> u32 {
    check(7);
    0
}

#[kprobe]
fn check_kprobe(_ctx: ProbeContext) -> u32 {
    check(8);
    0
}

#[fentry(function = "vfs_read")]
fn check_fentry(_ctx: FEntryContext) -> i32 {
    check(9);
    0
}

// Callbacks, counted.

/// How often each callback was called on a CPU: start, end, full, recovered.
#[btf_map]
static CALLS: PerCpuArray<[BpfWord; 4], 1> = PerCpuArray::new();

#[derive(Clone, Copy)]
struct Calls;

impl Calls {
    #[inline(always)]
    fn count(&self, index: usize) {
        if let Some(calls) = CALLS.get(0) {
            calls[index].count(1);
        }
    }
}

impl Client<CpuBuffer> for Calls {
    const HEADER: u64 = 8;
    #[inline(always)]
    fn subbuf_start(&self, buffer: &CpuBuffer, place: u64, number: u64, _: u64) {
        relay_common::Buffer::store_u64(buffer, place, number);
        self.count(0);
    }
    #[inline(always)]
    fn subbuf_end(&self, _: &CpuBuffer, _: u64, _: Closing) {
        self.count(1);
    }
    #[inline(always)]
    fn buf_full(&self, _: &CpuBuffer) {
        self.count(2);
    }
    #[inline(always)]
    fn buf_recovered(&self, _: &CpuBuffer) {
        self.count(3);
    }
}

channel!(CALLED: Calls = Calls);

/// Run by the test: writes as many records of 8 bytes as the first argument says, at most 64, and returns nothing.
#[raw_tracepoint]
fn call(ctx: RawTracePointContext) {
    let count: u64 = ctx.arg(0);
    for i in 0..64u64 {
        if i < count {
            let _ = CALLED.write(&i.to_ne_bytes());
        }
    }
}

/// Run by the test: what the channel says of itself, as a record in another: full, empty, produced, consumed, lost.
#[raw_tracepoint]
fn state(_ctx: RawTracePointContext) {
    let Some(counters) = CALLED.counters() else { return };
    if let Ok(record) = CHECKED.reserve(40) {
        record.store(0, u64::from(CALLED.is_full()));
        record.store(8, u64::from(CALLED.is_empty()));
        record.store(16, counters.produced);
        record.store(24, counters.consumed);
        record.store(32, counters.lost());
        record.commit();
    }
    CHECKED.flush();
}

// What is measured of the kernel itself.

/// What the kernel does at a hook by itself.
#[raw_tracepoint]
fn nothing(_ctx: RawTracePointContext) {}

/// Readings of the clock by one run.
const READINGS: u32 = 1000;

/// How often the clock of a CPU was behind the reading before, and by how much at most.
#[btf_map]
static FALLS: PerCpuArray<[BpfWord; 2], 1> = PerCpuArray::new();

/// Reads the clock again and again.
#[raw_tracepoint]
fn read_clock(_ctx: RawTracePointContext) {
    let Some([falls, furthest]) = FALLS.get(0) else { return };
    let mut last = sys::clock();
    for _ in 0..READINGS {
        let now = sys::clock();
        if now < last {
            falls.count(1);
            let _ = furthest.swap(furthest.peek().max(last - now));
        }
        last = now;
    }
}
