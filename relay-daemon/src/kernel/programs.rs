//! The tracer's eBPF programs in the kernel: requests to them, what they and the kernel count, and keeping them there by pins.
//!
//! `session::loader` brings them there.

use std::{
    collections::{BTreeMap, HashSet},
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, PerCpuArray};
use relay_common::{
    rows::{Account, CALLS_WORDS, Tally, Trigger, WAITING_WORDS},
    trace::TracerRequest,
};
use serde::{Deserialize, Serialize};

use crate::{
    host::{self, Executed, LiveThreads},
    sys::{Row, link_missed},
};
use relay_channel::{bpf, machine, pins::PinFolder};
use relay_trace::form::session::{Pairs, Program};

/// Programs that do not run at events, but follow processes.
const HELPERS: [&str; 2] = ["on_fork", "on_free"];
/// Where the maps are pinned that all programs of a session share: what ends the recording, and whose events are recorded.
pub(crate) const TRIGGER: &str = "trigger";
pub(crate) const CHOSEN: &str = "chosen";

/// A program that the kernel has loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Its name in the object, and the event's when it serves one alone.
    pub(crate) name: String,
    pub(crate) program: OwnedFd,
}

/// What attaches a program.
#[derive(Debug)]
pub(crate) struct Link {
    /// The ids of the events that it attaches to; none for what is not an event.
    pub(crate) events: Vec<u16>,
    /// It stays for the others when one of them goes.
    pub(crate) is_shared: bool,
    pub(crate) link: OwnedFd,
}

/// Programs that were loaded and attached together. Dropping them detaches, unless they are pinned.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Programs {
    pub(crate) request: OwnedFd,
    pub(crate) account: PerCpuArray<MapData, Row<Account<u64>>>,
    pub(crate) tallies: PerCpuArray<MapData, Row<Tally<u64>>>,
    pub(crate) trigger: Array<MapData, Row<Trigger<u64>>>,
    pub(crate) chosen: HashMap<MapData, u64, u64>,
    /// The calls that threads are in, by thread and event.
    pub(crate) pairs: HashMap<MapData, u64, [u64; CALLS_WORDS]>,
    /// The system calls that tasks are in.
    pub(crate) tasks: HashMap<MapData, u64, [u64; WAITING_WORDS]>,
    /// The event that each system call is.
    pub(crate) calls: Array<MapData, u64>,
    /// The events' places in there.
    pub(crate) places: Vec<(u16, u32)>,
    pub(crate) loaded: Vec<Loaded>,
    pub(crate) links: Vec<Link>,
    /// While this is open, the kernel counts runs.
    pub(crate) stats: Option<OwnedFd>,
}

/// How many calls wait for their returns, by event.
#[derive(Debug, Default)]
pub struct WaitingCalls(BTreeMap<u16, Calls>);

/// Those of one event: of threads that are there, of those of them that have executed another program since, and of threads that have ended.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    under_way: u64,
    executed: u64,
    ended: u64,
}

/// What [`Programs`] are that are pinned.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pinned {
    /// What their pins' names begin with.
    prefix: String,
    /// The programs' names.
    programs: Vec<String>,
    /// The ids of the events of each link, and whether it stays for the others when one of them goes.
    links: Vec<(Vec<u16>, bool)>,
    /// The events' places in the table of system calls.
    places: Vec<(u16, u32)>,
}

/// The record that ended a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Its event's id.
    #[serde(rename = "id")]
    pub event: u16,
    /// The CPU that it was recorded on.
    pub cpu: u32,
    /// Its time, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// When recording ended, by the same clock.
    pub end: u64,
}

impl Programs {
    /// From now on events are recorded; those of this process too, if `record_self`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(&self, record_self: bool) -> Result<()> {
        self.run(TracerRequest::Start, 0, record_self.into())
    }

    /// From now on nothing is recorded. A program that is running may still write.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stop(&self) -> Result<()> {
        self.run(TracerRequest::Stop, 0, 0)
    }

    /// Records an event of the session's own.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn note(&self, event: u16, payload: u64) -> Result<()> {
        self.run(TracerRequest::Note, event, payload)
    }

    pub(crate) fn run(&self, request: TracerRequest, event: u16, argument: u64) -> Result<()> {
        run(&self.request, request, event, argument)
    }

    /// Gives up the links: detaches from every event whose link is not pinned.
    pub fn detach(&mut self) {
        self.links.clear();
    }

    /// How many hits of kprobes the kernel itself has passed over, of those that are attached; `None` where there are none, or the kernel
    /// does not say.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn missed(&self) -> Result<Option<u64>> {
        let mut missed = None;
        for link in self.links.iter().filter(|_| counts_skipped()) {
            let more = link_missed(link.link.as_fd()).context("asking what a probe has missed")?;
            missed = more.map_or(missed, |more| Some(missed.unwrap_or(0) + more));
        }
        Ok(missed)
    }

    /// What the programs have counted beside the buffers, by possible CPU.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn accounts(&self) -> Result<Vec<Account<u64>>> {
        let values = self.account.get(&0, 0).context("reading how many events were filtered")?;
        Ok(values.iter().map(|row| row.0).collect())
    }

    /// How many records of an event were over its limit, on all CPUs; zero for events of other programs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn suppressed(&self, event: u16) -> Result<u64> {
        Ok(self.tallies(event)?.iter().map(|tally| tally.suppressed).sum())
    }

    /// How many samples of an event were due on all CPUs, at `hertz` a second, and did not reach the program; zero for events of other
    /// programs. The kernel does not count them (kernel/events/core.c, `bpf_overflow_handler`).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn samples_missed(&self, event: u16, hertz: u64) -> Result<u64> {
        // As the kernel makes it of a rate (kernel/events/core.c, `perf_swevent_init_hrtimer`).
        let period = (1_000_000_000 / hertz.max(1)).max(10_000);
        let missed = |tally: &Tally<u64>| {
            // One may come late, and the next in time all the same: rounded.
            let due = (tally.last.saturating_sub(tally.first) + period / 2) / period + u64::from(tally.first != 0);
            due.saturating_sub(tally.samples)
        };
        Ok(self.tallies(event)?.iter().map(missed).sum())
    }

    /// The calls that threads are in by what is kept of them, by event, and what has become of the threads.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn waiting(&self, executed: &Executed) -> Result<WaitingCalls> {
        let mut waiting = WaitingCalls::default();
        let (mut threads, mut seen) = (LiveThreads::now(), HashSet::new());
        for row in self.pairs.iter() {
            let (key, row) = row.context("reading which calls have not returned")?;
            // One that is removed meanwhile makes the kernel begin again.
            if let (true, [calls, _, thread, began, ..]) = (seen.insert(key), row) {
                let counts = waiting.0.entry((key & 0xffff) as u16).or_default();
                let executed = u32::try_from(thread).ok().and_then(|thread| executed.get(&thread));
                *match threads.has(thread, began) {
                    true if executed.is_some_and(|at| *at > began) => &mut counts.executed,
                    true => &mut counts.under_way,
                    false => &mut counts.ended,
                } += calls;
            }
        }
        seen.clear();
        for row in self.tasks.iter() {
            let (key, [mark, thread, began, ..]) = row.context("reading which system calls have not returned")?;
            if let (true, Some(event)) = (seen.insert(key), mark.checked_sub(1)) {
                let counts = waiting.0.entry(u16::try_from(event)?).or_default();
                *if threads.has(thread, began) { &mut counts.under_way } else { &mut counts.ended } += 1;
            }
        }
        Ok(waiting)
    }

    /// Adds what has become of the entries of an event.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count_pairs(&self, event: u16, waiting: &WaitingCalls, pairs: &mut Pairs) -> Result<()> {
        let Calls { under_way, executed, ended } = waiting.0.get(&event).copied().unwrap_or_default();
        pairs.under_way += under_way;
        pairs.executed += executed;
        pairs.ended += ended;
        for tally in self.tallies(event)? {
            pairs.entries += tally.entries;
            pairs.returned += tally.returned;
            pairs.ended += tally.ended;
            pairs.unseen += tally.unseen;
        }
        Ok(())
    }

    /// What each possible CPU has counted of an event; nothing of events of other programs.
    fn tallies(&self, event: u16) -> Result<Vec<Tally<u64>>> {
        if u32::from(event) >= self.tallies.len() {
            return Ok(Vec::new());
        }
        let values = self.tallies.get(&event.into(), 0).context("reading what was counted of an event")?;
        Ok(values.iter().map(|row| row.0).collect())
    }

    /// What the kernel has counted of each program that runs at events.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn report(&self) -> Result<Vec<Program>> {
        self.reports(false)
    }

    /// The kernel's counts of the programs that follow processes. Their runs are not events.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn report_helpers(&self) -> Result<Vec<Program>> {
        let without_runs = |program| Program { runs: None, ..program };
        Ok(self.reports(true)?.into_iter().map(without_runs).collect())
    }

    fn reports(&self, of_helpers: bool) -> Result<Vec<Program>> {
        let counted = counts_skipped();
        let meant = self.loaded.iter().filter(|loaded| HELPERS.contains(&&*loaded.name) == of_helpers);
        let reports = meant.map(|loaded| {
            let counts = machine::program_counts(loaded.program.as_fd())?;
            let runs = self.stats.is_some().then_some(counts.runs);
            Ok(Program {
                name: loaded.name.clone(),
                recursion_misses: counted.then_some(counts.recursion_misses),
                runs,
            })
        });
        reports.collect()
    }

    /// System calls that are these events are not events from now on, and what attaches to these events alone is closed.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn forget(&mut self, events: &[u16]) -> Result<()> {
        for (_, place) in self.places.iter().filter(|(event, _)| events.contains(event)) {
            self.calls.set(*place, 0, 0).context("taking a system call out of the table")?;
        }
        let is_meant = |id: &u16| events.contains(id);
        self.links.retain(|link| {
            let goes = if link.is_shared { link.events.iter().all(is_meant) } else { link.events.iter().any(is_meant) };
            !goes
        });
        Ok(())
    }

    /// What has ended the recording, if something has.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn fired(&self) -> Result<Option<Fired>> {
        let Row(trigger) = self.trigger.get(&0, 0).context("asking what has ended the recording")?;
        // The end is written last.
        Ok((trigger.end != 0).then_some(Fired {
            event: u16::try_from(trigger.event).unwrap_or(u16::MAX),
            cpu: u32::try_from(trigger.cpu).unwrap_or(u32::MAX),
            time: trigger.time,
            end: trigger.end,
        }))
    }

    /// From now on the next record that is to end the recording does, and it goes on for `after` nanoseconds more then.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn arm(&mut self, after: u64) -> Result<()> {
        let row = Row(Trigger { after, ..Trigger::default() });
        self.trigger.set(0, row, 0).context("telling the programs how a record ends the recording")
    }

    /// Pins all of it, under names that begin with `prefix`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pin(&self, folder: &PinFolder, prefix: &str) -> Result<Pinned> {
        for (index, loaded) in self.loaded.iter().enumerate() {
            folder.pin(&program_pin(prefix, index), loaded.program.as_fd())?;
        }
        for (name, map) in [
            ("account", self.account.map()),
            ("tallies", self.tallies.map()),
            ("calls", self.calls.map()),
            ("pairs", self.pairs.map()),
            ("tasks", self.tasks.map()),
        ] {
            folder.pin(&format!("{prefix}{name}"), map.fd().as_fd())?;
        }
        for (name, map) in [(TRIGGER, self.trigger.map()), (CHOSEN, self.chosen.map())] {
            if !folder.has(name) {
                folder.pin(name, map.fd().as_fd())?;
            }
        }
        folder.pin(&format!("{prefix}request"), self.request.as_fd())?;
        for (index, link) in self.links.iter().enumerate() {
            folder.pin(&link_pin(prefix, index), link.link.as_fd())?;
        }
        Ok(Pinned {
            prefix: prefix.to_owned(),
            programs: self.loaded.iter().map(|loaded| loaded.name.clone()).collect(),
            links: self.links.iter().map(|link| (link.events.clone(), link.is_shared)).collect(),
            places: self.places.clone(),
        })
    }

    /// Opens what is pinned.
    ///
    /// # Errors
    /// When a part is missing.
    pub fn open(folder: &PinFolder, pinned: &Pinned) -> Result<Self> {
        let prefix = &pinned.prefix;
        let map = |name: &str| Ok::<_, anyhow::Error>(MapData::from_fd(folder.get(name)?)?);
        let per_cpu = |name: &str| Ok::<_, anyhow::Error>(Map::PerCpuArray(map(&format!("{prefix}{name}"))?));
        let loaded =
            pinned.programs.iter().enumerate().map(|(index, name)| {
                Ok(Loaded { name: name.clone(), program: folder.get(&program_pin(prefix, index))? })
            });
        let mut links = Vec::new();
        for (index, (events, is_shared)) in pinned.links.iter().enumerate() {
            let name = link_pin(prefix, index);
            // What has been detached is gone.
            if folder.has(&name) {
                links.push(Link { events: events.clone(), is_shared: *is_shared, link: folder.get(&name)? });
            }
        }
        Ok(Self {
            request: folder.get(&format!("{prefix}request"))?,
            account: per_cpu("account")?.try_into()?,
            tallies: per_cpu("tallies")?.try_into()?,
            trigger: Map::Array(map(TRIGGER)?).try_into()?,
            chosen: Map::HashMap(map(CHOSEN)?).try_into()?,
            pairs: Map::LruHashMap(map(&format!("{prefix}pairs"))?).try_into()?,
            tasks: Map::LruHashMap(map(&format!("{prefix}tasks"))?).try_into()?,
            calls: Map::Array(map(&format!("{prefix}calls"))?).try_into()?,
            places: pinned.places.clone(),
            loaded: loaded.collect::<Result<_>>()?,
            links,
            stats: None,
        })
    }
}

impl Pinned {
    /// The pins of what attaches programs to events: to all, or to those of `only` and to no others.
    ///
    /// # Errors
    /// When one attaches to others too.
    pub fn links(&self, only: Option<&[u16]>) -> Result<Vec<String>> {
        let is_meant = |id: &u16| only.is_none_or(|only| only.contains(id));
        let mut pins = Vec::new();
        for (index, (events, is_shared)) in self.links.iter().enumerate() {
            let others = events.iter().filter(|id| !is_meant(id)).count();
            if only.is_some() && (others == events.len() || *is_shared && others > 0) {
                continue;
            }
            if others > 0 {
                bail!("it was attached together with {others} other functions of its pattern: remove all of them");
            }
            pins.push(link_pin(&self.prefix, index));
        }
        Ok(pins)
    }
}

pub(crate) fn run(program: &OwnedFd, request: TracerRequest, event: u16, argument: u64) -> Result<()> {
    // On no CPU in particular but right here: the program sees who calls.
    bpf::request(program.as_fd(), [request as u64 | u64::from(event) << 32, argument], None)
        .with_context(|| format!("running the program for requests ({request:?})"))
}

fn program_pin(prefix: &str, index: usize) -> String {
    format!("{prefix}program-{index}")
}

fn link_pin(prefix: &str, index: usize) -> String {
    format!("{prefix}link-{index}")
}

/// Before, the kernel skips without counting (kernel/trace/bpf_trace.c, `trace_call_bpf`), and does not tell what probes have missed.
fn counts_skipped() -> bool {
    host::kernel_version().is_none_or(|version| version >= (6, 7))
}
