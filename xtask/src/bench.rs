//! `cargo xtask bench`: what it costs to record, which is `tests/bench`'s to measure. `cargo xtask bench read`: how long it takes
//! to print a trace, beside those that print the same. All in one run, in turns, since only ratios mean anything on a machine that others
//! share.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use relay_build::ebpf;

use crate::{as_root, cargo, exec, find, setup, tests};

/// Each reads and writes a byte, so often: two system calls, four records.
const RECORDS_PER_STEP: u64 = 4;
const POLL: Duration = Duration::from_millis(10);

/// One that prints a trace.
struct Reader {
    name: &'static str,
    command: Vec<String>,
    runs: Vec<Run>,
}

/// How one printing went.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    /// Most memory, in bytes, file pages that were mapped included.
    memory: u64,
    lines: u64,
}

/// Measures what it costs to record (`tests/bench`).
pub(crate) fn record(arguments: &[String]) -> Result<()> {
    setup::ebpf_toolchain()?;
    setup::test_tools()?;
    exec(cargo().args(["build", "--release", "--locked", "--package", "relay-daemon"]))?;
    let mut bench = as_root(&tests::benchmarks()?)?;
    exec(bench.args(arguments).current_dir(ebpf::root()).env("RELAYD", ebpf::target_dir().join("release/relayd")))
}

/// Records about `records` records by relayd and by perf, and prints them `rounds` times by each reader.
pub(crate) fn read(records: u64, rounds: u32) -> Result<()> {
    setup::ebpf_toolchain()?;
    setup::test_tools()?;
    exec(cargo().args(["build", "--release", "--locked", "--package", "relay-daemon"]))?;
    let folder = ebpf::target_dir().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let path = |name: &str| folder.join(name).display().to_string();
    let relayd = ebpf::target_dir().join("release/relayd");
    let count = format!("count={}", records / RECORDS_PER_STEP);
    let load = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", &count, "status=none"];
    let (trace, data, output) = (path("trace"), path("perf.data"), path("output"));
    exec(
        as_root(&relayd)?
            .args(["trace", "-q", "-n", "32", "-e", "raw_syscalls:*", "--force", "-o", &trace, "--"])
            .args(load),
    )?;
    let relayd = relayd.display().to_string();
    let mut readers = vec![
        Reader::new("relayd print", &[&relayd, "print", &trace]),
        Reader::new("relayd print --json", &[&relayd, "print", "--json", &trace]),
    ];
    if find("babeltrace2").is_some() {
        readers.push(Reader::new("babeltrace2", &["babeltrace2", &trace]));
    }
    if let Some(perf) = find("perf") {
        let record = [
            "record",
            "-q",
            "-a",
            "-m",
            "4096",
            "-e",
            "raw_syscalls:sys_enter,raw_syscalls:sys_exit",
            "-o",
            &data,
            "--",
        ];
        exec(as_root(&perf)?.args(record).args(load))?;
        readers.push(Reader::new("perf script", &["perf", "script", "-i", &data]));
    }
    for round in 1..=rounds {
        eprintln!("xtask: round {round} of {rounds}");
        for reader in &mut readers {
            let run = reader.run(Path::new(&output))?;
            reader.runs.push(run);
        }
    }
    report(&readers)?;
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
}

fn report(readers: &[Reader]) -> Result<()> {
    let ours = readers.first().context("no reader")?.per_record();
    println!(
        "{:<20} {:>10} {:>12} {:>14} {:>10} {:>22}",
        "reader", "seconds", "lines", "ns per record", "MiB", "relayd print takes"
    );
    for reader in readers {
        let median = reader.median();
        println!(
            "{:<20} {:>10.2} {:>12} {:>14.0} {:>10} {:>21.3}×",
            reader.name,
            median.seconds,
            median.lines,
            reader.per_record() * 1e9,
            median.memory >> 20,
            ours / reader.per_record()
        );
    }
    Ok(())
}

impl Reader {
    fn new(name: &'static str, command: &[&str]) -> Self {
        Self { name, command: command.iter().map(ToString::to_string).collect(), runs: Vec::new() }
    }

    /// Prints once, to a file.
    fn run(&self, output: &Path) -> Result<Run> {
        let (program, arguments) = self.command.split_first().context("no program")?;
        let file = File::create(output).with_context(|| format!("making {}", output.display()))?;
        let start = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("running {program}"))?;
        let mut memory = 0;
        let status = loop {
            memory = memory.max(peak(child.id()));
            if let Some(status) = child.try_wait()? {
                break status;
            }
            sleep(POLL);
        };
        let seconds = start.elapsed().as_secs_f64();
        if !status.success() {
            bail!("{} failed: {status}", self.command.join(" "));
        }
        let lines = match self.runs.first() {
            Some(first) => first.lines,
            None => count_lines(output)?,
        };
        Ok(Run { seconds, memory, lines })
    }

    fn median(&self) -> Run {
        let mut runs = self.runs.clone();
        runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        runs.get(runs.len() / 2).copied().unwrap_or(Run { seconds: 0.0, memory: 0, lines: 1 })
    }

    fn per_record(&self) -> f64 {
        let median = self.median();
        median.seconds / median.lines.max(1) as f64
    }
}

fn count_lines(path: &Path) -> Result<u64> {
    let counted = Command::new("wc").arg("-l").arg(path).output().context("running wc")?;
    let text = String::from_utf8(counted.stdout)?;
    text.split_whitespace().next().and_then(|count| count.parse().ok()).context("counting lines with wc")
}

/// The most memory that a process has had so far, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}
