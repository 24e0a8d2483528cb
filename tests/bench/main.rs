//! What it costs to record, beside others, in one run and by turns: `cargo xtask bench record` runs it as root.
//!
//! `hold` is the recorders that are ours but not relayd's, each a process like the others' (`recorders`); `calls` is the load.

mod batches;
mod calls;
mod hold;
mod recorders;
mod report;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use relay_daemon::machine;

use crate::{
    recorders::{Kind, Running},
    report::Run,
};

/// How long a recorder is left alone after the load: what it has got by then it will have got from the load.
const DRAIN: Duration = Duration::from_millis(500);

fn main() -> Result<()> {
    // cargo bench adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["hold", program, output] => hold::run(program, Path::new(output)),
        ["record", rounds, calls, json] => {
            let number = |text: &str| text.parse().with_context(|| format!("'{text}' is no number"));
            record(number(rounds)?, number(calls)?, Path::new(json))
        }
        _ => bail!("usage: hold PROGRAM FILE | record ROUNDS CALLS JSON; `cargo xtask bench record` is what you want"),
    }
}

fn record(rounds: u64, calls: u64, json: &Path) -> Result<()> {
    let cpus = machine::online_cpus()?;
    let last = cpus.last().copied().context("no CPU is online")?;
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_there()).collect();
    let mut report = report::Report::default();
    for (scenario, cpus) in [("one CPU", vec![last]), ("all CPUs", cpus.clone())] {
        for round in 1..=rounds {
            eprintln!("bench: {scenario}, round {round} of {rounds}");
            for kind in &kinds {
                report.add(scenario, *kind, measure(*kind, &cpus, calls)?);
            }
        }
    }
    report.batches = batches::measure(&cpus, rounds)?;
    report.idle = recorders::idle(Duration::from_secs(60))?;
    report.attach = recorders::attach(rounds)?;
    print!("{}", report.text());
    std::fs::write(json, report.json()?).with_context(|| format!("writing {}", json.display()))
}

/// Has every one of the CPUs make system calls while a recorder runs.
fn measure(kind: Kind, cpus: &[u32], calls: u64) -> Result<Run> {
    let folder = tempfile::tempdir().context("making a directory for what is recorded")?;
    let running = Running::start(kind, folder.path()).with_context(|| format!("starting {}", kind.name()))?;
    let before = running.cpu_time();
    let per_call = calls::make(cpus, calls);
    std::thread::sleep(DRAIN);
    let (cpu_time, memory) = (running.cpu_time().saturating_sub(before), running.memory());
    let outcome = running.stop().with_context(|| format!("ending {}", kind.name()))?;
    Ok(Run { per_call, cpu_time, memory, outcome })
}
