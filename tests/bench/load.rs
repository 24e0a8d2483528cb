//! Real programs, all of whose scheduling is recorded: how much longer they take.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    DRAIN,
    recorders::{Events, Outcome, Recorder, Running},
};

/// Those that can be told to record every event of `sched`.
const KINDS: [Recorder; 4] = [Recorder::Nothing, Recorder::Relayd, Recorder::Perf, Recorder::Ftrace];

/// A program's name, and how it is run with a directory for what it makes.
type Load = (&'static str, fn(&Path) -> Command);

/// What each round took, in seconds, and got.
pub(crate) type Loads = BTreeMap<(&'static str, Recorder), Vec<(f64, Outcome)>>;

pub(crate) fn measure(rounds: u64) -> Result<Loads> {
    let loads: [Load; 2] = [("perf bench sched messaging", messaging), ("a compile", compile)];
    let kinds: Vec<Recorder> = KINDS.into_iter().filter(|kind| kind.is_there()).collect();
    let mut results = Loads::new();
    for (name, command) in loads {
        if name.starts_with("perf") && !Recorder::Perf.is_there() {
            continue;
        }
        // Whoever comes first must not be the one who fills the caches.
        run(command(&tempfile::tempdir()?.path().join("made")))?;
        for round in 1..=rounds {
            eprintln!("bench: {name}, round {round} of {rounds}");
            for &kind in &kinds {
                let folder = tempfile::tempdir().context("making a directory")?;
                let running = Running::start(kind, Events::Scheduling, &[], folder.path())?;
                let seconds = run(command(&folder.path().join("made")))?;
                sleep(DRAIN);
                let outcome = running.stop().with_context(|| format!("ending {}", kind.name()))?;
                results.entry((name, kind)).or_default().push((seconds, outcome));
            }
        }
    }
    Ok(results)
}

fn run(mut command: Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.with_context(|| format!("running {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Four hundred tasks that send one another messages.
fn messaging(_: &Path) -> Command {
    let mut command = Command::new("perf");
    command.args(["bench", "sched", "messaging", "-l", "500"]);
    command
}

/// A library of some ten thousand lines, and what it needs.
fn compile(folder: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.args(["build", "--offline", "--locked", "--package", "clap", "--target-dir"]).arg(folder);
    command
}
