//! speedscope's own JSON: a sampled profile, of which each stack is a sample as heavy as all records that had it.

use std::{collections::HashMap, io::Write};

use anyhow::Result;
use serde::Serialize;

use super::{Exported, Job, stacks::Stacks};

const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'s> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: &'s str,
    exporter: &'static str,
    active_profile_index: usize,
    shared: Shared<'s>,
    profiles: [Profile<'s>; 1],
}

#[derive(Serialize)]
struct Shared<'s> {
    frames: Vec<Function<'s>>,
}

#[derive(Serialize)]
struct Function<'s> {
    name: &'s str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile<'s> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'s str,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

/// Writes the stacks of the traces. Records weigh what their field `weight` has, or one.
///
/// # Errors
/// When a file cannot be read, `output` not be written, no event has the field, or nothing has a stack.
pub fn write(job: Job<'_>, weight: Option<&str>, output: &mut dyn Write) -> Result<Exported> {
    let name = job.traces.first().map_or(String::new(), |trace| trace.path.display().to_string());
    let (stacks, done) = Stacks::collect(job, weight)?;
    let mut frames: Vec<Function<'_>> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut frame = |name| {
        *known.entry(name).or_insert_with(|| {
            frames.push(Function { name });
            frames.len() - 1
        })
    };
    let samples = stacks.lines.iter().map(|(line, _)| line.iter().map(|name| frame(name)).collect()).collect();
    let unit = match stacks.unit() {
        field if field.ends_with("_ns") => "nanoseconds",
        field if field.contains("bytes") => "bytes",
        _ => "none",
    };
    let profile = Profile {
        kind: "sampled",
        name: stacks.unit(),
        unit,
        start_value: 0,
        end_value: stacks.total(),
        samples,
        weights: stacks.lines.iter().map(|(_, weight)| *weight).collect(),
    };
    let file = File {
        schema: SCHEMA,
        name: &name,
        exporter: concat!("relayd ", env!("CARGO_PKG_VERSION")),
        active_profile_index: 0,
        shared: Shared { frames },
        profiles: [profile],
    };
    serde_json::to_writer(&mut *output, &file)?;
    writeln!(output)?;
    Ok(done)
}
