//! The tracer: a client of the channel that records kernel events as CTF.
//!
//! [`events`] finds tracepoints and their layouts, [`btf`] the kernel's types, [`path`] where values lie in them; [`programs`]
//! loads what runs at events, [`metadata`] describes the records in CTF's own language, [`session`] is the account that goes
//! beside the trace, [`recorder`] runs it all.

pub mod btf;
pub mod directory;
pub mod events;
pub mod format;
pub mod metadata;
pub mod path;
pub mod programs;
pub mod recorder;
pub mod session;
