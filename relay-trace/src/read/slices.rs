//! Cuts traces into slices of time, each small enough to be held and complete for every CPU, so that slices can be worked on in parallel
//! and put together in order. Everything in the files is looked at here, once, and checked; what is damaged is left out and
//! named.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    mem,
    sync::Arc,
};

use anyhow::Result;

use super::{
    names::Names,
    packet::{Flaw, HEADER, Header, Record, Records, mark},
    schema::{Context, EventClass},
    stream::{Damage, Packet, Step, Stream},
    trace::Trace,
};
use crate::form::{session::CpuAccount, tasks};

/// Bytes of records in a slice, at least, unless there are no more.
const SLICE: usize = 256 << 10;
/// What is wrong with a packet's header when its length is.
const PAST_NEXT: &str = "a length that reaches past the next packet";

/// What happened in some time, on every CPU.
#[derive(Debug)]
pub struct Slice {
    sources: Vec<(SourceId, Vec<Run>)>,
    /// The packets that are reached first in this slice.
    pub packets: Vec<PacketSeen>,
    /// What was lost, in the order of time.
    gaps: Vec<Gap>,
    /// Of what was lost, that which ends later and may begin before the slice's end.
    open_gaps: Vec<Gap>,
    /// What could not be read.
    pub damages: Vec<Damage>,
    /// The names of each trace's threads at the slice's beginning.
    pub names: Vec<Names>,
    /// Bytes of the files that are done with, this slice's included.
    pub done: u64,
}

/// A CPU of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId {
    /// Which trace.
    pub trace: usize,
    /// Which CPU.
    pub cpu: u32,
}

/// Sound records that follow each other in a packet.
#[derive(Debug)]
struct Run {
    packet: Arc<Packet>,
    from: usize,
    to: usize,
}

/// A packet.
#[derive(Clone, Debug)]
pub struct PacketSeen {
    /// Whose.
    pub source: SourceId,
    /// Its header, and where it begins in its file.
    pub packet: Arc<Packet>,
}

/// Records that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub source: SourceId,
    /// They came after this time, in nanoseconds of the common clock,
    pub since: u64,
    /// and before this.
    pub until: u64,
    /// What became of them.
    pub kind: GapKind,
}

/// Why records are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// So many records were lost.
    Lost(u64),
    /// So many sub-buffers were overwritten unread.
    Overrun(u64),
}

/// Something in a slice.
#[derive(Debug)]
pub enum Item<'a> {
    /// A record.
    Record(Seen<'a>),
    /// Records that are not there.
    Gap(&'a Gap),
}

impl Item<'_> {
    /// Where it is from.
    #[must_use]
    pub fn source(&self) -> SourceId {
        match self {
            Self::Record(seen) => seen.source,
            Self::Gap(gap) => gap.source,
        }
    }
}

/// A record with all that is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// When, in nanoseconds of the common clock.
    pub time: u64,
    /// Where.
    pub source: SourceId,
    /// Its header.
    pub record: Record<'a>,
    /// Its event.
    pub event: &'a EventClass,
    /// What stands before the payload.
    pub context: Context<'a>,
    /// The event's fields.
    pub payload: &'a [u8],
}

/// Makes slices, one after the other.
#[derive(Debug)]
pub struct Slicer<'t> {
    traces: &'t [Trace],
    sources: Vec<Source>,
    names: Vec<Names>,
    /// Of the first trace's threads, in its file.
    bytes_of_names: Option<u64>,
    /// Gaps whose ends no slice has reached yet: other CPUs may have records before.
    gaps: Vec<Gap>,
    window: Window,
    /// Something may be added to the files.
    follow: bool,
    living: Option<Living>,
    done: u64,
}

/// What a living thread of this machine is called, if that can be told.
pub type NameOf = fn(u32) -> Option<Vec<u8>>;

/// The threads that a trace names only when it ends.
#[derive(Debug)]
struct Living {
    name_of: NameOf,
    asked: HashSet<u32>,
}

impl Living {
    /// Names a thread that has no name yet; once, since it may be gone.
    fn name(&mut self, record: &Record<'_>, names: [&mut Names; 2]) {
        if names[0].get(record.tid, record.timestamp).is_none()
            && self.asked.insert(record.tid)
            && let Some(name) = (self.name_of)(record.tid)
        {
            names.into_iter().for_each(|names| names.set(record.tid, &name));
        }
    }
}

/// A part of time, in nanoseconds of the common clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The first.
    pub since: u64,
    /// The last.
    pub until: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { since: 0, until: u64::MAX }
    }
}

/// How far a CPU's file has been read.
#[derive(Debug)]
struct Source {
    id: SourceId,
    stream: Stream,
    packet: Option<Arc<Packet>>,
    /// Where the next record begins in the packet.
    at: usize,
    /// The newest record's time.
    newest: u64,
    before: Option<Before>,
    ended: bool,
    /// Of a trace that is followed: the number of the first piece that the file can become.
    piece: Option<u64>,
    /// Whether it has become one: then another file follows.
    moved: bool,
    /// Whether nothing has been read of the one that followed.
    fresh: bool,
}

/// What the packet before this one said.
#[derive(Clone, Copy, Debug)]
struct Before {
    end: u64,
    /// Unknown when something damaged lies between.
    sequence: Option<u64>,
    discarded: u64,
}

/// How far a source is to go.
#[derive(Clone, Copy, Debug)]
struct Walk<'t> {
    trace: &'t Trace,
    /// The last time, in nanoseconds of the common clock.
    limit: u64,
    window: Window,
}

impl<'t> Slicer<'t> {
    /// Opens the files of traces, of the CPUs that `wanted` says.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn new(traces: &'t [Trace], wanted: impl Fn(u32) -> bool, window: Window) -> Result<Self> {
        Self::open(traces, wanted, window, None)
    }

    /// Opens the files of a trace that is being recorded. Threads that it does not name yet are asked for.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn following(trace: &'t Trace, wanted: impl Fn(u32) -> bool, window: Window, name_of: NameOf) -> Result<Self> {
        let living = Living { name_of, asked: HashSet::new() };
        Self::open(std::slice::from_ref(trace), wanted, window, Some(living))
    }

    fn open(traces: &'t [Trace], wanted: impl Fn(u32) -> bool, window: Window, living: Option<Living>) -> Result<Self> {
        let follow = living.is_some();
        let mut sources = Vec::new();
        for (index, trace) in traces.iter().enumerate() {
            for stream in trace.streams(follow)?.into_iter().filter(|stream| wanted(stream.cpu())) {
                sources.push(Source::new(index, stream, follow.then_some(trace.session.pieces + 1)));
            }
        }
        let names = traces.iter().map(|trace| trace.names.clone()).collect();
        Ok(Self { traces, sources, names, bytes_of_names: None, gaps: Vec::new(), window, follow, living, done: 0 })
    }

    /// Bytes of all files, as they were known last.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.sources.iter().map(|source| source.stream.len()).sum()
    }

    /// Opens the files of CPUs that have come, of the trace that is being recorded.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn look_for_cpus(&mut self, wanted: impl Fn(u32) -> bool) -> Result<()> {
        let Some(trace) = self.traces.first() else { return Ok(()) };
        for cpu in trace.cpus()?.into_iter().filter(|cpu| wanted(*cpu)) {
            if self.sources.iter().all(|source| source.id.cpu != cpu)
                && let Some(stream) = trace.growing_stream(cpu)?
            {
                self.sources.push(Source::new(0, stream, Some(trace.session.pieces + 1)));
            }
        }
        Ok(())
    }

    /// Takes the names of threads that have come, of the trace that is being recorded.
    pub fn look_for_names(&mut self) {
        let (Some(trace), Some(names)) = (self.traces.first(), self.names.first_mut()) else { return };
        let bytes = trace.private().len_of(tasks::FILE);
        if bytes != self.bytes_of_names {
            self.bytes_of_names = bytes;
            // What cannot be read is said of the trace.
            names.update(tasks::read(trace.private()).unwrap_or_default());
        }
    }

    /// From now on nothing is added to the files.
    pub fn finish(&mut self) {
        self.follow = false;
        for source in &mut self.sources {
            source.stream.finish();
            source.ended = false;
        }
    }

    /// The next slice; `None` when there is nothing more, as the files are now. While a trace is being recorded, records later than `settled`
    /// wait: another CPU's file may not have what came before them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next(&mut self, settled: u64) -> Result<Option<Slice>> {
        let mut slice = Slice {
            sources: self.sources.iter().map(|source| (source.id, Vec::new())).collect(),
            packets: Vec::new(),
            gaps: Vec::new(),
            open_gaps: Vec::new(),
            damages: Vec::new(),
            names: self.names.clone(),
            done: 0,
        };
        let (mut size, mut reached) = (0, 0);
        while size < SLICE {
            let mut limit = u64::MAX;
            let mut any = false;
            for source in &mut self.sources {
                let trace = &self.traces[source.id.trace];
                source.fill(trace, self.window, self.follow, &mut slice, &mut self.gaps)?;
                match &source.packet {
                    Some(packet) => {
                        any = true;
                        limit = limit.min(trace.common(packet.header.end));
                    }
                    None if self.follow => limit = limit.min(settled),
                    None => {}
                }
            }
            reached = limit;
            if !any {
                break;
            }
            let mut moved = 0;
            for (source, (_, runs)) in self.sources.iter_mut().zip(&mut slice.sources) {
                let index = source.id.trace;
                let trace = &self.traces[index];
                let mut learn = |record: &Record<'_>, event: &EventClass, payload: &[u8]| {
                    if let Some(living) = &mut self.living {
                        living.name(record, [&mut self.names[index], &mut slice.names[index]]);
                    }
                    self.names[index].learn(trace.tellings_of(event), event, payload, record.timestamp);
                };
                let walk = Walk { trace, limit, window: self.window };
                moved += source.advance(&walk, &mut learn, runs, &mut slice.damages)?;
            }
            size += moved;
            if moved == 0 {
                break;
            }
        }
        self.done += size as u64;
        slice.done = self.done;
        (slice.gaps, self.gaps) = mem::take(&mut self.gaps).into_iter().partition(|gap| gap.until <= reached);
        slice.gaps.sort_by_key(|gap| gap.until);
        slice.open_gaps.clone_from(&self.gaps);
        let empty = size == 0 && slice.packets.is_empty() && slice.gaps.is_empty() && slice.damages.is_empty();
        Ok((!empty).then_some(slice))
    }
}

impl Source {
    fn new(trace: usize, stream: Stream, piece: Option<u64>) -> Self {
        let id = SourceId { trace, cpu: stream.cpu() };
        Self {
            id,
            stream,
            packet: None,
            at: 0,
            newest: 0,
            before: None,
            ended: false,
            piece,
            moved: false,
            fresh: false,
        }
    }

    /// Gets the next packet that reaches into the window, unless there is one at hand.
    fn fill(
        &mut self,
        trace: &Trace,
        window: Window,
        follow: bool,
        slice: &mut Slice,
        gaps: &mut Vec<Gap>,
    ) -> Result<()> {
        while self.packet.is_none() && !self.ended {
            if window.since > 0
                && let Some(header) = self.stream.peek()?
                && trace.common(header.end) < window.since
            {
                self.before = Some(Before::from(&header));
                self.stream.skip(&header);
                continue;
            }
            match self.stream.take_next()? {
                Step::End if self.goes_on(trace)? => {}
                Step::End => {
                    self.ended = !follow;
                    break;
                }
                Step::Damage(damage) => {
                    slice.damages.push(damage);
                    if let Some(before) = &mut self.before {
                        before.sequence = None;
                    }
                }
                Step::Packet(packet) if trace.common(packet.header.begin) > window.until => self.ended = true,
                Step::Packet(packet) => {
                    slice.damages.extend(self.missed(&packet));
                    self.note_gaps(trace, &packet.header, gaps);
                    self.before = Some(Before::from(&packet.header));
                    slice.packets.push(PacketSeen { source: self.id, packet: Arc::clone(&packet) });
                    self.at = HEADER.min(packet.bytes().len());
                    self.packet = Some(packet);
                }
            }
        }
        Ok(())
    }

    /// At the end of a file of a trace that is followed: whether there is more to come in this one, which has become a piece's, or in the next.
    fn goes_on(&mut self, trace: &Trace) -> Result<bool> {
        let Some(piece) = &mut self.piece else { return Ok(false) };
        if self.moved {
            let Some(next) = trace.after(&self.stream, piece)? else { return Ok(false) };
            (self.stream, self.moved, self.fresh) = (next, false, true);
            return Ok(true);
        }
        self.moved = trace.has_moved(&self.stream);
        if self.moved {
            // What was written until then is in it.
            self.stream.finish();
        }
        Ok(self.moved)
    }

    /// Of a trace that is followed: what was in pieces that went before they were read.
    fn missed(&mut self, packet: &Packet) -> Option<Damage> {
        let before = self.before.as_mut().filter(|_| mem::take(&mut self.fresh))?;
        let missed = packet.header.sequence.saturating_sub(before.sequence?.saturating_add(1));
        if missed == 0 {
            return None;
        }
        before.sequence = None;
        Some(Damage {
            path: Arc::clone(self.stream.path()),
            offset: packet.offset,
            flaw: Flaw::Missed(missed),
            skipped: 0,
        })
    }

    /// What was lost between the last packet and this one.
    fn note_gaps(&self, trace: &Trace, header: &Header, gaps: &mut Vec<Gap>) {
        let (session, cpu) = (&trace.session, self.id.cpu);
        let in_pieces = session.before.iter().find(|before| before.cpu == cpu).map_or(0, CpuAccount::told);
        let start = Before { end: session.clock.start.monotonic, sequence: None, discarded: in_pieces };
        // Before the first packet there is nothing but what was overwritten, or is in pieces; its number is the count.
        let first = self.before.is_none() && session.pieces == 0;
        let before = self.before.unwrap_or(start);
        let overrun = match before.sequence {
            Some(sequence) => header.sequence.saturating_sub(sequence.saturating_add(1)),
            None if first => header.sequence,
            None => 0,
        };
        let lost = header.discarded.saturating_sub(before.discarded);
        let mut note = |kind| {
            let (since, until) = (trace.common(before.end), trace.common(header.begin));
            gaps.push(Gap { source: self.id, since: since.min(until), until, kind });
        };
        if overrun > 0 {
            note(GapKind::Overrun(overrun));
        }
        if lost > 0 {
            note(GapKind::Lost(lost));
        }
    }

    /// Goes through the packet up to a time, and tells how many bytes that were. Sound records become runs, others damages.
    fn advance(
        &mut self,
        walk: &Walk<'_>,
        learn: &mut dyn FnMut(&Record<'_>, &EventClass, &[u8]),
        runs: &mut Vec<Run>,
        damages: &mut Vec<Damage>,
    ) -> Result<usize> {
        let Some(packet) = self.packet.clone() else { return Ok(0) };
        let (bytes, begin) = (packet.bytes(), self.at);
        let mut records = Records::new(bytes, begin);
        let mut from = begin;
        let mut end_run = |from: usize, to: usize| {
            if from < to {
                runs.push(Run { packet: Arc::clone(&packet), from, to });
            }
        };
        let path = Arc::clone(self.stream.path());
        let mut damaged = |at: usize, flaw, skipped| {
            let (path, offset) = (Arc::clone(&path), packet.offset + at as u64);
            damages.push(Damage { path, offset, flaw, skipped });
        };
        loop {
            let at = records.at();
            let flaw = match records.next() {
                Some(Ok(record)) => match self.check(walk.trace, &record, packet.header.end) {
                    Ok((event, payload)) => {
                        let time = walk.trace.common(record.timestamp);
                        if time > walk.limit {
                            end_run(from, at);
                            self.at = at;
                            return Ok(at - begin);
                        }
                        self.newest = record.timestamp;
                        learn(&record, event, payload);
                        if time < walk.window.since || time > walk.window.until {
                            end_run(from, at);
                            from = records.at();
                        }
                        continue;
                    }
                    // The next packet: this one's length is wrong.
                    Err(_) if bytes[at..].starts_with(&mark(walk.trace.uuid())) => Some(Flaw::Header(PAST_NEXT)),
                    Err(flaw) => {
                        end_run(from, at);
                        from = records.at();
                        damaged(at, flaw, (from - at) as u64);
                        continue;
                    }
                },
                Some(Err(flaw)) => Some(flaw),
                None => None,
            };
            end_run(from, at);
            let missing = packet.header.len - bytes.len() as u64;
            if flaw.is_some() || missing > 0 {
                // How long it is cannot be trusted either.
                let skipped = self.stream.resume_after(packet.offset + at as u64)?;
                let flaw = match flaw {
                    Some(flaw) if missing == 0 => flaw,
                    _ if self.stream.at() < self.stream.len() => Flaw::Header(PAST_NEXT),
                    _ => Flaw::CutOff { missing },
                };
                damaged(at, flaw, skipped);
                if let Some(before) = &mut self.before {
                    before.sequence = None;
                }
            }
            self.packet = None;
            return Ok(at - begin + HEADER);
        }
    }

    /// The event and the payload of a record that lies within its packet, or what is wrong with it.
    fn check<'r, 't>(
        &self,
        trace: &'t Trace,
        record: &Record<'r>,
        end: u64,
    ) -> Result<(&'t EventClass, &'r [u8]), Flaw> {
        let (event, _, payload) = trace.schema.open(record)?;
        if record.timestamp < self.newest {
            return Err(Flaw::Falls { back: self.newest - record.timestamp });
        }
        if record.timestamp > end {
            return Err(Flaw::Late { after: record.timestamp - end });
        }
        Ok((event, payload))
    }
}

impl From<&Header> for Before {
    fn from(header: &Header) -> Self {
        Self { end: header.end, sequence: Some(header.sequence), discarded: header.discarded }
    }
}

impl Slice {
    /// The bytes of sound records, source by source, each with the place of its packet in the file.
    pub fn pieces(&self) -> impl Iterator<Item = (SourceId, u64, &[u8])> {
        let pieces = self.sources.iter().flat_map(|(source, runs)| runs.iter().map(move |run| (*source, run)));
        pieces.map(|(source, run)| {
            (source, run.packet.offset, run.packet.bytes().get(run.from..run.to).unwrap_or_default())
        })
    }

    /// What was lost, in the order of time.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// All that was lost before the slice's end, also where it is not known until when.
    pub(crate) fn known_gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().chain(&self.open_gaps)
    }

    /// Shows everything in the slice in the order of time, and what was lost before the first record after it.
    pub fn merged<'s>(&'s self, traces: &'s [Trace], mut show: impl FnMut(Item<'s>)) {
        let mut heads: Vec<Head<'s>> = Vec::new();
        let mut queue = BinaryHeap::new();
        for (source, runs) in &self.sources {
            let head = Head { source: *source, trace: &traces[source.trace], runs: runs.iter(), records: None };
            heads.push(head);
        }
        let mut next: Vec<Option<Seen<'s>>> = heads.iter_mut().map(Head::next).collect();
        queue.extend(next.iter().enumerate().filter_map(|(i, seen)| Some(Reverse((seen.as_ref()?.time, i)))));
        let mut gaps = self.gaps.iter().peekable();
        while let Some(Reverse((_, index))) = queue.pop() {
            // As long as no other source has anything earlier, it stays with this one.
            let limit = queue.peek().map_or((u64::MAX, usize::MAX), |Reverse(other)| *other);
            while let Some(seen) = next[index].take() {
                if (seen.time, index) > limit {
                    queue.push(Reverse((seen.time, index)));
                    next[index] = Some(seen);
                    break;
                }
                while let Some(gap) = gaps.next_if(|gap| gap.until <= seen.time) {
                    show(Item::Gap(gap));
                }
                show(Item::Record(seen));
                next[index] = heads[index].next();
            }
        }
        gaps.for_each(|gap| show(Item::Gap(gap)));
    }
}

/// The records of a source that are still to come.
struct Head<'s> {
    source: SourceId,
    trace: &'s Trace,
    runs: std::slice::Iter<'s, Run>,
    records: Option<Records<'s>>,
}

impl<'s> Head<'s> {
    fn next(&mut self) -> Option<Seen<'s>> {
        loop {
            // The slicer has seen that the records of a run are sound.
            if let Some(Ok(record)) = self.records.as_mut().and_then(Iterator::next)
                && let Ok((event, context, payload)) = self.trace.schema.open(&record)
            {
                let time = self.trace.common(record.timestamp);
                return Some(Seen { time, source: self.source, record, event, context, payload });
            }
            let run = self.runs.next()?;
            self.records = Some(Records::new(run.packet.bytes().get(..run.to)?, run.from));
        }
    }
}
