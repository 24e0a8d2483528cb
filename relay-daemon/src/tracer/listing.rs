//! Says what can be traced on this machine, in the spelling that [`spec`](super::spec) takes, and what the arguments of each event are.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    arguments::{Call, Convention},
    binary::{self, Binary},
    btf::{Btf, Function, Kernel, TypeId},
    format::{self, Field, Format},
    probes::{self, Finder, alternatives},
    spec::{self, Kind, Spec},
    symbols::{Symbol, did_you_mean},
    usdt::Usdt,
};
use crate::machine;

/// What the names of structures begin with.
const STRUCTURES: [&str; 4] = ["struct:", "struct ", "union:", "union "];
/// What the names of the tracepoints before system calls begin with.
const SYSCALLS: &str = "syscalls:sys_enter_";
/// The rate that is shown for samples.
const PROFILE: &str = "profile:hz:99";

/// Something that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Item {
    /// An event.
    Event(Event),
    /// A type, to find the way to a value that is to be recorded.
    Structure(Structure),
}

/// An event that can be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// As it is written after `-e`.
    pub event: String,
    /// Its kind's long name.
    pub kind: &'static str,
    /// The module whose function it is.
    pub module: Option<String>,
    /// What it has, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<Argument>>,
}

/// One argument of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// Its name, as it is written in parentheses and conditions.
    pub name: String,
    /// Its type, as C spells it.
    #[serde(rename = "type")]
    pub c_type: String,
}

/// A structure or a union.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Structure {
    /// Its name.
    pub structure: String,
    /// The module that has it.
    pub module: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// What it is made of, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member>>,
}

/// One member of a structure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its type, as C spells it.
    #[serde(rename = "type")]
    pub c_type: String,
    /// Bytes from the structure's start.
    pub offset: u64,
    /// Of a bit field, bits from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bit: Option<u64>,
    /// Of a bit field, how many bits it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
}

impl Item {
    /// What it is sorted by, and listed under.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Event(event) => event.event.clone(),
            Self::Structure(structure) => format!("struct:{}", structure.structure),
        }
    }
}

/// What patterns mean, each once, sorted; without a pattern, all tracepoints. A pattern is an event or several in the spelling of
/// [`spec::parse`], without arguments and conditions; a word without a colon, which any name may contain; or `struct:NAME`.
///
/// # Errors
/// When a pattern means nothing, with the nearest names; when the kernel lacks what it asks for, with what there is instead.
pub fn list(patterns: &[String], verbose: bool) -> Result<Vec<Item>> {
    let lister = Lister { finder: OnceCell::new(), modules: RefCell::default(), verbose };
    let mut items = BTreeMap::new();
    let specs = if patterns.is_empty() { spec::parse(&["*:*".to_owned()])? } else { spec::parse(patterns)? };
    for spec in &specs {
        if spec.arguments.is_some() || spec.condition.is_some() {
            bail!("'{}': give the name alone, without arguments and conditions", spec.text);
        }
        for item in lister.find(spec)? {
            items.entry(item.name()).or_insert(item);
        }
    }
    Ok(items.into_values().collect())
}

/// What has been looked up.
struct Lister {
    finder: OnceCell<Finder>,
    /// Types of modules; none of those that have none.
    modules: RefCell<HashMap<String, Option<Arc<Btf>>>>,
    /// Arguments are wanted.
    verbose: bool,
}

impl Lister {
    fn find(&self, spec: &Spec) -> Result<Vec<Item>> {
        if let Some(name) = STRUCTURES.iter().find_map(|prefix| spec.text.strip_prefix(prefix)) {
            let structures = self.structures(name.trim())?;
            return Ok(structures.into_iter().map(Item::Structure).collect());
        }
        let events = match spec.kind {
            Kind::Tracepoint if !spec.text.contains(':') => self.search(&spec.target)?,
            Kind::Tracepoint => self.tracepoints(spec)?,
            Kind::RawTracepoint => self.raw_tracepoints(spec)?,
            Kind::Syscall => self.system_calls(spec)?,
            Kind::Kprobe | Kind::Kretprobe | Kind::Fentry | Kind::Fexit => self.functions(spec)?,
            Kind::Uprobe | Kind::Uretprobe => self.uprobes(spec)?,
            Kind::Usdt => self.usdts(spec)?,
            Kind::Profile => self.profile(spec)?,
        };
        Ok(events.into_iter().map(Item::Event).collect())
    }

    fn finder(&self) -> Result<&Finder> {
        if self.finder.get().is_none() {
            let _ = self.finder.set(Finder::new(false)?);
        }
        self.finder.get().context("what can be recorded")
    }

    /// Events of every kind that can be found without saying where, by a part of their names.
    fn search(&self, word: &str) -> Result<Vec<Event>> {
        let wanted = match probes::pattern(word)? {
            Some(pattern) => pattern,
            None => glob::Pattern::new(&format!("*{word}*"))?,
        };
        let finder = self.finder()?;
        let mut known: Vec<&str> = Vec::new();
        let mut events = Vec::new();
        for name in finder.tracepoints().names() {
            let bare = name.split_once(':').map_or(name.as_str(), |(_, bare)| bare);
            known.push(bare);
            if wanted.matches(name) || wanted.matches(bare) {
                events.push(self.tracepoint(name)?);
            }
            if let Some(name) = name.strip_prefix(SYSCALLS) {
                known.push(name);
                if wanted.matches(name) {
                    events.push(self.system_call(name)?);
                }
            }
        }
        if let Ok(kernel) = finder.kernel() {
            for name in kernel.vmlinux().tracepoints() {
                known.push(name);
                if wanted.matches(name) {
                    events.push(self.raw_tracepoint(name, kernel)?);
                }
            }
        }
        let functions = [(Kind::Kprobe, machine::has_kprobes()), (Kind::Fentry, machine::has_trampolines())];
        if let Some((kind, _)) = functions.into_iter().find(|(_, has)| *has) {
            let symbols = finder.symbols()?;
            events.extend(symbols.matching(&wanted).filter_map(|symbol| self.function(kind, symbol)));
            if events.is_empty() {
                let all = glob::Pattern::new("*")?;
                let near = did_you_mean(word, symbols.matching(&all).map(|symbol| symbol.name.as_str()));
                if !near.is_empty() {
                    bail!("nothing has '{word}' in its name{near}");
                }
            }
        }
        if word == Kind::Profile.name() {
            events.push(self.profile_event()?);
        }
        if !events.is_empty() {
            return Ok(events);
        }
        if let Some(kind) = Kind::all().find(|kind| kind.name() == word) {
            bail!("nothing has '{word}' in its name; events of that kind: relayd list {word}:{}", kind.target());
        }
        bail!("nothing has '{word}' in its name{}", did_you_mean(&without_wildcards(word), known.into_iter()));
    }

    fn tracepoints(&self, spec: &Spec) -> Result<Vec<Event>> {
        let catalogue = self.finder()?.tracepoints();
        let wanted = Wanted::new(&spec.target)?;
        let names = catalogue.names().iter().filter(|name| wanted.is(name));
        let events: Vec<_> = names.map(|name| self.tracepoint(name)).collect::<Result<_>>()?;
        if events.is_empty() {
            bail!("{}", catalogue.not_found(&spec.target, wanted.is_exact()));
        }
        Ok(events)
    }

    fn tracepoint(&self, name: &str) -> Result<Event> {
        let arguments = || Ok(self.format(name)?.fields.iter().map(field).collect());
        self.event(Kind::Tracepoint, name.to_owned(), None, arguments)
    }

    /// The layout of a tracepoint; of one that is not understood, nothing.
    fn format(&self, name: &str) -> Result<Format> {
        match self.finder()?.tracepoints().event(name, false) {
            Ok(event) => Ok(event.format),
            Err(error) => {
                log::warn!("{name} cannot be recorded: {error:#}");
                Ok(Format { id: 0, fields: Vec::new() })
            }
        }
    }

    fn raw_tracepoints(&self, spec: &Spec) -> Result<Vec<Event>> {
        let kernel = self.finder()?.kernel()?;
        let wanted = Wanted::new(&spec.target)?.without_module();
        let btf = kernel.vmlinux();
        let names = btf.tracepoints().filter(|name| wanted.is(name));
        let events: Vec<_> = names.map(|name| self.raw_tracepoint(name, kernel)).collect::<Result<_>>()?;
        if events.is_empty() {
            bail!("there is no raw tracepoint '{}'{}", spec.target, wanted.nearest(btf.tracepoints()));
        }
        Ok(events)
    }

    fn raw_tracepoint(&self, name: &str, kernel: &Kernel) -> Result<Event> {
        let btf = kernel.vmlinux();
        let arguments = || {
            let prototype = btf.tracepoint(name).with_context(|| format!("the arguments of {name}"))?;
            Ok(declared(&Call::entry(btf, &prototype, Convention::Context)))
        };
        self.event(Kind::RawTracepoint, format!("{}:{name}", Kind::RawTracepoint.name()), None, arguments)
    }

    fn system_calls(&self, spec: &Spec) -> Result<Vec<Event>> {
        let names = self.finder()?.tracepoints().names();
        let known = || names.iter().filter_map(|name| name.strip_prefix(SYSCALLS));
        if known().next().is_none() {
            bail!(
                "this kernel does not name system calls (CONFIG_FTRACE_SYSCALLS is off); raw_syscalls:* has their numbers"
            );
        }
        let wanted = Wanted::new(&spec.target)?;
        let found = known().filter(|name| wanted.is(name));
        let events: Vec<_> = found.map(|name| self.system_call(name)).collect::<Result<_>>()?;
        if events.is_empty() {
            bail!("there is no system call '{}'{}", spec.target, wanted.nearest(known()));
        }
        Ok(events)
    }

    fn system_call(&self, name: &str) -> Result<Event> {
        let arguments = || {
            let format = self.format(&format!("{SYSCALLS}{name}"))?;
            let fields = format.fields.iter().filter(|field| field.name != "__syscall_nr").map(field);
            Ok(fields.chain([argument("long", "ret"), argument("u64", "duration_ns")]).collect())
        };
        self.event(Kind::Syscall, format!("{}:{name}", Kind::Syscall.name()), None, arguments)
    }

    fn functions(&self, spec: &Spec) -> Result<Vec<Event>> {
        match spec.kind {
            Kind::Kprobe | Kind::Kretprobe if !machine::has_kprobes() => {
                bail!("this kernel has no kprobes (CONFIG_KPROBES is off); {}", alternatives(spec));
            }
            Kind::Fentry | Kind::Fexit if !machine::has_trampolines() => {
                bail!("this kernel has no trampolines for {}; {}", spec.kind.name(), alternatives(spec));
            }
            _ => {}
        }
        self.kernel_functions(spec)
    }

    fn kernel_functions(&self, spec: &Spec) -> Result<Vec<Event>> {
        let finder = self.finder()?;
        let symbols = finder.symbols()?;
        if let Some(pattern) = probes::pattern(&spec.target)? {
            let matching = symbols.matching(&pattern);
            let events: Vec<_> = matching.filter_map(|symbol| self.function(spec.kind, symbol)).collect();
            if events.is_empty() {
                let near = symbols.nearest(&without_wildcards(&spec.target));
                bail!("no function of the kernel matches '{}'{near}", spec.target);
            }
            return Ok(events);
        }
        let name = spec.target.rsplit_once(':').map_or(&*spec.target, |(_module, name)| name);
        match symbols.find(name).and_then(|symbol| self.function(spec.kind, symbol)) {
            Some(event) => Ok(vec![event]),
            None => bail!("{}", finder.unknown_function(name)?),
        }
    }

    /// An event of a function; nothing where that kind of event needs types that there are not.
    fn function(&self, kind: Kind, symbol: &Symbol) -> Option<Event> {
        let returns = matches!(kind, Kind::Kretprobe | Kind::Fexit);
        let convention =
            if matches!(kind, Kind::Fentry | Kind::Fexit) { Convention::Context } else { Convention::Registers };
        let needs_types = convention == Convention::Context;
        let typed = if self.verbose || needs_types { self.types(symbol) } else { None };
        if needs_types && typed.is_none() {
            return None;
        }
        let arguments = || {
            let call = match (&typed, returns) {
                (Some((btf, function)), false) => Call::entry(btf, &function.prototype, convention),
                (Some((btf, function)), true) => Call::exit(btf, &function.prototype, convention),
                (None, false) => Call::unknown_entry(),
                (None, true) => Call::unknown_exit(),
            };
            Ok(declared(&call))
        };
        self.event(kind, format!("{}:{}", kind.name(), symbol.name), symbol.module.clone(), arguments).ok()
    }

    /// The types of a function, where it is said to be.
    fn types(&self, symbol: &Symbol) -> Option<(Arc<Btf>, Function)> {
        let kernel = self.finder().ok()?.kernel().ok()?;
        let btf = match &symbol.module {
            None => Arc::clone(kernel.vmlinux()),
            Some(name) => {
                let mut modules = self.modules.borrow_mut();
                modules.entry(name.clone()).or_insert_with(|| kernel.module(name).ok()).clone()?
            }
        };
        let function = btf.function(&symbol.name)?;
        Some((btf, function))
    }

    fn uprobes(&self, spec: &Spec) -> Result<Vec<Event>> {
        if !machine::has_uprobes() {
            bail!("this kernel has no uprobes (CONFIG_UPROBES is off); {}", alternatives(spec));
        }
        let (file, symbol) = spec.target.rsplit_once(':').unwrap_or((&spec.target, "*"));
        let path = binary::find(file)?;
        let binary = Binary::open(&path)?;
        let wanted = Wanted::new(symbol)?;
        let call = if spec.kind == Kind::Uretprobe { Call::unknown_exit() } else { Call::unknown_entry() };
        let names: Vec<&str> = match &wanted {
            // A place in the file needs no name.
            Wanted::Exactly(place) if place.starts_with("0x") => vec![place],
            Wanted::Exactly(name) => binary.offsets_of(name).map(|_| vec![name.as_str()])?,
            Wanted::Like(..) => binary.functions().filter(|name| wanted.is(name)).collect(),
        };
        if names.is_empty() {
            bail!("no function of {} matches '{symbol}'{}", path.display(), wanted.nearest(binary.functions()));
        }
        let event = |name: &str| {
            let name = format!("{}:{}:{name}", spec.kind.name(), path.display());
            self.event(spec.kind, name, None, || Ok(declared(&call)))
        };
        names.into_iter().map(event).collect()
    }

    fn usdts(&self, spec: &Spec) -> Result<Vec<Event>> {
        if !machine::has_uprobes() {
            bail!("this kernel has no uprobes (CONFIG_UPROBES is off); {}", alternatives(spec));
        }
        let (file, wanted) = split_usdt(&spec.target);
        let path = binary::find(file)?;
        let probes = Binary::open(&path)?.probes()?;
        if probes.is_empty() {
            bail!("{} has no USDT probes", path.display());
        }
        let wanted = Wanted::new(wanted)?;
        let full = |probe: &Usdt| format!("{}:{}", probe.provider, probe.name);
        let found = probes.iter().filter(|probe| wanted.is(&full(probe)) || wanted.is(&probe.name));
        let event = |probe: &Usdt| {
            let values = || probes::usdt_values(probe).into_iter();
            let name = format!("{}:{}:{}", spec.kind.name(), path.display(), full(probe));
            self.event(spec.kind, name, None, || {
                Ok(values().map(|value| Argument { name: value.name, c_type: value.c_type }).collect())
            })
        };
        let events: Vec<_> = found.map(event).collect::<Result<_>>()?;
        if events.is_empty() {
            let names: Vec<_> = probes.iter().map(full).collect();
            let near = wanted.nearest(names.iter().map(String::as_str));
            bail!("{} has no USDT probe '{}'{near}", path.display(), wanted.text());
        }
        Ok(events)
    }

    fn profile(&self, spec: &Spec) -> Result<Vec<Event>> {
        let shown = PROFILE.split_once(':').map_or("", |(_, rate)| rate);
        let wanted = Wanted::new(&spec.target)?;
        if !wanted.is_exact() && wanted.is(shown) {
            return Ok(vec![self.profile_event()?]);
        }
        let found = probes::profile(spec)?;
        let arguments = || Ok(found.format.fields.iter().map(field).collect());
        Ok(vec![self.event(Kind::Profile, found.name.clone(), None, arguments)?])
    }

    fn profile_event(&self) -> Result<Event> {
        let specs = spec::parse(&[PROFILE.to_owned()])?;
        let event = specs.first().map(|spec| self.profile(spec)).transpose()?.into_iter().flatten().next();
        event.context(PROFILE)
    }

    fn structures(&self, name: &str) -> Result<Vec<Structure>> {
        let kernel = Kernel::load(Path::new(probes::BTF))?;
        let mut blobs = vec![(None, Arc::clone(kernel.vmlinux()))];
        let wanted = Wanted::new(name)?;
        let mut structures = Vec::new();
        // Most are the kernel's own: modules are not read without need.
        let is_found = |btf: &Btf| wanted.is_exact() && btf.structure_named(name).is_some();
        if !is_found(kernel.vmlinux()) {
            let modules = kernel.modules().into_iter();
            blobs.extend(modules.filter_map(|module| kernel.module(&module).ok().map(|btf| (Some(module), btf))));
        }
        for (module, btf) in &blobs {
            if wanted.is_exact() {
                let found = btf.structure_named(name);
                structures.extend(found.map(|id| structure(btf, name, id, module.clone(), true)));
            } else {
                for name in btf.structures().filter(|name| wanted.is(name)) {
                    let found = btf.structure_named(name);
                    structures.extend(found.map(|id| structure(btf, name, id, module.clone(), self.verbose)));
                }
            }
        }
        if structures.is_empty() {
            let names = blobs.iter().flat_map(|(_, btf)| btf.structures());
            bail!("the kernel's types have no structure '{name}'{}", wanted.nearest(names));
        }
        Ok(structures)
    }

    /// An event, with its arguments if they are wanted.
    fn event(
        &self,
        kind: Kind,
        event: String,
        module: Option<String>,
        arguments: impl FnOnce() -> Result<Vec<Argument>>,
    ) -> Result<Event> {
        let arguments = if self.verbose { Some(arguments()?) } else { None };
        Ok(Event { event, kind: kind.name(), module, arguments })
    }
}

/// Which names are meant.
enum Wanted {
    Exactly(String),
    Like(glob::Pattern),
}

impl Wanted {
    fn new(text: &str) -> Result<Self> {
        Ok(probes::pattern(text)?.map_or_else(|| Self::Exactly(text.to_owned()), Self::Like))
    }

    /// A name may be written with where it is before it.
    fn without_module(self) -> Self {
        match self {
            Self::Exactly(name) => Self::Exactly(name.rsplit(':').next().unwrap_or_default().to_owned()),
            like @ Self::Like(_) => like,
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Exactly(wanted) => wanted == name,
            Self::Like(pattern) => pattern.matches(name),
        }
    }

    fn is_exact(&self) -> bool {
        matches!(self, Self::Exactly(_))
    }

    fn text(&self) -> &str {
        match self {
            Self::Exactly(wanted) => wanted,
            Self::Like(pattern) => pattern.as_str(),
        }
    }

    /// `; did you mean …?`, or nothing.
    fn nearest<'a>(&self, names: impl Iterator<Item = &'a str>) -> String {
        did_you_mean(&without_wildcards(self.text()), names)
    }
}

fn without_wildcards(pattern: &str) -> String {
    pattern.chars().filter(|c| !matches!(c, '*' | '?' | '[' | ']')).collect()
}

/// The file, and which of its static probes: `PROVIDER:NAME`, a part of that, or all.
fn split_usdt(target: &str) -> (&str, &str) {
    if Path::new(target).exists() {
        return (target, "*");
    }
    match target.rmatch_indices(':').map(|(at, _)| at).take(2).last() {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, "*"),
    }
}

fn argument(c_type: &str, name: &str) -> Argument {
    Argument { name: name.to_owned(), c_type: c_type.to_owned() }
}

fn declared(call: &Call<'_>) -> Vec<Argument> {
    call.declarations().into_iter().map(|(c_type, name)| Argument { name, c_type }).collect()
}

/// A tracepoint's field, with an array's length at its type.
fn field(field: &Field) -> Argument {
    let is_structure = field.c_type.starts_with("struct ") || field.c_type.starts_with("union ");
    let length = match &field.kind {
        format::Kind::Array(element) if !is_structure => format!("[{}]", field.bytes.len() / element.size.max(1)),
        format::Kind::Dynamic { .. } => "[]".to_owned(),
        _ => String::new(),
    };
    Argument { name: field.name.clone(), c_type: field.c_type.clone() + &length }
}

fn structure(btf: &Btf, name: &str, id: TypeId, module: Option<String>, verbose: bool) -> Structure {
    let members = || {
        let fields = btf.fields(id).map(|field| {
            let (start, bits) = (field.member.bit_offset, field.member.bit_size);
            Member {
                name: field.name.to_owned(),
                c_type: btf.type_name(field.member.type_id),
                offset: start / 8,
                bit: bits.map(|_| start % 8),
                bits,
            }
        });
        fields.collect()
    };
    Structure { structure: name.to_owned(), module, size: btf.size(id), members: verbose.then(members) }
}
