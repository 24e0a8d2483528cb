//! Records as CSV (RFC 4180): a column for every field of every event that is shown, empty where an event does not have it.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context as _, Result};

use super::{
    escape::push_escaped,
    json,
    text::{ByEvent, Style, Words, push_time},
    time::WallClock,
};
use crate::read::{
    filter::comm,
    names::Names,
    schema::EventClass,
    slices::{Item, Seen},
    symbolize::Symbols,
    trace::Trace,
    value::{Number, Value},
};

/// Columns that every record has.
const COMMON: [&str; 6] = ["time", "cpu", "pid", "tid", "comm", "event"];

/// The columns.
#[derive(Debug)]
pub struct Columns {
    names: Vec<String>,
    has_host: bool,
}

/// Writes records as CSV.
#[derive(Debug)]
pub struct CsvWriter<'t> {
    style: &'t Style,
    wall: WallClock,
    columns: &'t Columns,
    places: HashMap<&'t str, usize>,
    symbols: Vec<Symbols>,
    words: ByEvent<Words>,
    hosts: Vec<&'t str>,
}

impl Columns {
    /// The columns of records of these events; of several traces if `has_host`.
    #[must_use]
    pub fn new<'e>(events: impl Iterator<Item = &'e EventClass>, style: &Style, has_host: bool) -> Self {
        let mut names = style.fields.clone();
        if names.is_empty() {
            let mut seen = BTreeSet::new();
            let fields = events.flat_map(|event| &event.fields).filter(|field| seen.insert(field.name.as_str()));
            names = fields.map(|field| field.name.clone()).collect();
        }
        Self { names, has_host }
    }

    /// The first line.
    ///
    /// # Errors
    /// Never, but that the library may say so.
    pub fn header(&self) -> Result<Vec<u8>> {
        let host = self.has_host.then_some("host");
        let fields = self.names.iter().map(String::as_str);
        let columns = host.into_iter().chain(COMMON).map(str::to_owned).chain(fields.map(column));
        line(columns.map(String::into_bytes))
    }
}

impl<'t> CsvWriter<'t> {
    /// A writer for records of these traces.
    #[must_use]
    pub fn new(traces: &'t [Trace], columns: &'t Columns, style: &'t Style) -> Self {
        Self {
            style,
            wall: style.wall.clone(),
            columns,
            places: columns.names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect(),
            symbols: traces.iter().map(Trace::symbols).collect(),
            words: ByEvent::new(traces),
            hosts: traces.iter().map(|trace| trace.session.host.as_str()).filter(|_| columns.has_host).collect(),
        }
    }

    /// Writes a record. Losses have no columns: they are for text and JSON.
    pub fn write(&mut self, item: &Item<'_>, names: &Names, text: &mut Vec<u8>) {
        let Item::Record(seen) = item else { return };
        if let Ok(line) = self.record(seen, names) {
            text.extend_from_slice(&line);
        }
    }

    fn record(&mut self, seen: &Seen<'_>, names: &Names) -> Result<Vec<u8>> {
        let trace = seen.source.trace;
        let mut time = Vec::new();
        push_time(&mut time, self.style.time, &mut self.wall, seen.time);
        let host = self.hosts.get(trace).map(|host| host.as_bytes().to_vec());
        let common = [
            time.trim_ascii().to_vec(),
            seen.source.cpu.to_string().into_bytes(),
            seen.record.pid.to_string().into_bytes(),
            seen.record.tid.to_string().into_bytes(),
            comm(seen, names).to_vec(),
            seen.event.name.clone().into_bytes(),
        ];
        let mut fields = vec![Vec::new(); self.columns.names.len()];
        let words = self.words.of(trace, seen.event, Words::default);
        for (index, (field, value)) in seen.event.values(seen.payload).enumerate() {
            let Some(place) = self.places.get(field.name.as_str()) else { continue };
            fields[*place] = match words.of(seen.event, index, value, seen.payload, &self.symbols[trace]) {
                // A column of numbers stays one.
                Some(word) if !seen.event.print_format.is_beside(index) => word.into_owned(),
                _ => plain(value),
            };
        }
        line(host.into_iter().chain(common).chain(fields))
    }
}

/// The column of a field: no two have one name.
fn column(field: &str) -> String {
    let is_taken = field == "host" || COMMON.contains(&field);
    if is_taken { format!("field.{field}") } else { field.to_owned() }
}

fn plain(value: Value<'_>) -> Vec<u8> {
    let number = |number: Number| match number {
        Number::Unsigned(number) => number.to_string(),
        Number::Signed(number) => number.to_string(),
        Number::Address(number) => format!("{number:#x}"),
    };
    match value {
        Value::Number(of) => number(of).into_bytes(),
        Value::Text(of) => of.to_vec(),
        Value::Texts(_) => {
            let mut text = Vec::new();
            json::push_value(&mut text, value);
            text
        }
        Value::List(..) => value.elements().map(number).collect::<Vec<_>>().join(" ").into_bytes(),
    }
}

fn line(fields: impl Iterator<Item = Vec<u8>>) -> Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    let escaped = fields.map(|field| {
        let mut text = Vec::with_capacity(field.len());
        push_escaped(&mut text, &field);
        text
    });
    writer.write_record(escaped).context("writing a line of CSV")?;
    writer.into_inner().context("writing a line of CSV")
}
