//! Kernel functions' entries and returns, and instructions in them, by breakpoints or what the kernel puts in their place: kprobes.

use std::{ffi::CString, sync::Arc};

use anyhow::{Result, bail};
use relay_trace::condition::spec::{Argument, ProbeKind, Spec};

use super::{
    Event, Finder, Found, Probe, Room, call_of,
    functions::{blacklist, check_count, listed},
    listing::{Listed, Lister},
    wanted::{Wanted, offset},
};
use crate::{
    host,
    kernel::{
        attach::{Attached, Place},
        hook::Hook,
        served::Served,
    },
    values::{
        arguments::{Convention, Parameters},
        layout::RecordedValue,
    },
};

/// The room of kprobes and kretprobes.
pub(super) const ROOM: Room = Room { lacks, find, list };

/// An instruction of the kernel, or the return of a function.
#[derive(Debug)]
pub(super) struct Kprobe {
    pub(super) function: String,
    /// Bytes from its beginning.
    pub(super) offset: u64,
    /// To its return.
    pub(super) returns: bool,
}

impl Probe for Kprobe {
    fn hook(&self) -> Hook<'static> {
        Hook::Kprobe
    }

    fn can_run_in_nmi(&self) -> bool {
        true
    }

    fn attach(&self, event: &Served<'_>, to: &mut Attached) -> Result<()> {
        let name = CString::new(self.function.as_str())?;
        let place = Place { name: &name, offset: self.offset, returns: self.returns, semaphore: None };
        to.place(event, self.hook(), place)?;
        if event.is_pair {
            to.place(&event.entry(), self.hook(), Place { offset: 0, returns: false, ..place })?;
        }
        Ok(())
    }

    fn hidden(&self, finder: &Finder, argument: &Argument) -> Result<Option<RecordedValue>> {
        if self.offset != 0 {
            return Ok(None);
        }
        let function = finder.function(&self.function);
        let typed = function.as_ref().map(|(btf, _, function)| (&**btf, &function.prototype));
        call_of(typed, self.returns, Convention::Registers).select(argument).map(Some)
    }

    fn function(&self) -> Option<(&str, bool)> {
        (self.offset == 0).then_some((&self.function, self.returns))
    }
}

fn lacks() -> Option<&'static str> {
    (!host::has_kprobes()).then_some("this kernel has no kprobes (CONFIG_KPROBES is off)")
}

/// Refuses a function that is named in full and that the kernel itself needs.
fn check_allowed(name: &str) -> Result<()> {
    if blacklist().contains(name) {
        bail!("kprobes are not allowed in {name}: the kernel itself uses it to handle them");
    }
    Ok(())
}

fn find(finder: &Finder, spec: &Spec) -> Result<Vec<Event>> {
    let returns = spec.kind == ProbeKind::Kretprobe;
    let (target, offset) =
        if Wanted::new(&spec.target)?.is_exact() { offset(&spec.target)? } else { (&*spec.target, 0) };
    if returns && offset != 0 {
        bail!("'{}': a return has no offset", spec.text);
    }
    let (symbols, explicit) = finder.functions(target)?;
    check_count(spec, symbols.len())?;
    let events = symbols.into_iter().map(|symbol| {
        let name = &symbol.name;
        if explicit {
            check_allowed(name)?;
        }
        let function = finder.function(name);
        let typed = function.as_ref().map(|(btf, _, function)| (&**btf, &function.prototype));
        let (call, entry) = match offset {
            0 => finder.calls(typed, returns, Convention::Registers),
            _ => (Parameters::nothing(), None),
        };
        let suffix = if offset == 0 { String::new() } else { format!("+{offset:#x}") };
        let found = Found {
            name: format!("{}:{name}{suffix}", spec.kind.name()),
            probe: Arc::new(Kprobe { function: name.clone(), offset, returns }),
            call,
            entry,
        };
        finder.event(spec, explicit, found)
    });
    events.collect()
}

fn list(lister: &Lister, spec: &Spec) -> Result<Vec<Listed>> {
    let (symbols, explicit) = lister.finder()?.functions(&spec.target)?;
    let mut forbidden = blacklist();
    if explicit {
        symbols.iter().try_for_each(|symbol| check_allowed(&symbol.name))?;
        forbidden.clear();
    }
    let allowed = symbols.into_iter().filter(|symbol| !forbidden.contains(&symbol.name));
    let event = |symbol| {
        let function = lister.is_verbose().then(|| lister.types(symbol)).flatten();
        let typed = function.as_ref().map(|(btf, function)| (&**btf, &function.prototype));
        listed(lister, spec.kind, symbol, typed, Convention::Registers)
    };
    Ok(allowed.map(event).collect())
}
