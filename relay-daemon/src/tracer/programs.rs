//! The tracer's eBPF programs: loading, attaching, running on request, and what the kernel counts of them.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray},
    programs::{RawTracePoint, TracePoint},
    sys::{Stats, enable_stats},
};
use aya_log::EbpfLogger;
use relay_common::trace::{Cookie, Request};
use tokio::io::unix::AsyncFd;

use super::{events::Event, session::Program};
use crate::{
    channel::{self, Channel},
    machine,
    sys::{link_perf_event, open_tracepoint, run_program, watch_log},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer"));

/// The channel that they write to.
const CHANNEL: &str = "EVENTS";
/// The program that every tracepoint runs.
const RECORD: &str = "on_tracepoint";
/// The program that starts and stops the recording.
const REQUEST: &str = "on_request";

/// Categories whose tracepoints never run in NMI context: they stand where locks are held or where only tasks and ordinary
/// interrupts come by. Where a session has others, stamps are kept from falling, at the cost of one exchange a record.
const NEVER_IN_NMI: [&str; 16] = [
    "block",
    "ext4",
    "irq",
    "net",
    "raw_syscalls",
    "sched",
    "signal",
    "skb",
    "sock",
    "syscalls",
    "task",
    "tcp",
    "timer",
    "udp",
    "workqueue",
    "writeback",
];

/// The programs, loaded for a channel and, after [`Programs::attach`], attached.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Programs {
    ebpf: Ebpf,
    request: OwnedFd,
    local: PerCpuArray<MapData, [u64; 3]>,
    links: Vec<OwnedFd>,
    /// While this is open, the kernel counts runs.
    stats: Option<OwnedFd>,
}

/// An event that a pattern selected and that could not be attached.
#[derive(Debug)]
pub struct Refused {
    /// Its place in the list that was to be attached.
    pub index: usize,
    /// Why.
    pub error: anyhow::Error,
}

/// Events that were left out on a CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeftOut {
    /// The recorder's own.
    pub own: u64,
    /// Before recording began, or after it ended.
    pub outside: u64,
}

/// The kernel side's notices, as they come.
pub type Notices = AsyncFd<EbpfLogger<&'static dyn log::Log>>;

impl Programs {
    /// Loads the programs to write into `channel`. `events` is what they will be attached to.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(channel: &Channel, events: &[Event]) -> Result<(Self, Option<Notices>)> {
        let nmi = events.iter().any(|event| {
            let category = event.name.split(':').next().unwrap_or_default();
            !NEVER_IN_NMI.contains(&category)
        });
        let nmi = u32::from(nmi);
        let mut loader = EbpfLoader::new();
        loader.override_global("NMI", &nmi, true);
        let mut ebpf = channel::load(OBJECT, &[(CHANNEL, channel)], loader)?;
        let record: &mut TracePoint =
            ebpf.program_mut(RECORD).context("the object has no recording program")?.try_into()?;
        record.load().context("loading the program for tracepoints (needs CAP_BPF and CAP_PERFMON, and Linux 5.15)")?;
        let request: &mut RawTracePoint =
            ebpf.program_mut(REQUEST).context("the object has no program for requests")?.try_into()?;
        request.load().context("loading the program for requests")?;
        let request = request.fd()?.as_fd().try_clone_to_owned()?;
        let local: Map = ebpf.take_map("LOCAL").context("the object has no map LOCAL")?;
        let notices = match EbpfLogger::init(&mut ebpf) {
            Ok(logger) => Some(watch_log(logger).context("listening to the kernel side's notices")?),
            Err(error) => {
                log::warn!("notices of the kernel side will not be shown: {error}");
                None
            }
        };
        let programs = Self { ebpf, request, local: local.try_into()?, links: Vec::new(), stats: None };
        Ok((programs, notices))
    }

    /// From now on events are recorded; those of this process too, if `record_self`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(&self, record_self: bool) -> Result<()> {
        self.run(Request::Start, record_self)
    }

    /// From now on nothing is recorded. A program that is running may still write.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stop(&self) -> Result<()> {
        self.run(Request::Stop, false)
    }

    fn run(&self, request: Request, record_self: bool) -> Result<()> {
        // On no CPU in particular but right here: the program sees who calls.
        let ran = run_program(self.request.as_fd(), [request as u64, record_self.into()], None);
        ran.map(drop).with_context(|| format!("running the program for requests ({request:?})"))
    }

    /// Makes the kernel count how often programs run, until these programs are dropped.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count_runs(&mut self) -> Result<()> {
        self.stats = Some(
            enable_stats(Stats::RunTime).context("enabling the kernel's statistics of BPF programs (--bpf-stats)")?,
        );
        Ok(())
    }

    /// Attaches to every event; the `i`-th has the id `i`. Of those that a pattern selected, returns which the kernel refused.
    ///
    /// # Errors
    /// When an event that was named in full, or every one, is refused.
    pub fn attach(&mut self, events: &[Event]) -> Result<Vec<Refused>> {
        let program = self.record()?.fd()?.as_fd().try_clone_to_owned()?;
        let mut refused = Vec::new();
        for (index, event) in events.iter().enumerate() {
            match attach(&program, event, index) {
                Ok(link) => self.links.push(link),
                Err(error) if event.explicit || is_out_of_files(&error) => return Err(error),
                Err(error) => refused.push(Refused { index, error }),
            }
        }
        if self.links.is_empty() {
            let reason = refused.pop().map_or_else(|| anyhow::anyhow!("no event is selected"), |refused| refused.error);
            return Err(reason.context("none of the selected events could be attached"));
        }
        Ok(refused)
    }

    /// Detaches from every event. The kernel waits for several RCU grace periods at each (measured: 75 ms).
    pub fn detach(&mut self) {
        self.links.clear();
    }

    /// Events that were left out, by possible CPU.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn left_out(&self) -> Result<Vec<LeftOut>> {
        let values = self.local.get(&0, 0).context("reading how many events were filtered")?;
        Ok(values.iter().map(|&[own, outside, _noticed]| LeftOut { own, outside }).collect())
    }

    /// What the kernel has counted of the recording program.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn report(&self) -> Result<Program> {
        let counts = machine::program_counts(self.record()?.fd()?.as_fd())?;
        let runs = self.stats.is_some().then_some(counts.runs);
        // Before, the kernel skips without counting (kernel/trace/bpf_trace.c, `trace_call_bpf`).
        let counted = machine::kernel_version().is_none_or(|version| version >= (6, 7));
        Ok(Program { name: RECORD.to_owned(), recursion_misses: counted.then_some(counts.recursion_misses), runs })
    }

    fn record(&self) -> Result<&TracePoint> {
        Ok(self.ebpf.program(RECORD).context("the object has no recording program")?.try_into()?)
    }
}

fn attach(program: &OwnedFd, event: &Event, index: usize) -> Result<OwnedFd> {
    let cookie = cookie(event, index)?;
    let perf_event = open_tracepoint(event.format.id).map_err(|error| explain(error, "opening", &event.name))?;
    // The link keeps the perf event.
    link_perf_event(program.as_fd(), perf_event.as_fd(), cookie.pack())
        .map_err(|error| explain(error, "attaching to", &event.name))
}

fn is_out_of_files(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(libc::EMFILE))
}

fn explain(error: io::Error, what: &str, name: &str) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root, or with CAP_BPF and CAP_PERFMON",
        io::ErrorKind::InvalidInput => "; it may be no static tracepoint, or the kernel older than 5.15",
        _ if error.raw_os_error() == Some(libc::EMFILE) => "; too many open files: raise `ulimit -n`",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("{what} the tracepoint {name}{advice}"))
}

fn cookie(event: &Event, index: usize) -> Result<Cookie> {
    let Ok(id) = u16::try_from(index) else {
        bail!("{} events are too many for one trace: ids have 16 bits", index + 1);
    };
    // Dynamic data lie in the order of their location words: the last ends the record.
    let last = event.format.dynamic().next_back();
    Ok(Cookie {
        id,
        size: u16::try_from(event.format.size())?,
        last_loc: last.map_or(Ok(0), |(field, ..)| u16::try_from(field.bytes.start))?,
        relative: last.is_some_and(|(.., relative)| relative),
    })
}
