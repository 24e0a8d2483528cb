//! `relayd stat --span`: the time between two records, by key, and what became of every record that begins or ends one.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Result;
use relay_trace::{
    answers::{
        key::Key,
        span::{Definition, Span, SpanAccount, Spans},
        totals::{SliceTotals, TotalFields, Totals},
    },
    read::trace::Trace,
};
use serde::Serialize;

use super::{
    super::spans::{definitions, said},
    Arguments, Damages, Groups, draw, order, print, progress_bar,
};

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
    account: SpanAccount,
    #[serde(flatten)]
    groups: Groups,
}

/// The spans of one definition, added up.
struct Sums {
    fields: TotalFields,
    /// Where the fields of `by` are among those that a span has.
    places: Vec<usize>,
    part: SliceTotals,
    in_part: usize,
    totals: Totals,
}

pub(super) fn run(arguments: &Arguments, traces: &[Trace], top: usize) -> Result<ExitCode> {
    let definitions = definitions(&arguments.spans)?;
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
    let report = |((definition, sums), account): ((&Definition, Sums), SpanAccount)| {
        let fields = sums.fields.clone();
        let groups = Groups::new(sums.finish(), &fields, order, top);
        (SpanReport { name: definition.name.clone(), by: fields.by.clone(), account, groups }, fields)
    };
    let (spans, fields) = spans.definitions().zip(sums).zip(accounts).map(report).collect::<(Vec<_>, Vec<_>)>();
    let report = Report { spans };
    print(arguments.json, &report, || {
        let mut text = String::new();
        report.spans.iter().zip(&fields).try_for_each(|(report, fields)| draw_one(&mut text, report, fields))?;
        Ok(text)
    })?;
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
        let fields = TotalFields { spread: Some(DURATION.to_owned()), sum: Some(DURATION.to_owned()), by };
        Self { fields, places, part: SliceTotals::default(), in_part: 0, totals: Totals::default() }
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

fn draw_one(text: &mut String, report: &SpanReport, fields: &TotalFields) -> Result<()> {
    let account = &report.account;
    writeln!(text, "{}", said(&report.name, account))?;
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
