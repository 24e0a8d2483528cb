//! Writes the bytes that user space asks for into a channel: the plainest client there can be.
#![no_std]
#![no_main]

use aya_ebpf::{
    btf_maps::Array,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use relay_common::{Client, Closing, Producer};
use relay_ebpf::{
    channel::{BuffersMap, Channel, ControlMap, Settings, WakersMap},
    license, setting,
    sys::{BpfWord, CpuBuffer, KernelAddress},
};

#[btf_map]
static CONTROL: ControlMap = ControlMap::new();
#[btf_map]
static BUFFERS: BuffersMap = BuffersMap::new();
#[btf_map]
static WAKERS: WakersMap = WakersMap::new();
setting!(SETTINGS: Settings = Settings::UNSET);
license!();

const CHANNEL: Channel = Channel { control: &CONTROL, buffers: &BUFFERS, wakers: &WAKERS, settings: &SETTINGS };

/// What the next write writes.
#[btf_map]
static BYTES: Array<[u8; 16384], 1> = Array::new();

struct Bytes;

impl Client<CpuBuffer> for Bytes {
    const HEADER: u64 = 0;
    const ALIGN: u64 = 1;
    fn stamp(&self, _: &Producer<BpfWord>) -> u64 {
        0
    }
    fn stamped(&self, _: &Producer<BpfWord>, _: u64) {}
    fn open(&self, _: &CpuBuffer, _: u64, _: u64, _: u64) {}
    fn close(&self, _: &CpuBuffer, _: u64, _: Closing) {}
}

/// Flushes when the first argument is zero, else writes as many bytes as the second says.
#[raw_tracepoint]
fn on_request(ctx: RawTracePointContext) {
    let Some(buffer) = CHANNEL.buffer(true) else { return };
    let writer = CHANNEL.writer(&buffer, &Bytes);
    if ctx.arg::<u64>(0) == 0 {
        writer.flush();
        return;
    }
    let len: u64 = ctx.arg(1);
    let Some(bytes) = BYTES.get(0) else { return };
    let Ok(record) = writer.reserve(len) else { return };
    buffer.copy_from_kernel(record.place, 0, len, KernelAddress::of(bytes));
    writer.commit(&record);
}
