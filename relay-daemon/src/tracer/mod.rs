//! The tracer: a client of the channel that records kernel events as CTF.
//!
//! From what the user asks for to events: [`spec`] takes it apart, [`probes`] finds what is meant, with [`events`] (tracepoints), [`symbols`],
//! [`btf`] and [`path`] (the kernel's types), [`binary`], [`usdt`] and [`registers`] (programs and libraries); [`arguments`] and
//! [`layout`] say how values are fetched and where they lie in the record, [`choice`] whose events are wanted. `calls` brings many system calls together,
//! [`object`] and
//! [`loader`] bring into the kernel what runs at events, [`programs`] is what is there, [`standing`] a session of it that is pinned.
//! [`metadata`] describes the records in CTF's own language, [`session`] is the account that goes beside the trace; [`recorder`] writes a trace, `ending` its end,
//! `rotation` in [`pieces`], [`snapshot`] of what a session holds; [`status`] looks at one. [`listing`] says beforehand what there is; [`symbolize`] names the
//! addresses of stacks afterwards, by what `addresses` has kept, [`tasks`] keeps the names of threads.

mod addresses;
pub mod arguments;
mod attach;
pub mod binary;
pub mod btf;
pub(crate) mod builds;
mod calls;
pub mod choice;
pub mod directory;
mod elf;
mod ending;
pub mod events;
pub mod expression;
pub mod format;
pub mod hook;
mod instructions;
mod kallsyms;
pub mod layout;
pub mod listing;
pub mod loader;
pub mod metadata;
pub mod object;
mod packets;
pub mod path;
pub mod pieces;
mod preemption;
pub mod probes;
pub mod programs;
pub mod recorder;
pub mod registers;
mod rotation;
pub mod selection;
pub mod session;
pub mod snapshot;
pub mod spec;
pub mod standing;
pub mod status;
pub mod symbolize;
pub mod symbols;
pub mod tasks;
pub mod usdt;
