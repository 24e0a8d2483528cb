//! librelay: takes the ready sub-buffers of one CPU and gives their content, and nothing else, to an output: a `cpuN` file.
//!
//! It knows sub-buffers, files and statistics; not what the bytes mean. [`crate::readers`] runs one on every CPU. Differences
//! from the librelay of 2005 are on purpose: short writes are completed, a sub-buffer is given back as soon as it is written,
//! not with its batch, and headers are not trusted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use bytes::BytesMut;
use relay_common::{Buffer as _, Corrupt, Mode, Reader, ReaderWord as _, Subbuf, Taken, Word as _};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    channel::Channel,
    output::{Bytes, Content, Output},
    sys::{MappedBuffer, watch_waker},
};

/// How long a reader sleeps before it looks for itself, and has a quiet CPU's open sub-buffer flushed.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// How long at most: while nothing comes each sleep is twice the last.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// How long before an output that had no room is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Nanoseconds after which a record is in its output, however quiet its CPU is: the reader has slept, had it flushed, and written.
///
/// ```
/// assert!(relay_channel::consumer::SETTLED > 500_000_000);
/// ```
pub const SETTLED: u64 = 800_000_000;

/// Work for a consumer between two passes.
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

impl ConsumeError {
    /// Whether the same may be tried again.
    fn is_for_now(&self) -> bool {
        matches!(self, Self::Write { error, .. } if error.kind() == io::ErrorKind::WouldBlock)
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
/// # use relay_channel::{channel::Channel, consumer::Consumer, output::CpuFile};
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
    /// Why the output takes nothing at the moment.
    blocked: Option<ConsumeError>,
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
        Self { buffer, mode, output, copy: BytesMut::new(), consumed, blocked: None, statistics: Arc::new(statistics) }
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
        self.blocked = None;
        for number in pass.first..pass.first + pass.backlog.min(most) {
            let Some(subbuf) = reader.subbuf(number).map_err(corrupt)? else {
                if self.mode == Mode::Overwrite && !reader.survived(number) {
                    // Not unfinished but overwritten since the pass began: those after it may be ready.
                    self.release(&reader, number + 1);
                    continue;
                }
                break;
            };
            match self.take(&reader, subbuf) {
                Ok(was_there) => taken += u64::from(was_there),
                Err(error) if error.is_for_now() => {
                    self.blocked = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
            self.release(&reader, number + 1);
        }
        self.statistics.max_backlog.fetch_max(taken, Relaxed);
        Ok(taken)
    }

    /// Flushes the buffer's CPU and takes all that is ready: every record of programs that no longer run is in the output then.
    ///
    /// # Errors
    /// When the kernel refuses the flush, or as [`Self::pass`].
    pub fn drain(&mut self, channel: &Channel) -> Result<()> {
        channel.flush(self.buffer.cpu())?;
        while self.pass(u64::MAX)? > 0 {}
        match self.blocked.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
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
            if self.blocked.is_some() {
                pause = RETRY_INTERVAL;
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
pub(crate) fn copy_intact(
    reader: &Reader<'_, MappedBuffer>,
    buffer: &MappedBuffer,
    subbuf: &Subbuf,
    copy: &mut BytesMut,
) -> io::Result<bool> {
    copy.clear();
    buffer.copy_to(subbuf.place, subbuf.len, copy)?;
    Ok(reader.survived(subbuf.number))
}
