//! Kernel functions' entries and exits by trampolines: fentry and fexit.

use std::{collections::HashSet, os::fd::AsFd as _, sync::Arc};

use anyhow::{Result, bail};
use relay_trace::condition::spec::{Argument, ProbeKind, Spec};

use super::{
    Event, Finder, Found, Probe, Room, call_of,
    functions::{blacklist, check_count, listed, untyped},
    kprobe::Kprobe,
    listing::{Listed, Lister},
};
use crate::{
    host,
    kernel::{
        attach::{Attached, Traced},
        hook::Hook,
        preemption,
        served::Served,
    },
    values::{arguments::Convention, layout::RecordedValue},
};

/// The room of fentry and fexit.
pub(super) const ROOM: Room = Room { lacks, find, list };

/// A function of the kernel.
#[derive(Debug)]
struct Trampoline {
    function: String,
    /// Its BTF id.
    id: u32,
    /// The module that has it.
    module: Option<String>,
    /// To its return.
    returns: bool,
}

impl Probe for Trampoline {
    fn hook(&self) -> Hook<'static> {
        Hook::Entry(self.id, None)
    }

    fn can_run_in_nmi(&self) -> bool {
        true
    }

    fn attach(&self, event: &Served<'_>, to: &mut Attached) -> Result<()> {
        let module = self.module.as_deref().map(|module| to.module(module)).transpose()?;
        let module = module.as_ref().map(|module| module.as_fd());
        let function = Traced { id: self.id, module, returns: self.returns };
        to.trampoline(event, function).map_err(|error| self.explain(error, event))?;
        if event.is_pair {
            let entry = to.trampoline(&event.entry(), Traced { returns: false, ..function });
            entry.map_err(|error| self.explain(error, event))?;
        }
        Ok(())
    }

    fn hidden(&self, finder: &Finder, argument: &Argument) -> Result<Option<RecordedValue>> {
        let function = finder.function(&self.function);
        let typed = function.as_ref().map(|(btf, _, function)| (&**btf, &function.prototype));
        call_of(typed, self.returns, Convention::Context).select(argument).map(Some)
    }
}

impl Trampoline {
    /// Of a kernel, or a function, without fentry.
    fn explain(&self, error: anyhow::Error, event: &Served<'_>) -> anyhow::Error {
        let advice = if host::has_kprobes() {
            format!("{}:{} would work here", if self.returns { "kretprobe" } else { "kprobe" }, self.function)
        } else {
            "this kernel has no kprobes either; tracepoint:, rawtracepoint: and syscall: work here".to_owned()
        };
        error.context(format!("{}: the kernel lets no trampoline be put there; {advice}", event.name))
    }
}

fn lacks() -> Option<&'static str> {
    (!host::has_trampolines()).then_some("this kernel lets no trampolines be put at its functions")
}

fn find(finder: &Finder, spec: &Spec) -> Result<Vec<Event>> {
    let returns = spec.kind == ProbeKind::Fexit;
    let kernel = finder.kernel()?;
    let (symbols, explicit) = finder.functions(&spec.target)?;
    check_count(spec, symbols.len())?;
    // A kprobe sees what a trampoline would miss, and has the same values; but at a return without its entry the arguments are gone.
    let has_values = !returns || finder.latency;
    let is_closed = preemption::closes_trampolines();
    let by_kprobe = has_values && is_closed && host::has_kprobes();
    let forbidden = if by_kprobe { blacklist() } else { HashSet::new() };
    let mut events = Vec::new();
    for name in symbols.into_iter().map(|symbol| &symbol.name) {
        let Some((btf, module, function)) = kernel.find_function(name) else {
            if explicit {
                bail!("{}", untyped(name));
            }
            log::info!("left out {name}: the kernel's types do not have it");
            continue;
        };
        let typed = Some((&*btf, &function.prototype));
        let event = format!("{}:{name}", spec.kind.name());
        let found = if by_kprobe && !forbidden.contains(name) {
            log::info!("{event} is recorded by a kprobe: tasks are preempted here, and would close a trampoline");
            let (call, entry) = finder.calls(typed, returns, Convention::Registers);
            let probe = Arc::new(Kprobe { function: name.clone(), offset: 0, returns });
            Found { name: event, probe, call, entry }
        } else if is_closed && returns && finder.latency {
            let why = if by_kprobe { "kprobes are not allowed in this function" } else { "this kernel has no kprobes" };
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
            let (call, entry) = finder.calls(typed, returns, Convention::Context);
            let probe = Arc::new(Trampoline { function: name.clone(), id: function.id, module, returns });
            Found { name: event, probe, call, entry }
        };
        events.push(finder.event(spec, explicit, found)?);
    }
    Ok(events)
}

fn list(lister: &Lister, spec: &Spec) -> Result<Vec<Listed>> {
    let (symbols, explicit) = lister.finder()?.functions(&spec.target)?;
    let mut events = Vec::new();
    for symbol in symbols {
        match lister.types(symbol) {
            Some((btf, function)) => {
                let typed = Some((&*btf, &function.prototype));
                events.push(listed(lister, spec.kind, symbol, typed, Convention::Context));
            }
            None if explicit => bail!("{}", untyped(&symbol.name)),
            None => {}
        }
    }
    Ok(events)
}
