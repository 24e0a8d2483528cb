//! From bytes to records: [`packet`] checks a packet and its records, [`stream`] walks a `cpuN` file, [`schema`] gives payloads a
//! meaning ([`value`]), with the words that the kernel prints for numbers ([`print_format`]).
//! [`trace`] is a directory, [`slices`] cuts it into pieces of time that are complete for every CPU, [`pipeline`] works on them in parallel and
//! puts the results together in order. [`names`] knows what threads are called, `symbolize` what addresses are, [`filter`] which records are wanted.
//!
//! [`geometry`] says which buffers would have been enough, [`verify`] holds a trace against its account, [`repair`] saves what a damaged one
//! still has.

pub mod filter;
pub mod geometry;
pub mod names;
pub mod packet;
pub mod pipeline;
pub mod print_format;
pub mod repair;
pub mod schema;
pub mod slices;
pub mod stream;
pub mod symbolize;
pub mod trace;
pub mod value;
pub mod verify;
