//! librelay: takes the ready sub-buffers of one CPU and gives their content, and nothing else, to an output: a `cpuN` file.
//!
//! It knows sub-buffers, files and statistics; not what the bytes mean. [`crate::readers`] runs one on every CPU. Differences
//! from the librelay of 2005 are on purpose: short writes are completed, a sub-buffer is given back as soon as it is written,
//! not with its batch, and headers are not trusted.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, RingBuf};
use bytes::BytesMut;
use relay_common::{Buffer as _, Corrupt, Mode, Reader, ReaderWord as _, Subbuf, Taken, Word as _};
use rustix::fs::{FallocateFlags, fallocate};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::sys::{MappedBuffer, watch_waker};

/// How long a reader sleeps before it looks for itself, and has a quiet CPU's open sub-buffer flushed.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// How long at most: while nothing comes each sleep is twice the last.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// Nanoseconds after which a record is in its output, however quiet its CPU is: the reader has slept, had it flushed, and written.
///
/// ```
/// assert!(relay_channel::consumer::SETTLED > 500_000_000);
/// ```
pub const SETTLED: u64 = 800_000_000;

/// What a consumer is asked to do between two passes.
pub(crate) type Work = Box<dyn FnOnce(&mut Consumer) + Send>;

/// Why a consumer had to stop.
///
/// ```
/// use relay_common::Corrupt;
/// use relay_channel::consumer::ConsumeError;
///
/// let error = ConsumeError::Corrupt { cpu: 3, corrupt: Corrupt::Padding { number: 7, padding: 9999 } };
/// assert!(error.to_string().starts_with("the buffer of cpu 3 is corrupt: sub-buffer 7 "));
/// ```
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The shared memory holds what no writer writes.
    #[error(
        "the buffer of cpu {cpu} is corrupt: {corrupt}; either another process has written to its maps, or its programs \
         did not keep to their rules on this kernel, which is a fault of theirs: please report it with `uname -rv`"
    )]
    Corrupt {
        /// Whose buffer.
        cpu: u32,
        /// What does not add up.
        corrupt: Corrupt,
    },
    /// The output could not take a sub-buffer.
    #[error("writing {output}: {error}")]
    Write {
        /// Which: the file's path.
        output: String,
        /// What the system says.
        error: io::Error,
    },
    /// Waiting for the kernel side failed.
    #[error("waiting for cpu {cpu}: {error}")]
    Wait {
        /// Whose buffer.
        cpu: u32,
        /// What the system says.
        error: io::Error,
    },
}

/// The content of one sub-buffer: the client's header, if it has one, and the records.
///
/// ```
/// use relay_channel::consumer::Content;
///
/// fn describe(content: &Content<'_>) -> String {
///     format!("sub-buffer {}: {} records in {} bytes", content.subbuf.number, content.subbuf.records, content.subbuf.len)
/// }
/// ```
#[derive(Debug)]
pub struct Content<'a> {
    /// Which sub-buffer.
    pub subbuf: Subbuf,
    bytes: Bytes<'a>,
}

/// Where the bytes are.
#[derive(Debug)]
enum Bytes<'a> {
    /// In shared memory, where nobody writes until the sub-buffer is given back.
    Shared(&'a MappedBuffer),
    /// In a copy.
    Copied(&'a [u8]),
}

impl Content<'_> {
    /// Writes it to a file, `offset` bytes from its start.
    ///
    /// ```
    /// # use relay_channel::consumer::Content;
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
    /// # use relay_channel::consumer::Content;
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
/// use relay_channel::consumer::{Content, Output};
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
    /// What the system says. The consumer then stops.
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
/// use relay_channel::consumer::{CpuFile, Output};
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
    /// # use relay_channel::consumer::CpuFile;
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
    /// # use relay_channel::consumer::{CpuFile, Output};
    /// let folder = tempfile::tempdir()?;
    /// std::fs::write(folder.path().join("cpu3"), "whole, and a par")?;
    /// assert_eq!(CpuFile::resume(folder.path(), 3, 5)?.bytes(), 5);
    /// assert_eq!(std::fs::read(folder.path().join("cpu3"))?, b"whole");
    /// assert!(CpuFile::resume(folder.path(), 3, 6).is_err(), "it was cut by somebody else");
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the file is not there, is no file, or has fewer bytes.
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

/// What a consumer has done so far; readable while it runs.
///
/// ```
/// # use std::sync::atomic::Ordering::Relaxed;
/// let statistics = relay_channel::consumer::Statistics::default();
/// assert_eq!(statistics.records.load(Relaxed), 0);
/// ```
#[derive(Debug, Default)]
pub struct Statistics {
    /// Sub-buffers taken, empty ones included.
    pub subbufs_processed: AtomicU64,
    /// Most sub-buffers taken in one pass.
    pub max_backlog: AtomicU64,
    /// Records in the sub-buffers taken.
    pub records: AtomicU64,
    /// Bytes given to the output.
    pub bytes: AtomicU64,
}

/// The one reader of a CPU's buffer that gives sub-buffers back.
///
/// ```no_run
/// # use relay_common::{Geometry, Mode, Plain};
/// # use relay_channel::{channel::Channel, consumer::{Consumer, CpuFile}};
/// # let folder = tempfile::tempdir()?;
/// # let channel = Channel::create(Geometry::new(4096, 4)?, Mode::NoOverwrite, Plain)?;
/// let output = Box::new(CpuFile::create(folder.path(), 0)?);
/// let mut consumer = Consumer::new(channel.buffer(0).unwrap(), channel.mode(), output);
/// while consumer.pass(u64::MAX)? > 0 {}
/// # Ok::<(), anyhow::Error>(())
/// ```
pub struct Consumer {
    buffer: Arc<MappedBuffer>,
    mode: Mode,
    output: Box<dyn Output>,
    copy: BytesMut,
    consumed: u64,
    statistics: Arc<Statistics>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("cpu", &self.buffer.cpu()).field("output", &self.output.name()).finish()
    }
}

impl Consumer {
    /// A consumer of a buffer that nobody reads from. It begins where the last one ended, and `output` must be what that one had.
    #[must_use]
    pub fn new(buffer: Arc<MappedBuffer>, mode: Mode, output: Box<dyn Output>) -> Self {
        let (consumed, taken) = (buffer.control().consumer.consumed.peek(), buffer.taken());
        let statistics = Statistics {
            subbufs_processed: taken.subbufs.into(),
            max_backlog: AtomicU64::default(),
            records: taken.records.into(),
            bytes: taken.output.into(),
        };
        Self { buffer, mode, output, copy: BytesMut::new(), consumed, statistics: Arc::new(statistics) }
    }

    /// The buffer that is read.
    #[must_use]
    pub fn buffer(&self) -> &Arc<MappedBuffer> {
        &self.buffer
    }

    /// Sub-buffers done with: taken, or overwritten before they could be.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// What has been done so far.
    #[must_use]
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// Takes the sub-buffers that are ready, at most `most`, and returns how many.
    ///
    /// # Errors
    /// When the buffer is corrupt or the output does not take one. The output then ends with the last whole sub-buffer.
    pub fn pass(&mut self, most: u64) -> Result<u64, ConsumeError> {
        let buffer = Arc::clone(&self.buffer);
        let reader = buffer.reader();
        let corrupt = |corrupt| ConsumeError::Corrupt { cpu: buffer.cpu(), corrupt };
        let found = buffer.control().consumer.consumed.peek();
        if found != self.consumed {
            // Whoever wrote there may have made the writers write over what is unread.
            return Err(corrupt(Corrupt::Consumed { expected: self.consumed, found }));
        }
        let pass = reader.pass(self.consumed, self.mode).map_err(corrupt)?;
        if pass.overrun > 0 {
            self.release(&reader, pass.first);
        }
        let mut taken = 0;
        for number in pass.first..pass.first + pass.backlog.min(most) {
            let Some(subbuf) = reader.subbuf(number).map_err(corrupt)? else {
                if self.mode == Mode::Overwrite && !reader.survived(number) {
                    // Not unfinished but overwritten since the pass began: those after it may be ready.
                    self.release(&reader, number + 1);
                    continue;
                }
                break;
            };
            if self.take(&reader, subbuf)? {
                taken += 1;
            }
            self.release(&reader, number + 1);
        }
        self.statistics.max_backlog.fetch_max(taken, Relaxed);
        Ok(taken)
    }

    /// Hands on a sub-buffer's content; says whether it was still there.
    fn take(&mut self, reader: &Reader<'_, MappedBuffer>, subbuf: Subbuf) -> Result<bool, ConsumeError> {
        let bytes = match self.mode {
            // Nobody writes here until it is given back: straight from the shared memory.
            Mode::NoOverwrite => Ok(Some(Bytes::Shared(&self.buffer))),
            Mode::Overwrite => copy_intact(reader, &self.buffer, &subbuf, &mut self.copy)
                .map(|intact| intact.then_some(Bytes::Copied(&self.copy))),
        };
        let taken = match bytes {
            Ok(None) => return Ok(false),
            Ok(Some(bytes)) => self.output.append(&Content { subbuf, bytes }),
            Err(error) => Err(error),
        };
        taken.map_err(|error| ConsumeError::Write { output: self.output.name(), error })?;
        self.statistics.bytes.fetch_add(subbuf.len, Relaxed);
        self.statistics.records.fetch_add(u64::from(subbuf.records), Relaxed);
        self.statistics.subbufs_processed.fetch_add(1, Relaxed);
        Ok(true)
    }

    /// Gives every sub-buffer before `consumed` back, having noted what was taken by then: whoever has to go on after this process was
    /// killed begins there.
    fn release(&mut self, reader: &Reader<'_, MappedBuffer>, consumed: u64) {
        let Taken { output, records, subbufs } = &self.buffer.control().consumer.taken[usize::from(consumed & 1 == 1)];
        output.publish(self.output.bytes());
        records.publish(self.statistics.records.load(Relaxed));
        subbufs.publish(self.statistics.subbufs_processed.load(Relaxed));
        reader.release(consumed);
        self.consumed = consumed;
    }

    /// Next to nothing follows: the output need set nothing aside any more.
    pub fn finish(&mut self) {
        self.output.finish();
    }

    /// From now on gives what it takes to another output, which has nothing yet.
    pub fn replace_output(&mut self, output: Box<dyn Output>) {
        self.statistics.bytes.store(output.bytes(), Relaxed);
        self.statistics.max_backlog.store(0, Relaxed);
        self.output = output;
        // One store: whoever goes on after a kill finds the old output's length or the new one's.
        self.buffer.note_output(self.output.bytes());
    }

    /// Takes sub-buffers as they become ready until `stop` turns true, and once more then. `flush` closes the open sub-buffer
    /// of the CPU.
    pub(crate) async fn run(
        &mut self,
        waker: RingBuf<MapData>,
        flush: impl Fn(u32),
        mut work: mpsc::UnboundedReceiver<Work>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), ConsumeError> {
        let cpu = self.buffer.cpu();
        let wait = |error| ConsumeError::Wait { cpu, error };
        let mut waker = watch_waker(waker).map_err(wait)?;
        let buffer = Arc::clone(&self.buffer);
        let waiting = &buffer.control().consumer.waiting;
        let mut pause = FLUSH_INTERVAL;
        loop {
            while self.pass(u64::MAX)? > 0 {
                pause = FLUSH_INTERVAL;
                // Also when there is always more.
                while let Ok(work) = work.try_recv() {
                    work(self);
                }
            }
            if *stop.borrow() {
                return Ok(());
            }
            // Say that we sleep, then look again: a writer that completed a sub-buffer in between either saw it, or is seen now.
            waiting.announce(1);
            if self.pass(u64::MAX)? > 0 {
                pause = FLUSH_INTERVAL;
                continue;
            }
            tokio::select! {
                ready = waker.readable_mut() => {
                    let mut ready = ready.map_err(wait)?;
                    while ready.get_inner_mut().next().is_some() {}
                    ready.clear_ready();
                }
                () = sleep(pause) => {
                    if buffer.reader().is_open() {
                        flush(cpu);
                    } else {
                        pause = LONGEST_SLEEP.min(2 * pause);
                    }
                }
                Some(work) = work.recv() => work(self),
                // An error means that the other end is gone: stop.
                changed = stop.changed() => if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Copies a sub-buffer's content that writers may overwrite meanwhile; says whether the copy is good.
fn copy_intact(
    reader: &Reader<'_, MappedBuffer>,
    buffer: &MappedBuffer,
    subbuf: &Subbuf,
    copy: &mut BytesMut,
) -> io::Result<bool> {
    copy.clear();
    buffer.copy_to(subbuf.place, subbuf.len, copy)?;
    Ok(reader.survived(subbuf.number))
}

/// What a [`snapshot`] holds of a CPU.
///
/// ```
/// use relay_channel::consumer::Snapshot;
///
/// fn overrun(snapshot: &Snapshot) -> u64 {
///     snapshot.recorded - snapshot.taken
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Sub-buffers produced up to the cut: the snapshot ends with the last of them.
    pub produced: u64,
    /// Records recorded up to the cut.
    pub recorded: u64,
    /// Of these, the records that the snapshot holds. The others were overwritten before they could be copied.
    pub taken: u64,
    /// Sub-buffers taken.
    pub subbufs: u64,
    /// Bytes taken.
    pub bytes: u64,
}

/// Copies what a buffer in overwrite mode holds, oldest first, while programs write to it: whole records, in order, each
/// once. Nothing is given back; the buffer goes on as if nobody had looked.
///
/// What is in the open sub-buffer is left out: flush first. Returns `None` while a writer is at work: the cut must be an instant at
/// which every record is counted. On the buffer's own CPU, at a priority that writers' tasks do not have, that is nearly always.
///
/// # Errors
/// When the buffer is corrupt or the output does not take one.
pub fn snapshot(buffer: &MappedBuffer, output: &mut dyn Output) -> Result<Option<Snapshot>, ConsumeError> {
    let reader = buffer.reader();
    if reader.count().is_none() {
        return Ok(None);
    }
    // Memory for the copy before the cut: after it writers race with every fault on a page.
    let mut copy = BytesMut::new();
    copy.resize(usize::try_from(buffer.geometry().subbuf_size()).unwrap_or_default(), 0);
    let Some(count) = reader.count() else { return Ok(None) };
    let mut snapshot = Snapshot { produced: count.produced, recorded: count.closed, taken: 0, subbufs: 0, bytes: 0 };
    let pass = reader.pass(0, Mode::Overwrite);
    let first = pass.map_err(|corrupt| ConsumeError::Corrupt { cpu: buffer.cpu(), corrupt })?.first;
    for number in first..count.produced {
        // Complete when it was counted. If it no longer is, it has been overwritten.
        let Some(subbuf) = copy_to(buffer, number, &mut copy, output)? else { continue };
        snapshot.taken += u64::from(subbuf.records);
        snapshot.subbufs += 1;
        snapshot.bytes += subbuf.len;
    }
    Ok(Some(snapshot))
}

/// Copies one sub-buffer, if it is complete and not overwritten meanwhile; says whether it was.
pub fn copy_one(buffer: &MappedBuffer, number: u64, output: &mut dyn Output) -> Result<bool, ConsumeError> {
    copy_to(buffer, number, &mut BytesMut::new(), output).map(|copied| copied.is_some())
}

fn copy_to(
    buffer: &MappedBuffer,
    number: u64,
    copy: &mut BytesMut,
    output: &mut dyn Output,
) -> Result<Option<Subbuf>, ConsumeError> {
    let reader = buffer.reader();
    let corrupt = |corrupt| ConsumeError::Corrupt { cpu: buffer.cpu(), corrupt };
    let write = |output: &dyn Output, error| ConsumeError::Write { output: output.name(), error };
    let Some(subbuf) = reader.subbuf(number).map_err(corrupt)? else { return Ok(None) };
    if !copy_intact(&reader, buffer, &subbuf, copy).map_err(|error| write(output, error))? {
        return Ok(None);
    }
    let content = Content { subbuf, bytes: Bytes::Copied(copy) };
    output.append(&content).map_err(|error| write(output, error))?;
    Ok(Some(subbuf))
}
