//! A trace of relayd: what it is on disk, and how it is read. Nothing here needs a kernel, root, or the machine that recorded.
//!
//! [`mod@form`] is what lies in a trace's directory, [`condition`] the language in which events are asked for, [`read`] goes from bytes to records,
//! [`show`] from records to text, [`answers`] to sums and spans, [`export`] to other programs' files.

pub mod answers;
pub mod condition;
pub mod export;
pub mod form;
pub mod read;
#[cfg(feature = "report")]
pub mod report;
pub mod show;
pub mod similar;
