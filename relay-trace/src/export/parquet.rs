//! Parquet: a file for each event, its fields as typed columns, its records in the order of time; and one for what was lost.
//!
//! Columns: `time` (ns of the common clock), `wall` (UTC, microseconds), `host`, `cpu`, `pid`, `tid`, `comm`, what the recording had as context, then
//! the event's fields; a field of one of these names is called `field_NAME`. Arrays are lists. `events` has the file of each event.

mod layout;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical},
    data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type},
    file::{
        metadata::SortingColumn,
        properties::{WriterProperties, WriterPropertiesPtr},
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{Type, TypePtr},
};

use self::layout::Layouts;
use super::{Exported, Job, Piece};
use crate::{
    read::{
        filter::comm,
        names::Names,
        schema::EventClass,
        slices::{Gap, GapKind, Item, Seen, Slice},
        trace::Trace,
        value::{Number, Value},
    },
    show::json,
};

/// Bytes of one event's records, about, before they become a row group.
const ROW_GROUP: usize = 8 << 20;
/// Bytes of all events' records that wait, about.
const WAITING: usize = 32 << 20;
/// The rows of losses; no event has this name.
const LOST: &str = "\0lost";
/// The file of losses, and that which says which file is which event's.
const LOST_FILE: &str = "lost";
const EVENTS_FILE: &str = "events";
/// Most bytes of a file's name, without its end: a file system has 255.
const LONGEST_NAME: usize = 200;
/// Names that columns of every file have.
const COMMON: [&str; 12] =
    ["time", "wall", "host", "cpu", "pid", "tid", "comm", "cgroup", "cgroup_path", "uid", "kstack", "ustack"];

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// An integer of so many bits.
    Integer {
        bits: i8,
        signed: bool,
    },
    /// Microseconds since 1970.
    Wall,
    Text,
    /// A list of integers, 64 bits wide.
    List {
        signed: bool,
    },
}

/// A column's values so far.
#[derive(Clone, Debug)]
enum Values {
    Narrow(Vec<i32>),
    Wide(Vec<i64>),
    Text(Vec<ByteArray>),
    List { elements: Vec<i64>, definitions: Vec<i16>, repetitions: Vec<i16> },
}

/// The rows of one file.
#[derive(Clone, Debug, Default)]
struct Rows {
    columns: Vec<Values>,
    count: usize,
    bytes: usize,
}

/// A file's columns: names and what they hold.
type Columns = Vec<(String, Sort)>;
/// Rows by the name of the event, or of the file where it has several.
type Part = BTreeMap<String, Rows>;

/// Writes the traces into the directory `output`, which is there and empty.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write(job: Job<'_>, output: &Path) -> Result<Exported> {
    let (traces, filter) = (job.traces, job.filter);
    let layouts = Layouts::new(traces, job.spans)?;
    let names = file_names(layouts.columns.keys().map(String::as_str));
    let mut files = Files { output, layouts: &layouts, names: &names, files: BTreeMap::new() };
    let worker = || {
        let layouts = &layouts;
        move |slice: &Slice| {
            let mut part = Part::new();
            filter.show(slice, traces, |item, names| match item {
                Item::Record(seen) => layouts.add_record(&mut part, traces, &seen, names),
                Item::Gap(gap) => layouts.add_gap(&mut part, traces, gap),
            });
            part
        }
    };
    let done = job.run(worker, |piece: Piece<'_, Part>| {
        let part = match piece {
            Piece::Part(part) => part,
            Piece::Span(span) => {
                let mut part = Part::new();
                let names = traces.get(span.seen.source.trace).context("a span without a trace")?;
                layouts.add_record(&mut part, traces, &span.seen, &names.names);
                part
            }
        };
        files.add(part)
    })?;
    files.finish()?;
    Ok(done)
}

/// The files that there are so far.
struct Files<'f> {
    output: &'f Path,
    layouts: &'f Layouts,
    names: &'f BTreeMap<&'f str, String>,
    files: BTreeMap<String, EventFile>,
}

impl Files<'_> {
    fn add(&mut self, part: Part) -> Result<()> {
        for (name, rows) in part {
            let file = match self.files.get_mut(&name) {
                Some(file) => file,
                None => {
                    let columns = self.layouts.columns.get(&name).context("an event without columns")?;
                    let file = self.names.get(name.as_str()).context("an event without a file")?;
                    let file = EventFile::create(self.output, file, columns)?;
                    self.files.entry(name).or_insert(file)
                }
            };
            file.add(rows)?;
        }
        while self.files.values().map(|file| file.waiting.bytes).sum::<usize>() > WAITING {
            let Some(fullest) = self.files.values_mut().max_by_key(|file| file.waiting.bytes) else { break };
            fullest.flush()?;
        }
        Ok(())
    }

    /// Ends them, with that which says which is which event's.
    fn finish(self) -> Result<()> {
        let columns = ["event", "event_file"].map(|name| (name.to_owned(), Sort::Text));
        let mut table = EventFile::create(self.output, EVENTS_FILE, &columns.to_vec())?;
        let mut rows = Rows::new(&columns.to_vec());
        for name in self.files.keys().filter(|name| *name != LOST) {
            let mut row = rows.row();
            row.text(name.split('\0').next().unwrap_or_default().as_bytes());
            row.text(self.names.get(name.as_str()).map_or("", String::as_str).as_bytes());
        }
        table.add(rows)?;
        table.finish()?;
        self.files.into_values().try_for_each(EventFile::finish)
    }
}

/// A file name for each event: what is special in its own becomes a point, what is too long is cut, and a number makes it the only one.
fn file_names<'n>(events: impl Iterator<Item = &'n str>) -> BTreeMap<&'n str, String> {
    let mut taken = BTreeSet::from([LOST_FILE.to_owned(), EVENTS_FILE.to_owned()]);
    let name = |event: &'n str| {
        if event == LOST {
            return (event, LOST_FILE.to_owned());
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '.' };
        let mut whole: String = event.chars().map(plain).collect();
        whole.truncate(LONGEST_NAME);
        let numbered = (2..).map(|number| format!("{whole}-{number}"));
        let found =
            std::iter::once(whole.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default();
        taken.insert(found.clone());
        (event, found)
    };
    events.map(name).collect()
}

impl Layouts {
    fn add_record(&self, part: &mut Part, traces: &[Trace], seen: &Seen<'_>, names: &Names) {
        let name = self.spans.get(&(seen.source.trace, seen.event.id)).unwrap_or(&seen.event.name);
        let Some(columns) = self.columns.get(name) else { return };
        add_record(rows(part, name, columns).row(), columns, traces, seen, names);
    }

    fn add_gap(&self, part: &mut Part, traces: &[Trace], gap: &Gap) {
        if let Some(columns) = self.columns.get(LOST) {
            add_gap(rows(part, LOST, columns).row(), traces, gap);
        }
    }
}

fn add_record(mut row: Row<'_>, columns: &Columns, traces: &[Trace], seen: &Seen<'_>, names: &Names) {
    let Seen { event, context, payload, .. } = seen;
    add_place(&mut row, traces, seen.source.trace, seen.time, seen.source.cpu);
    row.number(seen.record.pid.into());
    row.number(seen.record.tid.into());
    row.text(comm(seen, names));
    let has = |name: &str| columns.iter().any(|(column, _)| column == name);
    if has("cgroup") {
        let cgroup = context.cgroup.unwrap_or(0);
        row.number(cgroup.cast_signed());
        row.text(names.cgroup(cgroup).unwrap_or_default().as_bytes());
    }
    if has("uid") {
        row.number(context.uid.unwrap_or(0).into());
    }
    let words = |bytes: &[u8]| bytes.as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word)).collect();
    if has("kstack") {
        row.list(words(context.kstack));
    }
    if has("ustack") {
        // Of each frame the offset, or the address.
        row.list(context.ustack.as_chunks::<32>().0.iter().flat_map(|frame| words(&frame[24..])).collect());
    }
    add_fields(&mut row, event, payload);
}

fn add_fields(row: &mut Row<'_>, event: &EventClass, payload: &[u8]) {
    let number = |number: Number| match number {
        Number::Signed(number) => number,
        Number::Unsigned(number) | Number::Address(number) => number.cast_signed(),
    };
    for (_, value) in event.values(payload) {
        match value {
            Value::Number(of) => row.number(number(of)),
            Value::Text(text) => row.text(text),
            Value::Texts(_) => {
                let mut text = Vec::new();
                json::push_value(&mut text, value);
                row.text(&text);
            }
            Value::List(..) => row.list(value.elements().map(number).collect()),
        }
    }
}

fn add_gap(mut row: Row<'_>, traces: &[Trace], gap: &Gap) {
    add_place(&mut row, traces, gap.source.trace, gap.until, gap.source.cpu);
    let (records, subbufs) = match gap.kind {
        GapKind::Lost(records) => (records, 0),
        GapKind::Overrun(subbufs) => (0, subbufs),
    };
    for number in [gap.since, records, subbufs] {
        row.number(number.cast_signed());
    }
}

/// `time`, `wall`, `host`, `cpu`
fn add_place(row: &mut Row<'_>, traces: &[Trace], trace: usize, time: u64, cpu: u32) {
    let first = traces.first().map(|trace| trace.session.clock.start);
    let epoch = first.map_or(0, |start| start.realtime.saturating_sub(start.monotonic));
    row.number(time.cast_signed());
    row.number((time.saturating_add(epoch) / 1000).cast_signed());
    row.text(traces.get(trace).map_or("", |trace| &trace.session.host).as_bytes());
    row.number(cpu.into());
}

fn rows<'p>(part: &'p mut Part, name: &str, columns: &Columns) -> &'p mut Rows {
    if !part.contains_key(name) {
        part.insert(name.to_owned(), Rows::new(columns));
    }
    part.entry(name.to_owned()).or_default()
}

impl Rows {
    fn new(columns: &Columns) -> Self {
        let values = |(_, sort): &(String, Sort)| match sort {
            Sort::Integer { bits: 64, .. } | Sort::Wall => Values::Wide(Vec::new()),
            Sort::Integer { .. } => Values::Narrow(Vec::new()),
            Sort::Text => Values::Text(Vec::new()),
            Sort::List { .. } => {
                Values::List { elements: Vec::new(), definitions: Vec::new(), repetitions: Vec::new() }
            }
        };
        Self { columns: columns.iter().map(values).collect(), count: 0, bytes: 0 }
    }

    /// A new row, whose values are to be added column by column.
    fn row(&mut self) -> Row<'_> {
        self.count += 1;
        Row { columns: self.columns.iter_mut(), bytes: &mut self.bytes }
    }

    fn append(&mut self, other: Self) {
        for (all, more) in self.columns.iter_mut().zip(other.columns) {
            match (all, more) {
                (Values::Narrow(all), Values::Narrow(mut more)) => all.append(&mut more),
                (Values::Wide(all), Values::Wide(mut more)) => all.append(&mut more),
                (Values::Text(all), Values::Text(mut more)) => all.append(&mut more),
                (
                    Values::List { elements, definitions, repetitions },
                    Values::List { elements: mut more, definitions: mut d, repetitions: mut r },
                ) => {
                    elements.append(&mut more);
                    definitions.append(&mut d);
                    repetitions.append(&mut r);
                }
                // Both are of the same columns.
                _ => {}
            }
        }
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// A row that is being added.
struct Row<'r> {
    columns: std::slice::IterMut<'r, Values>,
    bytes: &'r mut usize,
}

impl Row<'_> {
    fn number(&mut self, number: i64) {
        *self.bytes += 8;
        match self.columns.next() {
            #[expect(clippy::cast_possible_truncation, reason = "the column is as narrow as the field")]
            Some(Values::Narrow(values)) => values.push(number as i32),
            Some(Values::Wide(values)) => values.push(number),
            _ => {}
        }
    }

    fn text(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        *self.bytes += 32 + text.len();
        if let Some(Values::Text(values)) = self.columns.next() {
            values.push(ByteArray::from(text.as_bytes().to_vec()));
        }
    }

    fn list(&mut self, mut list: Vec<i64>) {
        *self.bytes += 12 * list.len().max(1);
        if let Some(Values::List { elements, definitions, repetitions }) = self.columns.next() {
            // An empty list is one entry that is defined up to the list and no farther.
            let length = list.len().max(1);
            definitions.extend(std::iter::repeat_n(i16::from(!list.is_empty()), length));
            repetitions.extend((0..length).map(|index| i16::from(index > 0)));
            elements.append(&mut list);
        }
    }
}

/// The file of one event.
struct EventFile {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    columns: Columns,
    waiting: Rows,
}

impl EventFile {
    fn create(folder: &Path, name: &str, columns: &Columns) -> Result<Self> {
        let path = folder.join(format!("{name}.parquet"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path);
        let file = file.with_context(|| format!("making {}", path.display()))?;
        let fields = columns.iter().map(|(name, sort)| describe(name, *sort)).collect::<Result<Vec<_>>>()?;
        let schema = Type::group_type_builder("record").with_fields(fields).build()?;
        let sorted = SortingColumn { column_idx: 0, descending: false, nulls_first: false };
        let properties: WriterPropertiesPtr = Arc::new(
            WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .set_created_by(concat!("relayd ", env!("CARGO_PKG_VERSION")).to_owned())
                .set_sorting_columns(Some(vec![sorted]))
                .build(),
        );
        let writer = SerializedFileWriter::new(file, Arc::new(schema), properties)
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { path, writer, columns: columns.clone(), waiting: Rows::new(columns) })
    }

    fn add(&mut self, rows: Rows) -> Result<()> {
        self.waiting.append(rows);
        if self.waiting.bytes >= ROW_GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let rows = std::mem::replace(&mut self.waiting, Rows::new(&self.columns));
        if rows.count == 0 {
            return Ok(());
        }
        let mut write = || -> parquet::errors::Result<()> {
            let mut group = self.writer.next_row_group()?;
            for values in &rows.columns {
                if let Some(mut column) = group.next_column()? {
                    values.write(&mut column)?;
                    column.close()?;
                }
            }
            group.close().map(|_| ())
        };
        write().with_context(|| format!("writing {}", self.path.display()))
    }

    fn finish(mut self) -> Result<()> {
        self.flush()?;
        let path = self.path;
        self.writer.close().with_context(|| format!("writing {}", path.display())).map(|_| ())
    }
}

impl Values {
    fn write(&self, column: &mut SerializedColumnWriter<'_>) -> parquet::errors::Result<()> {
        match self {
            Self::Narrow(values) => column.typed::<Int32Type>().write_batch(values, None, None),
            Self::Wide(values) => column.typed::<Int64Type>().write_batch(values, None, None),
            Self::Text(values) => column.typed::<ByteArrayType>().write_batch(values, None, None),
            Self::List { elements, definitions, repetitions } => {
                column.typed::<Int64Type>().write_batch(elements, Some(definitions), Some(repetitions))
            }
        }?;
        Ok(())
    }
}

fn describe(name: &str, sort: Sort) -> Result<TypePtr> {
    let primitive = |name: &str, physical, logical, repetition| {
        Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .with_logical_type(Some(logical))
            .build()
    };
    let described = match sort {
        Sort::Integer { bits, signed } => {
            let physical = if bits == 64 { Physical::INT64 } else { Physical::INT32 };
            primitive(name, physical, LogicalType::integer(bits, signed), Repetition::REQUIRED)?
        }
        Sort::Wall => {
            let logical = LogicalType::timestamp(true, TimeUnit::MICROS);
            primitive(name, Physical::INT64, logical, Repetition::REQUIRED)?
        }
        Sort::Text => primitive(name, Physical::BYTE_ARRAY, LogicalType::String, Repetition::REQUIRED)?,
        // The form that the format asks for: a group of a repeated group of the elements. All are 64 bits wide.
        Sort::List { signed } => {
            let logical = LogicalType::integer(64, signed);
            let element = primitive("element", Physical::INT64, logical, Repetition::REQUIRED)?;
            let list = Type::group_type_builder("list")
                .with_repetition(Repetition::REPEATED)
                .with_fields(vec![Arc::new(element)])
                .build()?;
            Type::group_type_builder(name)
                .with_repetition(Repetition::REQUIRED)
                .with_logical_type(Some(LogicalType::List))
                .with_fields(vec![Arc::new(list)])
                .build()?
        }
    };
    Ok(Arc::new(described))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_gives_a_file_of_its_own() {
        let long = "uprobe:".to_owned() + &"/very".repeat(100);
        let longer = long.clone() + "/long";
        let events = ["a:b", "a.b", "a/b", "lost", "events", "\u{e9}", ":", "..", "", &long, &longer, LOST];
        let names = file_names(events.into_iter());
        let unique: BTreeSet<&String> = names.values().collect();
        assert_eq!((names.len(), unique.len()), (events.len(), events.len()), "{names:?}");
        assert!(names.values().all(|name| name.len() <= LONGEST_NAME + 8 && !name.contains('/')), "{names:?}");
        assert_eq!([&names["a:b"], &names[LOST], &names["lost"]], ["a.b", "lost", "lost-2"]);
    }
}
