//! The packets of one `cpuN` file, copied one by one, so that memory does not grow with the file. What is damaged is stepped over up to the
//! next packet that can be found.
//!
//! They are not mapped: a file that is cut would end the reader by SIGBUS, and bytes could change after they were checked.

use std::{fmt, fs::File, io, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use rustix::{
    buffer::spare_capacity,
    fs::{SeekFrom, seek},
    io::{Errno, pread},
};

use super::packet::{Flaw, HEADER, Header, mark};

/// Bytes that are searched at a time for the next packet.
const SEARCH: u64 = 1 << 20;

/// A place in a file where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: Arc<PathBuf>,
    /// Where, in bytes from the file's start.
    pub offset: u64,
    /// What.
    pub flaw: Flaw,
    /// Bytes that cannot be read because of it.
    pub skipped: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, byte {}: {}", self.path.display(), self.offset, self.flaw)?;
        match self.skipped {
            0 => Ok(()),
            1 => write!(f, "; 1 byte is passed over"),
            skipped => write!(f, "; {skipped} bytes are passed over"),
        }
    }
}

impl std::error::Error for Damage {}

/// A packet, or as much of it as there is.
#[derive(Debug)]
pub struct Packet {
    /// Its header.
    pub header: Header,
    /// Where it begins in its file, in bytes.
    pub offset: u64,
    bytes: Vec<u8>,
}

impl Packet {
    /// Its bytes, header included; fewer than the header says when the file was cut off.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What comes next in a file.
#[derive(Debug)]
pub enum Step {
    /// A packet.
    Packet(Arc<Packet>),
    /// Something that is none.
    Damage(Damage),
    /// Nothing more, as the file is now.
    End,
}

/// The packets of a file, one after the other.
#[derive(Debug)]
pub struct Stream {
    path: Arc<PathBuf>,
    file: Arc<File>,
    cpu: u32,
    uuid: [u8; 16],
    len: u64,
    at: u64,
    /// A packet that the file does not have to its end: more of it may come.
    growing: bool,
}

impl Stream {
    /// Reads the open file of a CPU, which is at `path`. `growing`: a packet without an end is not cut off, but being written.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn new(file: Arc<File>, path: PathBuf, cpu: u32, uuid: [u8; 16], growing: bool) -> Result<Self> {
        let len = file.metadata().with_context(|| format!("looking at {}", path.display()))?.len();
        Ok(Self { path: Arc::new(path), file, cpu, uuid, len, at: 0, growing })
    }

    /// The CPU.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Arc<PathBuf> {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the file, as they were known last.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the next packet begins.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// From now on, a packet without an end is cut off.
    pub fn finish(&mut self) {
        self.growing = false;
    }

    /// The next packet, or what is wrong with it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn take_next(&mut self) -> Result<Step> {
        self.step().with_context(|| format!("reading {}, byte {}", self.path.display(), self.at))
    }

    /// The next packet's header, without its bytes; the stream stays where it is. `None` at the end, and where there is no packet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn peek(&mut self) -> io::Result<Option<Header>> {
        Ok(match self.read_header()? {
            Some(Ok(header)) if header.len <= self.len - self.at => Some(header),
            _ => None,
        })
    }

    /// Steps over the packet that [`Self::peek`] has shown.
    pub fn skip(&mut self, header: &Header) {
        self.at += header.len;
    }

    /// Steps to the next packet after a place within the one that was read last, in bytes from the file's start, and tells how many
    /// bytes from there are passed over.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn resume_after(&mut self, offset: u64) -> Result<u64> {
        let found = self.find(offset).with_context(|| format!("reading {}", self.path.display()))?;
        self.at = found;
        Ok(found - offset)
    }

    fn step(&mut self) -> io::Result<Step> {
        let flaw = match self.read_header()? {
            None => return Ok(Step::End),
            Some(Ok(header)) => {
                let there = header.len.min(self.len - self.at);
                if there < header.len && self.growing {
                    return Ok(Step::End);
                }
                let packet = Packet { header, offset: self.at, bytes: self.copy(self.at, there)? };
                self.at += packet.bytes.len() as u64;
                if (packet.bytes.len() as u64) < there {
                    // It was cut meanwhile.
                    self.len = self.at;
                }
                return Ok(Step::Packet(Arc::new(packet)));
            }
            Some(Err(flaw)) => flaw,
        };
        let offset = self.at;
        self.at = self.find(offset + 1)?;
        let skipped = self.at - offset;
        Ok(Step::Damage(Damage { path: Arc::clone(&self.path), offset, flaw, skipped }))
    }

    /// The header at the present place; `None` when there is nothing.
    fn read_header(&mut self) -> io::Result<Option<Result<Header, Flaw>>> {
        if self.len - self.at < HEADER as u64 {
            self.len = self.file.metadata()?.len().max(self.at);
        }
        let bytes = self.copy(self.at, (self.len - self.at).min(HEADER as u64))?;
        let there = bytes.len() as u64;
        if there == 0 || (there < HEADER as u64 && self.growing) {
            return Ok(None);
        }
        if there < HEADER as u64 {
            return Ok(Some(Err(Flaw::CutOff { missing: HEADER as u64 - there })));
        }
        let header = Header::parse(&bytes, self.uuid, self.cpu);
        if header.as_ref().is_ok_and(|header| header.len > self.len - self.at) {
            self.len = self.file.metadata()?.len().max(self.at);
        }
        Ok(Some(header))
    }

    /// Copies `len` bytes from a place on; fewer when the file was cut meanwhile.
    fn copy(&self, from: u64, len: u64) -> io::Result<Vec<u8>> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = from + bytes.len() as u64;
            match pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    /// Where the next packet begins at or after `from`; the file's end when none does.
    fn find(&self, from: u64) -> io::Result<u64> {
        let mark = mark(self.uuid);
        let finder = memchr::memmem::Finder::new(&mark);
        let mut at = from;
        while at < self.len {
            // Time goes with the data that is there: a hole is as long as whoever has made it wants.
            at = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => data,
                // No data follows.
                Err(Errno::NXIO) => return Ok(self.len),
                // A file system that does not tell.
                Err(Errno::INVAL) => at,
                Err(error) => return Err(error.into()),
            };
            let len = (self.len - at).min(SEARCH);
            let window = self.copy(at, len)?;
            if let Some(found) = finder.find(&window) {
                return Ok(at + found as u64);
            }
            // A mark may begin in this window and end in the next.
            at += if len == SEARCH { len - mark.len() as u64 } else { len };
        }
        Ok(self.len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use relay_common::trace::{STREAM_ID_AT, UUID_AT};

    use super::*;

    #[test]
    fn a_file_that_is_cut_while_it_is_read_ends_there() {
        let recorded = include_bytes!("../../../relay-daemon/tests/traces/lossy/cpu0");
        let at = |word: u64| usize::try_from(word).unwrap();
        let uuid = recorded[at(UUID_AT)..at(STREAM_ID_AT)].try_into().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(recorded).unwrap();
        let mut stream = Stream::new(Arc::new(file.try_clone().unwrap()), "cpu0".into(), 0, uuid, false).unwrap();
        let mut packet = || match stream.take_next().unwrap() {
            Step::Packet(packet) => Some(packet),
            Step::End => None,
            Step::Damage(damage) => panic!("{damage}"),
        };
        let first = packet().unwrap();
        file.set_len(first.header.len + 100).unwrap();
        let second = packet().unwrap();
        assert!(second.header.len > 100 && second.bytes().len() == 100);
        file.set_len(0).unwrap();
        assert_eq!(first.bytes(), &recorded[..first.bytes().len()]);
        assert_eq!(second.bytes(), &recorded[first.bytes().len()..][..100]);
        assert!(packet().is_none());
    }
}
