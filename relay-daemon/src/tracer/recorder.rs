//! Records one trace, from the first map to the last line of the account.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::{Context as _, Result, bail};
use relay_common::{
    Buffer as _, Geometry, HEADER, Mode,
    recipe::Pattern,
    trace::{self as packets, CPU_ID_AT, EVENTS_DISCARDED_AT, MAGIC, Packets, STREAM_ID_AT, UUID_AT},
};

use super::{
    addresses::Addresses,
    choice::Choice,
    directory::TraceDirectory,
    events::Event,
    metadata,
    programs::{LeftOut, Notices, Orders, Programs},
    session::{self, Clock, Cpu, Session, SessionEvent},
    tasks::Tasks,
};
use crate::{
    channel::{Channel, Host},
    consumer::{Consumer, CpuFile},
    machine::{self, Instant},
    readers::{Readers, snapshot_all},
    sys::MappedBuffer,
};

/// At least as much as a CPU's account takes as JSON, in bytes.
const ACCOUNT_SIZE: u64 = 1024;

/// What to record, and where to.
#[derive(Debug)]
pub struct Options {
    /// The events.
    pub events: Vec<Event>,
    /// The patterns of their conditions.
    pub patterns: Vec<Pattern>,
    /// Whose events are recorded.
    pub choice: Choice,
    /// What stands before every payload: bits of `relay_common::recipe::context`.
    pub context: u32,
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
    channel: Arc<Channel>,
    programs: Programs,
    directory: TraceDirectory,
    session: Session,
    metadata: String,
    addresses: Addresses,
    tasks: Tasks,
    readers: Readers,
    snapshots: u64,
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
        let Options {
            events,
            patterns,
            choice,
            context,
            output,
            force,
            geometry,
            mode,
            bpf_stats,
            record_self,
            command,
        } = options;
        machine::raise_limits();
        let uuid = machine::new_uuid()?;
        let channel = Arc::new(Channel::create(geometry, mode, Packets { clock: HostClock { uuid } })?);
        let orders = Orders { events: &events, patterns: &patterns, choice: &choice, context };
        let (mut programs, notices) = Programs::load(&channel, &orders)?;
        let mut directory = TraceDirectory::create(&output, force)?;
        let (folder, marking) = (directory.path().to_path_buf(), Arc::clone(&channel));
        let readers = Readers::start(Arc::clone(&channel), move |cpu| {
            // CTF readers number what was discarded between two packets: the first is there before anything can be lost.
            marking.mark(cpu)?;
            Ok(Box::new(CpuFile::create(&folder, cpu)?))
        })?;
        let mut tasks = Tasks::watch(channel.possible());
        let mut addresses = Addresses::watch(&events, context, channel.possible());
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
        let session = describe(uuid, command, &channel, context, start, &attached)?;
        let described = attached.iter().map(|(id, event)| (*id, event.name.as_str(), &event.format.fields[..]));
        let metadata = metadata::write(&session, described);
        directory.write_metadata(&metadata)?;
        let written = session.write(&directory.private())?;
        // What the session will have grown by at the end: the account of every CPU, and a reason.
        directory.set_aside(written + ACCOUNT_SIZE * (channel.possible().len() as u64 + 4))?;
        addresses.save(&directory.private())?;
        tasks.save(&directory.private())?;
        directory.keep();
        programs.start(record_self)?;
        Ok((Self { channel, programs, directory, session, metadata, addresses, tasks, readers, snapshots: 0 }, notices))
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
        for (cpu, statistics) in self.readers.statistics() {
            progress.bytes += statistics.bytes.load(Relaxed);
            // While writers are at work the exact number is not to be had; what has been read is.
            let count = self.channel.buffer(cpu).and_then(|buffer| buffer.reader().count());
            progress.records += count.map_or_else(|| statistics.records.load(Relaxed), |count| count.recorded);
        }
        for (cpu, counters) in
            self.channel.possible().iter().filter_map(|&cpu| Some((cpu, self.channel.counters(cpu)?)))
        {
            progress.lost += counters.lost();
            if self.channel.buffer(cpu).is_some() {
                let backlog = counters.produced.saturating_sub(counters.consumed);
                progress.backlog.push(backlog.min(self.channel.geometry().n_subbufs()));
            }
        }
        progress
    }

    /// Takes what the kernel tells beside the events: what threads are called and, with user stacks, which files processes map. To be called every second or so.
    pub fn poll(&mut self) {
        self.tasks.poll();
        self.addresses.poll();
    }

    /// Returns when a reader could not go on.
    pub async fn failed(&mut self) {
        self.readers.failed().await;
    }

    /// Writes what the buffers hold now as a trace of its own, beside this one: `DIR-snapshot-1` and so on. Recording goes on
    /// meanwhile. Only in overwrite mode: else the files are the snapshot.
    ///
    /// # Errors
    /// When it cannot be written; nothing stays behind then.
    pub fn snapshot(&mut self) -> Result<(PathBuf, Session)> {
        if self.channel.mode() != Mode::Overwrite {
            bail!("there is nothing to take a snapshot of: without --overwrite the files hold everything");
        }
        let mut directory = TraceDirectory::create(&self.next_snapshot(), false)?;
        let folder = directory.path().to_path_buf();
        let taken = snapshot_all(&self.channel, |cpu| Ok(Box::new(CpuFile::create(&folder, cpu)?)))?;
        let mut session = self.session.clone();
        session.clock.end = Some(Instant::now());
        for (&cpu, left_out) in self.channel.possible().iter().zip(self.programs.left_out()?) {
            let mut account = lost(&self.channel, cpu, left_out)?;
            if let Some(snapshot) = taken.get(&cpu) {
                account.recorded = snapshot.recorded;
                account.overrun = snapshot.recorded - snapshot.taken;
                account.bytes = snapshot.bytes;
                account.subbufs_processed = snapshot.subbufs;
                account.max_backlog = snapshot.subbufs;
            }
            session.cpus.push(account);
        }
        session.programs = self.programs.report()?;
        session.kprobes_missed = self.programs.missed()?;
        count_suppressed(&self.programs, &mut session)?;
        directory.write_metadata(&self.metadata)?;
        self.addresses.save(&directory.private())?;
        self.tasks.save(&directory.private())?;
        session.write(&directory.private())?;
        directory.keep();
        Ok((folder, session))
    }

    /// The first `DIR-snapshot-N` that is not there.
    fn next_snapshot(&mut self) -> PathBuf {
        loop {
            self.snapshots += 1;
            let mut path = self.directory.path().as_os_str().to_owned();
            path.push(format!("-snapshot-{}", self.snapshots));
            if fs::symlink_metadata(&path).is_err() {
                return path.into();
            }
        }
    }

    /// Stops, flushes, drains, detaches, and writes the account. In that order: detaching takes the kernel long, and what
    /// comes meanwhile counts as filtered. The trace is complete when this returns, unless
    /// [`Session::error`] says otherwise.
    ///
    /// # Errors
    /// When the account cannot be had or written.
    pub fn finish(mut self) -> Result<Session> {
        self.programs.stop()?;
        self.session.clock.end = Some(Instant::now());
        self.channel.wait_for_running_programs()?;
        let (mut consumers, mut errors) = (Vec::new(), Vec::new());
        for stopped in self.readers.stop()? {
            let mut consumer = stopped.consumer;
            self.channel.flush(consumer.buffer().cpu())?;
            let result = stopped.result.map_err(anyhow::Error::from).and_then(|()| drain(&mut consumer, &self.channel));
            errors.extend(result.err().map(|error| format!("{error:#}")));
            consumers.push(consumer);
        }
        self.session.kprobes_missed = self.programs.missed()?;
        self.programs.detach();
        self.channel.wait_for_running_programs()?;
        self.session.programs = self.programs.report()?;
        count_suppressed(&self.programs, &mut self.session)?;
        // A per-CPU map has a value for every possible CPU, in their order.
        for (&cpu, left_out) in self.channel.possible().iter().zip(self.programs.left_out()?) {
            let mut account = lost(&self.channel, cpu, left_out)?;
            if let Some(consumer) = consumers.iter().find(|consumer| consumer.buffer().cpu() == cpu)
                && let Err(error) = account_of(consumer, &mut account)
            {
                errors.push(format!("{error:#}"));
            }
            self.session.cpus.push(account);
        }
        self.session.error = (!errors.is_empty()).then(|| errors.join("; "));
        self.directory.release_reserve()?;
        self.session.write(&self.directory.private())?;
        // Last, since names are worth less than an account.
        if let Err(error) = self.addresses.save(&self.directory.private()) {
            log::error!("stacks may have fewer names: {error:#}");
        }
        if let Err(error) = self.tasks.save(&self.directory.private()) {
            log::error!("threads may have no names: {error:#}");
        }
        Ok(self.session)
    }
}

/// User space's side of the packets: the clock of packets that it closes itself, and the trace that all of them belong to.
struct HostClock {
    uuid: [u8; 16],
}

impl packets::Clock for HostClock {
    fn now(&self) -> u64 {
        Instant::now().monotonic
    }
    fn steps_back(&self) -> bool {
        true
    }
}

impl Host for Packets<HostClock> {
    /// Writes what is the same in every packet of a CPU into every place of its buffer.
    fn buffer_made(&self, buffer: &MappedBuffer) -> io::Result<()> {
        let geometry = buffer.geometry();
        for number in 0..geometry.n_subbufs() {
            let packet = geometry.begin(number) + HEADER;
            buffer.store(packet, &MAGIC.to_le_bytes())?;
            buffer.store(packet + UUID_AT, &self.clock.uuid)?;
            buffer.store(packet + STREAM_ID_AT, &0u32.to_le_bytes())?;
            buffer.store(packet + CPU_ID_AT, &buffer.cpu().to_le_bytes())?;
        }
        Ok(())
    }
}

/// Takes all that is left on a flushed CPU where no program runs any more, and sees to it that the last packet tells all that was lost.
fn drain(consumer: &mut Consumer, channel: &Channel) -> Result<()> {
    while consumer.pass(u64::MAX)? > 0 {}
    let buffer = Arc::clone(consumer.buffer());
    if buffer.control().producer.lost() != told(&buffer)? {
        channel.mark(buffer.cpu())?;
        while consumer.pass(u64::MAX)? > 0 {}
    }
    Ok(())
}

/// The losses that the last packet of a CPU tells.
fn told(buffer: &MappedBuffer) -> Result<u64> {
    let Some(last) = buffer.reader().produced().checked_sub(1) else { return Ok(0) };
    let mut bytes = bytes::BytesMut::with_capacity(8);
    let place = buffer.geometry().place(buffer.geometry().begin(last)) + HEADER + EVENTS_DISCARDED_AT;
    buffer.copy_to(place, 8, &mut bytes).context("reading the last packet")?;
    Ok(bytes::Buf::get_u64_le(&mut bytes))
}

fn describe(
    uuid: [u8; 16],
    command: Vec<String>,
    channel: &Channel,
    context: u32,
    start: Instant,
    events: &[(u16, &Event)],
) -> Result<Session> {
    let (host, kernel) = machine::host_and_kernel();
    Ok(Session {
        format: session::FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uuid: metadata::uuid_text(uuid),
        host,
        kernel,
        boot_id: machine::boot_id().context("reading the boot id")?,
        command,
        mode: match channel.mode() {
            Mode::NoOverwrite => "no-overwrite".to_owned(),
            Mode::Overwrite => "overwrite".to_owned(),
        },
        subbuf_size: channel.geometry().subbuf_size(),
        n_subbufs: channel.geometry().n_subbufs(),
        context: metadata::context_fields(context).into_iter().map(str::to_owned).collect(),
        clock: Clock { start, end: None },
        events: events
            .iter()
            .map(|(id, event)| SessionEvent {
                id: *id,
                name: event.name.clone(),
                size: event.format.payload_size(),
                format: event.text.clone(),
                suppressed: event.recipe.as_ref().filter(|recipe| recipe.interval != 0).map(|_| 0),
            })
            .collect(),
        cpus: Vec::new(),
        programs: Vec::new(),
        kprobes_missed: None,
        error: None,
        repaired: None,
    })
}

/// Writes how many records of each event were over its limit.
fn count_suppressed(programs: &Programs, session: &mut Session) -> Result<()> {
    for event in session.events.iter_mut().filter(|event| event.suppressed.is_some()) {
        event.suppressed = Some(programs.suppressed(event.id)?);
    }
    Ok(())
}

/// What a CPU has lost and left out so far.
fn lost(channel: &Channel, cpu: u32, left_out: LeftOut) -> Result<Cpu> {
    let counters = channel.counters(cpu).with_context(|| format!("cpu {cpu} has no control row"))?;
    Ok(Cpu {
        cpu,
        filtered: left_out.own + left_out.outside + left_out.unwanted,
        filtered_outside: left_out.outside,
        filtered_unwanted: left_out.unwanted,
        suppressed: left_out.suppressed,
        entries: left_out.entries,
        unpaired: left_out.unpaired,
        faults: left_out.faults,
        lost_full: counters.lost_full,
        lost_too_big: counters.lost_too_big,
        lost_nested: counters.lost_nested,
        lost_no_buffer: counters.lost_no_buffer,
        ..Cpu::default()
    })
}

/// Adds what a CPU at rest has recorded, and what of that is in its file.
fn account_of(consumer: &Consumer, account: &mut Cpu) -> Result<()> {
    let cpu = account.cpu;
    let reader = consumer.buffer().reader();
    let count = reader.count().with_context(|| format!("the buffer of cpu {cpu} is not at rest"))?;
    let statistics = consumer.statistics();
    let taken = statistics.records.load(Relaxed);
    // Ready, and not taken: only when the file could not be written. Memory that was scribbled on may have been overwritten in
    // any mode.
    let left = reader.pass(consumer.consumed(), Mode::Overwrite)?;
    let left = (left.first..left.first + left.backlog).map(|number| reader.subbuf(number));
    account.unwritten =
        left.map(|subbuf| Ok(subbuf?.map_or(0, |subbuf| u64::from(subbuf.records)))).sum::<Result<u64>>()?;
    account.recorded = count.recorded;
    account.overrun = count
        .recorded
        .checked_sub(taken + account.unwritten)
        .with_context(|| format!("cpu {cpu}: {} records recorded, but {taken} taken", count.recorded))?;
    account.bytes = statistics.bytes.load(Relaxed);
    account.subbufs_processed = statistics.subbufs_processed.load(Relaxed);
    account.max_backlog = statistics.max_backlog.load(Relaxed);
    Ok(())
}
