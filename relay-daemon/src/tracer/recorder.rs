//! Records one trace, from the first map to the last line of the account.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::{Context as _, Result};
use relay_common::{
    Geometry, HEADER, Mode, Word as _,
    trace::{CPU_ID_AT, EVENTS_DISCARDED_AT, MAGIC, PACKET_HEADER, STREAM_ID_AT, UUID_AT},
};
use tokio::sync::{mpsc, watch};

use super::{
    directory::TraceDirectory,
    events::Event,
    metadata,
    programs::{Notices, Programs, Requests},
    session::{Clock, Cpu, Session, SessionEvent},
};
use crate::{
    channel::Channel,
    consumer::{Consumer, Running, Statistics},
    machine::{self, Instant},
    sys::MappedBuffer,
};

/// At least as much as a CPU's account takes as JSON, in bytes.
const ACCOUNT_SIZE: u64 = 1024;

/// What to record, and where to.
#[derive(Debug)]
pub struct Options {
    /// The events.
    pub events: Vec<Event>,
    /// The trace's directory.
    pub output: PathBuf,
    /// Whether a trace that is there is replaced.
    pub force: bool,
    /// How buffers are cut.
    pub geometry: Geometry,
    /// What to lose when the reader is behind.
    pub mode: Mode,
    /// Whether the kernel counts the programs' runs.
    pub bpf_stats: bool,
    /// Whether relayd's own events are recorded.
    pub record_self: bool,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// A recording under way. Dropping it without [`Recording::finish`] stops it and leaves what was written.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Recording {
    channel: Channel,
    programs: Programs,
    directory: TraceDirectory,
    session: Session,
    stop: watch::Sender<bool>,
    readers: Readers,
    statistics: Vec<Arc<Statistics>>,
    failed: mpsc::UnboundedReceiver<u32>,
}

/// Who reads the buffers while events are recorded.
#[derive(Debug)]
enum Readers {
    /// One thread per CPU (no-overwrite).
    Running(Vec<Running>),
    /// Nobody, until the end (overwrite).
    Waiting(Vec<Consumer>),
}

/// The state of a recording at one moment.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Records in the buffers and the files.
    pub records: u64,
    /// Bytes in the files.
    pub bytes: u64,
    /// Records lost, all causes.
    pub lost: u64,
    /// Sub-buffers that wait for the reader, by CPU.
    pub backlog: Vec<u64>,
}

impl Recording {
    /// Makes the channel and the trace's directory, attaches to the events, and starts to record.
    ///
    /// # Errors
    /// When anything is missing; nothing stays behind then.
    pub fn start(options: Options) -> Result<(Self, Option<Notices>)> {
        let Options { events, output, force, geometry, mode, bpf_stats, record_self, command } = options;
        machine::raise_limits();
        let channel = Channel::create(geometry, mode)?;
        let (mut programs, notices) = Programs::load(&channel, &events)?;
        let mut directory = TraceDirectory::create(&output, force)?;
        let uuid = machine::new_uuid()?;
        let consumers = channel
            .buffers()
            .iter()
            .map(|buffer| {
                write_constants(buffer, uuid)?;
                Consumer::create(Arc::clone(buffer), mode, directory.path())
            })
            .collect::<Result<Vec<_>>>()?;
        let statistics = consumers.iter().map(Consumer::statistics).collect();
        let requests = programs.requests();
        for buffer in channel.buffers() {
            // CTF readers number what was discarded between two packets: the first is there before anything can be lost.
            requests.mark(buffer.cpu())?;
        }
        let (stop, stopped) = watch::channel(false);
        let (failed_at, failed) = mpsc::unbounded_channel();
        let readers = match mode {
            Mode::Overwrite => Readers::Waiting(consumers),
            Mode::NoOverwrite => Readers::Running(start_readers(consumers, &channel, &requests, &stopped, &failed_at)?),
        };
        if bpf_stats {
            programs.count_runs()?;
        }
        let refused = programs.attach(&events)?;
        for refused in &refused {
            log::info!("left out {}: {:#}", events[refused.index].name, refused.error);
        }
        if !refused.is_empty() {
            log::warn!("{} of {} events could not be attached (RUST_LOG=info names them)", refused.len(), events.len());
        }
        let attached: Vec<(u16, &Event)> = (0..=u16::MAX)
            .zip(&events)
            .filter(|(id, _)| refused.iter().all(|refused| refused.index != usize::from(*id)))
            .collect();
        let start = Instant::now();
        let session = describe(uuid, command, &channel, start, &attached)?;
        let trace =
            metadata::Trace { uuid, host: &session.host, kernel: &session.kernel, boot_id: &session.boot_id, start };
        directory.write_metadata(&metadata::write(&trace, attached.iter().copied()))?;
        let written = session.write(&directory.private())?;
        // What the session will have grown by at the end: the account of every CPU, and a reason.
        directory.keep(written + ACCOUNT_SIZE * (channel.possible().len() as u64 + 4))?;
        requests.start(record_self)?;
        Ok((Self { channel, programs, directory, session, stop, readers, statistics, failed }, notices))
    }

    /// Where the trace is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// How many events are attached.
    #[must_use]
    pub fn events(&self) -> usize {
        self.session.events.len()
    }

    /// How it stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for (buffer, statistics) in self.channel.buffers().iter().zip(&self.statistics) {
            let reader = buffer.reader();
            progress.bytes += statistics.bytes.load(Relaxed);
            // While writers are at work the exact number is not to be had; what has been read is.
            progress.records += reader.recorded().unwrap_or_else(|| statistics.records.load(Relaxed));
            let consumed = self.channel.control().row(buffer.cpu()).map_or(0, |row| row.consumer.consumed.peek());
            progress.backlog.push(reader.produced().saturating_sub(consumed).min(self.channel.geometry().n_subbufs()));
        }
        for row in self.channel.possible().iter().filter_map(|cpu| self.channel.control().row(*cpu)) {
            progress.lost += row.producer.lost() + row.producer.lost_no_buffer.peek();
        }
        progress
    }

    /// Returns when a reader could not go on.
    pub async fn failed(&mut self) {
        if self.failed.recv().await.is_none() {
            // No reader is running: none will fail.
            std::future::pending::<()>().await;
        }
    }

    /// Stops, flushes, drains, detaches, and writes the account. In that order: detaching takes the kernel long, and what
    /// comes meanwhile counts as filtered. The trace is complete when this returns, unless
    /// [`Session::error`] says otherwise.
    ///
    /// # Errors
    /// When the account cannot be had or written.
    pub fn finish(mut self) -> Result<Session> {
        let requests = self.programs.requests();
        requests.stop()?;
        self.session.clock.end = Some(Instant::now());
        self.channel.wait_for_running_programs()?;
        // Nobody is there to be told when every reader has failed.
        let _ = self.stop.send(true);
        let (mut consumers, mut errors) = (Vec::new(), Vec::new());
        match self.readers {
            Readers::Waiting(waiting) => consumers = waiting,
            Readers::Running(running) => {
                for reader in running {
                    let (consumer, result) = reader.join()?;
                    errors.extend(result.err().map(|error| error.to_string()));
                    consumers.push(consumer);
                }
            }
        }
        let complete = errors.is_empty();
        for consumer in &mut consumers {
            requests.flush(consumer.buffer(), self.channel.mode())?;
            if complete && let Err(error) = drain(consumer, &requests) {
                errors.push(format!("{error:#}"));
            }
        }
        self.programs.detach();
        self.channel.wait_for_running_programs()?;
        self.session.programs = vec![self.programs.report()?];
        let left_out = self.programs.left_out()?;
        // A per-CPU map has a value for every possible CPU, in their order.
        for (&cpu, left_out) in self.channel.possible().iter().zip(left_out) {
            let consumer = consumers.iter().find(|consumer| consumer.buffer().cpu() == cpu);
            let account = account(&self.channel, cpu, consumer).unwrap_or_else(|error| {
                errors.push(format!("{error:#}"));
                Cpu { cpu, ..Cpu::default() }
            });
            let filtered = left_out.own + left_out.outside;
            self.session.cpus.push(Cpu { filtered, filtered_outside: left_out.outside, ..account });
        }
        self.session.error = (!errors.is_empty()).then(|| errors.join("; "));
        self.directory.release_reserve()?;
        self.session.write(&self.directory.private())?;
        Ok(self.session)
    }
}

/// Writes what is the same in every packet of a CPU into every place of its buffer.
fn write_constants(buffer: &MappedBuffer, uuid: [u8; 16]) -> Result<()> {
    let geometry = buffer.geometry();
    for number in 0..geometry.n_subbufs() {
        let packet = geometry.begin(number) + HEADER;
        let store = |at: u64, bytes: &[u8]| buffer.store(packet + at, bytes);
        store(0, &MAGIC.to_le_bytes())
            .and_then(|()| store(UUID_AT, &uuid))
            .and_then(|()| store(STREAM_ID_AT, &0u32.to_le_bytes()))
            .and_then(|()| store(CPU_ID_AT, &buffer.cpu().to_le_bytes()))
            .context("preparing the buffers")?;
    }
    Ok(())
}

fn start_readers(
    consumers: Vec<Consumer>,
    channel: &Channel,
    requests: &Requests,
    stopped: &watch::Receiver<bool>,
    failed: &mpsc::UnboundedSender<u32>,
) -> Result<Vec<Running>> {
    let start = |(index, consumer)| {
        let requests = requests.clone();
        let mode = channel.mode();
        let flush = move |buffer: &MappedBuffer| {
            if let Err(error) = requests.flush(buffer, mode) {
                log::warn!("flushing cpu {}: {error:#}", buffer.cpu());
            }
        };
        Running::start(consumer, channel.waker(index)?, flush, stopped.clone(), failed.clone())
    };
    consumers.into_iter().enumerate().map(start).collect()
}

/// Takes all that is left on a flushed CPU where no program runs any more, and sees to it that the last packet tells all that was lost.
fn drain(consumer: &mut Consumer, requests: &Requests) -> Result<()> {
    while consumer.pass(u64::MAX)? > 0 {}
    if consumer.lost() != told(consumer)? {
        requests.mark(consumer.buffer().cpu())?;
        while consumer.pass(u64::MAX)? > 0 {}
    }
    Ok(())
}

/// The losses that the last packet of a CPU tells.
fn told(consumer: &Consumer) -> Result<u64> {
    let buffer = consumer.buffer();
    let reader = buffer.reader();
    let Some(last) = reader.produced().checked_sub(1) else { return Ok(0) };
    let mut bytes = bytes::BytesMut::with_capacity(8);
    let place = buffer.geometry().place(buffer.geometry().begin(last)) + HEADER + EVENTS_DISCARDED_AT;
    buffer.copy_to(place, 8, &mut bytes).context("reading the last packet")?;
    Ok(bytes::Buf::get_u64_le(&mut bytes))
}

fn describe(
    uuid: [u8; 16],
    command: Vec<String>,
    channel: &Channel,
    start: Instant,
    events: &[(u16, &Event)],
) -> Result<Session> {
    let (host, kernel) = machine::host_and_kernel();
    Ok(Session {
        version: env!("CARGO_PKG_VERSION"),
        uuid: metadata::uuid_text(uuid),
        host,
        kernel,
        boot_id: machine::boot_id().context("reading the boot id")?,
        command,
        mode: match channel.mode() {
            Mode::NoOverwrite => "no-overwrite",
            Mode::Overwrite => "overwrite",
        },
        subbuf_size: channel.geometry().subbuf_size(),
        n_subbufs: channel.geometry().n_subbufs(),
        clock: Clock { start, end: None },
        events: events
            .iter()
            .map(|(id, event)| SessionEvent {
                id: *id,
                name: event.name.clone(),
                size: event.format.payload_size(),
                format: event.text.clone(),
            })
            .collect(),
        cpus: Vec::new(),
        programs: Vec::new(),
        error: None,
    })
}

/// The account of a CPU at rest.
fn account(channel: &Channel, cpu: u32, consumer: Option<&Consumer>) -> Result<Cpu> {
    let row = channel.control().row(cpu).with_context(|| format!("cpu {cpu} has no control row"))?;
    let mut account = Cpu {
        cpu,
        lost_full: row.producer.lost_full.peek(),
        lost_too_big: row.producer.lost_too_big.peek(),
        lost_nested: row.producer.lost_nested.peek(),
        lost_no_buffer: row.producer.lost_no_buffer.peek(),
        ..Cpu::default()
    };
    let Some(consumer) = consumer else { return Ok(account) };
    let reader = consumer.buffer().reader();
    let recorded = reader.recorded().with_context(|| format!("the buffer of cpu {cpu} is not at rest"))?;
    let statistics = consumer.statistics();
    let taken = statistics.records.load(Relaxed);
    // Ready, and not taken: only when the file could not be written.
    let left = reader.pass(row.consumer.consumed.peek(), channel.mode())?;
    let left = (left.first..left.first + left.backlog).map(|number| reader.subbuf(number));
    account.unwritten =
        left.map(|subbuf| Ok(subbuf?.map_or(0, |subbuf| u64::from(subbuf.records)))).sum::<Result<u64>>()?;
    account.recorded = recorded;
    account.overrun = recorded
        .checked_sub(taken + account.unwritten)
        .with_context(|| format!("cpu {cpu}: {recorded} records recorded, but {taken} taken"))?;
    account.bytes = statistics.bytes.load(Relaxed);
    account.subbufs_processed = statistics.subbufs_processed.load(Relaxed);
    account.max_backlog = statistics.max_backlog.load(Relaxed);
    Ok(account)
}

const _: () = assert!(PACKET_HEADER + HEADER < relay_common::MAX_SUBBUF_SIZE);
