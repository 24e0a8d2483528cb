//! Where the content of sub-buffers goes: a `cpuN` file, or whatever a client makes of it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use relay_common::Subbuf;
use rustix::fs::{FallocateFlags, fallocate};

use crate::sys::MappedBuffer;

/// The content of one sub-buffer: the client's header, if it has one, and the records.
///
/// ```
/// use relay_channel::output::Content;
///
/// fn describe(content: &Content<'_>) -> String {
///     format!("sub-buffer {}: {} records in {} bytes", content.subbuf.number, content.subbuf.records, content.subbuf.len)
/// }
/// ```
#[derive(Debug)]
pub struct Content<'a> {
    /// Which sub-buffer.
    pub subbuf: Subbuf,
    pub(crate) bytes: Bytes<'a>,
}

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Bytes<'a> {
    /// In shared memory, where nobody writes until the sub-buffer is given back.
    Shared(&'a MappedBuffer),
    /// In a copy.
    Copied(&'a [u8]),
}

impl Content<'_> {
    /// Writes it to a file, `offset` bytes from its start.
    ///
    /// ```
    /// # use relay_channel::output::Content;
    /// fn save(content: &Content<'_>, file: &std::fs::File) -> std::io::Result<()> {
    ///     content.write_at(file, 0)
    /// }
    /// ```
    ///
    /// # Errors
    /// What the system says; how much has been written is then unknown.
    pub fn write_at(&self, file: &File, offset: u64) -> io::Result<()> {
        match self.bytes {
            Bytes::Shared(buffer) => buffer.write_to(self.subbuf.place, self.subbuf.len, file, offset),
            Bytes::Copied(bytes) => file.write_all_at(bytes, offset),
        }
    }

    /// Appends it to `copy`.
    ///
    /// ```
    /// # use relay_channel::output::Content;
    /// fn bytes(content: &Content<'_>) -> std::io::Result<bytes::BytesMut> {
    ///     let mut bytes = bytes::BytesMut::new();
    ///     content.copy_to(&mut bytes)?;
    ///     Ok(bytes)
    /// }
    /// ```
    ///
    /// # Errors
    /// When it is not all inside the buffer.
    pub fn copy_to(&self, copy: &mut BytesMut) -> io::Result<()> {
        match self.bytes {
            Bytes::Shared(buffer) => buffer.copy_to(self.subbuf.place, self.subbuf.len, copy),
            Bytes::Copied(bytes) => {
                copy.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// Where the content of a CPU's sub-buffers goes.
///
/// ```
/// use relay_channel::output::{Content, Output};
///
/// /// Counts records, and forgets them.
/// struct Counter(u64);
///
/// impl Output for Counter {
///     fn append(&mut self, content: &Content<'_>) -> std::io::Result<()> {
///         self.0 += u64::from(content.subbuf.records);
///         Ok(())
///     }
///
///     fn name(&self) -> String {
///         "a counter".to_owned()
///     }
/// }
/// ```
pub trait Output: Send {
    /// Takes the content of the next sub-buffer, all of it or none.
    ///
    /// # Errors
    /// What the system says. The consumer then stops; but after [`io::ErrorKind::WouldBlock`] it gives the same content once more, a little later.
    fn append(&mut self, content: &Content<'_>) -> io::Result<()>;

    /// What to call it in messages.
    fn name(&self) -> String;

    /// Next to nothing follows: gives back what was set aside for it.
    fn finish(&mut self) {}

    /// Bytes that it has by now. Whoever goes on after a consumer that was killed is told so; an output that nobody could go on with has no
    /// need to count.
    fn bytes(&self) -> u64 {
        0
    }
}

/// A `cpuN` file: the content of the sub-buffers, end to end.
///
/// ```
/// use relay_channel::output::{CpuFile, Output};
///
/// let folder = tempfile::tempdir()?;
/// let file = CpuFile::create(folder.path(), 3)?;
/// assert!(file.name().ends_with("/cpu3"));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug)]
pub struct CpuFile {
    file: File,
    path: PathBuf,
    len: u64,
    /// How far the file system has been asked for room; `None` when it is no longer.
    room: Option<u64>,
}

/// For so many bytes at most room is asked for ahead. A file system that is asked for each block as it is written to takes a fifth of the reader's
/// time for that (ext4, `cargo xtask bench`).
const ROOM: u64 = 1 << 20;

impl CpuFile {
    /// Creates `cpuN` in `folder`, in place of one that is there. Nobody but the owner and the group can read it.
    ///
    /// ```
    /// # use relay_channel::output::CpuFile;
    /// assert!(CpuFile::create("/nowhere".as_ref(), 3).is_err());
    /// ```
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(folder: &Path, cpu: u32) -> Result<Self> {
        let path = folder.join(format!("cpu{cpu}"));
        let file = match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // A new one: never through a link, and never with the mode of another.
            _ => OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path),
        };
        let file = file.with_context(|| format!("making {}", path.display()))?;
        Ok(Self { file, path, len: 0, room: Some(0) })
    }

    /// Opens the `cpuN` of a consumer that was killed when it had written `len` bytes for good. What it has begun to write after them is cut
    /// off.
    ///
    /// ```
    /// # use relay_channel::output::{CpuFile, Output};
    /// let folder = tempfile::tempdir()?;
    /// std::fs::write(folder.path().join("cpu3"), "whole, and a par")?;
    /// assert_eq!(CpuFile::resume(folder.path(), 3, 5)?.bytes(), 5);
    /// assert_eq!(std::fs::read(folder.path().join("cpu3"))?, b"whole");
    /// assert!(CpuFile::resume(folder.path(), 3, 6).is_err(), "it was cut by somebody else");
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the file is not there, is not a file, or has fewer bytes.
    pub fn resume(folder: &Path, cpu: u32, len: u64) -> Result<Self> {
        if len == 0 {
            return Self::create(folder, cpu);
        }
        let path = folder.join(format!("cpu{cpu}"));
        let what = || format!("going on with {}", path.display());
        // Not through a link: it may be that others can write to the folder.
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(&path).with_context(what)?;
        let metadata = file.metadata().with_context(what)?;
        if !metadata.is_file() || metadata.len() < len {
            bail!("{} has {} bytes and had {len}: somebody has cut it", path.display(), metadata.len());
        }
        file.set_len(len).with_context(what)?;
        Ok(Self { file, path, len, room: Some(len) })
    }
}

impl CpuFile {
    /// Appends bytes, all of them or none.
    pub fn append_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, self.len);
        self.written(written, bytes.len() as u64)
    }

    /// That nobody else has changed the file: what is written behind a hole, or to no name, is lost all the same.
    fn check(&self) -> io::Result<()> {
        let there = self.file.metadata()?;
        if there.nlink() == 0 {
            return Err(io::Error::other("it was removed by somebody else"));
        }
        if there.len() != self.len {
            let len = there.len();
            return Err(io::Error::other(format!(
                "it was changed by somebody else: it has {len} bytes and had {}",
                self.len
            )));
        }
        Ok(())
    }

    /// Asks for room for `len` bytes, and for as many as there are already. A file system that cannot do that, or has no such room, still takes
    /// what it can.
    fn make_room(&mut self, len: u64) {
        if self.len > 0 && self.room.is_some_and(|room| self.len + len > room) {
            let room = len + self.len.min(ROOM);
            let _ = fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.len, room);
            self.room = Some(self.len + room);
        }
    }

    fn written(&mut self, result: io::Result<()>, len: u64) -> io::Result<()> {
        if let Err(error) = result {
            // Not a part of a sub-buffer: what is there stays valid.
            if let Err(error) = self.file.set_len(self.len) {
                log::error!("{}: cutting off a partly written sub-buffer failed: {error}", self.path.display());
            }
            return Err(error);
        }
        self.len += len;
        Ok(())
    }
}

impl Drop for CpuFile {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Output for CpuFile {
    fn append(&mut self, content: &Content<'_>) -> io::Result<()> {
        self.check()?;
        self.make_room(content.subbuf.len);
        let written = content.write_at(&self.file, self.len);
        self.written(written, content.subbuf.len)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn finish(&mut self) {
        let room = self.room.take();
        let result = match self.file.metadata() {
            // Somebody else has cut it, or goes on with it.
            Ok(metadata) if metadata.len() != self.len => Ok(()),
            Ok(_) if room.is_some_and(|room| room > self.len) => self.file.set_len(self.len),
            other => other.map(drop),
        };
        if let Err(error) = result {
            log::warn!("{}: room that was set aside is not given back: {error}", self.path.display());
        }
    }

    fn bytes(&self) -> u64 {
        self.len
    }
}
