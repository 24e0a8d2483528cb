//! The writer's end of a relay channel in eBPF: from a program's maps to a [`Writer`] on this CPU's buffer.
//!
//! A program declares three maps and the settings, and user space makes the maps at the geometry it wants.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, RingBuf},
};
use relay_common::{Client, Control, Geometry, Mode, Word, Writer};

use crate::sys::{self, BpfWord, CpuBuffer, Setting};

/// One row per possible CPU.
pub type ControlMap = Array<Control<BpfWord>, 1, { BPF_F_MMAPABLE as usize }>;
/// One buffer per CPU. Here only the shape is declared: user space makes outer and inner maps at run time,
/// and the verifier checks against those.
pub type BuffersMap = ArrayOfMaps<Array<u8, 1>, 1>;
/// One small ring buffer per CPU, to wake its reader.
pub type WakersMap = ArrayOfMaps<RingBuf<u32, 4096>, 1>;

/// What user space sets before loading; constants to the verifier.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Settings {
    /// Base-2 logarithm of the sub-buffer size.
    pub subbuf_shift: u32,
    /// Base-2 logarithm of the number of sub-buffers.
    pub n_subbufs_shift: u32,
    /// Not zero for overwrite mode.
    pub overwrite: u32,
}

impl Settings {
    /// What stands in the object until user space sets it.
    pub const UNSET: Self = Self { subbuf_shift: sys::UNSET, n_subbufs_shift: sys::UNSET, overwrite: sys::UNSET };
}

/// A channel, as the eBPF program declares it.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Channel {
    /// The control rows.
    pub control: &'static ControlMap,
    /// The buffers.
    pub buffers: &'static BuffersMap,
    /// The readers' wakers.
    pub wakers: &'static WakersMap,
    /// Geometry and mode.
    pub settings: &'static Setting<Settings>,
}

impl Channel {
    /// This CPU's buffer.
    ///
    /// `None` when the CPU has none: that is counted as a loss if `counts`.
    #[inline(always)]
    #[must_use]
    pub fn buffer(&self, counts: bool) -> Option<CpuBuffer> {
        let cpu = sys::cpu();
        let control = self.control.get(cpu)?;
        let Some(memory) = self.buffers.get_value_ptr_mut(cpu, &0) else {
            if counts {
                control.producer.lost_no_buffer.count(1);
            }
            return None;
        };
        Some(CpuBuffer::new(control, memory, self.geometry().buffer_size(), self.wakers, cpu))
    }

    /// A writer on a buffer of this channel, for a client.
    #[inline(always)]
    pub fn writer<'a, C: Client<CpuBuffer>>(&self, buffer: &'a CpuBuffer, client: &'a C) -> Writer<'a, CpuBuffer, C> {
        let mode = if self.settings.load().overwrite != 0 { Mode::Overwrite } else { Mode::NoOverwrite };
        Writer { buffer, client, geometry: self.geometry(), mode }
    }

    #[inline(always)]
    fn geometry(&self) -> Geometry {
        let settings = self.settings.load();
        Geometry::from_shifts(settings.subbuf_shift, settings.n_subbufs_shift)
    }
}
