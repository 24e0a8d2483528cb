//! From what the user wrote to events: finds the tracepoints, functions and probes that are meant, and what can be recorded of each.

use std::{cell::OnceCell, collections::HashSet, fs, path::Path, rc::Rc, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use relay_common::recipe::{Fetch, Kind as FetchKind, MAX_STRING, Recipe, flag, input};

use super::{
    arguments::{self, Call, Convention},
    binary::{self, Binary},
    btf::{Btf, Function, Kernel, Prototype},
    events::{Catalogue, Event, Probe},
    layout::{self, Content, Value},
    registers,
    spec::{Argument, Kind, Read, Spec},
    symbols::{Symbols, did_you_mean},
    usdt::{Operand, Usdt},
};
use crate::machine;

/// The types of the kernel.
pub(super) const BTF: &str = "/sys/kernel/btf";
/// Most functions that one pattern may mean.
const MOST: usize = 20_000;

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
        let tracepoints = Catalogue::read(&machine::tracefs()?).context("listing tracepoints (run as root)")?;
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
            Kind::Profile => profile(spec).map(|event| vec![event]),
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

    /// Function and types by name: also those of a module that is loaded.
    fn function(&self, name: &str) -> Option<(Arc<Btf>, Option<String>, Function)> {
        self.kernel().ok()?.find_function(name)
    }

    fn kprobes(&self, spec: &Spec) -> Result<Vec<Event>> {
        if !Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
            bail!("this kernel has no kprobes (CONFIG_KPROBES is off); {}", alternatives(spec));
        }
        let returns = spec.kind == Kind::Kretprobe;
        let symbols = self.symbols()?;
        let (names, offset, explicit) = match pattern(&spec.target)? {
            Some(pattern) => (several(spec, symbols, &pattern)?, 0, false),
            None => {
                let (name, offset) = offset(&spec.target)?;
                if returns && offset != 0 {
                    bail!("'{}': a return has no offset", spec.text);
                }
                let name = name.rsplit_once(':').map_or(name, |(_module, name)| name);
                if !symbols.has(name) {
                    bail!("{}", self.unknown_function(name)?);
                }
                if blacklist().contains(name) {
                    bail!("kprobes are not allowed in {name}: the kernel itself uses it to handle them");
                }
                (vec![name.to_owned()], offset, true)
            }
        };
        let events = names.iter().map(|name| {
            let function = self.function(name);
            let typed =
                function.as_ref().map(|(btf, _, function)| (&**btf, &function.prototype)).filter(|_| offset == 0);
            let (call, entry) = self.calls(typed, offset == 0, returns, Convention::Registers);
            let suffix = if offset == 0 { String::new() } else { format!("+{offset:#x}") };
            self.event(
                spec,
                explicit,
                Found {
                    name: format!("{}:{name}{suffix}", spec.kind.name()),
                    probe: Probe::Kprobe { function: name.clone(), offset, returns },
                    call,
                    entry,
                },
            )
        });
        events.collect()
    }

    /// What can be named at an entry or a return, and of a pair also what can be at the entry.
    fn calls<'a>(
        &self,
        typed: Option<(&'a Btf, &Prototype)>,
        at_start: bool,
        returns: bool,
        convention: Convention,
    ) -> (Call<'a>, Option<Call<'a>>) {
        let entry = || match typed {
            Some((btf, prototype)) => Call::entry(btf, prototype, convention),
            None if at_start => Call::unknown_entry(),
            None => Call::nothing(),
        };
        if !returns {
            return (entry(), None);
        }
        let exit = match typed {
            Some((btf, prototype)) => Call::exit(btf, prototype, convention),
            None => Call::unknown_exit(),
        };
        // A trampoline passes the arguments at the exit too.
        let pair = self.latency && convention == Convention::Registers;
        (exit, pair.then(entry))
    }

    fn functions(&self, spec: &Spec) -> Result<Vec<Event>> {
        let returns = spec.kind == Kind::Fexit;
        let kernel = self.kernel()?;
        let (names, explicit) = match pattern(&spec.target)? {
            Some(pattern) => (several(spec, self.symbols()?, &pattern)?, false),
            None => (vec![spec.target.rsplit_once(':').map_or(&*spec.target, |(_, name)| name).to_owned()], true),
        };
        let mut events = Vec::new();
        for name in &names {
            let Some((btf, module, function)) = kernel.find_function(name) else {
                if explicit {
                    bail!("{}", self.unknown_function(name)?);
                }
                log::info!("left out {name}: the kernel's types do not have it");
                continue;
            };
            let (call, _) = self.calls(Some((&btf, &function.prototype)), true, returns, Convention::Context);
            events.push(self.event(
                spec,
                explicit,
                Found {
                    name: format!("{}:{name}", spec.kind.name()),
                    probe: Probe::Function { name: name.clone(), id: function.id, module, returns },
                    call,
                    entry: (self.latency && returns).then(Call::nothing),
                },
            )?);
        }
        Ok(events)
    }

    pub(super) fn unknown_function(&self, name: &str) -> Result<String> {
        let symbols = self.symbols()?;
        if symbols.has(name) {
            return Ok(format!("the kernel's types do not describe the function {name}: kprobe:{name} needs no types"));
        }
        let typed = self.function(name).is_some();
        let reason = if typed {
            "it was inlined everywhere"
        } else {
            "it may have been inlined, or be in a module that is not loaded"
        };
        Ok(format!("the kernel has no function '{name}' ({reason}){}", symbols.nearest(name)))
    }

    fn raw_tracepoints(&self, spec: &Spec) -> Result<Vec<Event>> {
        let btf = Rc::new(Arc::clone(self.kernel()?.vmlinux()));
        let (names, explicit): (Vec<String>, bool) = match pattern(&spec.target)? {
            Some(pattern) => {
                (btf.tracepoints().filter(|name| pattern.matches(name)).map(str::to_owned).collect(), false)
            }
            None => (vec![spec.target.rsplit_once(':').map_or(&*spec.target, |(_, name)| name).to_owned()], true),
        };
        if names.is_empty() {
            bail!("no raw tracepoint matches '{}'", spec.target);
        }
        let mut names = names;
        names.sort_unstable();
        let event = |name: &String| {
            let prototype = btf.tracepoint(name).with_context(|| {
                format!("there is no raw tracepoint '{name}'{}", did_you_mean(name, btf.tracepoints()))
            })?;
            self.event(
                spec,
                explicit,
                Found {
                    name: format!("rawtracepoint:{name}"),
                    probe: Probe::RawTracepoint { name: name.clone() },
                    call: Call::entry(&btf, &prototype, Convention::Context),
                    entry: None,
                },
            )
        };
        names.iter().map(event).collect()
    }

    fn system_calls(&self, spec: &Spec) -> Result<Vec<Event>> {
        const ENTER: &str = "syscalls:sys_enter_";
        let known = || self.tracepoints.names().iter().filter_map(|name| name.strip_prefix(ENTER));
        if known().next().is_none() {
            bail!(
                "this kernel does not name system calls (CONFIG_FTRACE_SYSCALLS is off); raw_syscalls:* has their numbers"
            );
        }
        let (names, explicit) = match pattern(&spec.target)? {
            Some(pattern) => (known().filter(|name| pattern.matches(name)).collect::<Vec<_>>(), false),
            None => (known().filter(|name| *name == spec.target).collect(), true),
        };
        if names.is_empty() {
            bail!("there is no system call '{}'{}", spec.target, did_you_mean(&spec.target, known()));
        }
        names.into_iter().map(|name| self.system_call(spec, name, explicit)).collect()
    }

    fn system_call(&self, spec: &Spec, name: &str, explicit: bool) -> Result<Event> {
        let enter = self.tracepoints.event(&format!("syscalls:sys_enter_{name}"), true)?;
        let exit = self.tracepoints.event(&format!("syscalls:sys_exit_{name}"), true)?;
        // After these the process has other memory: the texts are gone.
        let at_entry = name.starts_with("exec");
        let mut values = Vec::new();
        // The first field is the call's number.
        for (index, field) in (0u16..).zip(enter.format.fields.iter().filter(|field| field.name != "__syscall_nr")) {
            let c_type = field.c_type.clone();
            let word = index + 1;
            let source = if at_entry { word } else { input::ENTRY + word };
            let is_text = c_type.replace(' ', "") == "constchar*" && !matches!(&*field.name, "buf" | "ubuf");
            let size = c_size(&c_type);
            let (content, fetch) = if is_text {
                let kind = FetchKind::String as u8;
                (Content::String, Fetch { source, kind, len: MAX_STRING, ..Fetch::default() })
            } else {
                let hexadecimal = c_type.contains('*');
                let content = Content::Number { size: size.unsigned_abs(), signed: size < 0, hexadecimal };
                (content, layout::input(source, size.unsigned_abs()))
            };
            values.push(Value { name: field.name.clone(), c_type, content, fetch });
        }
        let n_entry = if at_entry { values.len() } else { 0 };
        values.push(Value {
            name: "ret".to_owned(),
            c_type: "long".to_owned(),
            content: Content::Number { size: 8, signed: true, hexadecimal: false },
            fetch: layout::input(1, 8),
        });
        values.push(arguments::duration());
        let mut values = select(spec, values)?;
        let n_entry =
            values.iter().take(n_entry).filter(|value| !matches!(&*value.name, "ret" | "duration_ns")).count();
        let probe = Probe::Syscall { enter: enter.format.id, exit: exit.format.id };
        let mut recipe = Recipe { flags: flag::PAIR, ..Recipe::EMPTY };
        event(format!("syscall:{name}"), explicit, probe, &mut values, n_entry, &mut recipe)
    }

    fn uprobes(&self, spec: &Spec) -> Result<Vec<Event>> {
        let Some((file, symbol)) = spec.target.rsplit_once(':') else {
            bail!("'{}': give {}:{}", spec.text, spec.kind.name(), spec.kind.target());
        };
        let returns = spec.kind == Kind::Uretprobe;
        let path = binary::find(file)?;
        let binary = Binary::open(&path)?;
        let (names, extra, explicit): (Vec<String>, u64, bool) = match pattern(symbol)? {
            Some(pattern) => {
                let names: Vec<_> =
                    binary.functions().filter(|name| pattern.matches(name)).map(str::to_owned).collect();
                if names.is_empty() {
                    bail!("no function of {} matches '{symbol}'", path.display());
                }
                (names, 0, false)
            }
            None => {
                let (name, extra) = offset(symbol)?;
                (vec![name.to_owned()], extra, true)
            }
        };
        let mut events = Vec::new();
        for name in &names {
            let places = match name.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16)) {
                // A place in the file, as perf has it.
                Some(Ok(place)) => vec![place],
                _ => binary.offsets_of(name)?,
            };
            for place in places {
                let entry = || if extra == 0 { Call::unknown_entry() } else { Call::nothing() };
                let (call, paired) =
                    if returns { (Call::unknown_exit(), self.latency.then(entry)) } else { (entry(), None) };
                let suffix = if extra == 0 { String::new() } else { format!("+{extra:#x}") };
                events.push(self.event(
                    spec,
                    explicit,
                    Found {
                        name: format!("{}:{}:{name}{suffix}", spec.kind.name(), path.display()),
                        probe: Probe::Uprobe { path: path.clone(), offset: place + extra, returns, semaphore: None },
                        call,
                        entry: paired,
                    },
                )?);
            }
        }
        Ok(events)
    }

    fn usdts(spec: &Spec) -> Result<Vec<Event>> {
        let mut parts = spec.target.rsplitn(3, ':');
        let (Some(name), Some(provider), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
            bail!("'{}': give {}:{}", spec.text, spec.kind.name(), spec.kind.target());
        };
        let path = binary::find(file)?;
        let probes = Binary::open(&path)?.probes()?;
        let wanted = format!("{provider}:{name}");
        let (glob, explicit) = match pattern(&wanted)? {
            Some(pattern) => (pattern, false),
            None => (glob::Pattern::new(&glob::Pattern::escape(&wanted))?, true),
        };
        let full = |probe: &Usdt| format!("{}:{}", probe.provider, probe.name);
        let found: Vec<&Usdt> = probes.iter().filter(|probe| glob.matches(&full(probe))).collect();
        if found.is_empty() {
            let names: Vec<_> = probes.iter().map(full).collect();
            if names.is_empty() {
                bail!("{} has no USDT probes", path.display());
            }
            bail!(
                "{} has no USDT probe '{wanted}'{}",
                path.display(),
                did_you_mean(&wanted, names.iter().map(String::as_str))
            );
        }
        let event = |probe: &Usdt| {
            let mut values = select(spec, usdt_values(probe))?;
            let place = Probe::Uprobe {
                path: path.clone(),
                offset: probe.offset,
                returns: false,
                semaphore: Some(probe.semaphore.unwrap_or(0)),
            };
            let name = format!("usdt:{}:{}", path.display(), full(probe));
            event(name, explicit, place, &mut values, 0, &mut Recipe::EMPTY.clone())
        };
        found.into_iter().map(event).collect()
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
                for argument in selection {
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
            values.push(arguments::duration());
            recipe.flags |= flag::PAIR;
            if matches!(probe, Probe::Kprobe { .. } | Probe::Uprobe { .. }) {
                recipe.stack_pointer = registers::STACK_POINTER;
            }
        }
        event(name, explicit, probe, &mut values, n_entry, &mut recipe)
    }

    /// A value that an event's condition asks for and that is not recorded. `None` where there can be none.
    ///
    /// # Errors
    /// When there is no such argument, or of a pair: what was at the entry is gone.
    pub fn hidden(&self, event: &Event, path: &str) -> Result<Option<Value>> {
        if event.recipe.as_ref().is_some_and(|recipe| recipe.flags & flag::PAIR != 0) {
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

    /// Of a return without its entry, the arguments are not to be had.
    fn explain_return(&self, error: anyhow::Error, probe: &Probe) -> anyhow::Error {
        match probe {
            Probe::Kprobe { returns: true, .. } | Probe::Uprobe { returns: true, .. } if !self.latency => {
                error.context("at the return the arguments are gone; --latency keeps those of the entry")
            }
            _ => error,
        }
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

/// Samples at a rate.
pub(super) fn profile(spec: &Spec) -> Result<Event> {
    const FASTEST: u64 = 100_000;
    let rate = spec.target.strip_prefix("hz:").and_then(|rate| rate.parse::<u64>().ok());
    let Some(hertz) = rate.filter(|rate| (1..=FASTEST).contains(rate)) else {
        bail!("'{}': give profile:hz:RATE, samples a second of each CPU, from 1 to {FASTEST}", spec.text);
    };
    let mut values = [Value {
        name: "ip".to_owned(),
        c_type: "void *".to_owned(),
        content: Content::Number { size: 8, signed: false, hexadecimal: true },
        fetch: layout::input(registers::INSTRUCTION_POINTER, 8),
    }];
    let name = format!("profile:hz:{hertz}");
    event(name, true, Probe::Sampler { hertz }, &mut values, 0, &mut Recipe::EMPTY.clone())
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

/// `arg0` and so on of a static probe; those that are not understood are left out.
pub(super) fn usdt_values(probe: &Usdt) -> Vec<Value> {
    let mut values = Vec::new();
    for (index, argument) in probe.arguments.iter().enumerate() {
        let size = argument.size;
        let number = |source: u16, offset: i64, steps: u8, load: bool, shift: u8| {
            let bits = 64 - size * 8;
            let mut fetch = Fetch {
                source,
                kind: if load { FetchKind::Load } else { FetchKind::Value } as u8,
                len: size.into(),
                size,
                steps,
                left: if load { 0 } else { bits.saturating_sub(shift) },
                right: if load { 0 } else { bits },
                signed: u8::from(argument.signed),
                ..Fetch::default()
            };
            fetch.offsets[0] = i32::try_from(offset).ok()?;
            Some(fetch)
        };
        let fetch = match &argument.operand {
            Operand::Constant(constant) => number(input::ZERO, *constant, 0, false, 0),
            Operand::Register { register, shift } => number(register.0, 0, 0, false, *shift),
            Operand::Memory { base, index: None, offset } => number(base.0, *offset, 0, true, 0),
            Operand::Memory { .. } | Operand::Unsupported(_) => None,
        };
        let Some(fetch) = fetch else {
            log::info!("{}:{}: arg{index} is left out: where it is is not understood", probe.provider, probe.name);
            continue;
        };
        values.push(Value {
            name: format!("arg{index}"),
            c_type: format!("{}{}", if argument.signed { "s" } else { "u" }, u16::from(size) * 8),
            content: Content::Number { size, signed: argument.signed, hexadecimal: false },
            fetch,
        });
    }
    values
}

/// The pattern, if it is one.
pub(super) fn pattern(text: &str) -> Result<Option<glob::Pattern>> {
    if glob::Pattern::escape(text) == text {
        return Ok(None);
    }
    glob::Pattern::new(text).map(Some).with_context(|| format!("the pattern '{text}'"))
}

/// The functions that a pattern means.
fn several(spec: &Spec, symbols: &Symbols, pattern: &glob::Pattern) -> Result<Vec<String>> {
    let names: Vec<_> = symbols.matching(pattern).map(|symbol| symbol.name.clone()).collect();
    match names.len() {
        0 => bail!("no function of the kernel matches '{}'", spec.target),
        count if count > MOST => bail!("'{}' means {count} functions; {MOST} are the most", spec.text),
        _ => Ok(names),
    }
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

/// Functions that kprobes are not allowed in. The kernel tells in debugfs; where that is not mounted, attaching fails.
pub(super) fn blacklist() -> HashSet<String> {
    let list = fs::read_to_string("/sys/kernel/debug/kprobes/blacklist").unwrap_or_default();
    list.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// What would work in place of a kind that the kernel lacks.
pub(super) fn alternatives(spec: &Spec) -> String {
    let returns = matches!(spec.kind, Kind::Kretprobe | Kind::Fexit);
    let other = match spec.kind {
        Kind::Kprobe | Kind::Kretprobe if machine::has_trampolines() => {
            if returns {
                "fexit"
            } else {
                "fentry"
            }
        }
        Kind::Fentry | Kind::Fexit if machine::has_kprobes() => {
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

/// Bytes of an argument of a system call, negative for a signed one.
fn c_size(c_type: &str) -> i8 {
    match c_type.trim_start_matches("const ").trim() {
        "int" | "pid_t" | "clockid_t" | "timer_t" | "key_serial_t" | "mqd_t" | "rwf_t" | "__s32" | "s32" => -4,
        "unsigned" | "unsigned int" | "uid_t" | "gid_t" | "qid_t" | "u32" | "__u32" | "key_t" => 4,
        "umode_t" => 2,
        "long" | "off_t" | "loff_t" | "ssize_t" | "time_t" => -8,
        _ => 8,
    }
}
