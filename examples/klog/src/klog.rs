//! Logs a line for every process that starts or ends.
//!
//! Copy this to log from programs of your own: declare the channel `KLOG`, call `klog!` from any program, and give the object
//! that you build to `relayd klog`. It attaches every program whose attribute says where to.
#![no_std]
#![no_main]

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use relay_ebpf::{
    channel, klog, license,
    sys::{self, KernelAddress},
};

channel!(KLOG);
license!();

#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn on_exec(_ctx: RawTracePointContext) {
    let comm = sys::comm();
    // A line that is lost is counted, and relayd says so.
    let _ = klog!(KLOG, "%s[%d] started", KernelAddress::of(&comm), sys::current() >> 32);
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn on_exit(_ctx: RawTracePointContext) {
    let comm = sys::comm();
    let (process, thread) = (sys::current() >> 32, sys::current() & 0xffff_ffff);
    if process == thread {
        let _ = klog!(KLOG, "%s[%d] ended", KernelAddress::of(&comm), process);
    }
}
