//! librelay: takes ready sub-buffers and writes their content, and nothing else, to `cpuN` files.
//!
//! One consumer per CPU, on a thread pinned to it. It knows sub-buffers, files and statistics; not what the bytes
//! mean. Differences from the librelay of 2005 are on purpose: short writes are completed, a sub-buffer is given
//! back as soon as it is written, not with its batch, and headers are not trusted.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{MapData, RingBuf};
use bytes::BytesMut;
use relay_common::{Buffer as _, Corrupt, Mode, Reader, ReaderWord as _, Subbuf, Word as _};
use rustix::thread::CpuSet;
use tokio::{sync::watch, time::sleep};

use crate::sys::{MappedBuffer, run_ahead_of_tasks, watch_waker};

/// How long a reader sleeps at most before it looks for itself, and has a quiet CPU's open sub-buffer flushed.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// Why a consumer had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The shared memory holds what no writer writes.
    #[error("the buffer of cpu {cpu} is corrupt: {corrupt}; another process must have written to its maps")]
    Corrupt {
        /// Whose buffer.
        cpu: u32,
        /// What does not add up.
        corrupt: Corrupt,
    },
    /// The output file could not be written.
    #[error("writing {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
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

/// What a consumer has done so far; readable while it runs.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Sub-buffers taken, empty ones included.
    pub subbufs_processed: AtomicU64,
    /// Most sub-buffers taken in one pass.
    pub max_backlog: AtomicU64,
    /// Records in the sub-buffers taken.
    pub records: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
}

/// The reader of one CPU's buffer.
#[derive(Debug)]
pub struct Consumer {
    buffer: Arc<MappedBuffer>,
    mode: Mode,
    file: File,
    path: PathBuf,
    copy: BytesMut,
    statistics: Arc<Statistics>,
}

impl Consumer {
    /// A consumer that writes to `cpuN` in `folder`, which it creates or empties. Nobody but the owner and the group can read it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(buffer: Arc<MappedBuffer>, mode: Mode, folder: &Path) -> Result<Self> {
        let path = folder.join(format!("cpu{}", buffer.cpu()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&path);
        let file = file.with_context(|| format!("making {}", path.display()))?;
        Ok(Self { buffer, mode, file, path, copy: BytesMut::new(), statistics: Arc::default() })
    }

    /// The buffer that is read.
    #[must_use]
    pub fn buffer(&self) -> &MappedBuffer {
        &self.buffer
    }

    /// What has been done so far.
    #[must_use]
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// Records that the buffer has lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.buffer.control().producer.lost()
    }

    /// The file that is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the sub-buffers that are ready, at most `most`, and returns how many.
    ///
    /// # Errors
    /// When the buffer is corrupt or the file cannot be written. The file then ends with the last whole sub-buffer.
    pub fn pass(&mut self, most: u64) -> Result<u64, ConsumeError> {
        let buffer = Arc::clone(&self.buffer);
        let reader = buffer.reader();
        let corrupt = |corrupt| ConsumeError::Corrupt { cpu: buffer.cpu(), corrupt };
        let consumer = &buffer.control().consumer;
        let pass = reader.pass(consumer.consumed.peek(), self.mode).map_err(corrupt)?;
        if pass.overrun > 0 {
            self.release(&reader, pass.first);
        }
        let mut taken = 0;
        for number in pass.first..pass.first + pass.backlog.min(most) {
            let Some(subbuf) = reader.subbuf(number).map_err(corrupt)? else { break };
            if self.take(&reader, subbuf)? {
                taken += 1;
            }
            self.release(&reader, number + 1);
        }
        self.statistics.subbufs_processed.fetch_add(taken, Relaxed);
        self.statistics.max_backlog.fetch_max(taken, Relaxed);
        Ok(taken)
    }

    /// Writes a sub-buffer's content; says whether it was still there.
    fn take(&mut self, reader: &Reader<'_, MappedBuffer>, subbuf: Subbuf) -> Result<bool, ConsumeError> {
        let len = self.statistics.bytes.load(Relaxed);
        let written = match self.mode {
            // Nobody writes here until it is given back: straight from the shared memory.
            Mode::NoOverwrite => self.buffer.write_to(subbuf.place, subbuf.len, &self.file, len),
            Mode::Overwrite => {
                self.copy.clear();
                let copied = self.buffer.copy_to(subbuf.place, subbuf.len, &mut self.copy);
                if copied.is_ok() && !reader.survived(subbuf.number) {
                    return Ok(false);
                }
                copied.and_then(|()| std::os::unix::fs::FileExt::write_all_at(&self.file, &self.copy, len))
            }
        };
        if let Err(error) = written {
            // Not a part of a sub-buffer: what is there stays valid.
            if let Err(error) = self.file.set_len(len) {
                log::error!("{}: cutting off a partly written sub-buffer failed: {error}", self.path.display());
            }
            return Err(ConsumeError::Write { path: self.path.clone(), error });
        }
        self.statistics.bytes.store(len + subbuf.len, Relaxed);
        self.statistics.records.fetch_add(u64::from(subbuf.records), Relaxed);
        Ok(true)
    }

    /// Gives every sub-buffer before `consumed` back, having noted how long the file is with them: whoever has to go on after
    /// this process was killed cuts the file there.
    fn release(&self, reader: &Reader<'_, MappedBuffer>, consumed: u64) {
        let len = self.statistics.bytes.load(Relaxed);
        let file_len = &self.buffer.control().consumer.file_len;
        file_len[usize::from(consumed & 1 == 1)].publish(len);
        reader.release(consumed);
    }

    /// Takes sub-buffers as they become ready until `stop` turns true, and once more then.
    async fn run(
        &mut self,
        waker: RingBuf<MapData>,
        flush: impl Fn(&MappedBuffer),
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), ConsumeError> {
        let cpu = self.buffer.cpu();
        let wait = |error| ConsumeError::Wait { cpu, error };
        let mut waker = watch_waker(waker).map_err(wait)?;
        let buffer = Arc::clone(&self.buffer);
        let waiting = &buffer.control().consumer.waiting;
        loop {
            while self.pass(u64::MAX)? > 0 {}
            if *stop.borrow() {
                return Ok(());
            }
            // Say that we sleep, then look again: a writer that completed a sub-buffer in between either saw it, or is seen now.
            waiting.announce(1);
            if self.pass(u64::MAX)? > 0 {
                continue;
            }
            tokio::select! {
                ready = waker.readable_mut() => {
                    let mut ready = ready.map_err(wait)?;
                    while ready.get_inner_mut().next().is_some() {}
                    ready.clear_ready();
                }
                () = sleep(FLUSH_INTERVAL) => {
                    if buffer.reader().is_open() {
                        flush(&buffer);
                    }
                }
                // An error means that the other end is gone: stop.
                changed = stop.changed() => if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// A consumer at work on a thread of its own.
#[derive(Debug)]
pub struct Running {
    thread: JoinHandle<(Consumer, Result<(), ConsumeError>)>,
}

impl Running {
    /// Starts a consumer on a thread that is pinned to its CPU: there it shares the cache with the writers, and takes its
    /// turn with them instead of racing them.
    ///
    /// `flush` closes the open sub-buffer of a buffer. `failed` is told when the consumer stops before it was asked to.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        mut consumer: Consumer,
        waker: RingBuf<MapData>,
        flush: impl Fn(&MappedBuffer) + Send + 'static,
        stop: watch::Receiver<bool>,
        failed: tokio::sync::mpsc::UnboundedSender<u32>,
    ) -> Result<Self> {
        let cpu = consumer.buffer.cpu();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .with_context(|| format!("starting the reader of cpu {cpu}"))?;
        let work = move || {
            let mut set = CpuSet::new();
            set.set(cpu as usize);
            if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
                log::warn!("the reader of cpu {cpu} is not pinned to it: {error}");
            }
            // The writers' tasks may be many: while the reader waits for its turn among them, records are lost. It sleeps as
            // soon as it has caught up, and while it runs here they do not.
            if let Err(error) = run_ahead_of_tasks() {
                log::warn!("the reader of cpu {cpu} runs at ordinary priority, and may fall behind: {error}");
            }
            let result = runtime.block_on(consumer.run(waker, flush, stop));
            if result.is_err() {
                // Nobody listens any more when the session is ending already.
                let _ = failed.send(cpu);
            }
            (consumer, result)
        };
        let thread = thread::Builder::new().name(format!("relayd/cpu{cpu}")).spawn(work);
        Ok(Self { thread: thread.with_context(|| format!("starting the reader of cpu {cpu}"))? })
    }

    /// Waits until the consumer has stopped, and returns it with how it ended.
    ///
    /// # Errors
    /// When its thread panicked.
    pub fn join(self) -> Result<(Consumer, Result<(), ConsumeError>)> {
        self.thread.join().map_err(|_| anyhow!("a reader's thread panicked"))
    }
}
