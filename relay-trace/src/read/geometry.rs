//! Which buffers would have lost nothing.

use relay_common::{
    MAX_BUFFER_SIZE,
    trace::{MAX_PAYLOAD, PACKET_HEADER, RECORD_HEADER},
};
use serde::Serialize;

use crate::form::session::{CpuAccount, SessionFile};

/// How buffers are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Bytes of a sub-buffer.
    pub subbuf_size: u64,
    /// Sub-buffers per CPU.
    pub n_subbufs: u64,
}

/// The least number of sub-buffers, of the size that the session had, in which every CPU's records would have found room with the reader as
/// slow as it was. `None` without an account, and when no buffer is large enough.
///
/// What was lost would have had to wait beside what did: so much more room is asked for, at the mean length of a record. Without a
/// loss the longest backlog is enough, and one sub-buffer to write to.
#[must_use]
pub fn enough(session: &SessionFile) -> Option<Cut> {
    let largest = 2 * (RECORD_HEADER + MAX_PAYLOAD + PACKET_HEADER);
    let too_big = session.cpus.iter().any(|cpu| cpu.lost_too_big > 0);
    let subbuf_size = if too_big { session.subbuf_size.max(largest.next_power_of_two()) } else { session.subbuf_size };
    let needed = |cpu: &CpuAccount| {
        let missing = cpu.lost().saturating_sub(cpu.lost_no_buffer).saturating_add(cpu.overrun);
        if missing == 0 {
            return cpu.max_backlog.saturating_add(1);
        }
        let mean = cpu.bytes.checked_div(cpu.in_file()).unwrap_or(RECORD_HEADER).saturating_add(1);
        let bytes = session.subbuf_size.saturating_mul(session.n_subbufs).saturating_add(missing.saturating_mul(mean));
        bytes.div_ceil(subbuf_size.max(1)).saturating_add(1)
    };
    let n_subbufs = session.cpus.iter().map(needed).max()?.max(2).checked_next_power_of_two()?;
    let fits = subbuf_size.checked_mul(n_subbufs).is_some_and(|bytes| bytes <= MAX_BUFFER_SIZE);
    fits.then_some(Cut { subbuf_size, n_subbufs })
}
