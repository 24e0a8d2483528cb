//! Brings the tracer's eBPF programs into the kernel for the events of a session: loads them, tells them what to do, has them attached.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    sys::{Stats, enable_stats},
};
use aya_log::EbpfLogger;
use aya_obj::generated::bpf_map_type;
use relay_common::{
    recipe::{Pattern, Recipe, SHARED_WORKSPACES},
    rows::{Account, CALLS_WORDS, Cgroup, Tally, Trigger, WAITING_WORDS},
    trace::{ALL_CALLS, CALL_IS_CHOSEN, Cookie, TracerRequest},
};
use tokio::io::unix::AsyncFd;

use super::table::EventTable;
use crate::{
    kernel::{
        attach::{Attached, is_out_of_files},
        calls::{self, Plan, Side, Syscall},
        choice::Choice,
        hook::Hook,
        object::Object,
        preemption,
        programs::{self, CHOSEN, Programs, TRIGGER},
        task::{CallTypes, TaskMembers},
    },
    probe::Event,
    sys::{Row, watch_log},
    values::registers,
};
use relay_channel::{
    channel::{self, Channel},
    machine,
    pins::PinFolder,
    sys::{MapCreate, create_map},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer"));

/// The channel that the programs write to.
const CHANNEL: &str = "EVENTS";
/// The program that does what is requested.
const REQUEST: &str = "on_request";
/// How many calls whose entry and return are paired can be under way on each CPU: at least a few hundred, since the kernel hands room out
/// to CPUs 128 at a time.
const CALLS: u32 = 1024;
/// At least so many on all CPUs.
const LEAST_CALLS: u32 = 8192;
/// How many processes can be followed.
const FOLLOWED: u32 = 65_536;

/// What the programs are told before they are loaded.
#[derive(Debug)]
pub(super) struct Orders<'a> {
    /// What they will be attached to.
    pub(super) events: &'a [Event],
    /// Whose events are recorded.
    pub(super) choice: &'a Choice,
    /// What stands before every payload: bits of `relay_common::recipe::context`.
    pub(super) context: u32,
    /// For a session that goes on without this process: a record may end it, and events may be added.
    pub(super) named: bool,
    /// Where the maps are pinned that all programs of the session share, if there are others already.
    pub(super) shared: Option<&'a Path>,
}

/// The programs of an object, loaded for a channel, and not attached yet.
pub(super) struct Loader {
    request: OwnedFd,
    account: PerCpuArray<MapData, Row<Account<u64>>>,
    tallies: PerCpuArray<MapData, Row<Tally<u64>>>,
    trigger: Array<MapData, Row<Trigger<u64>>>,
    chosen: HashMap<MapData, u64, u64>,
    pairs: HashMap<MapData, u64, [u64; CALLS_WORDS]>,
    tasks: HashMap<MapData, u64, [u64; WAITING_WORDS]>,
    calls: Array<MapData, u64>,
    table: EventTable,
    plan: Plan,
    /// Calls of 32-bit programs can be told from others.
    tells_compat: bool,
    /// Programs at all system calls are given these types.
    types: Option<CallTypes>,
    attached: Attached,
    /// The maps.
    _ebpf: Ebpf,
    stats: Option<OwnedFd>,
}

/// An event that a pattern selected and that could not be attached.
#[derive(Debug)]
pub(super) struct Refused {
    /// Its id.
    pub(super) id: u16,
    /// Why.
    pub(super) error: anyhow::Error,
}

/// The kernel side's notices, as they come.
pub type Notices = AsyncFd<EbpfLogger<&'static dyn log::Log>>;

impl Loader {
    /// Loads the programs to write into `channel`, and tells them what to do.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub(super) fn load(channel: &Channel, orders: &Orders<'_>) -> Result<(Self, Option<Notices>)> {
        let Orders { events, choice, .. } = orders;
        let nmi = u32::from(orders.named || events.iter().any(|event| event.probe.can_run_in_nmi()));
        let triggers = u32::from(orders.named);
        let names = choice.patterns()?;
        let cgroups = choice.cgroup_ids()?;
        let (choices, context) = (choice.bits(), orders.context);
        let (name_count, cgroup_count) = (u32::try_from(names.len())?, u32::try_from(cgroups.len())?);
        let table = EventTable::new(events, names, context != 0)?;
        let (task, types) = TaskMembers::find(choice.follow)?;
        // Where a task can be preempted inside them, they are programs of perf, which cannot.
        let types = types.filter(|_| !Hook::Calls(0).is_preemptible());
        // A call of 32 bits cannot be told from another if that is not known.
        let plan = if task.compat_bits == 0 { Plan::default() } else { plan(events, &table, types.is_some())? };
        let registers = u32::from(registers::WORDS);
        let mut loader = EbpfLoader::new();
        for (name, value) in [
            ("NMI", &nmi),
            ("TRIGGERS", &triggers),
            ("CONTEXT", &context),
            ("CHOICES", &choices),
            ("NAMES", &name_count),
            ("CHOSEN_CGROUPS", &cgroup_count),
            ("REGISTERS", &registers),
            ("TID_AT", &task.tid),
            ("PID_AT", &task.pid),
            ("LEADER_AT", &task.leader),
            ("BORN_AT", &task.born),
            ("COMPAT_AT", &task.compat),
            ("COMPAT_BITS", &task.compat_bits),
        ] {
            loader.override_global(name, value, true);
        }
        let recipes = if table.recipes().is_empty() { None } else { events.iter().map(|event| event.id).max() };
        let recipes = recipes.map_or(1, |last| u32::from(last) + 1);
        let chosen = u32::try_from(choice.keys().count())? + if choice.follow { FOLLOWED } else { 1 };
        loader.map_max_entries("RECIPES", recipes).map_max_entries("TALLIES", recipes);
        loader.map_max_entries("PATTERNS", u32::try_from(table.patterns().len())?.max(1));
        let possible = u32::try_from(channel.possible().len())?;
        let calls_if = |is_single: bool| {
            let is_there = events.iter().any(|event| event.pair.is_some_and(|pair| pair.is_single == is_single));
            if is_there { (CALLS * possible).max(LEAST_CALLS) } else { 1 }
        };
        loader.map_max_entries("CALLS", calls_if(false)).map_max_entries("DEEPER", calls_if(false));
        loader.map_max_entries("WAITING", calls_if(true));
        loader.map_max_entries("CHOSEN", chosen).map_max_entries("SYSTEM_CALLS", plan.table_len()?.max(1));
        if let Some(folder) = orders.shared {
            loader.map_pin_path("TRIGGER", folder.join(TRIGGER)).map_pin_path("CHOSEN", folder.join(CHOSEN));
        }
        let shared = preemption::abilities().leaves_preempted()
            && events.iter().any(|event| event.probe.hook().is_preemptible());
        let pins = shared.then(|| share_workspaces(&mut loader)).transpose()?;
        let mut ebpf = channel::load(OBJECT, &[(CHANNEL, channel)], loader)?;
        drop(pins);
        let object = Object::new(OBJECT, &ebpf, shared)?;
        let request = object.load(REQUEST, Hook::RawTracepoint, None)?;
        tell(&mut ebpf, orders, &table, &cgroups)?;
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        let (account, tallies) = (take("ACCOUNT")?, take("TALLIES")?);
        let (trigger, chosen, calls) = (take("TRIGGER")?, take("CHOSEN")?, take("SYSTEM_CALLS")?);
        let (pairs, tasks) = (take("CALLS")?, take("WAITING")?);
        // Of a session that goes on without this process, nobody will be there to listen.
        let notices = if orders.named { None } else { notices(&mut ebpf)? };
        let mut loader = Self {
            request,
            account: account.try_into()?,
            tallies: tallies.try_into()?,
            trigger: trigger.try_into()?,
            chosen: chosen.try_into()?,
            pairs: pairs.try_into()?,
            tasks: tasks.try_into()?,
            calls: calls.try_into()?,
            table,
            plan,
            tells_compat: task.compat_bits != 0,
            types,
            attached: Attached::by(object),
            _ebpf: ebpf,
            stats: None,
        };
        if choice.follow && orders.shared.is_none() {
            loader.follow(choice)?;
        }
        Ok((loader, notices))
    }

    /// Begins to follow chosen processes.
    fn follow(&mut self, choice: &Choice) -> Result<()> {
        self.attached.follow()?;
        if choice.own_children {
            programs::run(&self.request, TracerRequest::Follow, 0, 0)?;
        }
        Ok(())
    }

    /// Makes the kernel count how often programs run, as long as the programs live.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn count_runs(&mut self) -> Result<()> {
        self.stats = Some(
            enable_stats(Stats::RunTime).context("enabling the kernel's statistics of BPF programs (--bpf-stats)")?,
        );
        Ok(())
    }

    /// Attaches to the events of the orders. Of those that a pattern selected, returns which the kernel refused.
    ///
    /// # Errors
    /// When an event that was named in full, or every one, is refused.
    pub(super) fn attach(mut self, orders: &Orders<'_>) -> Result<(Programs, Vec<Refused>)> {
        let events = orders.events;
        let mut refused = Vec::new();
        let mut together = self.attach_together(events)?;
        let places = self.attach_calls()?;
        together.extend(places.iter().map(|(id, _)| *id));
        together.extend(self.attach_all_calls(events)?);
        if self.tells_compat {
            for event in events.iter().filter(|event| event.probe.executes()) {
                self.attached.exec(&self.table.served(event)?)?;
            }
        }
        for event in events.iter().filter(|event| !together.contains(&event.id)) {
            let served = self.table.served(event)?;
            match event.probe.attach(&served, &mut self.attached) {
                Ok(()) => {}
                Err(error) if event.explicit || is_out_of_files(&error) => return Err(error),
                Err(error) => refused.push(Refused { id: event.id, error }),
            }
        }
        if refused.len() == events.len() {
            let reason = refused.pop().map_or_else(|| anyhow::anyhow!("no event is selected"), |refused| refused.error);
            return Err(reason.context("none of the selected events could be attached"));
        }
        let mut triggers = events.iter().filter(|event| event.is_trigger).map(|event| event.id).peekable();
        let is_refused = |id: u16| refused.iter().any(|refused| refused.id == id);
        if let Some(first) = triggers.peek().copied()
            && triggers.all(is_refused)
        {
            let reason = refused.into_iter().find(|refused| refused.id == first);
            let reason = reason.map_or_else(|| anyhow::anyhow!("there is none"), |refused| refused.error);
            return Err(reason.context("none of the events of --until could be attached"));
        }
        let Self { request, account, tallies, trigger, chosen, pairs, tasks, calls, attached, stats, .. } = self;
        let (loaded, links) = attached.into_parts();
        Ok((
            Programs { request, account, tallies, trigger, chosen, pairs, tasks, calls, places, loaded, links, stats },
            refused,
        ))
    }

    /// Attaches to all system calls for those that are events, as planned; returns which events these are, and where in the table. Events of a call
    /// whose number is not known are left for their own tracepoints.
    fn attach_calls(&mut self) -> Result<Vec<(u16, u32)>> {
        let plan = std::mem::take(&mut self.plan);
        if plan.layers.is_empty() {
            return Ok(Vec::new());
        }
        let mut places = Vec::new();
        for (index, layer) in plan.layers.iter().enumerate() {
            // The return first: an entry that nobody takes up again would stay for ever.
            for side in [Side::Exit, Side::Entry] {
                let begin = calls::begin(index, side)?;
                let found: Vec<_> = calls::known(layer, side).collect();
                for (number, cookie) in &found {
                    self.calls
                        .set(begin + number, cookie.pack() | CALL_IS_CHOSEN, 0)
                        .context("writing which event a call is")?;
                    places.push((cookie.id, begin + number));
                }
                if !found.is_empty() {
                    let events = found.iter().map(|(_, cookie)| cookie.id).collect();
                    if let Some(types) = self.types {
                        let program = (calls::program_by_type(side, layer.by_recipe), Hook::Calls(types.of_side(side)));
                        self.attached.calls_by_type(program, begin, events, true)?;
                    } else {
                        let program = if layer.by_recipe { "on_call_recipe" } else { "on_call" };
                        let tracepoint = format!("raw_syscalls/{}", side.tracepoint());
                        let hook = (calls::id(&machine::tracefs()?, &tracepoint)?, begin);
                        self.attached.calls(program, index, hook, events)?;
                    }
                }
            }
        }
        Ok(places)
    }

    /// Attaches to all system calls for those events that are all of them, where programs are given the registers; returns which these are.
    fn attach_all_calls(&mut self, events: &[Event]) -> Result<Vec<u16>> {
        let Some(types) = self.types else { return Ok(Vec::new()) };
        let mut attached = Vec::new();
        for event in events {
            let Some(side) = event.probe.all_calls() else { continue };
            let by_recipe = self.table.served(event)?.by_recipe;
            let program = (calls::program_by_type(side, by_recipe), Hook::Calls(types.of_side(side)));
            self.attached.calls_by_type(program, ALL_CALLS | u32::from(event.id), vec![event.id], false)?;
            attached.push(event.id);
        }
        Ok(attached)
    }

    /// Attaches to the functions that patterns mean, all at once, where the kernel can do that; returns which events were.
    fn attach_together(&mut self, events: &[Event]) -> Result<Vec<u16>> {
        let mut together = Vec::new();
        for returns in [false, true] {
            // Pairs are told apart by the stack pointer, which the returns of kprobe.multi have not from Linux 6.14 on (kernel/trace/fgraph.c
            // keeps a few registers alone).
            let of_patterns = events.iter().filter(|event| !event.explicit && event.pair.is_none());
            let functions = of_patterns.filter_map(|event| Some((event, event.probe.function()?)));
            let functions = functions.filter(|(_, (_, at_return))| *at_return == returns);
            let named = functions.map(|(event, (name, _))| Ok((CString::new(name)?, event.cookie()?)));
            let named: Vec<(CString, Cookie)> = named.collect::<Result<_>>()?;
            let named: Vec<(&CStr, Cookie)> = named.iter().map(|(name, cookie)| (name.as_c_str(), *cookie)).collect();
            if !named.is_empty() && self.attached.functions(&named, returns)? {
                together.extend(named.iter().map(|(_, cookie)| cookie.id));
            }
        }
        Ok(together)
    }
}

/// How system calls are served.
fn plan(events: &[Event], table: &EventTable, by_type: bool) -> Result<Plan> {
    let calls = events.iter().filter_map(|event| Some((event, event.probe.call()?)));
    let calls = calls.map(|(event, (name, sides))| Ok(Syscall { name, sides, event: table.served(event)? }));
    Ok(Plan::new(calls.collect::<Result<Vec<_>>>()?.into_iter(), by_type))
}

/// Makes the workspaces that all CPUs share, in place of those of each CPU that the object declares. They are pinned until the folder is dropped.
fn share_workspaces(loader: &mut EbpfLoader<'_>) -> Result<PinFolder> {
    const NAME: &str = "WORKSPACES";
    let object = aya_obj::Object::parse(OBJECT).context("parsing the eBPF object")?;
    let declared = object.maps.get(NAME).with_context(|| format!("the eBPF object has no map {NAME}"))?;
    let map = create_map(MapCreate {
        map_type: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key_size: declared.key_size(),
        value_size: declared.value_size(),
        max_entries: SHARED_WORKSPACES,
        map_name: *b"WORKSPACES\0\0\0\0\0\0",
        ..MapCreate::default()
    });
    let map = map.context("making workspaces for programs that can be preempted")?;
    let pins = PinFolder::create(&channel::fresh_name())?;
    loader.map_pin_path(NAME, pins.pin(NAME, map.as_fd())?);
    Ok(pins)
}

fn notices(ebpf: &mut Ebpf) -> Result<Option<Notices>> {
    match EbpfLogger::init(ebpf) {
        Ok(logger) => Ok(Some(watch_log(logger).context("listening to the kernel side's notices")?)),
        Err(error) => {
            log::warn!("notices of the kernel side will not be shown: {error}");
            Ok(None)
        }
    }
}

/// Writes into the maps what the programs look up.
fn tell(ebpf: &mut Ebpf, orders: &Orders<'_>, table: &EventTable, cgroups: &[Cgroup]) -> Result<()> {
    let mut recipes: Array<_, Row<Recipe>> = map(ebpf, "RECIPES")?.try_into()?;
    for (id, recipe) in table.recipes() {
        recipes.set(u32::from(*id), Row(*recipe), 0).context("writing what is to be done at an event")?;
    }
    let mut patterns: Array<_, Row<Pattern>> = map(ebpf, "PATTERNS")?.try_into()?;
    for (index, pattern) in (0..).zip(table.patterns()) {
        patterns.set(index, Row(*pattern), 0).context("writing a pattern")?;
    }
    if orders.shared.is_none() {
        let mut chosen: HashMap<_, u64, u64> = map(ebpf, "CHOSEN")?.try_into()?;
        for key in orders.choice.keys() {
            chosen.insert(key, 0, 0).context("writing whose events are recorded")?;
        }
    }
    let mut rows: Array<_, Row<Cgroup>> = map(ebpf, "CGROUPS")?.try_into()?;
    for (index, cgroup) in (0..).zip(cgroups) {
        rows.set(index, Row(*cgroup), 0).context("writing a cgroup")?;
    }
    Ok(())
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    ebpf.map_mut(name).with_context(|| format!("the eBPF object has no map {name}"))
}
