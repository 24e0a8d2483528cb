//! The tracer: a client of the channel that records kernel events as CTF.
//!
//! [`events`] finds tracepoints and their layouts, [`binary`] finds functions and [`usdt`] probes of programs and libraries,
//! [`programs`] loads what runs at them, [`metadata`] describes the records in CTF's own language, [`session`] is the account
//! that goes beside the trace, [`recorder`] runs it all.

pub mod binary;
pub mod directory;
mod elf;
pub mod events;
pub mod format;
pub mod metadata;
pub mod programs;
pub mod recorder;
pub mod registers;
pub mod session;
pub mod usdt;
