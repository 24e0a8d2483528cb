//! Records one trace, from the first map to the last line of the account; or takes up one whose recorder was killed.

mod addresses;
mod archive;
mod builds;
mod code;
mod ending;
mod history;
mod kept;
mod pieces;
mod rotation;
pub mod rules;
pub mod snapshot;
mod tasks;
mod text;

pub use self::ending::Removed;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::host::make_files_of_group;
use anyhow::{Context as _, Result, bail};
use relay_common::Mode;

use self::{
    addresses::Addresses,
    ending::{drain_all, end_trace, save_names},
    kept::{KeptPieces, Yielding, is_for_want_of_room},
    pieces::Pieces,
    rotation::resume_at,
    rules::Rules,
    tasks::Tasks,
};
use crate::session::{self, Notices, PinnedSession, Prepared};
use relay_channel::{
    consumer::{Consumer, Statistics},
    output::{CpuFile, Output},
    pins::OpenError,
    readers::Readers,
    sys::MappedBuffer,
};
use relay_trace::form::{
    self,
    clock::Instant,
    directory::{self, TraceDirectory},
    new::NewDirectory,
    session::SessionFile,
};

/// At least as much as a CPU's account takes as JSON, in bytes.
const ACCOUNT_SIZE: u64 = 1024;

/// What to record, and where to.
#[derive(Debug)]
pub struct RecordingOptions {
    /// What to record.
    pub session: session::SessionOptions,
    /// The trace's directory.
    pub output: PathBuf,
    /// Whether a trace that is there is replaced.
    pub force: bool,
    /// Whether the kernel counts the programs' runs.
    pub bpf_stats: bool,
    /// Whether relayd's own events are recorded.
    pub record_self: bool,
    /// When the trace goes on in a new piece.
    pub rotation: Rules,
}

/// A recording under way. Dropping it without [`Recording::finish`] stops it and leaves what was written.
#[expect(missing_debug_implementations, reason = "of threads there is little to show")]
pub struct Recording {
    pinned: PinnedSession,
    directory: TraceDirectory,
    addresses: Addresses,
    tasks: Tasks,
    readers: Readers,
    snapshots: u64,
    /// What `session.json` holds by now.
    session: SessionFile,
    pieces: Pieces,
    /// What somebody else has done to its files.
    trouble: Option<String>,
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
    pub fn start(options: RecordingOptions) -> Result<(Self, Option<Notices>)> {
        let RecordingOptions { session, output, force, bpf_stats, record_self, rotation } = options;
        let context = session.context;
        let (mut prepared, notices) = Prepared::load(None, session)?;
        let directory = TraceDirectory::create(&output, force)?;
        let path = directory.absolute()?;
        pieces::clear(&path, &rotation, 0, force)?;
        if bpf_stats {
            prepared.count_runs()?;
        }
        let channel = Arc::clone(&prepared.channel);
        let tasks = Tasks::watch(context);
        let pinned = prepared.attach(0, Some((path.clone(), record_self)))?;
        let session = pinned.description.session.clone();
        let pieces = Pieces::new(rotation, path, 0)?;
        let mut recording = Self {
            addresses: Addresses::watch(&session.events, pinned.description.context, channel.possible()),
            tasks,
            readers: start_readers(&pinned, &directory.path(), pieces.kept().clone())?,
            snapshots: 0,
            session,
            pieces,
            trouble: None,
            pinned,
            directory,
        };
        recording.write_session()?;
        recording.directory.keep();
        // From here on it can be recovered.
        recording.pinned.keep();
        recording.pinned.start()?;
        Ok((recording, notices))
    }

    /// Goes on with a trace whose recorder was killed: its programs have recorded all the while, as long as there was room.
    ///
    /// # Errors
    /// When nothing of it is left in the kernel, or its recorder lives.
    pub fn resume(output: &Path, rotation: Rules) -> Result<Self> {
        let (pinned, directory, session) = open(output)?;
        let path = output.display();
        if !pinned.is_attached()? {
            bail!("{path}: its recorder was killed while it ended the trace; relayd recover {path} completes it");
        }
        if rotation.make_pieces() && pinned.channel.mode() == Mode::Overwrite {
            bail!("{path} is recorded in overwrite mode, which makes no pieces");
        }
        let trace = directory.absolute()?;
        pieces::clear(&trace, &rotation, session.pieces, false)?;
        // One that was being given its buffer when the recorder was killed has it from here on.
        pinned.channel.hand_out()?;
        let (context, cpus) = (pinned.description.context, pinned.channel.possible());
        let (mut addresses, mut tasks) = (Addresses::watch(&session.events, context, cpus), Tasks::watch(context));
        addresses.add_known(directory.own_files());
        tasks.add_known(directory.own_files());
        let pieces = Pieces::new(rotation, trace, session.pieces)?;
        let readers = start_readers(&pinned, &directory.path(), pieces.kept().clone())?;
        pinned.start()?;
        Ok(Self { pinned, directory, addresses, tasks, readers, snapshots: 0, session, pieces, trouble: None })
    }

    /// Ends the piece that is being written when it is time to, and begins the next. To be called ten times a second or so.
    ///
    /// # Errors
    /// When the piece cannot be made or written. What was recorded is in the one or the other.
    pub fn rotate(&mut self) -> Result<()> {
        let bytes = self.readers.statistics().values().map(|statistics| statistics.bytes.load(Relaxed)).sum();
        if self.pieces.is_due(bytes) {
            self.pieces.follow(self.directory.absolute()?);
            match self.end_piece() {
                Ok((piece, records)) => self.pieces.ended(piece, records)?,
                Err(error) => {
                    self.pieces.failed(&error);
                    return Err(error);
                }
            }
        }
        self.pieces.keep_free()?;
        if self.pieces.kept().tell(&mut self.session) {
            self.session.write(&self.directory.private())?;
        }
        Ok(())
    }

    /// Ends the piece that is being written, begins the next, and returns where the one that has ended is, and how many records it has.
    fn end_piece(&mut self) -> Result<(PathBuf, u64)> {
        let (trace, channel) = (self.pieces.trace(), Arc::clone(&self.pinned.channel));
        let path = form::pieces::path(&trace, self.session.pieces + 1);
        let mut piece = TraceDirectory::create(&path, false)?;
        piece.write_metadata(&self.pinned.metadata()?)?;
        let before = self.session.clone();
        let mut session = before.clone();
        // Programs run on, so what the kernel has counted of their runs is of no moment.
        self.pinned.count(&mut session, self.tasks.executed())?;
        session.programs.iter_mut().for_each(|program| program.runs = None);
        // Before the first file: should this process be killed, whoever recovers the trace completes the piece.
        let written = before.write(&piece.private())?;
        piece.set_aside(self.room_for_account(written))?;
        piece.keep();
        let end = Instant::now();
        let (from, to, kept) = (trace, path.clone(), self.pieces.kept().clone());
        let parts = self.readers.each(move |consumer| rotation::cut(consumer, &channel, &before, (&from, &to), kept));
        // A file that cannot be moved goes on in the next piece.
        let moved = |(cpu, part): (u32, Result<_>)| {
            let part = part.inspect_err(|error| log::error!("cpu {cpu} is not in {}: {error:#}", path.display()));
            Some((cpu, part.ok()?))
        };
        let parts = parts.into_iter().filter_map(moved).collect();
        session.clock.end = Some(end);
        session.cpus = rotation::accounts(&self.session, &self.pinned.accounts()?, &parts);
        rotation::go_on(&mut self.session, &session);
        let written = piece.release_reserve().and_then(|()| session.write(&piece.private()));
        if let Err(error) = written.and_then(|_| self.session.write(&self.directory.private())) {
            // The next has begun all the same.
            log::error!("the account of {}: {error:#}", path.display());
        }
        let kept = self.pieces.kept();
        let private = piece.private();
        save_names(&mut self.addresses, &mut self.tasks, &private, |why| is_for_want_of_room(why) && kept.make_room());
        self.tasks.begin_piece(end.monotonic);
        Ok((path, session.cpus.iter().map(form::session::CpuAccount::in_file).sum()))
    }

    /// What `session.json`, of `written` bytes now, can have at the end: the account of every CPU, what the pieces before have of it, and a
    /// reason.
    fn room_for_account(&self, written: u64) -> u64 {
        written + ACCOUNT_SIZE * (2 * self.pinned.channel.possible().len() as u64 + 4)
    }

    /// What tells of the session before there is an account.
    fn write_session(&mut self) -> Result<()> {
        let private = self.directory.private();
        self.directory.write_metadata(&self.pinned.metadata()?)?;
        self.addresses.save(&private)?;
        self.tasks.save(&private)?;
        // Last: a recorder that is killed from then on leaves a trace that can be recovered, with its names.
        let written = self.pinned.description.session.write(&private)?;
        self.directory.set_aside(self.room_for_account(written))
    }

    /// Where the trace is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path()
    }

    /// Whether the files are what the readers have written; if not, what is wrong is kept for the account. To be called every second or so.
    pub fn is_intact(&mut self) -> bool {
        let path = self.directory.path();
        let by_others = "by somebody else: recording has stopped";
        let wrong = |(cpu, statistics): (u32, Arc<Statistics>)| {
            let file = path.join(directory::cpu_file(cpu));
            let written = statistics.bytes.load(Relaxed);
            match self.directory.bytes_of(cpu) {
                None => Some(format!("{} was removed {by_others}", file.display())),
                Some(bytes) if bytes < written => Some(format!("{} was cut off {by_others}", file.display())),
                Some(_) => None,
            }
        };
        self.trouble = if self.directory.is_removed() {
            Some(format!("{} was removed {by_others}", path.display()))
        } else {
            self.readers.statistics().into_iter().find_map(wrong)
        };
        self.trouble.is_none()
    }

    /// How many events are attached.
    #[must_use]
    pub fn events(&self) -> usize {
        self.pinned.description.session.events.len()
    }

    /// How it stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let channel = &self.pinned.channel;
        let mut progress = Progress::default();
        for (cpu, statistics) in self.readers.statistics() {
            progress.bytes += statistics.bytes.load(Relaxed);
            // While writers are at work the exact number is not to be had; what has been read is.
            let count = channel.buffer(cpu).and_then(|buffer| buffer.reader().count());
            progress.records += count.map_or_else(|| statistics.records.load(Relaxed), |count| count.recorded);
        }
        for (cpu, counters) in channel.possible().iter().filter_map(|&cpu| Some((cpu, channel.counters(cpu)?))) {
            progress.lost += counters.lost();
            if channel.buffer(cpu).is_some() {
                let backlog = counters.produced.saturating_sub(counters.consumed);
                progress.backlog.push(backlog.min(channel.geometry().n_subbufs()));
            }
        }
        progress
    }

    /// Takes what the kernel tells beside the events: what threads are called and, with user stacks, which files processes map. To be called every second or so.
    pub fn poll(&mut self) {
        self.tasks.poll(&self.directory.private());
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
    pub fn snapshot(&mut self) -> Result<(PathBuf, SessionFile)> {
        if self.pinned.channel.mode() != Mode::Overwrite {
            bail!("there is nothing to take a snapshot of: without --overwrite the files hold everything");
        }
        let path = self.next_snapshot();
        let new = NewDirectory::create(&path, None)?;
        let mut directory = TraceDirectory::create(new.path(), false)?;
        let session = snapshot::take(&self.pinned, &directory, &mut self.addresses, &mut self.tasks)?;
        directory.keep();
        new.put()?;
        Ok((path, session))
    }

    /// The first `DIR-snapshot-N` that is not there.
    fn next_snapshot(&mut self) -> PathBuf {
        loop {
            self.snapshots += 1;
            let mut path = self.pieces.trace().into_os_string();
            path.push(format!("-snapshot-{}", self.snapshots));
            if fs::symlink_metadata(&path).is_err() {
                return path.into();
            }
        }
    }

    /// Stops, flushes, drains, detaches, and writes the account. In that order: detaching takes the kernel long, and what
    /// comes meanwhile counts as filtered. The trace is complete when this returns, unless
    /// [`SessionFile::error`] says otherwise.
    ///
    /// # Errors
    /// When the account cannot be had or written; [`Removed`] when there is no place for it any more.
    pub fn finish(mut self) -> Result<SessionFile> {
        self.pinned.stop()?;
        self.pinned.channel.wait_for_running_programs()?;
        // What is left in the buffers may need the room of a piece that is due, and gives way.
        if self.pieces.kept().gives_way()
            && let Err(error) = self.rotate()
        {
            log::error!("{error:#}");
        }
        self.pieces.kept().end();
        let end = Instant::now();
        let Self { pinned, directory, addresses, tasks, readers, mut session, pieces, trouble, .. } = self;
        let (mut consumers, mut errors): (_, Vec<_>) = (Vec::new(), trouble.into_iter().collect());
        for stopped in readers.stop()? {
            consumers.push((stopped.consumer, stopped.result.is_ok()));
            errors.extend(stopped.result.err().map(|error| format!("{error:#}")));
        }
        errors.extend(drain_all(&mut consumers, &pinned.channel));
        pieces.kept().tell(&mut session);
        let session = end_trace(pinned, directory, session, (addresses, tasks), consumers, end, errors);
        pieces.finish();
        session
    }
}

/// Completes a trace whose recorder was killed: takes what the kernel side still holds, and writes the account.
///
/// # Errors
/// When nothing of it is left in the kernel, its recorder lives, or the account cannot be written.
pub fn recover(output: &Path) -> Result<SessionFile> {
    let (pinned, directory, session) = open(output)?;
    pinned.stop()?;
    let end = Instant::now();
    pinned.channel.wait_for_running_programs()?;
    let description = &pinned.description;
    let mut names =
        (Addresses::watch(&description.session.events, description.context, &[]), Tasks::new(description.context));
    names.0.add_known(directory.own_files());
    names.1.add_known(directory.own_files());
    let consumer = |buffer: Arc<MappedBuffer>| {
        let output = CpuFile::resume(&directory.path(), buffer.cpu(), buffer.taken().output)?;
        Ok((Consumer::new(buffer, pinned.channel.mode(), Box::new(output)), true))
    };
    let mut consumers = pinned.channel.buffers().into_iter().map(consumer).collect::<Result<Vec<_>>>()?;
    let errors = drain_all(&mut consumers, &pinned.channel);
    end_trace(pinned, directory, session, names, consumers, end, errors)
}

/// Opens the session of a trace whose recorder was killed.
fn open(output: &Path) -> Result<(PinnedSession, TraceDirectory, SessionFile)> {
    let directory = TraceDirectory::open(output)?;
    let group = directory.group()?;
    make_files_of_group(group).with_context(|| format!("making files of the group {group} (needs CAP_SETGID)"))?;
    let path = output.display();
    let private = directory.own_files();
    if private.len_of(form::session::FILE).is_none() {
        bail!("{path}: its recorder was killed before it began to record; remove it, or replace it with --force");
    }
    let mut session = SessionFile::read(private)?;
    let name = session::trace_name(&session.uuid);
    match PinnedSession::open(&name) {
        Ok(pinned) if session.clock.end.is_some() && !session.cpus.is_empty() => {
            // Killed after the last line of the account.
            pinned.close()?;
            bail!("{path} is complete: there is nothing to recover");
        }
        Ok(pinned) => {
            // The files' lengths first: what is moved, they tell.
            let trace = directory.absolute()?;
            for buffer in pinned.channel.buffers() {
                buffer.note_output(resume_at(&trace, &session, buffer.cpu(), buffer.taken().output));
            }
            rotation::complete(&pinned, &trace, &mut session)?;
            Ok((pinned, directory, session))
        }
        Err(_) if session.clock.end.is_some() => bail!("{path} is complete: there is nothing to recover"),
        Err(OpenError::Locked(_)) => bail!("{path} is being recorded: its recorder lives"),
        Err(OpenError::Missing(_)) => bail!(
            "{path}: nothing of its recording is left in the kernel{}; relayd repair saves what is in the files",
            if crate::host::boot_id().is_ok_and(|now| now != session.boot_id) {
                ", which was booted since"
            } else {
                ""
            }
        ),
        Err(OpenError::Other(error)) => Err(error),
    }
}

/// Starts the readers of a trace, each where the one before it has ended, if there was one.
fn start_readers(pinned: &PinnedSession, folder: &Path, kept: KeptPieces) -> Result<Readers> {
    let (folder, channel) = (folder.to_path_buf(), Arc::clone(&pinned.channel));
    Readers::start(Arc::clone(&pinned.channel), move |cpu| {
        let buffer = channel.buffer(cpu).with_context(|| format!("cpu {cpu} has no buffer"))?;
        // CTF readers number what was discarded between two packets: the first is there before anything can be lost.
        if buffer.reader().produced() == 0 && !buffer.reader().is_open() {
            channel.mark(cpu)?;
        }
        let file = CpuFile::resume(&folder, cpu, buffer.taken().output)?;
        Ok(Box::new(Yielding::new(file, buffer, kept.clone())) as Box<dyn Output>)
    })
}
