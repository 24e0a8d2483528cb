//! `relayd stat --span`: the time between two records, by key, and what became of every record that begins or ends one.

use std::{fmt::Write as _, io::Write as _, process::ExitCode};

use anyhow::Result;
use relay_trace::{
    answers::{
        key::Key,
        span::{self, Account, Definition, Span, Spans},
        totals::{Fields, Part, Totals},
    },
    read::trace::Trace,
    show::escape::escaped,
};
use serde::Serialize;

use super::{Arguments, Damages, Groups, draw, misuse, order, progress_bar};

/// What every span has.
const DURATION: &str = "duration_ns";
/// Spans that are added up together.
const TOGETHER: usize = 4096;
/// Of crossed spans, beyond which percentiles are not to be believed, in percent.
const FEW: u64 = 5;

#[derive(Debug, Serialize)]
struct Report {
    spans: Vec<SpanReport>,
}

#[derive(Debug, Serialize)]
struct SpanReport {
    name: String,
    by: Vec<String>,
    account: Account,
    #[serde(flatten)]
    groups: Groups,
}

/// The spans of one definition, added up.
struct Sums {
    fields: Fields,
    /// Where the fields of `by` are among those that a span has.
    places: Vec<usize>,
    part: Part,
    in_part: usize,
    totals: Totals,
}

pub(super) fn run(arguments: &Arguments, traces: &[Trace], top: usize) -> Result<ExitCode> {
    let definitions =
        arguments.spans.iter().map(|text| span::parse(text)).collect::<Result<Vec<_>>>().map_err(misuse)?;
    let order = order(arguments)?;
    let mut fields: Vec<String> = Vec::new();
    let mut sums: Vec<Sums> =
        definitions.iter().map(|definition| Sums::new(definition, &arguments.by, &mut fields)).collect();
    let spans = Spans::new(traces, definitions, fields)?;
    let slicer = arguments.chosen.slicer(traces, false)?;
    let bar = progress_bar(&traces.iter().collect::<Vec<_>>(), arguments.json)?;
    let (accounts, found) = spans.run(
        slicer,
        |bytes| bar.set_position(bytes),
        |span| {
            if let Some(sums) = sums.get_mut(span.definition) {
                sums.add(span);
            }
            Ok(())
        },
    )?;
    bar.finish_and_clear();
    let mut damages = Damages::of(traces);
    damages.add(found);
    let report = |((definition, sums), account): ((&Definition, Sums), Account)| {
        let fields = sums.fields.clone();
        let groups = Groups::new(sums.finish(), &fields, order, top);
        (SpanReport { name: definition.name.clone(), by: fields.by.clone(), account, groups }, fields)
    };
    let reports: Vec<_> = spans.definitions().zip(sums).zip(accounts).map(report).collect();
    let text = if arguments.json {
        let spans = reports.into_iter().map(|(report, _)| report).collect();
        serde_json::to_string_pretty(&Report { spans })? + "\n"
    } else {
        let mut text = String::new();
        for (report, fields) in &reports {
            draw_one(&mut text, report, fields)?;
        }
        text
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(damages.finish())
}

impl Sums {
    fn new(definition: &Definition, by: &[String], fields: &mut Vec<String>) -> Self {
        let by = if by.is_empty() { definition.by.clone() } else { by.to_vec() };
        let mut place = |name: &String| {
            fields.iter().position(|field| field == name).unwrap_or_else(|| {
                fields.push(name.clone());
                fields.len() - 1
            })
        };
        let places = by.iter().map(&mut place).collect();
        let fields = Fields { spread: Some(DURATION.to_owned()), sum: Some(DURATION.to_owned()), by };
        Self { fields, places, part: Part::default(), in_part: 0, totals: Totals::default() }
    }

    fn add(&mut self, span: &Span<'_>) {
        // How long it was is not known.
        if span.crossed {
            return;
        }
        let none = || Key::Text("-".to_owned());
        let key = |place: &usize| span.fields.get(*place).cloned().flatten().unwrap_or_else(none);
        let key: Vec<Key> = self.places.iter().map(key).collect();
        let duration = i128::from(span.end.saturating_sub(span.start));
        self.part.add(&key, duration, Some(duration));
        self.in_part += 1;
        if self.in_part >= TOGETHER {
            self.totals.add(std::mem::take(&mut self.part));
            self.in_part = 0;
        }
    }

    fn finish(mut self) -> Totals {
        self.totals.add(self.part);
        self.totals
    }
}

fn draw_one(text: &mut String, report: &SpanReport, fields: &Fields) -> Result<()> {
    let account = &report.account;
    write!(text, "{}: {} spans", escaped(&report.name), account.ended)?;
    let notes = [
        (account.replaced, "begun again before an end (nest, if it is recursion)"),
        (account.ignored, "begun again and left out"),
        (account.given_up, "given up, the oldest of too many open ones"),
        (account.inferred, "whose end was not recorded"),
        (account.never_began, "ends without a beginning"),
    ];
    for (count, what) in notes.iter().filter(|(count, _)| *count > 0) {
        write!(text, ", {count} {what}")?;
    }
    if account.open > 0 {
        let oldest = account.oldest_open.unwrap_or(0);
        write!(
            text,
            ", {} open at the end, the oldest for {} at least",
            account.open,
            draw::nanoseconds(oldest as f64)
        )?;
    }
    writeln!(text)?;
    if account.crossed > 0 {
        let doubt = if account.crossed * 100 > account.ended * FEW { "; do not trust the percentiles" } else { "" };
        writeln!(
            text,
            "{} spans crossed a loss of records and are not counted below: long ones are missing{doubt}",
            account.crossed
        )?;
    }
    draw::groups(text, fields, &report.groups)?;
    writeln!(text)?;
    Ok(())
}
