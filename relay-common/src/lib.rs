//! The relay channel: its geometry, its shared memory and the protocol between writers and reader.
//!
//! This crate decides; it owns no memory, makes no system call and knows no clock. The kernel side
//! (`relay-ebpf`), the daemon (`relay-daemon`) and the tests lend it their memory through [`Buffer`]
//! and their counters through [`Word`], so that the protocol is written once.
//!
//! # Words
//!
//! | here | meaning |
//! |---|---|
//! | **channel** | per-CPU buffers with one geometry and one mode |
//! | **buffer** | one CPU's ring of sub-buffers |
//! | **sub-buffer** | what is handed to the reader at a time; number `k` lies at `(k mod n_subbufs) * subbuf_size` |
//! | **lap** | one use of a place in the buffer: sub-buffer `k` is in lap `k / n_subbufs` |
//! | **record** | what one write stores; whole or absent, never split |
//! | **reserve / commit** | take room / make it visible |
//! | **switch** | close a sub-buffer and open the next |
//! | **padding** | the unused tail of a closed sub-buffer |
//! | **flush** | close the open sub-buffer now |
//! | **no-overwrite / overwrite** | lose the new / lose the old when the reader is behind |
//! | **full, too big, nested** | why a record was **lost** |
//! | **overrun** | recorded, then overwritten unread |
//!
//! Positions are counted in bytes since the channel was made, headers and padding included, in 64 bits
//! that never wrap in practice; a mask gives the place in memory.
#![no_std]
#![forbid(unsafe_code)]

// Here, where nothing that is built for it comes before.
#[cfg(target_endian = "big")]
compile_error!("big-endian machines are not supported: traces, and what both sides share in memory, are little-endian");

mod committed;
mod geometry;
mod layout;
#[cfg(not(target_arch = "bpf"))]
pub mod memory;
pub mod placeholder;
mod reader;
pub mod recipe;
pub mod rows;
pub mod trace;
mod word;
mod writer;

pub use committed::Committed;
pub use geometry::{Geometry, GeometryError, HEADER, MAX_BUFFER_SIZE, MAX_SUBBUF_SIZE, MIN_SUBBUF_SIZE};
pub use layout::{
    Buffer, COMMITTED_AT, ConsumerWords, Control, Counters, MAX_RECORD, ProducerWords, RECORDS_BEFORE_AT,
    REQUEST_HAS_RUN, Request, Taken,
};
pub use reader::{Corrupt, Count, Pass, Reader, Subbuf};
pub use word::{ReaderWord, Word};
#[doc(hidden)]
pub use writer::TRIES;
pub use writer::{Client, Closing, Lost, Mode, Plain, Reservation, Writer};
