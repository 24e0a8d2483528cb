//! The tracer's programs: what runs at every event, and what the daemon runs to control a buffer.
//!
//! Events are written as `relay_common::trace` lays them out. The channel is `relay_ebpf::channel`.
#![no_std]
#![no_main]

use aya_ebpf::{
    btf_maps::PerCpuArray,
    macros::{btf_map, raw_tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::warn;
use relay_common::{
    Lost, Word,
    trace::{COMMON_FIELDS, Clock, Cookie, MAX_PAYLOAD, Packets, RECORD_HEADER, RecordHeader, Request},
};
use relay_ebpf::{
    channel, license, setting,
    sys::{self, BpfWord, KernelAddress},
    tracepoint,
};

channel!(EVENTS: Packets<KernelClock> = Packets { clock: KernelClock });
license!();

// Whether a program of this session can run in NMI context.
setting!(NMI: u32 = sys::UNSET);

/// Whose events are left out: a process, as the kernel numbers it ([`Request::Start`] tells; in a container the recorder
/// itself does not know), [`NOBODY`], or zero for everybody's, while the session is not recording.
static RECORDER: BpfWord = BpfWord::zero();

/// No process has this number.
const NOBODY: u64 = u64::MAX;

/// What one CPU keeps beside its buffer.
#[repr(C)]
struct Local {
    /// Events of the recorder, left out.
    own: BpfWord,
    /// Events while the session was not recording, left out.
    outside: BpfWord,
    /// When a full buffer was last spoken of, in nanoseconds.
    noticed: BpfWord,
}

#[btf_map]
static LOCAL: PerCpuArray<Local, 1> = PerCpuArray::new();

/// Least time between two notices of one CPU, in nanoseconds.
const NOTICE_INTERVAL: u64 = 1_000_000_000;

/// The clock of the records.
#[derive(Clone, Copy)]
struct KernelClock;

impl Clock for KernelClock {
    #[inline(always)]
    fn now(&self) -> u64 {
        sys::clock()
    }
    #[inline(always)]
    fn steps_back(&self) -> bool {
        NMI.load() != 0
    }
}

tracepoint!(on_tracepoint, record);

/// Records an event of any tracepoint: the cookie says which.
#[inline(always)]
fn record(ctx: &TracePointContext) {
    let current = sys::current();
    let recorder = RECORDER.peek();
    if recorder == 0 || recorder == current >> 32 {
        if let Some(local) = LOCAL.get(0) {
            let count = if recorder == 0 { &local.outside } else { &local.own };
            count.count(1);
        }
        return;
    }
    let event = Cookie::unpack(sys::cookie(ctx));
    let len = payload_len(ctx, event);
    match EVENTS.reserve(RECORD_HEADER + len) {
        Ok(record) => {
            record.store(0, RecordHeader::new(record.stamp(), event.id, len, current));
            record.copy_from_kernel(RECORD_HEADER, len, KernelAddress::in_context(ctx, COMMON_FIELDS));
            record.commit();
        }
        Err(Lost::Full) => notice_full(ctx),
        Err(Lost::NoBuffer) => notice_no_buffer(ctx),
        Err(Lost::TooBig | Lost::Nested) => {}
    }
}

/// Bytes of an event's fields, from the end of the common ones to the end of the dynamic ones.
#[inline(always)]
fn payload_len(ctx: &TracePointContext, event: Cookie) -> u64 {
    let mut end = u64::from(event.size);
    if event.last_loc != 0 {
        let loc = sys::context_u32(ctx, event.last_loc);
        let base = if event.relative { u64::from(event.last_loc) + 4 } else { 0 };
        // Never less than the fixed part, whatever the word holds: the readers count on that.
        end = end.max(base + u64::from(loc & 0xffff) + u64::from(loc >> 16));
    }
    end.saturating_sub(COMMON_FIELDS).min(MAX_PAYLOAD)
}

/// Run by the daemon, by BPF_PROG_TEST_RUN, in its own context: so the kernel says who that is.
#[raw_tracepoint]
fn on_request(ctx: RawTracePointContext) {
    let request: u64 = ctx.arg(0);
    let record_self: u64 = ctx.arg(1);
    let recorder = if record_self == 0 { sys::current() >> 32 } else { NOBODY };
    let _ = RECORDER.swap(if request == Request::Start as u64 { recorder } else { 0 });
}

/// Whether to speak now: at most once a second on each CPU.
#[inline(always)]
fn may_notice() -> bool {
    let Some(local) = LOCAL.get(0) else { return false };
    let (now, last) = (sys::clock(), local.noticed.peek());
    (last == 0 || now.saturating_sub(last) > NOTICE_INTERVAL) && local.noticed.exchange_if(last, now)
}

#[inline(never)]
fn notice_full(ctx: &TracePointContext) {
    if may_notice() {
        warn!(ctx, "cpu {}: buffer full, records are being lost", sys::cpu());
    }
}

#[inline(never)]
fn notice_no_buffer(ctx: &TracePointContext) {
    if may_notice() {
        warn!(ctx, "cpu {}: no buffer, records are being lost", sys::cpu());
    }
}
