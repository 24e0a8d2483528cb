//! What the commands that read traces have in common: which traces and records, and what is said of damage.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use relay_daemon::{
    host::{Namespace, is_in_own},
    kernel::choice::parse_cpus,
};
use relay_trace::{
    form::{
        archive::{Unpacked, is_archive},
        clock::Instant,
        folder_of,
        tasks::Noted,
    },
    read::{
        filter::Filter,
        slices::{Slicer, Window},
        stream::{Damage, Stream},
        trace::Trace,
    },
    show::{escape::escaped, time},
};

use super::misuse;

/// Most damages that are named one by one.
const NAMED: usize = 20;

/// Which records.
#[derive(Debug, Args)]
pub(crate) struct Chosen {
    /// Directories that relayd trace has made, or pieces that it has compressed (.tar.zst).
    #[arg(value_name = "DIR", required = true)]
    pub(crate) traces: Vec<PathBuf>,
    /// Only these events, with * ? [] as wildcards; `if CONDITION` as in relayd trace; repeat it or separate by commas.
    #[arg(short, long = "event", value_name = "EVENT", help_heading = "Which records")]
    events: Vec<String>,
    /// Only these CPUs, like 0-3,8.
    #[arg(long = "cpu", value_name = "LIST", value_parser = cpu_list, help_heading = "Which records")]
    cpus: Option<CpuList>,
    /// Only of these processes.
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', help_heading = "Which records")]
    pids: Vec<u32>,
    /// Only from this time on: 1.5s or 300ms after the start, -2s before the end (of what is being recorded: before now), @123.456 as printed, or of the clock, like
    /// 13:31:25 or '2026-01-02 13:31:25'.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Which records")]
    since: Option<String>,
    /// Only up to this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Which records")]
    until: Option<String>,
}

/// Numbers of CPUs.
#[derive(Clone, Debug)]
struct CpuList(Vec<u32>);

fn cpu_list(text: &str) -> Result<CpuList> {
    parse_cpus(text).map(CpuList)
}

impl Chosen {
    /// Opens the traces.
    pub(crate) fn open(&self) -> Result<Vec<Trace>> {
        with_bar(false, |progress| Trace::open_all(&self.traces, progress))
    }

    pub(crate) fn filter(&self, traces: &[Trace]) -> Result<Filter> {
        Filter::new(traces, &self.events, &self.pids)
    }

    /// Whether events were chosen.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Opens the files. `follow`: those of one trace that is being recorded.
    pub(crate) fn slicer<'t>(&self, traces: &'t [Trace], follow: bool) -> Result<Slicer<'t>> {
        let is_recorded = follow || traces[0].is_being_recorded().unwrap_or(false);
        let window = self.window(traces, is_recorded.then(|| Instant::now().monotonic))?;
        for trace in traces {
            let there = trace.cpus()?;
            if let Some(cpu) = self.cpus.iter().flat_map(|list| &list.0).find(|cpu| !there.contains(cpu)) {
                bail!("--cpu: {} has no file of CPU {cpu}", trace.path.display());
            }
        }
        let wanted = |cpu| self.wants_cpu(cpu);
        if follow {
            Slicer::following(&traces[0], wanted, window, name_of)
        } else {
            Slicer::new(traces, wanted, window)
        }
    }

    /// The time that was chosen, in nanoseconds of the common clock; `now`, where the trace is being recorded.
    pub(crate) fn window(&self, traces: &[Trace], now: Option<u64>) -> Result<Window> {
        let moment = |text: &Option<String>| text.as_deref().map(|text| time::parse(text, &traces[0], now)).transpose();
        let window = Window {
            since: moment(&self.since).context("--since").map_err(misuse)?.unwrap_or(0),
            until: moment(&self.until).context("--until").map_err(misuse)?.unwrap_or(u64::MAX),
        };
        if window.since > window.until {
            return Err(misuse(anyhow!("--since is after --until")));
        }
        Ok(window)
    }

    /// Whether nothing was left out.
    #[cfg(feature = "report")]
    pub(crate) fn is_everything(&self) -> bool {
        let Self { traces: _, events, cpus, pids, since, until } = self;
        events.is_empty() && cpus.is_none() && pids.is_empty() && since.is_none() && until.is_none()
    }

    pub(crate) fn wants_cpu(&self, cpu: u32) -> bool {
        self.cpus.as_ref().is_none_or(|list| list.0.contains(&cpu))
    }

    /// What the account knows of losses that no file can place, and whether there is an account. What the files lack becomes a damage.
    pub(crate) fn compare_with_account(&self, traces: &[Trace], damages: &mut Damages) {
        for trace in traces {
            let path = trace.path.display();
            if !trace.is_finished() {
                let why = match trace.is_being_recorded() {
                    _ if is_archive(&trace.path) => {
                        format!("it was not ended in order; relayd repair {path} OUT makes an account of what is there")
                    }
                    Ok(true) => "the recording goes on".to_owned(),
                    Ok(false) => format!("its recorder was killed; relayd recover {path} completes the trace"),
                    Err(_) => "the recording goes on, or was not ended in order".to_owned(),
                };
                log::warn!("{path}: {why}: there is no account of what was lost at its end");
            }
            for cpu in trace.session.cpus.iter().filter(|cpu| self.wants_cpu(cpu.cpu)) {
                let file = trace.path.join(format!("cpu{}", cpu.cpu));
                let bytes = trace.bytes_of(cpu.cpu).unwrap_or(0);
                if bytes < cpu.bytes {
                    damages.name(&format!("{}, byte {bytes}: {} bytes are missing", file.display(), cpu.bytes - bytes));
                }
                if cpu.lost_no_buffer > 0 {
                    log::warn!(
                        "{path}: {} records of CPU {} were lost before it had a buffer",
                        cpu.lost_no_buffer,
                        cpu.cpu
                    );
                }
                if cpu.unwritten > 0 {
                    log::warn!("{path}: {} records of CPU {} could not be written to its file", cpu.unwritten, cpu.cpu);
                }
            }
            say_unnamed(trace);
            if let Some(error) = &trace.session.error {
                log::warn!("{path}: recording stopped early: {error}");
            }
        }
    }
}

/// What a thread is called that lives. A container calls threads otherwise than records do.
fn name_of(tid: u32) -> Option<Vec<u8>> {
    let comm = fs::read(format!("/proc/{tid}/comm")).ok().filter(|_| !is_in_own(Namespace::Pid))?;
    Some(comm.strip_suffix(b"\n").unwrap_or(&comm).to_vec())
}

/// Says where threads may be shown with the names of another time.
fn say_unnamed(trace: &Trace) {
    if trace.session.context.iter().any(|context| context == "comm") {
        return;
    }
    let (mut lost, mut spans) = (0, 0);
    for told in &trace.unnamed {
        match told.what {
            Noted::Missing { notices: 0, .. } => spans += 1,
            Noted::Missing { notices, .. } => lost += notices,
            Noted::Named(..) => {}
        }
    }
    let path = trace.path.display();
    let may = "some records may have a thread's name of another time (--context comm records names)";
    if lost > 0 {
        log::warn!("{path}: {lost} of the kernel's notices of threads' names were lost: {may}");
    }
    if spans > 0 {
        log::warn!("{path}: for a part of its time nobody was told what threads are called: {may}");
    }
}

/// What could not be read.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    count: usize,
}

impl Damages {
    /// Names what could not be read of what describes the traces.
    pub(crate) fn of(traces: &[Trace]) -> Self {
        let mut damages = Self::default();
        traces.iter().flat_map(|trace| &trace.flaws).for_each(|flaw| damages.name(flaw));
        damages
    }

    /// Names what has been found, unless that is too much.
    pub(crate) fn add(&mut self, found: Vec<Damage>) {
        found.iter().for_each(|damage| self.name(&damage.to_string()));
    }

    /// Names one thing.
    fn name(&mut self, damage: &str) {
        self.count += 1;
        if self.count <= NAMED {
            say!("relayd: {}", escaped(damage));
        }
    }

    /// Says how many there were; the exit status of a command that has named them.
    pub(crate) fn finish(&self) -> ExitCode {
        if self.count > NAMED {
            say!("relayd: {} places in all could not be read; relayd verify names each", self.count);
        }
        if self.count > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// How a bar is drawn.
const BAR: &str = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// Opens traces, with a bar that shows how far an archive is unpacked; on a terminal alone.
pub(crate) fn with_bar<T>(quiet: bool, open: impl FnOnce(&mut Unpacked<'_>) -> Result<T>) -> Result<T> {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    bar.set_style(ProgressStyle::with_template(&format!("unpacking {BAR}"))?);
    let opened = open(&mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    opened
}

/// That an output does not come to lie in a trace that is read.
pub(crate) fn check_place(output: &Path, trace: &Trace) -> Result<()> {
    let parent = folder_of(output);
    let parent = fs::canonicalize(parent).with_context(|| format!("finding {}", parent.display()))?;
    let place = output.file_name().map_or_else(|| parent.clone(), |name| parent.join(name));
    let path = &trace.path;
    let input = fs::canonicalize(path).with_context(|| format!("finding {}", path.display()))?;
    ensure!(!place.starts_with(&input), "{} would be inside the trace {}", output.display(), path.display());
    Ok(())
}

/// A bar for as many bytes as the files of the traces have; on a terminal alone.
pub(crate) fn progress_bar(traces: &[&Trace], quiet: bool) -> Result<ProgressBar> {
    let mut bytes = 0;
    for trace in traces {
        bytes += trace.streams(false)?.iter().map(Stream::len).sum::<u64>();
    }
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(bytes) };
    bar.set_style(ProgressStyle::with_template(BAR)?);
    Ok(bar)
}
