//! From what the user wrote to events: a file for each kind of probe finds what is meant, lists what there is, and attaches to it.
//!
//! A kind is a `Room`; an event of it has a `Probe`. [`Finder`] and [`listing`] ask the room, `session` loads the programs and asks the probe.

mod compat;
mod enumerators;
mod event;
mod functions;
mod kprobe;
pub mod listing;
mod profile;
mod raw_tracepoint;
pub mod selection;
pub mod symbols;
mod syscall;
pub mod tracepoint;
mod trampoline;
mod uprobe;
mod usdt;
mod wanted;

pub(crate) use self::event::number;
pub use self::event::{Condition, Event, Pair};

use std::{cell::OnceCell, fmt::Debug, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail};
use relay_common::recipe::{Fetch, FetchKind, MAX_STEPS, MAX_STRING};

use self::{
    enumerators::Enumerators,
    listing::{Listed, Lister},
    symbols::KernelSymbols,
    tracepoint::Catalogue,
};
use crate::{
    btf::{Btf, Kernel, Prototype},
    host,
    kernel::{attach::Attached, calls::Side, hook::Hook, served::Served},
    values::{
        arguments::{self, Convention, DURATION, Parameters},
        layout::{self, RecordedValue, Stored},
    },
};
use relay_channel::machine;
use relay_trace::condition::spec::{Argument, ProbeKind, Read, Spec, number_type};

/// The types of the kernel.
pub(crate) const BTF: &str = "/sys/kernel/btf";

/// What is known of a kind of probe.
pub(crate) struct Room {
    /// What this kernel has not that the kind needs, and why; `None` where it has all.
    lacks: fn() -> Option<&'static str>,
    /// The events that are meant, with what is to be recorded of them. Conditions are not looked at.
    find: fn(&Finder, &Spec) -> Result<Vec<Event>>,
    /// The same events as they are listed.
    list: fn(&Lister, &Spec) -> Result<Vec<Listed>>,
}

/// The room of a kind.
fn room(kind: ProbeKind) -> &'static Room {
    match kind {
        ProbeKind::Tracepoint => &tracepoint::ROOM,
        ProbeKind::RawTracepoint => &raw_tracepoint::ROOM,
        ProbeKind::Syscall => &syscall::ROOM,
        ProbeKind::Kprobe | ProbeKind::Kretprobe => &kprobe::ROOM,
        ProbeKind::Fentry | ProbeKind::Fexit => &trampoline::ROOM,
        ProbeKind::Uprobe | ProbeKind::Uretprobe => &uprobe::ROOM,
        ProbeKind::Usdt => &usdt::ROOM,
        ProbeKind::Profile => &profile::ROOM,
    }
}

/// Where the programs of one event are attached.
pub(crate) trait Probe: Debug + Send + Sync {
    /// What they are attached to, as far as the kernel's promises go.
    fn hook(&self) -> Hook<'static>;

    /// Whether they can interrupt others in NMI context.
    fn can_run_in_nmi(&self) -> bool;

    /// Attaches them. Of a pair the return comes first: an entry that nobody takes up again would stay for ever.
    ///
    /// # Errors
    /// What the kernel says, and what can be done about it.
    fn attach(&self, event: &Served<'_>, to: &mut Attached) -> Result<()>;

    /// Tells it from others of its event's name: functions of one name, and static probes, can be at several places of a file.
    fn place(&self) -> u64 {
        0
    }

    /// A value that a condition asks for and that is not recorded. `None` where there can be none.
    ///
    /// # Errors
    /// When there is no such argument.
    fn hidden(&self, _finder: &Finder, _argument: &Argument) -> Result<Option<RecordedValue>> {
        Ok(None)
    }

    /// The system call that it is of, by the name of its tracepoints, and the sides of it: the return first.
    fn call(&self) -> Option<(&str, &'static [Side])> {
        None
    }

    /// It is this side of all system calls.
    fn all_calls(&self) -> Option<Side> {
        None
    }

    /// It is a call that executes a program, with its return, which the kernel does not show where the program is one of 32 bits.
    fn executes(&self) -> bool {
        false
    }

    /// It has a recipe, whatever is recorded of it: so a program that serves others by theirs serves it too.
    fn is_by_recipe(&self) -> bool {
        false
    }

    /// The function of the kernel at whose entry or return it is, where the kernel can attach to many of them at once.
    fn function(&self) -> Option<(&str, bool)> {
        None
    }
}

/// Everything that can be recorded on this machine, looked up when it is asked for.
#[derive(Debug)]
pub struct Finder {
    tracepoints: Catalogue,
    kernel: OnceCell<Kernel>,
    symbols: OnceCell<KernelSymbols>,
    /// `None` where the kernel does not tell its types.
    enumerators: OnceCell<Option<Enumerators>>,
    /// Returns are recorded with the time since the entry.
    latency: bool,
}

/// What can be said of one event before it is known what is wanted of it.
struct Found<'a> {
    name: String,
    probe: Arc<dyn Probe>,
    call: Parameters<'a>,
    /// The entry of a pair.
    entry: Option<Entry<'a>>,
}

/// The entry of a pair.
struct Entry<'a> {
    /// The arguments that are fetched there.
    call: Parameters<'a>,
    /// [`Pair::frame`].
    frame: u16,
}

impl Finder {
    /// Lists the tracepoints.
    ///
    /// # Errors
    /// When tracefs cannot be read.
    pub fn new(latency: bool) -> Result<Self> {
        let tracepoints = Catalogue::read(&machine::tracefs()?).context("listing tracepoints")?;
        Ok(Self {
            tracepoints,
            kernel: OnceCell::new(),
            symbols: OnceCell::new(),
            enumerators: OnceCell::new(),
            latency,
        })
    }

    /// The tracepoints.
    #[must_use]
    pub fn tracepoints(&self) -> &Catalogue {
        &self.tracepoints
    }

    /// The events that are meant, with what is to be recorded of them. Conditions are not looked at.
    ///
    /// # Errors
    /// When there is no such event, or not in this kernel.
    pub fn find(&self, spec: &Spec) -> Result<Vec<Event>> {
        let room = checked(spec)?;
        (room.find)(self, spec)
    }

    /// The kernel's types, where it has them.
    pub fn kernel(&self) -> Result<&Kernel> {
        if self.kernel.get().is_none() {
            let _ = self.kernel.set(Kernel::load(Path::new(BTF))?);
        }
        self.kernel.get().context("the kernel's types")
    }

    /// The kernel's functions.
    pub fn symbols(&self) -> Result<&KernelSymbols> {
        if self.symbols.get().is_none() {
            let _ = self.symbols.set(KernelSymbols::read(&machine::tracefs()?)?);
        }
        self.symbols.get().context("the kernel's functions")
    }

    /// An event with the values that were asked for.
    fn event(&self, spec: &Spec, explicit: bool, found: Found<'_>) -> Result<Event> {
        let Found { name, probe, call, entry } = found;
        let selection = spec.arguments.as_deref();
        let (mut at_entry, mut at_exit) = (Vec::new(), Vec::new());
        let context = || format!("'{}'", spec.text);
        match (selection, &entry) {
            (None, entry) => {
                if let Some(entry) = entry {
                    at_entry = entry.call.values(None).with_context(context)?;
                }
                at_exit = call.values(None).with_context(context)?;
            }
            (Some(selection), None) => {
                at_exit = call
                    .values(Some(selection))
                    .map_err(|error| self.explain_return(error, spec.kind))
                    .with_context(context)?;
            }
            (Some(selection), Some(entry)) => {
                for argument in selection.iter().filter(|argument| argument.path != DURATION) {
                    let root = argument
                        .path
                        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                        .next()
                        .unwrap_or_default();
                    let (from, to) = if root == arguments::RESULT || call.names().contains(&root) {
                        (&call, &mut at_exit)
                    } else {
                        (&entry.call, &mut at_entry)
                    };
                    to.push(from.select(argument).with_context(context)?);
                }
            }
        }
        let n_entry = at_entry.len();
        let mut values = at_entry;
        values.append(&mut at_exit);
        let pair = entry.map(|entry| Pair { frame: Some(entry.frame), is_single: false, at_exec: false });
        if pair.is_some() {
            let mut duration = arguments::duration();
            let named = selection.into_iter().flatten().find(|argument| argument.path == DURATION);
            if let Some(name) = named.and_then(|argument| argument.name.clone()) {
                duration.name = name;
            }
            values.push(duration);
        }
        of_values(spec.kind, name, explicit, probe, values, pair.map(|pair| (pair, n_entry)))
    }

    /// Of a return without its entry, the arguments are not to be had.
    fn explain_return(&self, error: anyhow::Error, kind: ProbeKind) -> anyhow::Error {
        if matches!(kind, ProbeKind::Kretprobe | ProbeKind::Uretprobe) && !self.latency {
            return error.context("at the return the arguments are gone; --latency keeps those of the entry");
        }
        error
    }
}

/// The room of what was asked for, where this kernel has it.
fn checked(spec: &Spec) -> Result<&'static Room> {
    let room = room(spec.kind);
    match (room.lacks)() {
        Some(lack) => bail!("{lack}; {}", alternatives(spec)),
        None => Ok(room),
    }
}

/// Refuses arguments of what is recorded as it is.
fn without_arguments(spec: &Spec) -> Result<()> {
    if spec.arguments.is_some() {
        bail!("'{}': {}s are recorded as they are: leave out the parentheses", spec.text, spec.kind.name());
    }
    Ok(())
}

/// An event whose values are fetched; of a pair, also how it is one, and how many of the values are fetched at the entry.
fn of_values(
    kind: ProbeKind,
    name: String,
    explicit: bool,
    probe: Arc<dyn Probe>,
    values: Vec<RecordedValue>,
    pair: Option<(Pair, usize)>,
) -> Result<Event> {
    let (layout, format) = layout::lay_out(&name, values, pair.map_or(0, |(_, n_entry)| n_entry))?;
    let text = format.describe(&name);
    let pair = pair.map(|(pair, _)| pair);
    let (condition, limit, is_trigger) = (None, None, false);
    Ok(Event {
        id: 0,
        name,
        kind,
        explicit,
        probe,
        format,
        text,
        values: Some(layout),
        pair,
        condition,
        limit,
        is_trigger,
    })
}

/// What can be named of a function's entry or return.
fn call_of<'a>(typed: Option<(&'a Btf, &Prototype)>, returns: bool, convention: Convention) -> Parameters<'a> {
    match (typed, returns) {
        (Some((btf, prototype)), false) => Parameters::entry(btf, prototype, convention),
        (Some((btf, prototype)), true) => Parameters::exit(btf, prototype, convention),
        (None, false) => Parameters::unknown_entry(),
        (None, true) => Parameters::unknown_exit(),
    }
}

/// Of all values those that were asked for, by name alone, in the order of all.
fn select(spec: &Spec, values: Vec<RecordedValue>) -> Result<Vec<RecordedValue>> {
    let Some(selection) = &spec.arguments else { return Ok(values) };
    for argument in selection {
        if !values.iter().any(|value| value.name == argument.path) {
            let names: Vec<_> = values.iter().map(|value| value.name.as_str()).collect();
            bail!("'{}': there is no argument '{}'; there are: {}", spec.text, argument.path, names.join(", "));
        }
    }
    let mut selected = Vec::new();
    for mut value in values {
        let Some(argument) = selection.iter().find(|argument| argument.path == value.name) else { continue };
        read_as(&mut value, argument.read).with_context(|| format!("'{}': {}", spec.text, value.name))?;
        if let Some(name) = &argument.name {
            value.name.clone_from(name);
        }
        selected.push(value);
    }
    Ok(selected)
}

/// Changes how a value that is a word is read.
fn read_as(value: &mut RecordedValue, read: Read) -> Result<()> {
    let is_address = matches!(value.content, Stored::Number { size: 8, .. } | Stored::String | Stored::Strings);
    match read {
        Read::AsTyped => {}
        Read::UserString | Read::KernelString | Read::String | Read::Strings | Read::Bytes(_) if !is_address => {
            bail!("it is not an address, so nothing is there")
        }
        Read::UserString | Read::KernelString | Read::String => {
            value.content = Stored::String;
            value.fetch = Fetch { kind: FetchKind::String as u8, len: MAX_STRING, size: 0, ..pointed_to(value.fetch)? };
        }
        Read::Strings => {
            value.content = Stored::Strings;
            value.fetch =
                Fetch { kind: FetchKind::Strings as u8, len: MAX_STRING, size: 0, ..pointed_to(value.fetch)? };
        }
        Read::Bytes(len) => {
            value.content = Stored::Bytes(len);
            value.fetch = Fetch { kind: FetchKind::Bytes as u8, len, size: 0, ..pointed_to(value.fetch)? };
        }
        Read::Number { size, signed } => match &mut value.content {
            Stored::Number { size: whole, .. } if size <= *whole => {
                value.content = Stored::Number { size, signed, hexadecimal: false };
                value.fetch.size = size;
                value.c_type = number_type(size, signed).to_owned();
            }
            _ => bail!("it is not a number of {size} bytes"),
        },
        Read::Hexadecimal => {
            let size = match value.content {
                Stored::Number { size, .. } => size,
                _ => 8,
            };
            value.content = Stored::Number { size, signed: false, hexadecimal: true };
            // Of a text, its address.
            let kind = if value.fetch.kind == FetchKind::Load as u8 { FetchKind::Load } else { FetchKind::Value } as u8;
            value.fetch = Fetch { kind, len: size.into(), size, ..value.fetch };
        }
    }
    Ok(())
}

/// The place that a number points to. One that is in memory itself is loaded as a pointer.
fn pointed_to(mut fetch: Fetch) -> Result<Fetch> {
    if fetch.kind == FetchKind::Load as u8 {
        let next = fetch.offsets.get_mut(usize::from(fetch.steps) + 1);
        *next.with_context(|| format!("more than {MAX_STEPS} pointers would have to be followed"))? = 0;
        fetch.steps += 1;
    }
    Ok(fetch)
}

/// What would work in place of a kind that the kernel lacks.
fn alternatives(spec: &Spec) -> String {
    let returns = matches!(spec.kind, ProbeKind::Kretprobe | ProbeKind::Fexit);
    let other = match spec.kind {
        ProbeKind::Kprobe | ProbeKind::Kretprobe if host::has_trampolines() => {
            if returns {
                "fexit"
            } else {
                "fentry"
            }
        }
        ProbeKind::Fentry | ProbeKind::Fexit if host::has_kprobes() => {
            if returns {
                "kretprobe"
            } else {
                "kprobe"
            }
        }
        _ => {
            return "tracepoint:, rawtracepoint: and syscall: work here (relayd list shows which there are)".to_owned();
        }
    };
    format!("{other}:{} would work here", spec.target)
}
