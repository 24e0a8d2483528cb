//! A trace's directory, opened to be read: its session, the meaning of its records, and its files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};

use super::{
    names::{Names, Telling},
    schema::{Event, Schema},
    stream::Stream,
};
use crate::tracer::{
    directory::{self, PRIVATE},
    metadata::parse_uuid,
    session::{Clock, Session},
    symbolize::{SymbolSources, Symbols},
    tasks,
};

/// A trace.
#[derive(Debug)]
pub struct Trace {
    /// Its directory.
    pub path: PathBuf,
    /// Its own facts.
    pub session: Session,
    /// What its records mean.
    pub schema: Schema,
    /// The names of threads that the recorder saw.
    pub names: Names,
    /// Where events tell the names of threads, by id.
    tellings: Vec<Vec<Telling>>,
    uuid: [u8; 16],
    sources: Arc<SymbolSources>,
    shift: Shift,
}

/// From a trace's clock to the common one: that of the first trace.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shift {
    /// Another boot's clock, by wall time at its start and end, between which clocks may have been slewed.
    Anchors { start: u64, at_start: i128, end: u64, at_end: i128 },
    /// The same clock.
    None,
}

impl Trace {
    /// Opens a trace.
    ///
    /// # Errors
    /// When it is none, or what describes it is missing, damaged or newer than this relayd.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = path.join(PRIVATE);
        let metadata = fs::metadata(path).with_context(|| format!("opening the trace {}", path.display()))?;
        if !metadata.is_dir() {
            bail!("{} is not a trace of relayd: give the directory that relayd trace has made", path.display());
        }
        if !folder.is_dir() {
            bail!("{} is not a trace of relayd: it has no {PRIVATE}", path.display());
        }
        let session = Session::read(&folder)?;
        let file = folder.join("session.json");
        let schema = Schema::new(&session).with_context(|| format!("reading {}", file.display()))?;
        let uuid = parse_uuid(&session.uuid).with_context(|| format!("{}: no UUID", file.display()))?;
        let names = Names::new(tasks::read(&folder)?);
        let tellings = schema.by_id().map(|event| event.map_or(Vec::new(), Telling::all)).collect();
        let sources = Arc::new(SymbolSources::read(path, Path::new("/"))?);
        Ok(Self { path: path.to_path_buf(), session, schema, names, tellings, uuid, sources, shift: Shift::None })
    }

    /// Opens several traces. The first one's clock becomes the common one; those of other boots are brought to it by wall time.
    ///
    /// # Errors
    /// As [`Self::open`]; and when two cannot be brought together.
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Self>> {
        let mut traces: Vec<Self> = paths.iter().map(|path| Self::open(path)).collect::<Result<_>>()?;
        if let Some((first, others)) = traces.split_first_mut() {
            for other in others.iter_mut().filter(|other| other.session.boot_id != first.session.boot_id) {
                other.shift = Shift::between(&first.session.clock, &other.session.clock);
            }
        }
        Ok(traces)
    }

    /// Reads the session again, for a trace that is being recorded, and tells whether recording has ended.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn has_ended(&self) -> Result<bool> {
        Ok(is_finished(&Session::read(&self.path.join(PRIVATE))?))
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
        match self.shift {
            Shift::None => timestamp,
            Shift::Anchors { start, at_start, end, at_end } => {
                let (since, span) = (i128::from(timestamp) - i128::from(start), i128::from(end.max(start + 1) - start));
                let shift = at_start + (at_end - at_start).saturating_mul(since) / span;
                let common = i128::from(timestamp) + shift;
                u64::try_from(common.max(0)).unwrap_or(u64::MAX)
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
        let list = || -> io::Result<Vec<u32>> {
            let mut cpus = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                cpus.extend(entry?.file_name().to_str().and_then(directory::cpu_of));
            }
            cpus.sort_unstable();
            Ok(cpus)
        };
        list().with_context(|| format!("reading {}", self.path.display()))
    }

    /// Opens the files. `growing`: the trace is being recorded.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn streams(&self, growing: bool) -> Result<Vec<Stream>> {
        self.cpus()?.into_iter().map(|cpu| self.stream(cpu, growing)).collect()
    }

    /// Opens the file of one CPU.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn stream(&self, cpu: u32, growing: bool) -> Result<Stream> {
        Stream::open(&self.path.join(directory::cpu_file(cpu)), cpu, self.uuid, growing)
    }

    /// Where an event tells the names of threads.
    #[must_use]
    pub fn tellings_of(&self, event: &Event) -> &[Telling] {
        self.tellings.get(usize::from(event.id)).map_or(&[], Vec::as_slice)
    }

    /// What names addresses. Every thread needs its own.
    #[must_use]
    pub fn symbols(&self) -> Symbols {
        Symbols::new(Arc::clone(&self.sources))
    }
}

fn is_finished(session: &Session) -> bool {
    session.clock.end.is_some()
}

impl Shift {
    /// By the wall time that both know.
    fn between(to: &Clock, from: &Clock) -> Self {
        let epoch = |instant: crate::machine::Instant| i128::from(instant.realtime) - i128::from(instant.monotonic);
        let end = from.end.unwrap_or(from.start);
        let to_start = epoch(to.start);
        Self::Anchors {
            start: from.start.monotonic,
            at_start: epoch(from.start) - to_start,
            end: end.monotonic,
            at_end: epoch(end) - to_start,
        }
    }
}
