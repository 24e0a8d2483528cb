//! Matching text with the session's patterns, a byte a step (`relay_common::recipe::Pattern`).

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use relay_common::recipe::{MAX_TEXT, Pattern};
use relay_ebpf::sys::Workspace;

/// All patterns: first those of `--comm`, then those of conditions.
#[btf_map]
static PATTERNS: Array<Pattern, 1> = Array::new();

/// Whether a thread's name matches a pattern.
#[inline(always)]
pub(crate) fn name_matches(pattern: u32, name: &[u8; 16]) -> bool {
    let Some(pattern) = PATTERNS.get(pattern) else { return false };
    let mut state = Pattern::start(pattern.runs);
    for byte in name {
        if *byte == 0 {
            break;
        }
        state = Pattern::step(pattern.runs, state, pattern.bytes[usize::from(*byte)]);
    }
    state & pattern.end != 0
}

/// Whether the text that a workspace looks at matches a pattern.
#[inline(always)]
pub(crate) fn text_matches(pattern: u32, workspace: &Workspace) -> bool {
    let Some(pattern) = PATTERNS.get(pattern) else { return false };
    let mut state = Pattern::start(pattern.runs);
    // The last byte is always the NUL.
    for at in 0..MAX_TEXT {
        let byte = workspace.text(at);
        if byte == 0 {
            break;
        }
        state = Pattern::step(pattern.runs, state, pattern.bytes[usize::from(byte)]);
    }
    state & pattern.end != 0
}
