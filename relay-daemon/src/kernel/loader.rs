//! Brings the tracer's eBPF programs into the kernel: loads them, tells them what to do, attaches them.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray},
    sys::{Stats, enable_stats},
};
use aya_log::EbpfLogger;
use relay_common::{
    recipe::{Pattern, SHARED_WORKSPACES},
    trace::{CALL_IS_CHOSEN, Request},
};
use tokio::io::unix::AsyncFd;

use super::{
    attach::{Attached, is_out_of_files},
    calls::{self, Plan, Side},
    choice::Choice,
    hook::{self, Hook},
    object::{self, Object},
    preemption,
    programs::{self, Account, CHOSEN, Programs, TRIGGER},
};
use crate::{
    btf::Kernel,
    events::{Event, Probe},
    sys::watch_log,
    values::registers,
};
use relay_channel::{
    channel::{self, Channel},
    machine,
    pins::Folder,
    sys::{MapCreate, create_map, set_value},
};
use relay_trace::condition::spec::Kind;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer"));

/// The channel that the programs write to.
const CHANNEL: &str = "EVENTS";
/// The program that does what is requested.
const REQUEST: &str = "on_request";
/// How many calls whose entry and return are paired can be under way on each CPU: at least a few hundred, since the kernel hands room out
/// to CPUs 128 at a time.
const CALLS: u32 = 1024;
/// At least so many on all CPUs.
const ALL_CALLS: u32 = 8192;
/// How many processes can be followed.
const FOLLOWED: u32 = 65_536;

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

/// What the programs are told before they are loaded.
#[derive(Debug)]
pub struct Orders<'a> {
    /// What they will be attached to.
    pub events: &'a [Event],
    /// The id of the first of them; the others follow.
    pub first: u16,
    /// The patterns of the events' conditions.
    pub patterns: &'a [Pattern],
    /// Whose events are recorded.
    pub choice: &'a Choice,
    /// What stands before every payload: bits of `relay_common::recipe::context`.
    pub context: u32,
    /// For a session that goes on without this process: a record may end it, and events may be added.
    pub standing: bool,
    /// Where the maps are pinned that all programs of the session share, if there are others already.
    pub shared: Option<&'a Path>,
}

/// The programs of an object, loaded for a channel, and not attached yet.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Loader {
    object: Object,
    request: OwnedFd,
    account: PerCpuArray<MapData, Account>,
    tallies: PerCpuArray<MapData, [u64; 5]>,
    trigger: Array<MapData, [u64; 5]>,
    chosen: HashMap<MapData, u64, u64>,
    calls: Array<MapData, u64>,
    plan: Plan,
    attached: Attached,
    /// The maps.
    _ebpf: Ebpf,
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

/// The kernel side's notices, as they come.
pub type Notices = AsyncFd<EbpfLogger<&'static dyn log::Log>>;

impl Loader {
    /// Loads the programs to write into `channel`, and tells them what to do.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(channel: &Channel, orders: &Orders<'_>) -> Result<(Self, Option<Notices>)> {
        let Orders { events, choice, .. } = orders;
        let nmi = u32::from(orders.standing || events.iter().any(can_run_in_nmi));
        let triggers = u32::from(orders.standing);
        let names = choice.patterns()?;
        let cgroups = choice.cgroup_ids()?;
        let (choices, context) = (choice.bits(), orders.context);
        let (name_count, cgroup_count) = (u32::try_from(names.len())?, u32::try_from(cgroups.len())?);
        let task = TaskMembers::find(choice.follow)?;
        // A call of 32 bits cannot be told from another if that is not known.
        let plan = if task.compat_bits == 0 { Plan::default() } else { Plan::new(events, orders.first)? };
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
        let recipes = if events.iter().any(|event| event.recipe.is_some()) {
            usize::from(orders.first) + events.len()
        } else {
            1
        };
        let recipes = u32::try_from(recipes.max(1))?;
        let chosen = u32::try_from(choice.keys().count())? + if choice.follow { FOLLOWED } else { 1 };
        loader.map_max_entries("RECIPES", recipes).map_max_entries("TALLIES", recipes);
        loader.map_max_entries("PATTERNS", u32::try_from(names.len() + orders.patterns.len())?.max(1));
        let possible = u32::try_from(channel.possible().len())?;
        let calls = if events.iter().any(Event::is_pair) { (CALLS * possible).max(ALL_CALLS) } else { 1 };
        loader.map_max_entries("CALLS", calls).map_max_entries("DEEPER", calls);
        loader.map_max_entries("CHOSEN", chosen).map_max_entries("SYSTEM_CALLS", plan.table_len()?.max(1));
        if let Some(folder) = orders.shared {
            loader.map_pin_path("TRIGGER", folder.join(TRIGGER)).map_pin_path("CHOSEN", folder.join(CHOSEN));
        }
        let shared = preemption::abilities().leaves_preempted() && events.iter().any(hook::is_preemptible);
        let pins = shared.then(|| share_workspaces(&mut loader)).transpose()?;
        let mut ebpf = channel::load(OBJECT, &[(CHANNEL, channel)], loader)?;
        drop(pins);
        let object = Object::new(OBJECT, &ebpf, shared)?;
        let request = object.load(REQUEST, Hook::RawTracepoint, None)?;
        tell(&ebpf, orders, &names, &cgroups)?;
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        let (account, tallies) = (take("ACCOUNT")?, take("TALLIES")?);
        let (trigger, chosen, calls) = (take("TRIGGER")?, take("CHOSEN")?, take("SYSTEM_CALLS")?);
        // Of a session that goes on without this process, nobody will be there to listen.
        let notices = if orders.standing { None } else { notices(&mut ebpf)? };
        let mut loader = Self {
            object,
            request,
            account: account.try_into()?,
            tallies: tallies.try_into()?,
            trigger: trigger.try_into()?,
            chosen: chosen.try_into()?,
            calls: calls.try_into()?,
            plan,
            attached: Attached::default(),
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
        self.attached.follow(&self.object)?;
        if choice.own_children {
            programs::run(&self.request, Request::Follow, 0, 0)?;
        }
        Ok(())
    }

    /// Makes the kernel count how often programs run, as long as the programs live.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count_runs(&mut self) -> Result<()> {
        self.stats = Some(
            enable_stats(Stats::RunTime).context("enabling the kernel's statistics of BPF programs (--bpf-stats)")?,
        );
        Ok(())
    }

    /// Attaches to the events of the orders. Of those that a pattern selected, returns which the kernel refused.
    ///
    /// # Errors
    /// When an event that was named in full, or every one, is refused.
    pub fn attach(mut self, orders: &Orders<'_>) -> Result<(Programs, Vec<Refused>)> {
        let Orders { events, first, .. } = *orders;
        let mut refused = Vec::new();
        let mut together = self.attach_together(events, first)?;
        let places = self.attach_calls()?;
        together.extend(places.iter().map(|(id, _)| usize::from(id - first)));
        for (index, event) in events.iter().enumerate().filter(|(index, _)| !together.contains(index)) {
            match self.attached.attach(&self.object, usize::from(first) + index, event) {
                Ok(()) => {}
                Err(error) if event.explicit || is_out_of_files(&error) => return Err(error),
                Err(error) => refused.push(Refused { index, error }),
            }
        }
        if refused.len() == events.len() {
            let reason = refused.pop().map_or_else(|| anyhow::anyhow!("no event is selected"), |refused| refused.error);
            return Err(reason.context("none of the selected events could be attached"));
        }
        let triggers = events.iter().filter(|event| event.is_trigger()).count();
        let refused_trigger = |refused: &Refused| events[refused.index].is_trigger();
        if triggers > 0 && refused.iter().filter(|refused| refused_trigger(refused)).count() == triggers {
            let reason = refused.into_iter().find(refused_trigger);
            let reason = reason.map_or_else(|| anyhow::anyhow!("there is none"), |refused| refused.error);
            return Err(reason.context("none of the events of --until could be attached"));
        }
        let Self { request, account, tallies, trigger, chosen, calls, attached, stats, .. } = self;
        let (loaded, links) = attached.into_parts();
        Ok((Programs { request, account, tallies, trigger, chosen, calls, places, loaded, links, stats }, refused))
    }

    /// Attaches to all system calls for those that are events, as planned; returns which events these are, and where in the table. Events of a call
    /// whose number is not known are left for their own tracepoints.
    fn attach_calls(&mut self) -> Result<Vec<(u16, u32)>> {
        let plan = std::mem::take(&mut self.plan);
        if plan.layers.is_empty() {
            return Ok(Vec::new());
        }
        let tracefs = machine::tracefs()?;
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
                    let hook = (calls::id(&tracefs, side)?, begin);
                    self.attached.calls(&self.object, layer.program, index, hook, events)?;
                }
            }
        }
        Ok(places)
    }

    /// Attaches to the functions that patterns mean, all at once, where the kernel can do that; returns which events were.
    fn attach_together(&mut self, events: &[Event], first: u16) -> Result<Vec<usize>> {
        let mut together = Vec::new();
        for returns in [false, true] {
            // Pairs are told apart by the stack pointer, which the returns of kprobe.multi have not from Linux 6.14 on (kernel/trace/fgraph.c
            // keeps a few registers alone).
            let is_meant = |event: &Event| match &event.probe {
                Probe::Kprobe { offset: 0, returns: at_return, .. } => {
                    !event.explicit && *at_return == returns && !event.is_pair()
                }
                _ => false,
            };
            let group: Vec<(usize, &Event)> = events.iter().enumerate().filter(|(_, event)| is_meant(event)).collect();
            if !group.is_empty() && self.attached.attach_functions(&self.object, &group, first, returns)? {
                together.extend(group.iter().map(|(index, _)| *index));
            }
        }
        Ok(together)
    }
}

/// Makes the workspaces that all CPUs share, in place of those of each CPU that the object declares. They are pinned until the folder is dropped.
fn share_workspaces(loader: &mut EbpfLoader<'_>) -> Result<Folder> {
    const NAME: &str = "WORKSPACES";
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    let object = aya_obj::Object::parse(OBJECT).context("parsing the eBPF object")?;
    let declared = object.maps.get(NAME).with_context(|| format!("the eBPF object has no map {NAME}"))?;
    let map = create_map(MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: declared.key_size(),
        value_size: declared.value_size(),
        max_entries: SHARED_WORKSPACES,
        map_name: *b"WORKSPACES\0\0\0\0\0\0",
        ..MapCreate::default()
    });
    let map = map.context("making workspaces for programs that can be preempted")?;
    let pins = Folder::create(&channel::fresh_name())?;
    loader.map_pin_path(NAME, pins.pin(NAME, map.as_fd())?);
    Ok(pins)
}

fn can_run_in_nmi(event: &Event) -> bool {
    match event.kind() {
        Kind::Tracepoint => !NEVER_IN_NMI.contains(&event.name.split(':').next().unwrap_or_default()),
        Kind::Syscall | Kind::Uprobe | Kind::Uretprobe | Kind::Usdt => false,
        Kind::RawTracepoint | Kind::Kprobe | Kind::Kretprobe | Kind::Fentry | Kind::Fexit | Kind::Profile => true,
    }
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
fn tell(ebpf: &Ebpf, orders: &Orders<'_>, names: &[Pattern], cgroups: &[[u64; 2]]) -> Result<()> {
    let recipes = object::map(ebpf, "RECIPES")?;
    let first = u16::try_from(names.len())?;
    for (index, event) in orders.events.iter().enumerate() {
        let Some(recipe) = &event.recipe else { continue };
        let mut recipe = **recipe;
        // The patterns of names come first.
        recipe.tests.iter_mut().for_each(|test| test.pattern += first);
        set_value(recipes, u32::from(orders.first) + u32::try_from(index)?, &recipe)
            .context("writing what is to be done at an event")?;
    }
    let patterns = object::map(ebpf, "PATTERNS")?;
    for (index, pattern) in names.iter().chain(orders.patterns).enumerate() {
        set_value(patterns, u32::try_from(index)?, pattern).context("writing a pattern")?;
    }
    if orders.shared.is_none() {
        let chosen = object::map(ebpf, "CHOSEN")?;
        for key in orders.choice.keys() {
            set_value(chosen, key, &0u64).context("writing whose events are recorded")?;
        }
    }
    let map = object::map(ebpf, "CGROUPS")?;
    for (index, cgroup) in cgroups.iter().enumerate() {
        set_value(map, u32::try_from(index)?, cgroup).context("writing a cgroup")?;
    }
    Ok(())
}

/// Where the kernel's `struct task_struct` has what programs read of it, in bytes; all zero where that is not known.
#[derive(Default)]
struct TaskMembers {
    tid: u32,
    pid: u32,
    /// Its process's first thread.
    leader: u32,
    /// When it began.
    born: u32,
    /// Bits of a number that say whether its system call is one of 32 bits, and the bits.
    compat: u32,
    compat_bits: u32,
}

impl TaskMembers {
    /// Asks the kernel's BTF. Without one, processes cannot be followed; and a recorder that was killed is told by its number alone.
    fn find(needed: bool) -> Result<Self> {
        match Self::of_kernel() {
            Err(error) if needed => Err(error.context("following processes (--follow)")),
            Err(error) => {
                log::debug!("struct task_struct is not known: {error:#}");
                Ok(Self::default())
            }
            found => found,
        }
    }

    fn of_kernel() -> Result<Self> {
        let kernel = Kernel::load(Path::new("/sys/kernel/btf"))?;
        let btf = kernel.vmlinux();
        let task = btf.structure_named("task_struct").context("the kernel's BTF has no struct task_struct")?;
        let at = |name: &str| {
            let member = btf.member(task, name).with_context(|| format!("struct task_struct has no {name}"))?;
            anyhow::Ok(u32::try_from(member.bit_offset / 8)?)
        };
        // TS_COMPAT (arch/x86/include/asm/thread_info.h) or TIF_32BIT (arch/arm64/include/asm/thread_info.h).
        let (member, compat_bits) = if cfg!(target_arch = "aarch64") { ("flags", 1 << 22) } else { ("status", 2) };
        let info = btf.structure_named("thread_info").context("the kernel's BTF has no struct thread_info")?;
        let info = btf.member(info, member).with_context(|| format!("struct thread_info has no {member}"))?;
        let compat = at("thread_info")? + u32::try_from(info.bit_offset / 8)?;
        Ok(Self {
            tid: at("pid")?,
            pid: at("tgid")?,
            leader: at("group_leader")?,
            born: at("start_boottime")?,
            compat,
            compat_bits,
        })
    }
}
