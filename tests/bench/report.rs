//! What the measurements come to: medians, and ratios of them.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    batches::Rates,
    load::Loads,
    recorders::{Outcome, Recorder},
};

/// One recorder's measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Nanoseconds of a call.
    pub(crate) per_call: f64,
    /// What the recorder's threads took.
    pub(crate) cpu_time: Duration,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) outcome: Outcome,
}

/// All measurements.
#[derive(Debug, Default)]
pub(crate) struct Report {
    runs: BTreeMap<(&'static str, Recorder), Vec<Run>>,
    pub(crate) batches: Rates,
    pub(crate) loads: Loads,
    /// Percent of a CPU.
    pub(crate) idle: Option<f64>,
    /// Tracepoints, and seconds.
    pub(crate) attach: Option<(usize, f64)>,
}

/// The medians of a recorder.
struct Medians {
    /// Nanoseconds that it adds to a call.
    added: f64,
    /// Nanoseconds of its own time for a record.
    reader: f64,
    bytes: f64,
    lost: f64,
    memory: f64,
}

impl Report {
    pub(crate) fn add(&mut self, scenario: &'static str, kind: Recorder, run: Run) {
        self.runs.entry((scenario, kind)).or_default().push(run);
    }

    /// Adds another's.
    pub(crate) fn add_all(&mut self, other: Self) {
        let Self { runs, batches, loads, idle, attach } = other;
        self.runs.extend(runs);
        self.batches.extend(batches);
        self.loads.extend(loads);
        self.idle = self.idle.or(idle);
        self.attach = self.attach.or(attach);
    }

    fn scenarios(&self) -> Vec<&'static str> {
        // The one of one CPU first.
        let mut scenarios: Vec<_> = self.runs.keys().map(|(scenario, _)| *scenario).collect();
        scenarios.dedup();
        scenarios.reverse();
        scenarios
    }

    fn medians(&self, scenario: &'static str, kind: Recorder) -> Option<Medians> {
        let runs = self.runs.get(&(scenario, kind))?;
        let baseline = self.runs.get(&(scenario, Recorder::Nothing))?;
        let per_record = |run: &Run, what: f64| what / run.outcome.records.max(1) as f64;
        let of = |value: &dyn Fn(&Run) -> f64| median(runs.iter().map(value).collect());
        Some(Medians {
            added: of(&|run| run.per_call) - median(baseline.iter().map(|run| run.per_call).collect()),
            reader: of(&|run| per_record(run, run.cpu_time.as_nanos() as f64)),
            bytes: of(&|run| per_record(run, run.outcome.bytes as f64)),
            lost: of(&|run| run.outcome.lost as f64 * 100.0 / (run.outcome.lost + run.outcome.records).max(1) as f64),
            memory: of(&|run| run.memory as f64 / f64::from(1 << 20)),
        })
    }

    /// The ratios that count, by name.
    fn ratios(&self, scenario: &'static str) -> Vec<(&'static str, f64)> {
        let added = |kind| self.medians(scenario, kind).map(|medians| medians.added);
        let reader = |kind| self.medians(scenario, kind).map(|medians| medians.reader);
        let bytes = |kind| self.medians(scenario, kind).map(|medians| medians.bytes);
        let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
        let above = |kind, base| Some(added(kind)? - added(base)?);
        let (empty, bound) = (Recorder::Empty, Recorder::Bound);
        [
            (
                "cost of writing a record above the empty program, × the bound's",
                ratio(above(Recorder::Flight, empty), above(bound, empty)),
            ),
            ("the same with the reader on the same CPU", ratio(above(Recorder::Relayd, empty), above(bound, empty))),
            (
                "cost of writing above the bound, × the BPF ring buffer's, which is read from another CPU if there is one",
                ratio(above(Recorder::Flight, bound), above(Recorder::RingBuffer, bound)),
            ),
            ("the same, × the BPF perf buffer's", ratio(above(Recorder::Flight, bound), above(Recorder::PerfBuffer, bound))),
            ("with relayd's reader, × the BPF ring buffer's", ratio(above(Recorder::Relayd, bound), above(Recorder::RingBuffer, bound))),
            ("added to each call, × ftrace's", ratio(added(Recorder::Relayd), added(Recorder::Ftrace))),
            ("added to each call, × perf record's", ratio(added(Recorder::Relayd), added(Recorder::Perf))),
            ("reader's time a record, × the ring buffer's", ratio(reader(Recorder::Relayd), reader(Recorder::RingBuffer))),
            ("bytes a record, × perf record's", ratio(bytes(Recorder::Relayd), bytes(Recorder::Perf))),
        ]
        .into_iter()
        .filter_map(|(name, ratio)| Some((name, ratio?)))
        .collect()
    }

    /// Of each real program and recorder: the seconds that it took, how many percent more than without, and what was recorded in all rounds.
    fn slowdowns(&self) -> impl Iterator<Item = (&'static str, Recorder, f64, f64, Outcome)> {
        let seconds = |runs: &[(f64, Outcome)]| median(runs.iter().map(|(seconds, _)| *seconds).collect());
        self.loads.iter().filter_map(move |((load, kind), runs)| {
            let alone = seconds(self.loads.get(&(*load, Recorder::Nothing))?);
            let took = seconds(runs);
            let records = runs.iter().map(|(_, outcome)| outcome.records).sum();
            let lost = runs.iter().map(|(_, outcome)| outcome.lost).sum();
            Some((*load, *kind, took, (took / alone - 1.0) * 100.0, Outcome { records, lost, bytes: 0 }))
        })
    }

    /// A table for each scenario.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for scenario in self.scenarios() {
            let _ = writeln!(
                text,
                "{scenario}:\n{:<18} {:>14} {:>10} {:>18} {:>14} {:>12}",
                "recorder", "added to call", "lost", "reader, a record", "bytes, a record", "peak memory"
            );
            for kind in Recorder::ALL.into_iter().filter(|kind| *kind != Recorder::Nothing) {
                let Some(medians) = self.medians(scenario, kind) else { continue };
                let Medians { added, reader, bytes, lost, memory } = medians;
                let _ = write!(text, "{:<18} {added:>11.1} ns", kind.name());
                if kind.stores() {
                    let _ = write!(text, " {lost:>8.2} % {reader:>15.1} ns {bytes:>14.1} {memory:>8.1} MiB");
                }
                text.push('\n');
            }
            for (name, ratio) in self.ratios(scenario) {
                let _ = writeln!(text, "  {ratio:>6.2}  {name}");
            }
            text.push('\n');
        }
        if !self.batches.is_empty() {
            let _ = writeln!(
                text,
                "records in batches of 500, of 8 bytes where nothing else is said, million a second on each CPU:"
            );
        }
        for ((cpus, name), rates) in &self.batches {
            let _ = writeln!(text, "{name:<28} {cpus:>3} CPUs {:>8.2}", median(rates.clone()));
        }
        if !self.loads.is_empty() {
            let _ = writeln!(text, "sched:* recorded, and how much longer it takes:");
        }
        for (load, kind, seconds, slower, outcome) in self.slowdowns() {
            let Outcome { records, lost, .. } = outcome;
            let _ = writeln!(
                text,
                "{load:<28} {:<18} {seconds:>7.2} s {slower:>+7.1} % {records:>10} records, {lost} lost",
                kind.name()
            );
        }
        if let Some(idle) = self.idle {
            let _ = writeln!(text, "idle: {idle:.3} % of one CPU");
        }
        if let Some((events, seconds)) = self.attach {
            let _ = writeln!(text, "{events} tracepoints recorded after {seconds:.2} s");
        }
        text
    }

    /// The same, and what each round measured, for programs.
    pub(crate) fn json(&self) -> Result<String> {
        let mut scenarios = Vec::new();
        for scenario in self.scenarios() {
            let recorders = Recorder::ALL.into_iter().filter_map(|kind| {
                let Medians { added, reader, bytes, lost, memory } = self.medians(scenario, kind)?;
                let per_call: Vec<f64> = self.runs.get(&(scenario, kind))?.iter().map(|run| run.per_call).collect();
                Some(json!({ "name": kind.name(), "added_ns": added, "lost_percent": lost, "reader_ns": reader,
                    "bytes": bytes, "peak_mib": memory, "call_ns": per_call }))
            });
            let recorders: Vec<Value> = recorders.collect();
            let ratios: Vec<Value> = self
                .ratios(scenario)
                .into_iter()
                .map(|(name, ratio)| json!({ "name": name, "ratio": ratio }))
                .collect();
            scenarios.push(json!({ "name": scenario, "recorders": recorders, "ratios": ratios }));
        }
        let batches: Vec<Value> = self
            .batches
            .iter()
            .map(|((cpus, name), rates)| json!({ "name": name, "cpus": cpus, "million_per_second": rates }))
            .collect();
        let attach =
            self.attach.map(|(tracepoints, seconds)| json!({ "tracepoints": tracepoints, "seconds": seconds }));
        let loads: Vec<Value> = self
            .slowdowns()
            .map(|(load, kind, seconds, slower, outcome)| {
                json!({ "name": load, "recorder": kind.name(), "seconds": seconds, "slower_percent": slower,
                    "records": outcome.records, "lost": outcome.lost })
            })
            .collect();
        let all = json!({ "scenarios": scenarios, "batches": batches, "loads": loads, "idle_percent": self.idle,
            "attach": attach });
        Ok(serde_json::to_string_pretty(&all)? + "\n")
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
