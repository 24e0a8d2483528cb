//! Reads what the tracer has written: nothing here needs root, a kernel, or the machine that recorded.
//!
//! From bytes to records: [`packet`] checks a packet and its records, [`stream`] walks a `cpuN` file, [`schema`] gives payloads a meaning,
//! [`print_format`] the words that the kernel prints for numbers. [`trace`] is a directory, [`slices`] cuts it into pieces of time that are
//! complete for every CPU, [`pipeline`] works on them in parallel and puts the results together in order. [`names`] knows what threads are
//! called, [`choice`] which records are wanted, [`time`] what a moment is. [`text`], [`json`] and [`csv`] are what people and programs read.
//!
//! [`export`] writes what other programs open,
//! [`statistics`] counts, [`geometry`] says which buffers would have been enough, [`verify`] holds a trace against its account, [`repair`] saves what a damaged one still has.

pub mod choice;
pub mod csv;
pub mod export;
pub mod geometry;
pub mod json;
pub mod names;
pub mod packet;
pub mod pipeline;
pub mod print_format;
pub mod repair;
pub mod schema;
pub mod slices;
pub mod statistics;
pub mod stream;
pub mod text;
pub mod time;
pub mod trace;
pub mod verify;
