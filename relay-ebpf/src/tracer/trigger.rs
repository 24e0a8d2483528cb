//! The record that ends the recording: so that what led to it is not overwritten, programs stop by themselves, on every CPU.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use relay_common::{Word as _, rows::Trigger};
use relay_ebpf::{
    setting,
    sys::{self, BpfWord},
};

// Whether this session can be ended so.
setting!(TRIGGERS: u32 = sys::UNSET);

#[btf_map]
static TRIGGER: Array<Trigger<BpfWord>, 1> = Array::new();

/// Whether the end has come.
#[inline(always)]
pub(crate) fn has_ended() -> bool {
    if TRIGGERS.load() == 0 {
        return false;
    }
    let end = TRIGGER.get(0).map_or(0, |trigger| trigger.end.peek());
    end != 0 && sys::clock() > end
}

/// An event that ends the recording was recorded, at `time`. The first one does.
#[inline(always)]
pub(crate) fn fire(event: u16, time: u64) {
    if let Some(trigger) = TRIGGER.get(0)
        && trigger.time.peek() == 0
        && trigger.time.exchange_if(0, time)
    {
        let _ = trigger.event.swap(event.into());
        let _ = trigger.cpu.swap(sys::cpu().into());
        // Last: whoever sees the end sees what it ended by.
        let _ = trigger.end.swap(time + trigger.after.peek());
    }
}
