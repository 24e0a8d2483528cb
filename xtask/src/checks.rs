//! `cargo xtask ci` and `cargo xtask test`: the one list of what must pass, run two at a time, and what came of it.
//!
//! Each check is a task of its own (`cargo xtask TASK`), run as a process. What it says is shown as it comes, behind its name. All are run, whatever
//! fails; a check that could not run has failed, unless [`MAY_NOT_RUN`] has its name. `passed.rs` knows what need not be repeated, `suite.rs` which
//! of the kernel tests have run at all.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{passed, suite::TestResults, tests};

/// The status of a task that could not run here: what it takes is not to be had.
pub(crate) const COULD_NOT_RUN: u8 = 3;

/// Checks that may be unable to run, and why that is not a failure.
const MAY_NOT_RUN: [(&str, &str); 1] = [(
    "advisories",
    "the database of known vulnerabilities is on the network, and not every machine reaches it; the public workflow does",
)];

/// One thing that must pass.
#[derive(Debug)]
pub(crate) struct Check {
    /// `cargo xtask` with these arguments runs it.
    pub(crate) task: &'static str,
    /// How many minutes it takes alone on two cores, when nothing is built yet.
    minutes: u32,
    place: Place,
    /// `cargo xtask test` runs it too.
    is_test: bool,
    /// What its result depends on, where it is not repeated once it has passed: files and folders of the repository.
    inputs: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// What needs the running kernel for itself, and so one after another.
    Host,
    /// What runs apart from it, with less priority: beside those, and then two at a time.
    Apart,
}

/// What is in the programs that a guest runs, and how it is made.
const PROGRAMS: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "examples",
    "relay-build",
    "relay-channel",
    "relay-common",
    "relay-daemon/Cargo.toml",
    "relay-daemon/build.rs",
    "relay-daemon/src",
    "relay-ebpf",
    "relay-trace",
    "tests/Cargo.toml",
    "tests/build.rs",
    "tests/ebpf",
    "tests/kernel",
    "tests/src",
    "xtask/src/debian.rs",
    "xtask/src/dist.rs",
    "xtask/src/root.rs",
    "xtask/src/targets.rs",
    "xtask/src/tests.rs",
    "xtask/src/vm",
    "xtask/src/vm.rs",
];
/// What the protocol's proofs are about.
const PROTOCOL: &[&str] = &["Cargo.lock", "Cargo.toml", "relay-common", "xtask/src/mutants.rs", "xtask/src/proofs.rs"];
/// What is fuzzed.
const FUZZED: &[&str] = &["relay-common", "relay-trace", "tests/fuzz", "xtask/src/fuzz.rs"];

/// Before all others.
const SETUP: Check = Check { task: "setup", minutes: 3, place: Place::Host, is_test: true, inputs: &[] };

/// All others, in the order in which those of each place begin.
pub(crate) const CHECKS: [Check; 17] = [
    Check { task: "lint", minutes: 3, place: Place::Host, is_test: false, inputs: &[] },
    Check { task: "unit-test", minutes: 4, place: Place::Host, is_test: true, inputs: &[] },
    Check { task: "kernel", minutes: 10, place: Place::Host, is_test: true, inputs: &[] },
    Check { task: "container", minutes: 3, place: Place::Host, is_test: true, inputs: &[] },
    Check { task: "rebuild", minutes: 1, place: Place::Host, is_test: false, inputs: &[] },
    Check { task: "licences", minutes: 3, place: Place::Host, is_test: false, inputs: &[] },
    Check { task: "advisories", minutes: 1, place: Place::Host, is_test: false, inputs: &[] },
    Check { task: "dist", minutes: 5, place: Place::Apart, is_test: false, inputs: &[] },
    Check { task: "vm --kernel arm64", minutes: 7, place: Place::Apart, is_test: true, inputs: PROGRAMS },
    Check { task: "vm --kernel 6.1", minutes: 4, place: Place::Apart, is_test: true, inputs: PROGRAMS },
    Check { task: "vm --kernel 7.2", minutes: 5, place: Place::Apart, is_test: true, inputs: PROGRAMS },
    Check { task: "fuzz", minutes: 4, place: Place::Apart, is_test: false, inputs: FUZZED },
    Check { task: "vm --kernel 6.12-full", minutes: 4, place: Place::Apart, is_test: true, inputs: PROGRAMS },
    Check { task: "vm --kernel 6.12", minutes: 4, place: Place::Apart, is_test: true, inputs: PROGRAMS },
    Check { task: "explore", minutes: 3, place: Place::Apart, is_test: false, inputs: PROTOCOL },
    Check { task: "miri", minutes: 2, place: Place::Apart, is_test: false, inputs: PROTOCOL },
    Check { task: "loom", minutes: 1, place: Place::Apart, is_test: false, inputs: PROTOCOL },
];

/// How a check ended.
enum Outcome {
    Passed,
    /// It had passed before, and when.
    Before(String),
    /// It could not run, which is allowed for this reason.
    Allowed(&'static str),
    Failed(String),
}

struct Ended {
    task: &'static str,
    outcome: Outcome,
    time: Duration,
}

/// What all checks add to.
#[derive(Default)]
struct Book {
    ended: Vec<Ended>,
    suite: TestResults,
}

/// Runs all checks, or the tests among them; at full size or at a tenth.
pub(crate) fn run(only_tests: bool, full: bool) -> Result<ExitCode> {
    let checks: Vec<&Check> = CHECKS.iter().filter(|check| check.is_test || !only_tests).collect();
    say_what_comes(&checks, full);
    let (start, book) = (Instant::now(), Mutex::new(Book::default()));
    // What all take is there before they part.
    SETUP.end(full, &book);
    let apart: VecDeque<_> = checks.iter().filter(|check| check.place == Place::Apart).collect();
    let apart = Mutex::new(apart);
    let next = || apart.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let end_all = || std::iter::from_fn(next).for_each(|check| check.end(full, &book));
    thread::scope(|scope| {
        scope.spawn(|| {
            checks.iter().filter(|check| check.place == Place::Host).for_each(|check| check.end(full, &book));
            end_all();
        });
        end_all();
    });
    let Book { ended, suite } = book.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(conclude(&ended, &suite, start.elapsed()))
}

fn say_what_comes(checks: &[&Check], full: bool) {
    let most = SETUP.minutes + checks.iter().map(|check| check.minutes).sum::<u32>() / 2;
    let size =
        if full { "at full size: that takes several times as long" } else { "kills, snapshots and records at a tenth" };
    println!(
        "xtask: {} checks, two at a time, about {most} minutes on two cores; less where something has passed before on this content ({size})",
        checks.len()
    );
    for check in checks {
        println!("xtask:   {:24} about {} min", check.task, check.minutes);
    }
}

/// Shows what came of all, and what did not run; the status.
fn conclude(ended: &[Ended], suite: &TestResults, time: Duration) -> ExitCode {
    println!("\nminutes  check");
    for check in ended {
        println!("{}", check.line());
    }
    println!("{:7.1}  all", minutes(time));
    let unrun = suite.never_run();
    let mut failed = ended.iter().filter(|check| matches!(check.outcome, Outcome::Failed(_))).count();
    if !unrun.is_empty() {
        failed += 1;
        println!("\nkernel tests that ran nowhere, which is a failure:");
        unrun.iter().for_each(|(test, why)| println!("  {test}: {why}"));
    }
    for check in ended {
        match &check.outcome {
            Outcome::Failed(why) => println!("\nFAILED {}: {why}\n  again: cargo xtask {}", check.task, check.task),
            Outcome::Allowed(why) => println!("\nnot run, and allowed not to: {}: {why}", check.task),
            Outcome::Passed | Outcome::Before(_) => {}
        }
    }
    println!("\n{} passed, {failed} failed", ended.len().saturating_sub(failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Ended {
    fn line(&self) -> String {
        let outcome = match &self.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Before(when) => format!("not repeated: it passed on this content on {when}"),
            Outcome::Allowed(_) => "could not run here, and need not".to_owned(),
            Outcome::Failed(_) => "FAILED".to_owned(),
        };
        format!("{:7.1}  {:24} {outcome}", minutes(self.time), self.task)
    }
}

impl Check {
    /// Runs it to its end, and writes down what came of it.
    fn end(&self, full: bool, book: &Mutex<Book>) {
        let begin = Instant::now();
        let outcome = self.run(full, book).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        let ended = Ended { task: self.task, outcome, time: begin.elapsed() };
        println!("xtask: {}", ended.line());
        lock(book).ended.push(ended);
    }

    fn run(&self, full: bool, book: &Mutex<Book>) -> Result<Outcome> {
        let key = if self.inputs.is_empty() { None } else { passed::Key::new(self.task, full, self.inputs)? };
        if let Some(before) = key.as_ref().and_then(passed::Key::look_up) {
            before.tests.iter().for_each(|line| lock(book).suite.read(line));
            return Ok(Outcome::Before(before.when));
        }
        let mut said = TestResults::default();
        let status = self.run_process(full, &mut said)?;
        lock(book).suite.add(&said);
        match status {
            Some(0) => {
                if let Some(key) = key {
                    key.write_down(said.lines())?;
                }
                Ok(Outcome::Passed)
            }
            Some(code) if code == i32::from(COULD_NOT_RUN) => {
                match MAY_NOT_RUN.iter().find(|(task, _)| *task == self.task) {
                    Some((_, why)) => Ok(Outcome::Allowed(why)),
                    None => bail!("it could not run here (the reason is above)"),
                }
            }
            Some(code) => bail!("status {code}"),
            None => bail!("it was killed by a signal"),
        }
    }

    /// Runs the task, and shows each of its lines behind its name.
    fn run_process(&self, full: bool, suite: &mut TestResults) -> Result<Option<i32>> {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.args(self.task.split(' '));
        let (name, size) = tests::size(full);
        command.env(name, size);
        if std::env::var_os("CI").is_some() {
            // What is built once gains nothing from what the next build could reuse.
            command.env("CARGO_INCREMENTAL", "0");
        }
        if self.place == Place::Apart {
            // What measures the running kernel goes first.
            let task = command;
            command = Command::new("nice");
            command.arg(task.get_program()).args(task.get_args());
            command.envs(task.get_envs().filter_map(|(name, value)| Some((name, value?))));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("running {command:?}"))?;
        let (out, errors) = (child.stdout.take().context("its output")?, child.stderr.take().context("its errors")?);
        thread::scope(|scope| {
            scope.spawn(|| self.show(errors, |_| {}));
            self.show(out, |line| suite.read(line));
        });
        Ok(child.wait().with_context(|| format!("waiting for {command:?}"))?.code())
    }

    fn show(&self, from: impl Read, mut look: impl FnMut(&str)) {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            look(&line);
            println!("{} | {}", self.task, line.trim_end());
        }
    }
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn minutes(time: Duration) -> f64 {
    time.as_secs_f64() / 60.0
}
