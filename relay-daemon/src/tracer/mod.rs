//! The tracer: a client of the channel that records kernel events as CTF.
//!
//! [`events`] finds tracepoints and their layouts, [`expression`] is the condition of an event, [`programs`] loads what runs at them, [`metadata`] describes the
//! records in CTF's own language, [`session`] is the account that goes beside the trace, [`recorder`] runs it all.

pub mod directory;
pub mod events;
pub mod expression;
pub mod format;
pub mod metadata;
pub mod programs;
pub mod recorder;
pub mod session;
