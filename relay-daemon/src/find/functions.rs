//! Functions of the kernel, and raw tracepoints: what the kernel's types describe.

use std::{collections::HashSet, fs, path::Path, rc::Rc, sync::Arc};

use anyhow::{Context as _, Result, bail};

use super::{Finder, Found, alternatives, offset, pattern};
use crate::{
    btf::{Btf, Function, Prototype},
    events::{Event, Probe},
    host,
    kernel::preemption,
    values::arguments::{Call, Convention},
};
use relay_trace::{
    condition::spec::{Kind, Spec},
    similar::did_you_mean,
};

/// What the kernel itself is called where modules are named.
const VMLINUX: &str = "vmlinux";
/// Most functions that one pattern may mean.
const MOST: usize = 20_000;

impl Finder {
    /// Function and types by name: also those of a module that is loaded.
    pub(crate) fn function(&self, name: &str) -> Option<(Arc<Btf>, Option<String>, Function)> {
        self.kernel().ok()?.find_function(name)
    }

    pub(crate) fn kprobes(&self, spec: &Spec) -> Result<Vec<Event>> {
        if !host::has_kprobes() {
            bail!("this kernel has no kprobes (CONFIG_KPROBES is off); {}", alternatives(spec));
        }
        let returns = spec.kind == Kind::Kretprobe;
        let symbols = self.symbols()?;
        let (names, offset, explicit) = match pattern(&spec.target)? {
            Some(pattern) => (self.several(spec, &pattern)?, 0, false),
            None => {
                let (name, offset) = offset(&spec.target)?;
                if returns && offset != 0 {
                    bail!("'{}': a return has no offset", spec.text);
                }
                let name = self.of_module(name)?;
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
    pub(crate) fn calls<'a>(
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

    pub(crate) fn functions(&self, spec: &Spec) -> Result<Vec<Event>> {
        let returns = spec.kind == Kind::Fexit;
        let kernel = self.kernel()?;
        let (names, explicit) = match pattern(&spec.target)? {
            Some(pattern) => (self.several(spec, &pattern)?, false),
            None => (vec![self.of_module(&spec.target)?.to_owned()], true),
        };
        // A kprobe sees what a trampoline would miss, and has the same values; but at a return without its entry the arguments are gone.
        let has_values = !returns || self.latency;
        let is_closed = preemption::closes_trampolines();
        let by_kprobe = has_values && is_closed && host::has_kprobes();
        let forbidden = if by_kprobe { blacklist() } else { HashSet::new() };
        let mut events = Vec::new();
        for name in &names {
            let Some((btf, module, function)) = kernel.find_function(name) else {
                if explicit {
                    bail!("{}", self.unknown_function(name)?);
                }
                log::info!("left out {name}: the kernel's types do not have it");
                continue;
            };
            let typed = Some((&*btf, &function.prototype));
            let event = format!("{}:{name}", spec.kind.name());
            let found = if by_kprobe && !forbidden.contains(name) {
                log::info!("{event} is recorded by a kprobe: tasks are preempted here, and would close a trampoline");
                let (call, entry) = self.calls(typed, true, returns, Convention::Registers);
                Found { name: event, probe: Probe::Kprobe { function: name.clone(), offset: 0, returns }, call, entry }
            } else if is_closed && returns && self.latency {
                let why =
                    if by_kprobe { "kprobes are not allowed in this function" } else { "this kernel has no kprobes" };
                let error = format!(
                    "{event} cannot have durations here: a preempted task keeps the programs of others out, so that one call's entry could be paired with \
                     another's return; a kprobe would see every call, but {why}. Without --latency its returns are recorded"
                );
                if explicit {
                    bail!("{error}");
                }
                log::info!("left out: {error}");
                continue;
            } else {
                let (call, _) = self.calls(typed, true, returns, Convention::Context);
                let probe = Probe::Function { name: name.clone(), id: function.id, module, returns };
                Found { name: event, probe, call, entry: (self.latency && returns).then(Call::nothing) }
            };
            events.push(self.event(spec, explicit, found)?);
        }
        Ok(events)
    }

    /// Of `[MODULE:]FUNCTION` the function, when the module has it.
    fn of_module<'t>(&self, target: &'t str) -> Result<&'t str> {
        let Some((module, name)) = target.rsplit_once(':') else { return Ok(target) };
        check_module(module)?;
        if let Some(symbol) = self.symbols()?.find(name) {
            let found = symbol.module.as_deref().unwrap_or(VMLINUX);
            if found != module {
                bail!("'{target}': {name} is a function of {found}, not of {module}");
            }
        }
        Ok(name)
    }

    /// The functions that a pattern means, `[MODULE:]PATTERN`.
    fn several(&self, spec: &Spec, whole: &glob::Pattern) -> Result<Vec<String>> {
        let (module, pattern) = match spec.target.rsplit_once(':') {
            Some((module, rest)) => (Some(module), glob::Pattern::new(rest)?),
            None => (None, whole.clone()),
        };
        module.map_or(Ok(()), check_module)?;
        let symbols = self.symbols()?.matching(&pattern);
        let meant =
            symbols.filter(|symbol| module.is_none_or(|name| symbol.module.as_deref().unwrap_or(VMLINUX) == name));
        let names: Vec<_> = meant.map(|symbol| symbol.name.clone()).collect();
        match names.len() {
            0 => bail!("no function of the kernel matches '{}'", spec.target),
            count if count > MOST => bail!("'{}' means {count} functions; {MOST} are the most", spec.text),
            _ => Ok(names),
        }
    }

    pub(crate) fn unknown_function(&self, name: &str) -> Result<String> {
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

    pub(crate) fn raw_tracepoints(&self, spec: &Spec) -> Result<Vec<Event>> {
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

    /// Of a return without its entry, the arguments are not to be had.
    pub(crate) fn explain_return(&self, error: anyhow::Error, probe: &Probe) -> anyhow::Error {
        match probe {
            Probe::Kprobe { returns: true, .. } | Probe::Uprobe { returns: true, .. } if !self.latency => {
                error.context("at the return the arguments are gone; --latency keeps those of the entry")
            }
            _ => error,
        }
    }
}

/// That a module is there whose functions are meant: loaded, or built in.
fn check_module(module: &str) -> Result<()> {
    if module == VMLINUX || Path::new("/sys/module").join(module).is_dir() {
        return Ok(());
    }
    bail!("the module {module} is not loaded; `modprobe {module}` loads it")
}

/// Functions that kprobes are not allowed in. The kernel tells in debugfs; where that is not mounted, attaching fails.
pub(crate) fn blacklist() -> HashSet<String> {
    let list = fs::read_to_string("/sys/kernel/debug/kprobes/blacklist").unwrap_or_default();
    list.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}
