//! `relayd klog`: shows what eBPF programs log, as they log it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use relay_channel::{
    consumer::SETTLED,
    klog::{Klog, Lines},
    machine,
};
use relay_common::Geometry;
use relay_daemon::EXAMPLE;
use relay_trace::form::clock::Instant;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};

/// How often lines are shown.
const SHOW_INTERVAL: Duration = Duration::from_millis(50);

/// Show what eBPF programs log with klog!, live, all CPUs in the order of time.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  relayd klog                   (a line for every process that starts or ends)
  relayd klog my-programs.o     (an object that declares channel!(KLOG) and uses klog!)
  relayd klog -d 10s > log.txt")]
pub(crate) struct Arguments {
    /// eBPF object whose programs log; they are attached where their sections say [default: the built-in example].
    object: Option<PathBuf>,
    /// Stop after this long, like 500ms, 5s or 2m; a number alone is seconds [default: at Ctrl-C].
    #[arg(short, long, value_name = "TIME", value_parser = super::parse_duration)]
    duration: Option<Duration>,
    /// Bytes of a sub-buffer, like 64K or 1M: a power of two, at most 16M.
    #[arg(short = 'b', long, value_name = "SIZE", default_value = "64K", value_parser = super::parse_size)]
    subbuf_size: u64,
    /// Sub-buffers per CPU, a power of two.
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    n_subbufs: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(klog(arguments))
}

async fn klog(arguments: &Arguments) -> Result<ExitCode> {
    let geometry = Geometry::new(arguments.subbuf_size, arguments.n_subbufs).context("-b and -n")?;
    let object = match &arguments.object {
        Some(path) => fs::read(path).with_context(|| format!("reading {}", path.display()))?,
        None => EXAMPLE.to_vec(),
    };
    machine::raise_limits();
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut klog = match &arguments.object {
        Some(path) => Klog::start(&object, geometry).with_context(|| format!("running {}", path.display()))?,
        None => Klog::start(&object, geometry)?,
    };
    say!("relayd: ready: what the programs log is shown; Ctrl-C ends");
    let mut show = Show::default();
    let mut tick = interval(SHOW_INTERVAL);
    let time_is_over = super::signals::after(arguments.duration);
    tokio::pin!(time_is_over);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = &mut time_is_over => break,
            lines = klog.next() => show.take(&lines?),
            _ = tick.tick() => {
                // Until then lines of other CPUs with earlier times may come.
                show.print(Instant::now().monotonic.saturating_sub(SETTLED))?;
                show.losses(&klog);
            }
        }
    }
    show.losses(&klog);
    for lines in klog.stop()? {
        show.take(&lines);
    }
    show.print(u64::MAX)?;
    say!("relayd: {} lines, {} lost", show.lines, show.lost.values().sum::<u64>());
    Ok(ExitCode::SUCCESS)
}

/// Lines on their way to the terminal.
#[derive(Default)]
struct Show {
    /// By time, CPU, and number: a CPU's lines keep their order.
    waiting: BTreeMap<(u64, u32, u64), Vec<u8>>,
    lines: u64,
    /// What has been said to be lost, by CPU, while its buffer is full.
    lost: BTreeMap<u32, u64>,
    full: BTreeMap<u32, bool>,
}

impl Show {
    fn take(&mut self, lines: &Lines) {
        let mut last = 0;
        for line in lines.text.split_inclusive(|byte| *byte == b'\n') {
            last = time(line).unwrap_or(last).max(last);
            self.waiting.insert((last, lines.cpu, self.lines), line.to_vec());
            self.lines += 1;
        }
    }

    /// Shows the lines from before `until`, in nanoseconds of the monotonic clock.
    fn print(&mut self, until: u64) -> Result<()> {
        let later = self.waiting.split_off(&(until, 0, 0));
        let mut stdout = io::stdout().lock();
        for line in std::mem::replace(&mut self.waiting, later).into_values() {
            stdout.write_all(&line).context("writing a line")?;
        }
        stdout.flush().context("writing lines")
    }

    /// Says when a buffer begins to lose lines, and how many it has lost when it no longer does.
    fn losses(&mut self, klog: &Klog) {
        for (cpu, counters) in klog.counters() {
            let said = self.lost.insert(cpu, counters.lost()).unwrap_or(0);
            let full = counters.lost() > said;
            match (self.full.insert(cpu, full).unwrap_or(false), full) {
                (false, true) => say!("relayd: cpu {cpu}: buffer full, lines are being lost"),
                (true, false) => {
                    say!("relayd: cpu {cpu}: buffer no longer full, {} lines lost so far", counters.lost())
                }
                _ => {}
            }
        }
    }
}

/// The time that a line begins with, `[seconds.micros]`, in nanoseconds.
fn time(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line.strip_prefix(b"[")?.split(|byte| *byte == b']').next()?).ok()?;
    let (seconds, micros) = text.trim().split_once('.')?;
    Some(seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)? + micros.parse::<u64>().ok()?.min(999_999) * 1000)
}
