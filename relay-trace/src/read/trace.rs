//! A trace's directory, opened to be read: its session, the meaning of its records, and its files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    names::{Names, Telling},
    schema::{EventClass, Schema},
    stream::Stream,
};
use crate::{
    form::{
        archive::{self, Opened, Unpacked},
        clock::Instant,
        directory,
        folder::Folder,
        folder_of,
        metadata::parse_uuid,
        pieces,
        session::{self, SessionClock, SessionFile},
        tasks::{self, Noted, TaskNote},
    },
    read::symbolize::{SymbolSources, Symbols},
};

/// A trace.
#[derive(Debug)]
pub struct Trace {
    /// Its directory, or its archive.
    pub path: PathBuf,
    folder: Folder,
    private: Folder,
    /// Its own facts.
    pub session: SessionFile,
    /// What its records mean.
    pub schema: Schema,
    /// The names of threads that the recorder saw.
    pub names: Names,
    /// Where the kernel's notices of threads' names are missing.
    pub unnamed: Vec<TaskNote>,
    /// Where events tell the names of threads, by id.
    tellings: Vec<Vec<Telling>>,
    /// What could not be read of what describes it.
    pub flaws: Vec<String>,
    uuid: [u8; 16],
    sources: Arc<SymbolSources>,
    shift: Shift,
}

/// From a trace's clock to the common one: that of the first trace.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shift {
    /// The same clock.
    None,
    /// Another boot's: to wall time by the trace's own anchors, and from there by the first trace's.
    ByWall { own: Anchors, common: Anchors },
}

/// The wall time at zero of a monotonic clock, in nanoseconds, when recording began and when it ended; in between the clocks may have been
/// slewed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Anchors {
    /// Monotonic.
    start: u64,
    end: u64,
    epoch_at_start: i128,
    epoch_at_end: i128,
}

impl Trace {
    /// Opens a trace, in a directory or in an archive.
    ///
    /// # Errors
    /// When it is none, or what describes it is missing, damaged or newer than this relayd.
    pub fn open(path: &Path, progress: &mut Unpacked<'_>) -> Result<Self> {
        let Opened { folder, private, mut flaws } = archive::open(path, progress)?;
        let session = SessionFile::read(&private)?;
        let file = private.path().join(session::FILE);
        let mut of_session = Vec::new();
        let schema = Schema::new(&session, &mut of_session).with_context(|| format!("reading {}", file.display()))?;
        flaws.extend(of_session.into_iter().map(|flaw| format!("{}: {flaw}", file.display())));
        let uuid = parse_uuid(&session.uuid).with_context(|| format!("{}: no UUID", file.display()))?;
        let mut or_nothing = |error: anyhow::Error| flaws.push(format!("{error:#}"));
        let told = tasks::read(&private).map_err(&mut or_nothing).unwrap_or_default();
        let last = tasks::read_last(&private).map_err(&mut or_nothing).unwrap_or_default();
        let cgroups = tasks::read_cgroups(&private).map_err(&mut or_nothing).unwrap_or_default();
        let is_missing = |told: &TaskNote| match told.what {
            Noted::Missing { .. } => told.time > session.clock.start.monotonic,
            Noted::Named(..) => false,
        };
        let unnamed = told.iter().copied().filter(is_missing).collect();
        let names = Names::new(told, last, cgroups);
        let tellings = schema.by_id().map(|event| event.map_or(Vec::new(), Telling::all)).collect();
        let sources = SymbolSources::read(&private, Path::new("/")).map_err(&mut or_nothing).unwrap_or_default();
        for name in folder.names().with_context(|| format!("reading {}", path.display()))? {
            if directory::cpu_of(&name).is_some()
                && let Err(error) = folder.file(&name)
            {
                or_nothing(anyhow!(error).context(format!("{} is left out", path.join(&name).display())));
            }
        }
        let sources = Arc::new(sources);
        Ok(Self {
            path: path.to_path_buf(),
            folder,
            private,
            session,
            schema,
            names,
            unnamed,
            tellings,
            flaws,
            uuid,
            sources,
            shift: Shift::None,
        })
    }

    /// Opens several traces. The first one's clock becomes the common one; those of other boots are brought to it by wall time.
    ///
    /// # Errors
    /// As [`Self::open`]; and when two cannot be brought together.
    pub fn open_all(paths: &[PathBuf], progress: &mut Unpacked<'_>) -> Result<Vec<Self>> {
        let mut traces: Vec<Self> = paths.iter().map(|path| Self::open(path, progress)).collect::<Result<_>>()?;
        if let Some((first, others)) = traces.split_first_mut() {
            let common = Anchors::new(&first.session.clock);
            for other in others.iter_mut().filter(|other| other.session.boot_id != first.session.boot_id) {
                other.shift = Shift::ByWall { own: Anchors::new(&other.session.clock), common };
            }
        }
        Ok(traces)
    }

    /// Reads the session again, for a trace that is being recorded, and tells whether recording has ended.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn has_ended(&self) -> Result<bool> {
        Ok(is_finished(&SessionFile::read(&self.private)?))
    }

    /// Whether its recorder lives.
    ///
    /// # Errors
    /// When the file system cannot say; of an archive.
    pub fn is_being_recorded(&self) -> Result<bool> {
        let folder = self.private.path();
        self.private.is_locked().with_context(|| format!("looking at the lock of {}", folder.display()))
    }

    /// Whether the recording was ended in order.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        is_finished(&self.session)
    }

    /// A time of the trace in nanoseconds of the common clock.
    #[inline]
    #[must_use]
    pub fn common(&self, timestamp: u64) -> u64 {
        match &self.shift {
            Shift::None => timestamp,
            Shift::ByWall { own, common } => {
                let wall = i128::from(timestamp) + own.epoch(i128::from(timestamp));
                // The other way round the epoch is that of about the same moment: it changes by millionths.
                let time = wall - common.epoch(wall - common.epoch_at_start);
                u64::try_from(time.max(0)).unwrap_or(u64::MAX)
            }
        }
    }

    /// The UUID in every packet.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// The numbers of the CPUs that have a file, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn cpus(&self) -> Result<Vec<u32>> {
        let names = self.folder.names().with_context(|| format!("reading {}", self.path.display()))?;
        let files = names.iter().filter(|name| self.folder.len_of(name).is_some());
        let mut cpus: Vec<u32> = files.filter_map(|name| directory::cpu_of(name)).collect();
        cpus.sort_unstable();
        Ok(cpus)
    }

    /// Bytes of a CPU's file; `None` when there is none.
    #[must_use]
    pub fn bytes_of(&self, cpu: u32) -> Option<u64> {
        self.folder.len_of(&directory::cpu_file(cpu))
    }

    /// Whether it has CTF's description of itself.
    #[must_use]
    pub fn has_metadata(&self) -> bool {
        self.folder.len_of(directory::METADATA).is_some()
    }

    /// The folder of its own files.
    #[must_use]
    pub fn private(&self) -> &Folder {
        &self.private
    }

    /// Opens the files. `growing`: the trace is being recorded.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn streams(&self, growing: bool) -> Result<Vec<Stream>> {
        let open = |cpu| if growing { self.growing_stream(cpu).transpose() } else { Some(self.stream(cpu)) };
        self.cpus()?.into_iter().filter_map(open).collect()
    }

    /// Opens the file of one CPU of a trace that is being recorded; `None` when it has just become a piece's, and the next is not there yet.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn growing_stream(&self, cpu: u32) -> Result<Option<Stream>> {
        self.open_stream(&self.folder, cpu, true)
    }

    /// Opens the file of one CPU.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn stream(&self, cpu: u32) -> Result<Stream> {
        let stream = self.open_stream(&self.folder, cpu, false)?;
        stream.with_context(|| format!("{} is missing", self.path.join(directory::cpu_file(cpu)).display()))
    }

    /// Opens the file of one CPU in the trace's directory, or in that of a piece; `None` when there is none.
    fn open_stream(&self, folder: &Folder, cpu: u32, growing: bool) -> Result<Option<Stream>> {
        let name = directory::cpu_file(cpu);
        let path = folder.path().join(&name);
        let file = folder.file(&name).with_context(|| format!("opening {}", path.display()))?;
        file.map(|file| Stream::new(file, path, cpu, self.uuid, growing)).transpose()
    }

    /// Whether a CPU's file, of a trace that is being recorded, has become a piece's.
    #[must_use]
    pub(crate) fn has_moved(&self, stream: &Stream) -> bool {
        !self.folder.has(&directory::cpu_file(stream.cpu()), stream.file())
    }

    /// Opens the file that follows one that has become a piece's: that of the next piece that is there, or the one that is being written. `piece`
    /// is the number of the first piece that the one before can have become, and then that of the one that follows. `None` when there is none yet.
    pub(crate) fn after(&self, stream: &Stream, piece: &mut u64) -> Result<Option<Stream>> {
        let place = self.folder.place().and_then(std::fs::canonicalize);
        let place = place.with_context(|| format!("finding {}", self.path.display()))?;
        let (cpu, name) = (stream.cpu(), directory::cpu_file(stream.cpu()));
        let mut in_pieces = || -> Result<Option<Stream>> {
            let beside = Folder::open(folder_of(&place)).with_context(|| format!("opening {}", place.display()))?;
            // One that is compressed, or was removed meanwhile, is passed over.
            let open = |number| beside.folder(&pieces::path(&place, number).file_name()?.to_string_lossy()).ok();
            let mut numbers = pieces::numbers(&place)?;
            numbers.retain(|number| *number >= *piece);
            let is_it = |number: &&u64| open(**number).is_some_and(|folder| folder.has(&name, stream.file()));
            *piece = numbers.iter().find(is_it).map_or(*piece, |number| number + 1);
            for number in numbers.into_iter().filter(|number| *number >= *piece) {
                let Some(folder) = open(number) else { continue };
                if let Some(next) = self.open_stream(&folder, cpu, false)? {
                    *piece = number;
                    return Ok(Some(next));
                }
            }
            Ok(None)
        };
        if let Some(next) = in_pieces()? {
            return Ok(Some(next));
        }
        let newest = self.open_stream(&self.folder, cpu, true)?;
        // By now that may be another one, and the one before it a piece's.
        Ok(in_pieces()?.or(newest))
    }

    /// Where an event tells the names of threads.
    #[must_use]
    pub fn tellings_of(&self, event: &EventClass) -> &[Telling] {
        self.tellings.get(usize::from(event.id)).map_or(&[], Vec::as_slice)
    }

    /// What names addresses. Every thread needs its own.
    #[must_use]
    pub fn symbols(&self) -> Symbols {
        Symbols::new(Arc::clone(&self.sources))
    }
}

fn is_finished(session: &SessionFile) -> bool {
    session.clock.end.is_some()
}

impl Anchors {
    /// Clocks are slewed by a two-thousandth at most (adjtimex(2)); what differs by more, and by more than a reading may, was set.
    const MOST_SLEW: i128 = 2000;
    const READING: i128 = 1_000_000;

    fn new(clock: &SessionClock) -> Self {
        let epoch = |instant: Instant| i128::from(instant.realtime) - i128::from(instant.monotonic);
        let (start, mut end) = (clock.start, clock.end.unwrap_or(clock.start));
        let slew = epoch(end) - epoch(start);
        if slew.abs() > i128::from(end.monotonic.abs_diff(start.monotonic)) / Self::MOST_SLEW + Self::READING {
            log::warn!("the clock was set while a trace was recorded: its times are those of the clock at its start");
            end = start;
        }
        Self { start: start.monotonic, end: end.monotonic, epoch_at_start: epoch(start), epoch_at_end: epoch(end) }
    }

    /// At a time of the monotonic clock. Beyond the anchors nothing is known: there the nearer one holds.
    fn epoch(&self, time: i128) -> i128 {
        let (start, end) = (i128::from(self.start), i128::from(self.end));
        if time >= end {
            return self.epoch_at_end;
        }
        let since = (time - start).max(0);
        self.epoch_at_start + (self.epoch_at_end - self.epoch_at_start) * since / (end - start).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(monotonic: u64, realtime: u64) -> Instant {
        Instant { monotonic, boottime: monotonic, realtime }
    }

    #[test]
    fn a_clock_runs_straight_between_its_anchors_and_stands_beyond() {
        let start = instant(1_000_000_000, 11_000_000_000);
        let anchors = Anchors::new(&SessionClock { start, end: Some(instant(3_000_000_000, 13_000_100_000)) });
        for (time, epoch) in
            [(0, 0), (1_000_000_000, 0), (2_000_000_000, 50_000), (3_000_000_000, 100_000), (9_000_000_000, 100_000)]
        {
            assert_eq!(anchors.epoch(time), 10_000_000_000 + epoch, "{time}");
        }
        // It was set an hour back.
        let anchors = Anchors::new(&SessionClock { start, end: Some(instant(3_000_000_000, 1_000_000)) });
        assert_eq!(anchors.epoch(3_000_000_000), 10_000_000_000);
        let anchors = Anchors::new(&SessionClock { start, end: None });
        assert_eq!(anchors.epoch(3_000_000_000), 10_000_000_000);
    }
}
