//! What records: relayd, others' tools, and what is built for comparison. Each is a process, measured by what the kernel says of it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use relay_channel::machine;
use relay_tests::{relayd, session_file};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How long tools that do not say when they are ready are given.
const SETTLE: Duration = Duration::from_millis(1500);
const TIMEOUT: Duration = Duration::from_secs(30);

/// A recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Recorder {
    /// Nothing is attached.
    Nothing,
    /// A program that does nothing.
    Empty,
    /// The same on the raw tracepoint, of which perf makes nothing.
    EmptyRaw,
    /// A program that reads the clock and copies the bytes: no recorder can be faster.
    Bound,
    /// relayd, whose reader takes its time from the CPU that it reads from.
    Relayd,
    /// relayd that overwrites, with nobody reading: what the writing alone costs.
    Flight,
    RingBuffer,
    PerfBuffer,
    Perf,
    Ftrace,
    Bpftrace,
}

impl Recorder {
    pub(crate) const ALL: [Self; 11] = [
        Self::Nothing,
        Self::Empty,
        Self::EmptyRaw,
        Self::Bound,
        Self::Relayd,
        Self::Flight,
        Self::RingBuffer,
        Self::PerfBuffer,
        Self::Perf,
        Self::Ftrace,
        Self::Bpftrace,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Empty => "an empty program",
            Self::EmptyRaw => "an empty one, raw",
            Self::Bound => "the bound",
            Self::Relayd => "relayd",
            Self::Flight => "relayd --overwrite",
            Self::RingBuffer => "BPF ring buffer",
            Self::PerfBuffer => "BPF perf buffer",
            Self::Perf => "perf record",
            Self::Ftrace => "ftrace",
            Self::Bpftrace => "bpftrace printf",
        }
    }

    pub(crate) fn is_there(self) -> bool {
        let program = match self {
            Self::Perf => "perf",
            Self::Bpftrace => "bpftrace",
            _ => return true,
        };
        let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
        if !there {
            eprintln!("bench: left out, since it is not installed: {program}");
        }
        there
    }

    /// Whether it keeps records.
    pub(crate) fn stores(self) -> bool {
        !matches!(self, Self::Nothing | Self::Empty | Self::EmptyRaw | Self::Bound)
    }

    /// The program of ours that it is, if it is one.
    fn own(self) -> Option<&'static str> {
        match self {
            Self::Empty => Some("nothing"),
            Self::EmptyRaw => Some("raw_nothing"),
            Self::Bound => Some("bound"),
            Self::RingBuffer => Some("ring_buffer"),
            Self::PerfBuffer => Some("perf_buffer"),
            _ => None,
        }
    }
}

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Events<'a> {
    /// `raw_syscalls:sys_enter`.
    Calls,
    /// The same, and so few that all have room: who reads can do so at the end.
    FewCalls,
    /// `sched:*`.
    Scheduling,
    /// What relayd alone can record.
    Of(&'a str),
}

impl<'a> Events<'a> {
    /// As relayd and perf call them.
    fn name(self) -> &'a str {
        match self {
            Self::Calls | Self::FewCalls => "raw_syscalls:sys_enter",
            Self::Scheduling => "sched:*",
            Self::Of(name) => name,
        }
    }

    /// Where they are in tracefs.
    fn folder(self) -> &'static str {
        match self {
            Self::Scheduling => "events/sched",
            _ => "events/raw_syscalls/sys_enter",
        }
    }
}

/// What a recorder has got.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) records: u64,
    pub(crate) lost: u64,
    pub(crate) bytes: u64,
}

/// A recorder at work.
pub(crate) struct Running {
    kind: Recorder,
    children: Vec<Child>,
    output: PathBuf,
    /// ftrace's; dropped after the children have been.
    instance: Option<Instance>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Running {
    /// Starts a recorder, relayd with these options, and returns when it records.
    pub(crate) fn start(kind: Recorder, events: Events<'_>, options: &[String], folder: &Path) -> Result<Self> {
        let mut running = Self { kind, children: Vec::new(), output: folder.join("output"), instance: None };
        let output = running.output.clone();
        match kind {
            Recorder::Nothing => {}
            Recorder::Empty | Recorder::EmptyRaw | Recorder::Bound | Recorder::RingBuffer | Recorder::PerfBuffer => {
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .args((events == Events::FewCalls).then_some("--late"))
                    .arg("--hold")
                    .arg(kind.own().unwrap_or_default())
                    .arg(&output);
                let child = running.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
                let mut stdout = BufReader::new(child.stdout.as_mut().context("no standard output")?);
                let mut line = String::new();
                stdout.read_line(&mut line)?;
                if line != "ready\n" {
                    bail!("it could not be attached");
                }
            }
            Recorder::Relayd | Recorder::Flight => {
                let mode: &[&str] = if kind == Recorder::Flight { &["--overwrite"] } else { &[] };
                running.spawn(
                    relayd()
                        .args(["trace", "-q"])
                        .args(mode)
                        .args(options)
                        .args(["-e", events.name(), "-o"])
                        .arg(&output),
                )?;
                wait_until("relayd records", || session_file(&output).exists())?;
            }
            Recorder::Perf => {
                let arguments = ["record", "-q", "-a", "-m", "2048", "-e", events.name(), "-o"];
                running.spawn(Command::new("perf").args(arguments).arg(&output).stderr(Stdio::null()))?;
                sleep(SETTLE);
            }
            Recorder::Bpftrace => {
                let program = "tracepoint:raw_syscalls:sys_enter \
                               { printf(\"%d %llu %d %d %d\\n\", cpu, nsecs, pid, tid, args->id); }";
                let errors = fs::File::create(folder.join("errors"))?;
                running
                    .spawn(Command::new("bpftrace").args(["-o"]).arg(&output).args(["-e", program]).stderr(errors))?;
                wait_until("bpftrace records", || fs::metadata(&output).is_ok_and(|file| file.len() > 0))?;
                sleep(SETTLE);
            }
            Recorder::Ftrace => {
                let instance = Instance::make()?;
                for cpu in machine::online_cpus()? {
                    let pipe = instance.0.join(format!("per_cpu/cpu{cpu}/trace_pipe_raw"));
                    let file = fs::File::create(output.with_extension(cpu.to_string()))?;
                    running.spawn(Command::new("cat").arg(pipe).stdout(file))?;
                }
                fs::write(instance.0.join(events.folder()).join("enable"), "1")?;
                running.instance = Some(instance);
            }
        }
        sleep(Duration::from_millis(200));
        Ok(running)
    }

    fn spawn(&mut self, command: &mut Command) -> Result<&mut Child> {
        let child = command.spawn().with_context(|| format!("running {command:?}"))?;
        self.children.push(child);
        self.children.last_mut().context("a child")
    }

    /// What the recorder's threads have run so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        let of = |child: &Child| -> u64 {
            let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten().flatten();
            let ran = |path: PathBuf| -> Option<u64> {
                fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
            };
            tasks.filter_map(|task| ran(task.path())).sum()
        };
        Duration::from_nanos(self.children.iter().map(of).sum())
    }

    /// Most memory that it has had so far, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let of = |child: &Child| -> Option<u64> {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.children.iter().filter_map(of).sum::<u64>() << 10
    }

    /// Ends it in order, and says what it has got.
    pub(crate) fn stop(mut self) -> Result<Outcome> {
        let mut said = String::new();
        for child in &mut self.children {
            if self.kind.own().is_some() {
                drop(child.stdin.take());
                child.stdout.take().context("no standard output")?.read_to_string(&mut said)?;
            } else {
                kill_process(Pid::from_child(child), Signal::INT)?;
            }
            child.wait()?;
        }
        self.children.clear();
        let bytes = || fs::metadata(&self.output).map_or(0, |file| file.len());
        match self.kind {
            Recorder::Nothing => Ok(Outcome::default()),
            Recorder::Empty | Recorder::EmptyRaw | Recorder::Bound | Recorder::RingBuffer | Recorder::PerfBuffer => {
                Ok(serde_json::from_str(&said)?)
            }
            Recorder::Relayd | Recorder::Flight => {
                let session: Value = serde_json::from_slice(&fs::read(session_file(&self.output))?)?;
                let cpus = session["cpus"].as_array().cloned().unwrap_or_default();
                let total = |keys: &[&str]| -> u64 {
                    cpus.iter().map(|cpu| keys.iter().filter_map(|key| cpu[*key].as_u64()).sum::<u64>()).sum()
                };
                Ok(Outcome {
                    records: total(&["recorded"]),
                    lost: total(&["lost_full", "lost_too_big", "lost_nested", "lost_no_buffer"]),
                    bytes: total(&["bytes"]),
                })
            }
            Recorder::Perf => {
                let report = Command::new("perf").args(["report", "--stats", "-i"]).arg(&self.output).output()?;
                let text = String::from_utf8_lossy(&report.stdout).into_owned();
                let count = |name: &str| {
                    text.lines().filter_map(|line| line.trim().strip_prefix(name)).find_map(|rest| {
                        rest.trim_start_matches([' ', ':']).split_whitespace().next()?.parse::<u64>().ok()
                    })
                };
                let (records, lost) =
                    (count("SAMPLE events").unwrap_or(0), count("LOST_SAMPLES events").or(count("LOST events")));
                Ok(Outcome { records, lost: lost.unwrap_or(0), bytes: bytes() })
            }
            Recorder::Bpftrace => {
                let errors = fs::read_to_string(self.output.with_file_name("errors"))?;
                let text = fs::read(&self.output)?;
                let lost = |text: &str| -> u64 {
                    text.lines()
                        .filter_map(|line| line.strip_prefix("Lost ")?.split(' ').next()?.parse::<u64>().ok())
                        .sum()
                };
                let records = text.iter().filter(|byte| **byte == b'\n').count() as u64;
                Ok(Outcome {
                    records,
                    lost: lost(&errors) + lost(&String::from_utf8_lossy(&text)),
                    bytes: text.len() as u64,
                })
            }
            Recorder::Ftrace => {
                let instance = self.instance.take().context("no instance of ftrace")?;
                let mut outcome = Outcome::default();
                for cpu in machine::online_cpus()? {
                    let stats = fs::read_to_string(instance.0.join(format!("per_cpu/cpu{cpu}/stats")))?;
                    let count = |name: &str| -> u64 {
                        stats.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
                    };
                    // What is still in the buffers is not lost.
                    outcome.records += count("read events:") + count("entries:");
                    outcome.lost += count("overrun:") + count("dropped events:") + count("commit overrun:");
                    outcome.bytes += fs::metadata(self.output.with_extension(cpu.to_string()))?.len();
                }
                Ok(outcome)
            }
        }
    }
}

/// A set of ftrace's buffers of its own, with as much room as relayd has by default. Dropping it removes it.
struct Instance(PathBuf);

impl Instance {
    fn make() -> Result<Self> {
        let instance = Self(machine::tracefs()?.join("instances/relayd-bench"));
        fs::create_dir(&instance.0).with_context(|| format!("making {}", instance.0.display()))?;
        fs::write(instance.0.join("buffer_size_kb"), "2048")?;
        Ok(instance)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("events/enable"), "0");
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("bench: {} stays behind: {error}", self.0.display());
        }
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > TIMEOUT {
            bail!("waiting until {what}: {} s have passed", TIMEOUT.as_secs());
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The part of one CPU that relayd takes while next to nothing happens, in percent.
pub(crate) fn idle(time: Duration) -> Result<f64> {
    eprintln!("bench: an idle system, {} s", time.as_secs());
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("output");
    let mut running = Running { kind: Recorder::Relayd, children: Vec::new(), output: output.clone(), instance: None };
    running.spawn(relayd().args(["trace", "-q", "-e", "sched:sched_process_exec", "-o"]).arg(output))?;
    sleep(SETTLE);
    let (before, start) = (running.cpu_time(), Instant::now());
    sleep(time);
    let used = running.cpu_time().saturating_sub(before).as_secs_f64() / start.elapsed().as_secs_f64();
    running.stop()?;
    Ok(used * 100.0)
}

/// How long it takes until a thousand tracepoints are recorded, in seconds; the median.
pub(crate) fn attach(rounds: u64) -> Result<(usize, f64)> {
    let listed = relayd().args(["list", "tracepoint:*"]).output()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).take(1000).collect();
    let mut times = Vec::new();
    for round in 1..=rounds {
        eprintln!("bench: attaching to {} tracepoints, round {round} of {rounds}", names.len());
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("output");
        let mut running =
            Running { kind: Recorder::Relayd, children: Vec::new(), output: output.clone(), instance: None };
        let start = Instant::now();
        running.spawn(relayd().args(["trace", "-q", "-e", &names.join(","), "-o"]).arg(&output))?;
        wait_until("relayd records", || session_file(&output).exists())?;
        times.push(start.elapsed().as_secs_f64());
        running.stop()?;
    }
    times.sort_by(f64::total_cmp);
    Ok((names.len(), times.get(times.len() / 2).copied().unwrap_or(0.0)))
}
