//! From what the user wrote to events: finds the tracepoints, functions and probes that are meant, and what can be recorded of each.

mod functions;
pub mod listing;
pub mod selection;
pub mod symbols;
mod syscalls;
mod user;

use std::{cell::OnceCell, path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use relay_common::recipe::{Fetch, Kind as FetchKind, MAX_STRING, Recipe, flag, input};

use self::symbols::Symbols;
use crate::{
    btf::Kernel,
    events::{Catalogue, Event, Probe},
    host,
    values::{
        arguments::{self, Call, Convention, DURATION},
        layout::{self, Content, Value},
        registers,
    },
};
use relay_channel::machine;
use relay_trace::condition::spec::{Argument, Kind, Read, Spec, number_type};

/// The types of the kernel.
pub(crate) const BTF: &str = "/sys/kernel/btf";

/// Everything that can be recorded on this machine, looked up when it is asked for.
#[derive(Debug)]
pub struct Finder {
    tracepoints: Catalogue,
    kernel: OnceCell<Kernel>,
    symbols: OnceCell<Symbols>,
    /// Returns are recorded with the time since the entry.
    latency: bool,
}

/// What can be said of one event before it is known what is wanted of it.
struct Found<'a> {
    name: String,
    probe: Probe,
    call: Call<'a>,
    /// The entry's arguments, where entry and return are paired and they are fetched at the entry.
    entry: Option<Call<'a>>,
}

impl Finder {
    /// Lists the tracepoints.
    ///
    /// # Errors
    /// When tracefs cannot be read.
    pub fn new(latency: bool) -> Result<Self> {
        let tracepoints = Catalogue::read(&machine::tracefs()?).context("listing tracepoints")?;
        Ok(Self { tracepoints, kernel: OnceCell::new(), symbols: OnceCell::new(), latency })
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
        if spec.arguments.is_some() && matches!(spec.kind, Kind::Tracepoint | Kind::Profile) {
            bail!("'{}': {}s are recorded as they are: leave out the parentheses", spec.text, spec.kind.name());
        }
        match spec.kind {
            Kind::Tracepoint => self.tracepoints.select(std::slice::from_ref(&spec.target)),
            Kind::RawTracepoint => self.raw_tracepoints(spec),
            Kind::Syscall => self.system_calls(spec),
            Kind::Kprobe | Kind::Kretprobe => self.kprobes(spec),
            Kind::Fentry | Kind::Fexit => self.functions(spec),
            Kind::Uprobe | Kind::Uretprobe => self.uprobes(spec),
            Kind::Usdt => Self::usdts(spec),
            Kind::Profile => user::profile(spec).map(|event| vec![event]),
        }
    }

    /// The kernel's types, where it has them.
    pub fn kernel(&self) -> Result<&Kernel> {
        if self.kernel.get().is_none() {
            let _ = self.kernel.set(Kernel::load(Path::new(BTF))?);
        }
        self.kernel.get().context("the kernel's types")
    }

    /// The kernel's functions.
    pub fn symbols(&self) -> Result<&Symbols> {
        if self.symbols.get().is_none() {
            let _ = self.symbols.set(Symbols::read(&machine::tracefs()?)?);
        }
        self.symbols.get().context("the kernel's functions")
    }

    /// An event with the values that were asked for.
    fn event(&self, spec: &Spec, explicit: bool, found: Found<'_>) -> Result<Event> {
        let Found { name, probe, call, entry } = found;
        let paired = entry.is_some();
        let selection = spec.arguments.as_deref();
        let (mut at_entry, mut at_exit) = (Vec::new(), Vec::new());
        let context = || format!("'{}'", spec.text);
        match (selection, &entry) {
            (None, entry) => {
                if let Some(entry) = entry {
                    at_entry = entry.values(None).with_context(context)?;
                }
                at_exit = call.values(None).with_context(context)?;
            }
            (Some(selection), None) => {
                at_exit = call
                    .values(Some(selection))
                    .map_err(|error| self.explain_return(error, &probe))
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
                        (entry, &mut at_entry)
                    };
                    to.push(from.select(argument).with_context(context)?);
                }
            }
        }
        let n_entry = at_entry.len();
        let mut values = at_entry;
        values.append(&mut at_exit);
        let mut recipe = Recipe::EMPTY;
        if paired {
            let mut duration = arguments::duration();
            let named = selection.into_iter().flatten().find(|argument| argument.path == DURATION);
            if let Some(name) = named.and_then(|argument| argument.name.clone()) {
                duration.name = name;
            }
            values.push(duration);
            recipe.flags |= flag::PAIR;
            recipe.frame = match probe {
                Probe::Kprobe { .. } | Probe::Uprobe { .. } => registers::STACK_POINTER,
                Probe::Function { .. } => input::FRAME,
                _ => recipe.frame,
            };
        }
        event(name, explicit, probe, &mut values, n_entry, &mut recipe)
    }

    /// A value that an event's condition asks for and that is not recorded. `None` where there can be none.
    ///
    /// # Errors
    /// When there is no such argument, or of a pair: what was at the entry is gone.
    pub fn hidden(&self, event: &Event, path: &str) -> Result<Option<Value>> {
        if event.is_pair() {
            return Ok(None);
        }
        let argument = Argument { name: None, path: path.to_owned(), read: Read::AsTyped };
        let typed;
        let (convention, returns) = match &event.probe {
            Probe::Kprobe { function, offset: 0, returns } => {
                typed = self.function(function).map(|(btf, _, function)| (btf, function.prototype));
                (Convention::Registers, *returns)
            }
            Probe::Function { name, returns, .. } => {
                typed = self.function(name).map(|(btf, _, function)| (btf, function.prototype));
                (Convention::Context, *returns)
            }
            Probe::RawTracepoint { name } => {
                let btf = Arc::clone(self.kernel()?.vmlinux());
                typed = btf.tracepoint(name).map(|prototype| (Arc::clone(&btf), prototype));
                (Convention::Context, false)
            }
            Probe::Uprobe { returns, semaphore: None, .. } => {
                typed = None;
                (Convention::Registers, *returns)
            }
            _ => return Ok(None),
        };
        let typed = typed.as_ref().map(|(btf, prototype)| (&**btf, prototype));
        self.calls(typed, true, returns, convention).0.select(&argument).map(Some)
    }
}

/// Lays the values out, and makes the event.
fn event(
    name: String,
    explicit: bool,
    probe: Probe,
    values: &mut [Value],
    n_entry: usize,
    recipe: &mut Recipe,
) -> Result<Event> {
    let text = layout::lay_out(&name, values, n_entry, recipe)?;
    let format = layout::format(&text)?;
    Ok(Event { name, format, text, explicit, probe, recipe: Some(Box::new(*recipe)) })
}

/// Of all values those that were asked for, by name alone, in the order of all.
fn select(spec: &Spec, values: Vec<Value>) -> Result<Vec<Value>> {
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
fn read_as(value: &mut Value, read: Read) -> Result<()> {
    let is_address = matches!(value.content, Content::Number { size: 8, .. } | Content::String);
    match read {
        Read::AsTyped => {}
        Read::UserString | Read::KernelString | Read::String | Read::Bytes(_) if !is_address => {
            bail!("it is no address, so nothing is there")
        }
        Read::UserString | Read::KernelString | Read::String => {
            value.content = Content::String;
            value.fetch = Fetch { kind: FetchKind::String as u8, len: MAX_STRING, size: 0, ..value.fetch };
        }
        Read::Bytes(len) => {
            value.content = Content::Bytes(len);
            value.fetch = Fetch { kind: FetchKind::Bytes as u8, len, size: 0, ..value.fetch };
        }
        Read::Number { size, signed } => match &mut value.content {
            Content::Number { size: whole, .. } if size <= *whole => {
                value.content = Content::Number { size, signed, hexadecimal: false };
                value.fetch.size = size;
                value.c_type = number_type(size, signed).to_owned();
            }
            _ => bail!("it is no number of {size} bytes"),
        },
        Read::Hexadecimal => {
            let size = match value.content {
                Content::Number { size, .. } => size,
                _ => 8,
            };
            value.content = Content::Number { size, signed: false, hexadecimal: true };
            value.fetch = Fetch { kind: FetchKind::Value as u8, len: size.into(), size, ..value.fetch };
        }
    }
    Ok(())
}

/// The pattern, if it is one.
pub(crate) fn pattern(text: &str) -> Result<Option<glob::Pattern>> {
    if glob::Pattern::escape(text) == text {
        return Ok(None);
    }
    glob::Pattern::new(text).map(Some).with_context(|| format!("the pattern '{text}'"))
}

/// `name+offset`
fn offset(text: &str) -> Result<(&str, u64)> {
    let Some((name, offset)) = text.rsplit_once('+') else { return Ok((text, 0)) };
    let number = match offset.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => offset.parse(),
    };
    Ok((name, number.map_err(|_| anyhow!("'{text}': '{offset}' is no offset; give +16 or +0x10"))?))
}

/// What would work in place of a kind that the kernel lacks.
pub(crate) fn alternatives(spec: &Spec) -> String {
    let returns = matches!(spec.kind, Kind::Kretprobe | Kind::Fexit);
    let other = match spec.kind {
        Kind::Kprobe | Kind::Kretprobe if host::has_trampolines() => {
            if returns {
                "fexit"
            } else {
                "fentry"
            }
        }
        Kind::Fentry | Kind::Fexit if host::has_kprobes() => {
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
