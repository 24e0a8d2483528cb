//! Says what can be traced on this machine, in the spelling that `-e` takes, and what the arguments of each event are.

use std::{cell::OnceCell, collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{Finder, checked, profile, raw_tracepoint, symbols::Symbol, syscall, tracepoint, wanted::Wanted};
use crate::{
    btf::{Btf, Function, Kernel, TypeId},
    values::arguments::Parameters,
};
use relay_trace::{
    condition::spec::{self, ProbeKind, Spec},
    form::format::{self, Field},
    similar::did_you_mean,
};

/// What the names of structures begin with.
const STRUCTURES: [&str; 4] = ["struct:", "struct ", "union:", "union "];

/// Something that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Found {
    /// An event.
    Event(Listed),
    /// A type, to find the way to a value that is to be recorded.
    Structure(Structure),
}

/// An event that can be recorded, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// As it is written after `-e`.
    pub event: String,
    /// Its kind's long name.
    pub kind: &'static str,
    /// The module whose function it is.
    pub module: Option<String>,
    /// What it has, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<Declared>>,
}

/// One argument of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Declared {
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
    pub members: Option<Vec<ListedMember>>,
}

/// One member of a structure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedMember {
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

impl Found {
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
pub fn list(patterns: &[String], verbose: bool) -> Result<Vec<Found>> {
    let lister = Lister { finder: OnceCell::new(), verbose };
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
pub(crate) struct Lister {
    finder: OnceCell<Finder>,
    /// Arguments are wanted.
    verbose: bool,
}

impl Declared {
    /// Something of a type.
    pub(crate) fn new(c_type: &str, name: &str) -> Self {
        Self { name: name.to_owned(), c_type: c_type.to_owned() }
    }

    /// All that can be named of a function's call.
    pub(crate) fn of(call: &Parameters<'_>) -> Vec<Self> {
        call.declarations().into_iter().map(|(c_type, name)| Self { name, c_type }).collect()
    }

    /// A tracepoint's field, with an array's length at its type.
    pub(crate) fn field(field: &Field) -> Self {
        let is_structure = field.c_type.starts_with("struct ") || field.c_type.starts_with("union ");
        let length = match &field.kind {
            format::FieldKind::Array(element) if !is_structure => {
                format!("[{}]", field.bytes.len() / element.size.max(1))
            }
            format::FieldKind::Dynamic { .. } => "[]".to_owned(),
            _ => String::new(),
        };
        Self { name: field.name.clone(), c_type: field.c_type.clone() + &length }
    }
}

impl Lister {
    fn find(&self, spec: &Spec) -> Result<Vec<Found>> {
        if let Some(name) = STRUCTURES.iter().find_map(|prefix| spec.text.strip_prefix(prefix)) {
            let structures = self.structures(name.trim())?;
            return Ok(structures.into_iter().map(Found::Structure).collect());
        }
        let is_word = spec.kind == ProbeKind::Tracepoint && !spec.text.contains(':');
        let events = if is_word { self.search(&spec.target)? } else { (checked(spec)?.list)(self, spec)? };
        Ok(events.into_iter().map(Found::Event).collect())
    }

    pub(crate) fn finder(&self) -> Result<&Finder> {
        if self.finder.get().is_none() {
            let _ = self.finder.set(Finder::new(false)?);
        }
        self.finder.get().context("what can be recorded")
    }

    /// Whether arguments are wanted.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// An event as it is listed, with its arguments if they are wanted.
    pub(crate) fn listed(&self, kind: ProbeKind, event: String, arguments: impl FnOnce() -> Vec<Declared>) -> Listed {
        Listed { event, kind: kind.name(), module: None, arguments: self.verbose.then(arguments) }
    }

    /// The types of a function, where it is said to be.
    pub(crate) fn types(&self, symbol: &Symbol) -> Option<(Arc<Btf>, Function)> {
        let kernel = self.finder().ok()?.kernel().ok()?;
        let btf = match &symbol.module {
            None => Arc::clone(kernel.vmlinux()),
            Some(name) => kernel.module(name).ok()?,
        };
        let function = btf.function(&symbol.name)?;
        Some((btf, function))
    }

    /// Events of every kind that can be found without saying where, by a part of their names.
    fn search(&self, word: &str) -> Result<Vec<Listed>> {
        let wanted = match Wanted::new(word)? {
            Wanted::Exactly(word) => Wanted::new(&format!("*{word}*"))?,
            pattern @ Wanted::Like(_) => pattern,
        };
        let finder = self.finder()?;
        let catalogue = finder.tracepoints();
        let (mut known, mut events) = (Vec::new(), Vec::new());
        for name in catalogue.names() {
            let bare = name.split_once(':').map_or(name.as_str(), |(_, bare)| bare);
            known.push(bare);
            if wanted.is(name) || wanted.is(bare) {
                events.push(tracepoint::listed(self, name, catalogue));
            }
        }
        known.extend(syscall::known(catalogue));
        let calls = syscall::known(catalogue).filter(|name| wanted.is(name));
        events.extend(calls.map(|name| syscall::listed(self, name, catalogue)));
        if let Ok(kernel) = finder.kernel() {
            known.extend(kernel.vmlinux().tracepoints());
            let names = kernel.vmlinux().tracepoints().filter(|name| wanted.is(name));
            events.extend(names.filter_map(|name| raw_tracepoint::listed(self, name, kernel.vmlinux())));
        }
        let functions =
            [ProbeKind::Kprobe, ProbeKind::Fentry].into_iter().find(|kind| (super::room(*kind).lacks)().is_none());
        if let Some(kind) = functions {
            let every = glob::Pattern::new("*")?;
            let symbols: Vec<_> = finder.symbols()?.matching(&every).map(|symbol| symbol.name.as_str()).collect();
            if symbols.iter().any(|name| wanted.is(name)) {
                events.extend((super::room(kind).list)(self, &Spec::of(kind, wanted.text()))?);
            }
            known.extend(symbols);
        }
        if word == ProbeKind::Profile.name() {
            events.push(profile::shown(self)?);
        }
        if !events.is_empty() {
            return Ok(events);
        }
        if let Some(kind) = ProbeKind::all().find(|kind| kind.name() == word) {
            bail!("nothing has '{word}' in its name; events of that kind: relayd list {word}:{}", kind.target());
        }
        let left_out = match functions {
            Some(_) => "",
            None => " (the kernel's functions are left out: it has neither kprobes nor trampolines)",
        };
        bail!("nothing has '{word}' in its name{left_out}{}", did_you_mean(word, known));
    }

    fn structures(&self, name: &str) -> Result<Vec<Structure>> {
        let kernel = Kernel::load(Path::new(super::BTF))?;
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
}

fn structure(btf: &Btf, name: &str, id: TypeId, module: Option<String>, verbose: bool) -> Structure {
    let members = || {
        let fields = btf.fields(id).map(|field| {
            let (start, bits) = (field.member.bit_offset, field.member.bit_size);
            ListedMember {
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

    fn listed(pattern: &str, verbose: bool) -> Result<Vec<Found>, String> {
        list(&[pattern.to_owned()], verbose).map_err(|error| format!("{error:#}"))
    }

    fn spelled(arguments: &[Declared]) -> Vec<String> {
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
        let fields: Vec<_> = format::Format::parse(text).unwrap().fields.iter().map(Declared::field).collect();
        let expected = ["char[] filename", "char[16] comm", "unsigned long[6] args", "struct pair pair", "void * p"];
        assert_eq!(spelled(&fields), expected);
    }

    /// Needs `/sys/kernel/btf/vmlinux`.
    #[test]
    fn structures_have_members_with_their_places() {
        for pattern in ["struct:list_head", "struct list_head"] {
            let items = listed(pattern, false).unwrap();
            let [Found::Structure(structure)] = &items[..] else { panic!("{items:?}") };
            let member = |name: &str, offset| ListedMember {
                name: name.to_owned(),
                c_type: "struct list_head *".to_owned(),
                offset,
                bit: None,
                bits: None,
            };
            assert_eq!(structure.members.as_deref(), Some(&[member("next", 0), member("prev", 8)][..]));
            assert_eq!((structure.size, items[0].name().as_str()), (Some(16), "struct:list_head"));
        }
        let names: Vec<_> = listed("struct:list_*", false).unwrap().iter().map(Found::name).collect();
        assert!(names.is_sorted() && names.contains(&"struct:list_head".to_owned()), "{names:?}");
        let error = listed("struct:list_haed", false).unwrap_err();
        assert!(error.contains("did you mean list_head"), "{error}");
    }

    #[test]
    fn functions_of_programs_are_listed() {
        if !crate::host::has_uprobes() {
            return;
        }
        let own = std::env::current_exe().unwrap().display().to_string();
        let items = listed(&format!("uprobe:{own}"), false).unwrap();
        let names: Vec<_> = items.iter().map(Found::name).collect();
        assert!(names.is_sorted() && names.contains(&format!("uprobe:{own}:main")), "{}", names.len());
        let items = listed(&format!("ur:{own}:main"), true).unwrap();
        let retval = Declared::new("u64", "retval");
        let expected = Listed {
            event: format!("uretprobe:{own}:main"),
            kind: "uretprobe",
            module: None,
            arguments: Some(vec![retval]),
        };
        assert_eq!(items, [Found::Event(expected)]);
        let error = listed(&format!("uprobe:{own}:mian*"), false).unwrap_err();
        assert!(error.contains("did you mean main"), "{error}");
        let error = listed(&format!("usdt:{own}"), false).unwrap_err();
        assert!(error.contains("has no USDT probes"), "{error}");
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
}
