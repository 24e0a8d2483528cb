//! What it costs to record, beside others, in one run and by turns: `cargo xtask bench` runs it as root.
//!
//! `hold` is the recorders that are ours but not relayd's, each a process like the others' (`recorders`); `calls` is the load of the first
//! two scenarios, `load` real programs, and `batches` a load without a hook.

mod batches;
mod calls;
mod count;
mod hold;
mod load;
mod recorders;
mod report;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use relay_channel::machine;

use crate::{
    recorders::{Events, Recorder, Running},
    report::Run,
};

/// How long a recorder is left alone after the load: what it has got by then it will have got from the load.
pub(crate) const DRAIN: Duration = Duration::from_millis(500);

/// Measure what it costs to record, beside others, in interleaved rounds; medians are shown.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench --")]
struct Cli {
    /// System calls that are recorded each time, shared by the CPUs.
    #[arg(long, default_value_t = 20_000_000)]
    calls: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Where the figures are also written, as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Only these scenarios.
    #[arg(long, value_enum, value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Only these recorders; nothing and an empty program are always measured.
    #[arg(long, value_enum, value_delimiter = ',')]
    recorders: Vec<Recorder>,
    /// Count instructions instead, where the clock does: see `cargo xtask bench icount`.
    #[arg(long, hide = true)]
    count: bool,
    /// Options for relayd, like `--relayd="-b 1M -n 4"`.
    #[arg(long, value_delimiter = ' ', allow_hyphen_values = true)]
    relayd: Vec<String>,
    /// What the benchmark runs itself as: a program, and the file for what it records.
    #[arg(long, num_args = 2, hide = true)]
    hold: Vec<String>,
    /// Read at the end alone.
    #[arg(long, hide = true)]
    late: bool,
    /// cargo bench adds it.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is done while it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Scenario {
    /// One CPU makes system calls as fast as it can.
    One,
    /// Every CPU does.
    All,
    /// Programs write records in batches, without a hook.
    Batches,
    /// Real programs run, whose scheduling is recorded.
    Load,
    /// Next to nothing, for a minute.
    Idle,
    /// A thousand tracepoints are attached to.
    Attach,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let [program, output] = &cli.hold[..] {
        return hold::run(program, Path::new(output), cli.late);
    }
    if cli.count {
        return count::print();
    }
    let cpus = machine::online_cpus()?;
    let last = cpus.last().copied().context("no CPU is online")?;
    let mut all = report::Report::default();
    let is_wanted = |scenario| cli.scenarios.is_empty() || cli.scenarios.contains(&scenario);
    for scenario in Scenario::value_variants().iter().copied().filter(|scenario| is_wanted(*scenario)) {
        let mut report = report::Report::default();
        match scenario {
            Scenario::One => measure_calls(&cli, "one CPU", &[last], &mut report)?,
            Scenario::All => measure_calls(&cli, "all CPUs", &cpus, &mut report)?,
            Scenario::Batches => report.batches = batches::measure(&cpus, cli.rounds)?,
            Scenario::Load => report.loads = load::measure(cli.rounds)?,
            Scenario::Idle => report.idle = Some(recorders::idle(Duration::from_secs(60))?),
            Scenario::Attach => report.attach = Some(recorders::attach(cli.rounds)?),
        }
        // Each as it is done: the next may fail.
        println!("{}", report.text());
        all.add_all(report);
    }
    std::fs::write(&cli.json, all.json()?).with_context(|| format!("writing {}", cli.json.display()))
}

fn measure_calls(cli: &Cli, scenario: &'static str, cpus: &[u32], report: &mut report::Report) -> Result<()> {
    let is_wanted = |kind: &Recorder| {
        cli.recorders.is_empty() || cli.recorders.contains(kind) || matches!(kind, Recorder::Nothing | Recorder::Empty)
    };
    let kinds = Recorder::ALL.into_iter().filter(is_wanted).filter(|kind| kind.is_there());
    let kinds: Vec<Recorder> = kinds.collect();
    for round in 1..=cli.rounds {
        eprintln!("bench: {scenario}, round {round} of {}", cli.rounds);
        for kind in &kinds {
            report.add(scenario, *kind, measure(*kind, Events::Calls, cpus, (cli.calls, 1), &cli.relayd)?);
        }
    }
    Ok(())
}

/// Has every one of the CPUs make system calls, so many so often, while a recorder runs; a call takes the least that it took. A record that is not there
/// was lost, whatever the recorder says of it.
fn measure(
    kind: Recorder,
    events: Events<'_>,
    cpus: &[u32],
    (calls, times): (u64, u64),
    options: &[String],
) -> Result<Run> {
    let folder = tempfile::tempdir().context("making a directory for what is recorded")?;
    let running =
        Running::start(kind, events, options, folder.path()).with_context(|| format!("starting {}", kind.name()))?;
    let before = running.cpu_time();
    let calls = calls / cpus.len() as u64;
    let per_call = (0..times).map(|_| calls::make(cpus, calls)).fold(f64::MAX, f64::min);
    std::thread::sleep(DRAIN);
    let (cpu_time, memory) = (running.cpu_time().saturating_sub(before), running.memory());
    let mut outcome = running.stop().with_context(|| format!("ending {}", kind.name()))?;
    if kind.stores() {
        let missing = (calls * times * cpus.len() as u64).saturating_sub(outcome.records);
        if matches!(kind, Recorder::Relayd | Recorder::Flight | Recorder::RingBuffer) && missing > outcome.lost {
            bail!("{} lost {missing} records, and tells of {}", kind.name(), outcome.lost);
        }
        outcome.lost = outcome.lost.max(missing);
    }
    Ok(Run { per_call, cpu_time, memory, outcome })
}
