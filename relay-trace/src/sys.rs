//! What is unsafe in reading a trace: its files are mapped.
#![expect(unsafe_code, reason = "the one file of this crate that may")]

use std::{fs::File, io};

use memmap2::{Mmap, MmapOptions};

/// Maps `len` bytes of a trace's file, `offset` bytes from its start, to be read.
///
/// # Errors
/// What `mmap` says.
pub(crate) fn map_file(file: &File, offset: u64, len: usize) -> io::Result<Mmap> {
    // SAFETY: whoever writes a trace adds to its files and never changes what is there. Who does so all the same may have a reader see bytes
    // change or, when the file is cut, end it by SIGBUS: every length is checked on a copy, and a reader changes nothing that it could
    // leave half done.
    unsafe { MmapOptions::new().offset(offset).len(len).populate().map(file) }
}
