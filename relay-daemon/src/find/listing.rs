//! Says what can be traced on this machine, in the spelling that `-e` takes, and what the arguments of each event are.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    Finder, alternatives,
    symbols::{Symbol, Symbols},
};
use crate::{
    binary::{self, Binary, usdt::Usdt},
    btf::{Btf, Function, Kernel, Prototype, TypeId},
    events::Catalogue,
    find, host,
    values::arguments::{Call, Convention},
};
use relay_trace::{
    condition::spec::{self, Kind, Spec},
    form::format::{self, Field},
    similar::did_you_mean,
};

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
            Kind::Uprobe | Kind::Uretprobe | Kind::Usdt if !host::has_uprobes() => {
                bail!("this kernel has no uprobes (CONFIG_UPROBES is off); {}", alternatives(spec))
            }
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
        let wanted = match find::pattern(word)? {
            Some(pattern) => pattern,
            None => glob::Pattern::new(&format!("*{word}*"))?,
        };
        let every = glob::Pattern::new("*")?;
        let finder = self.finder()?;
        let (mut known, mut events) = (Vec::new(), Vec::new());
        for name in finder.tracepoints().names() {
            let bare = name.split_once(':').map_or(name.as_str(), |(_, bare)| bare);
            known.push(bare);
            if wanted.matches(name) || wanted.matches(bare) {
                events.push(self.tracepoint(name, finder.tracepoints()));
            }
            if let Some(name) = name.strip_prefix(SYSCALLS) {
                known.push(name);
                if wanted.matches(name) {
                    events.push(self.system_call(name, finder.tracepoints()));
                }
            }
        }
        if let Ok(kernel) = finder.kernel() {
            known.extend(kernel.vmlinux().tracepoints());
            let names = kernel.vmlinux().tracepoints().filter(|name| wanted.matches(name));
            events.extend(names.filter_map(|name| self.raw_tracepoint(name, kernel.vmlinux())));
        }
        let functions = [(Kind::Kprobe, host::has_kprobes()), (Kind::Fentry, host::has_trampolines())];
        let functions = functions.into_iter().find(|(_, has)| *has);
        if let Some((kind, _)) = functions {
            let symbols = finder.symbols()?;
            events.extend(self.matching(kind, symbols, &wanted));
            known.extend(symbols.matching(&every).map(|symbol| symbol.name.as_str()));
        }
        if word == Kind::Profile.name() {
            events.push(self.sampler(PROFILE)?);
        }
        if !events.is_empty() {
            return Ok(events);
        }
        if let Some(kind) = Kind::all().find(|kind| kind.name() == word) {
            bail!("nothing has '{word}' in its name; events of that kind: relayd list {word}:{}", kind.target());
        }
        let left_out = match functions {
            Some(_) => "",
            None => " (the kernel's functions are left out: it has neither kprobes nor trampolines)",
        };
        let near = did_you_mean(word, known);
        bail!("nothing has '{word}' in its name{left_out}{near}");
    }

    fn tracepoints(&self, spec: &Spec) -> Result<Vec<Event>> {
        let catalogue = self.finder()?.tracepoints();
        let wanted = Wanted::new(&spec.target)?;
        let names = catalogue.names().iter().filter(|name| wanted.is(name));
        let events: Vec<_> = names.map(|name| self.tracepoint(name, catalogue)).collect();
        if events.is_empty() {
            bail!("{}", catalogue.not_found(&spec.target, wanted.is_exact()));
        }
        Ok(events)
    }

    fn tracepoint(&self, name: &str, catalogue: &Catalogue) -> Event {
        self.event(Kind::Tracepoint, name.to_owned(), || fields(name, catalogue))
    }

    fn raw_tracepoints(&self, spec: &Spec) -> Result<Vec<Event>> {
        let btf = self.finder()?.kernel()?.vmlinux();
        let wanted = Wanted::new(&spec.target)?.without_place();
        let names = btf.tracepoints().filter(|name| wanted.is(name));
        let events: Vec<_> = names.filter_map(|name| self.raw_tracepoint(name, btf)).collect();
        if events.is_empty() {
            bail!("there is no raw tracepoint '{}'{}", spec.target, wanted.nearest(btf.tracepoints()));
        }
        Ok(events)
    }

    fn raw_tracepoint(&self, name: &str, btf: &Btf) -> Option<Event> {
        let prototype = btf.tracepoint(name)?;
        let arguments = || declared(&Call::entry(btf, &prototype, Convention::Context));
        Some(self.event(Kind::RawTracepoint, format!("{}:{name}", Kind::RawTracepoint.name()), arguments))
    }

    fn system_calls(&self, spec: &Spec) -> Result<Vec<Event>> {
        let catalogue = self.finder()?.tracepoints();
        let known = || catalogue.names().iter().filter_map(|name| name.strip_prefix(SYSCALLS));
        if known().next().is_none() {
            bail!(
                "this kernel does not name system calls (CONFIG_FTRACE_SYSCALLS is off); raw_syscalls:* has their numbers"
            );
        }
        let wanted = Wanted::new(&spec.target)?;
        let names = known().filter(|name| wanted.is(name));
        let events: Vec<_> = names.map(|name| self.system_call(name, catalogue)).collect();
        if events.is_empty() {
            bail!("there is no system call '{}'{}", spec.target, wanted.nearest(known()));
        }
        Ok(events)
    }

    fn system_call(&self, name: &str, catalogue: &Catalogue) -> Event {
        let arguments = || {
            let mut arguments = fields(&format!("{SYSCALLS}{name}"), catalogue);
            arguments.retain(|argument| argument.name != "__syscall_nr");
            if find::syscalls::returns(name) {
                arguments.extend(
                    [("long", "ret"), ("u64", "duration_ns")]
                        .map(|(c_type, name)| Argument { name: name.to_owned(), c_type: c_type.to_owned() }),
                );
            }
            arguments
        };
        self.event(Kind::Syscall, format!("{}:{name}", Kind::Syscall.name()), arguments)
    }

    fn functions(&self, spec: &Spec) -> Result<Vec<Event>> {
        match spec.kind {
            Kind::Kprobe | Kind::Kretprobe if !host::has_kprobes() => {
                bail!("this kernel has no kprobes (CONFIG_KPROBES is off); {}", alternatives(spec));
            }
            Kind::Fentry | Kind::Fexit if !host::has_trampolines() => {
                bail!("this kernel lets no trampolines be put at its functions; {}", alternatives(spec));
            }
            _ => {}
        }
        let finder = self.finder()?;
        let symbols = finder.symbols()?;
        let Some(pattern) = find::pattern(&spec.target)? else {
            let name = spec.target.rsplit_once(':').map_or(&*spec.target, |(_module, name)| name);
            if spec.kind != Kind::Fentry && spec.kind != Kind::Fexit && find::functions::blacklist().contains(name) {
                bail!("kprobes are not allowed in {name}: the kernel itself uses it to handle them");
            }
            return match symbols.find(name).and_then(|symbol| self.function(spec.kind, symbol)) {
                Some(event) => Ok(vec![event]),
                None => bail!("{}", finder.unknown_function(name)?),
            };
        };
        let events = self.matching(spec.kind, symbols, &pattern);
        if events.is_empty() {
            let near = symbols.nearest(&spec.target);
            bail!("no function of the kernel matches '{}'{near}", spec.target);
        }
        Ok(events)
    }

    /// Events of the functions that a pattern means.
    fn matching(&self, kind: Kind, symbols: &Symbols, pattern: &glob::Pattern) -> Vec<Event> {
        let blacklist = if is_trampoline(kind) { HashSet::new() } else { find::functions::blacklist() };
        let allowed = symbols.matching(pattern).filter(|symbol| !blacklist.contains(&symbol.name));
        allowed.filter_map(|symbol| self.function(kind, symbol)).collect()
    }

    /// An event of a function; nothing where it needs types and there are none.
    fn function(&self, kind: Kind, symbol: &Symbol) -> Option<Event> {
        let typed = if self.verbose || is_trampoline(kind) { self.types(symbol) } else { None };
        if is_trampoline(kind) && typed.is_none() {
            return None;
        }
        let arguments = || {
            let typed = typed.as_ref().map(|(btf, function)| (&**btf, &function.prototype));
            declared(&call(kind, typed))
        };
        let event = self.event(kind, format!("{}:{}", kind.name(), symbol.name), arguments);
        Some(Event { module: symbol.module.clone(), ..event })
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
        let (file, symbol) = spec.target.rsplit_once(':').unwrap_or((&spec.target, "*"));
        let path = binary::find(file)?;
        let binary = Binary::open(&path)?;
        let wanted = Wanted::new(symbol)?;
        let names: Vec<&str> = match &wanted {
            // A place in the file needs no name.
            Wanted::Exactly(place) if place.starts_with("0x") => vec![place],
            Wanted::Exactly(name) => binary.offsets_of(name).map(|_| vec![name.as_str()])?,
            Wanted::Like(..) => binary.functions().filter(|name| wanted.is(name) && can_be_written(name)).collect(),
        };
        if names.is_empty() {
            let stripped =
                if binary.is_stripped() { "; it is stripped: only functions that it exports are known" } else { "" };
            let near = wanted.nearest(binary.functions());
            bail!("no function of {} matches '{symbol}'{near}{stripped}", path.display());
        }
        let event = |name: &str| {
            let name = format!("{}:{}:{name}", spec.kind.name(), path.display());
            self.event(spec.kind, name, || declared(&call(spec.kind, None)))
        };
        Ok(names.into_iter().map(event).collect())
    }

    fn usdts(&self, spec: &Spec) -> Result<Vec<Event>> {
        let (file, wanted) = find::user::split_usdt(&spec.target);
        let path = binary::find(file)?;
        let probes = Binary::open(&path)?.probes()?;
        if probes.is_empty() {
            bail!("{} has no USDT probes", path.display());
        }
        let wanted = Wanted::new(wanted)?;
        let full = |probe: &Usdt| format!("{}:{}", probe.provider, probe.name);
        let found = probes.iter().filter(|probe| wanted.is(&full(probe)) || wanted.is(&probe.name));
        let found = found.filter(|probe| can_be_written(&probe.provider) && can_be_written(&probe.name));
        let event = |probe: &Usdt| {
            let values = || find::user::usdt_values(probe).into_iter();
            let name = format!("{}:{}:{}", spec.kind.name(), path.display(), full(probe));
            self.event(spec.kind, name, || {
                values().map(|value| Argument { name: value.name, c_type: value.c_type }).collect()
            })
        };
        let events: Vec<_> = found.map(event).collect();
        if events.is_empty() {
            let has_provider = wanted.text().contains(':');
            let name = |probe: &Usdt| if has_provider { full(probe) } else { probe.name.clone() };
            let names: Vec<_> = probes.iter().map(name).collect();
            let near = wanted.nearest(names.iter().map(String::as_str));
            bail!("{} has no USDT probe '{}'{near}", path.display(), wanted.text());
        }
        Ok(events)
    }

    fn profile(&self, spec: &Spec) -> Result<Vec<Event>> {
        let wanted = Wanted::new(&spec.target)?;
        let is_any = !wanted.is_exact() && PROFILE.split_once(':').is_some_and(|(_, shown)| wanted.is(shown));
        Ok(vec![self.sampler(if is_any { PROFILE } else { &spec.text })?])
    }

    fn sampler(&self, text: &str) -> Result<Event> {
        let specs = spec::parse(&[text.to_owned()])?;
        let found = find::user::profile(specs.first().context("no rate")?)?;
        Ok(self.event(Kind::Profile, found.name, || found.format.fields.iter().map(field).collect()))
    }

    fn structures(&self, name: &str) -> Result<Vec<Structure>> {
        let kernel = Kernel::load(Path::new(find::BTF))?;
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

    /// An event of the kernel's own, with its arguments if they are wanted.
    fn event(&self, kind: Kind, event: String, arguments: impl FnOnce() -> Vec<Argument>) -> Event {
        Event { event, kind: kind.name(), module: None, arguments: self.verbose.then(arguments) }
    }
}

/// Which names are meant.
enum Wanted {
    Exactly(String),
    Like(glob::Pattern),
}

impl Wanted {
    fn new(text: &str) -> Result<Self> {
        Ok(find::pattern(text)?.map_or_else(|| Self::Exactly(text.to_owned()), Self::Like))
    }

    /// A name may be written with where it is before it.
    fn without_place(self) -> Self {
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
        did_you_mean(self.text(), names)
    }
}

fn declared(call: &Call<'_>) -> Vec<Argument> {
    call.declarations().into_iter().map(|(c_type, name)| Argument { name, c_type }).collect()
}

fn is_trampoline(kind: Kind) -> bool {
    matches!(kind, Kind::Fentry | Kind::Fexit)
}

/// What can be named of a function's call.
fn call<'a>(kind: Kind, typed: Option<(&'a Btf, &Prototype)>) -> Call<'a> {
    let convention = if is_trampoline(kind) { Convention::Context } else { Convention::Registers };
    let returns = matches!(kind, Kind::Kretprobe | Kind::Fexit | Kind::Uretprobe);
    match (typed, returns) {
        (Some((btf, prototype)), false) => Call::entry(btf, prototype, convention),
        (Some((btf, prototype)), true) => Call::exit(btf, prototype, convention),
        (None, false) => Call::unknown_entry(),
        (None, true) => Call::unknown_exit(),
    }
}

/// Whether a name stays one when [`spec::parse`] takes it apart, and does no harm to terminals.
fn can_be_written(name: &str) -> bool {
    !name.contains(|c: char| c.is_control() || c.is_whitespace() || ",:+()[]*?\"".contains(c))
}

/// The fields of a tracepoint; nothing of one whose layout is not understood.
fn fields(name: &str, catalogue: &Catalogue) -> Vec<Argument> {
    match catalogue.event(name, false) {
        Ok(event) => event.format.fields.iter().map(field).collect(),
        Err(error) => {
            log::warn!("{name} cannot be recorded: {error:#}");
            Vec::new()
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(pattern: &str, verbose: bool) -> Result<Vec<Item>, String> {
        list(&[pattern.to_owned()], verbose).map_err(|error| format!("{error:#}"))
    }

    fn spelled(arguments: &[Argument]) -> Vec<String> {
        arguments
            .iter()
            .map(|argument| format!("{} {}", argument.c_type.replace(" __user", ""), argument.name))
            .collect()
    }

    #[test]
    fn fields_have_the_lengths_of_their_arrays() {
        let text = "ID: 1\nformat:\n\
            \tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;\n\
            \tfield:char comm[16];\toffset:12;\tsize:16;\tsigned:0;\n\
            \tfield:unsigned long args[6];\toffset:32;\tsize:48;\tsigned:0;\n\
            \tfield:struct pair pair;\toffset:80;\tsize:12;\tsigned:0;\n\
            \tfield:void * p;\toffset:96;\tsize:8;\tsigned:0;\n";
        let fields: Vec<_> = format::Format::parse(text).unwrap().fields.iter().map(field).collect();
        let expected = ["char[] filename", "char[16] comm", "unsigned long[6] args", "struct pair pair", "void * p"];
        assert_eq!(spelled(&fields), expected);
    }

    /// Needs `/sys/kernel/btf/vmlinux`.
    #[test]
    fn functions_have_what_can_be_recorded_of_them() {
        let kernel = Kernel::load(Path::new(find::BTF)).expect("this test needs /sys/kernel/btf/vmlinux");
        let btf = kernel.vmlinux();
        let read = btf.function("vfs_read").unwrap();
        let arguments = |kind| spelled(&declared(&call(kind, Some((btf, &read.prototype)))));
        let parameters = ["struct file * file", "char * buf", "size_t count", "loff_t * pos"];
        for kind in [Kind::Kprobe, Kind::Fentry] {
            assert_eq!(arguments(kind), parameters);
        }
        assert_eq!(arguments(Kind::Kretprobe), ["ssize_t retval"]);
        assert_eq!(arguments(Kind::Fexit), [&parameters[..], &["ssize_t retval"]].concat());
        let unknown = spelled(&declared(&call(Kind::Uprobe, None)));
        assert_eq!(unknown[..2], ["u64 arg0", "u64 arg1"]);
        assert_eq!(spelled(&declared(&call(Kind::Uretprobe, None))), ["u64 retval"]);
    }

    /// Needs `/sys/kernel/btf/vmlinux`.
    #[test]
    fn structures_have_members_with_their_places() {
        for pattern in ["struct:list_head", "struct list_head"] {
            let items = listed(pattern, false).unwrap();
            let [Item::Structure(structure)] = &items[..] else { panic!("{items:?}") };
            let member = |name: &str, offset| Member {
                name: name.to_owned(),
                c_type: "struct list_head *".to_owned(),
                offset,
                bit: None,
                bits: None,
            };
            assert_eq!(structure.members.as_deref(), Some(&[member("next", 0), member("prev", 8)][..]));
            assert_eq!((structure.size, items[0].name().as_str()), (Some(16), "struct:list_head"));
        }
        let names: Vec<_> = listed("struct:list_*", false).unwrap().iter().map(Item::name).collect();
        assert!(names.is_sorted() && names.contains(&"struct:list_head".to_owned()), "{names:?}");
        let error = listed("struct:list_haed", false).unwrap_err();
        assert!(error.contains("did you mean list_head"), "{error}");
    }

    #[test]
    fn functions_of_programs_are_listed() {
        if !host::has_uprobes() {
            return;
        }
        let own = std::env::current_exe().unwrap().display().to_string();
        let items = listed(&format!("uprobe:{own}"), false).unwrap();
        let names: Vec<_> = items.iter().map(Item::name).collect();
        assert!(names.is_sorted() && names.contains(&format!("uprobe:{own}:main")), "{}", names.len());
        let items = listed(&format!("ur:{own}:main"), true).unwrap();
        let retval = Argument { name: "retval".to_owned(), c_type: "u64".to_owned() };
        let expected = Event {
            event: format!("uretprobe:{own}:main"),
            kind: "uretprobe",
            module: None,
            arguments: Some(vec![retval]),
        };
        assert_eq!(items, [Item::Event(expected)]);
        let error = listed(&format!("uprobe:{own}:mian*"), false).unwrap_err();
        assert!(error.contains("did you mean main"), "{error}");
        let error = listed(&format!("usdt:{own}"), false).unwrap_err();
        assert!(error.contains("has no USDT probes"), "{error}");
    }

    #[test]
    fn probes_may_be_left_out_of_a_pattern() {
        for (target, expected) in [
            ("/nosuch/x:a:b*", ("/nosuch/x", "a:b*")),
            ("/nosuch/x:b*", ("/nosuch/x", "b*")),
            ("/nosuch/x", ("/nosuch/x", "*")),
            ("/nosuch/x:y:a:b", ("/nosuch/x:y", "a:b")),
        ] {
            assert_eq!(find::user::split_usdt(target), expected, "{target}");
        }
    }

    #[test]
    fn samples_and_what_cannot_be_listed() {
        let samples = |pattern| listed(pattern, false).map(|items| items[0].name());
        assert_eq!(samples("profile:*"), Ok("profile:hz:99".to_owned()));
        assert_eq!(samples("p:hz:49"), Ok("profile:hz:49".to_owned()));
        assert!(samples("profile:99").unwrap_err().contains("profile:hz:RATE"));
        assert!(samples("profile:hz:99(ip)").unwrap_err().contains("the name alone"));
        assert!(samples("profile:hz:99 if pid == 1").unwrap_err().contains("the name alone"));
    }

    #[test]
    fn names_that_would_be_taken_apart_are_left_out() {
        assert!(can_be_written("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.1@@V$1"));
        for name in ["a,b", "f(int)", "a b", "a\x1b[0m", "x::y", "a+4"] {
            assert!(!can_be_written(name), "{name}");
        }
    }
}
