//! The tracer: a client of the channel that records kernel events as CTF.
//!
//! From what the user asks for to events: [`spec`] takes it apart, [`probes`] finds what is meant, with [`events`] (tracepoints), [`symbols`],
//! [`btf`] and [`path`] (the kernel's types), [`binary`], [`usdt`] and [`registers`] (programs and libraries); [`arguments`] and
//! [`layout`] say how values are fetched and where they lie in the record, [`choice`] whose events are wanted. [`object`] and
//! [`programs`] load what runs at events and attach it. [`metadata`] describes the records in CTF's own language, [`session`] is the
//! account that goes beside the trace, [`recorder`] runs it all. [`listing`] says beforehand what there is; [`symbolize`] names the
//! addresses of stacks afterwards, by what `addresses` has kept, [`tasks`] keeps the names of threads.

mod addresses;
pub mod arguments;
mod attach;
pub mod binary;
pub mod btf;
pub(crate) mod builds;
pub mod choice;
pub mod directory;
mod elf;
pub mod events;
pub mod expression;
pub mod format;
mod instructions;
mod kallsyms;
pub mod layout;
pub mod listing;
pub mod metadata;
pub mod object;
pub mod path;
pub mod probes;
pub mod programs;
pub mod recorder;
pub mod registers;
pub mod selection;
pub mod session;
pub mod spec;
pub mod symbolize;
pub mod symbols;
pub mod tasks;
pub mod usdt;
