//! Functions of programs and libraries, and instructions in them: uprobes.

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use relay_trace::condition::spec::{Argument, ProbeKind, Spec, quoted};

use super::{
    Event, Finder, Found, Probe, Room, call_of,
    listing::{Declared, Listed, Lister},
    wanted::{Wanted, can_be_written, offset},
};
use crate::{
    binary::{self, Binary},
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

/// The room of uprobes and uretprobes.
pub(super) const ROOM: Room = Room { lacks, find, list };

/// An instruction of a file, or the return of a function.
#[derive(Debug)]
struct Uprobe {
    file: PathBuf,
    /// Where it is in the file.
    offset: u64,
    /// To its return.
    returns: bool,
}

impl Probe for Uprobe {
    fn hook(&self) -> Hook<'static> {
        Hook::Uprobe
    }

    fn can_run_in_nmi(&self) -> bool {
        false
    }

    fn attach(&self, event: &Served<'_>, to: &mut Attached) -> Result<()> {
        let file = CString::new(self.file.as_os_str().as_bytes())?;
        let place = Place { name: &file, offset: self.offset, returns: self.returns, semaphore: None };
        to.place(event, self.hook(), place)?;
        if event.is_pair {
            to.place(&event.entry(), self.hook(), Place { returns: false, ..place })?;
        }
        Ok(())
    }

    fn place(&self) -> u64 {
        self.offset
    }

    fn hidden(&self, _: &Finder, argument: &Argument) -> Result<Option<RecordedValue>> {
        call_of(None, self.returns, Convention::Registers).select(argument).map(Some)
    }
}

pub(super) fn lacks() -> Option<&'static str> {
    (!host::has_uprobes()).then_some("this kernel has no uprobes (CONFIG_UPROBES is off)")
}

/// The functions of a file that a pattern means.
fn functions<'a>(binary: &'a Binary, wanted: &Wanted) -> Result<Vec<&'a str>> {
    let names: Vec<_> = binary.functions().filter(|name| wanted.is(name)).collect();
    if names.is_empty() {
        let stripped =
            if binary.is_stripped() { "; it is stripped: only functions that it exports are known" } else { "" };
        let near = wanted.nearest(binary.functions());
        bail!("no function of {} matches '{}'{near}{stripped}", binary.path().display(), wanted.text());
    }
    Ok(names)
}

fn find(finder: &Finder, spec: &Spec) -> Result<Vec<Event>> {
    let Some((file, symbol)) = spec.target.rsplit_once(':') else {
        bail!("'{}': give {}:{}", spec.text, spec.kind.name(), spec.kind.target());
    };
    let binary = Binary::open(&binary::find(file)?)?;
    let wanted = Wanted::new(symbol)?;
    let (names, offset) = match &wanted {
        Wanted::Exactly(name) => {
            let (name, offset) = offset(name)?;
            (vec![name], offset)
        }
        Wanted::Like(_) => (functions(&binary, &wanted)?, 0),
    };
    let mut events = Vec::new();
    for name in names {
        for place in places(&binary, name, offset).with_context(|| format!("'{}'", spec.text))? {
            events.push(event(finder, spec, wanted.is_exact(), binary.path(), (name, offset), place)?);
        }
    }
    Ok(events)
}

/// Where in the file a probe of a name is put, so many bytes from there.
fn places(binary: &Binary, name: &str, offset: u64) -> Result<Vec<u64>> {
    let (places, begins) = match name.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16)) {
        // A place in the file, as perf has it.
        Some(Ok(place)) => (vec![place], false),
        _ => (binary.offsets_of(name)?, offset == 0),
    };
    let place = |place: u64| {
        let place = place.checked_add(offset).context("no file is so long")?;
        if !begins {
            binary.check_place(place)?;
        }
        Ok(place)
    };
    places.into_iter().map(place).collect()
}

fn event(
    finder: &Finder,
    spec: &Spec,
    explicit: bool,
    file: &Path,
    (name, offset): (&str, u64),
    place: u64,
) -> Result<Event> {
    let returns = spec.kind == ProbeKind::Uretprobe;
    let (call, mut entry) = finder.calls(None, returns, Convention::Registers);
    let suffix = if offset == 0 { String::new() } else { format!("+{offset:#x}") };
    let call = if offset == 0 || returns { call } else { Parameters::nothing() };
    if let Some(entry) = entry.as_mut().filter(|_| offset != 0) {
        entry.call = Parameters::nothing();
    }
    let found = Found {
        name: format!("{}:{}:{name}{suffix}", spec.kind.name(), file.display()),
        probe: Arc::new(Uprobe { file: file.to_owned(), offset: place, returns }),
        call,
        entry,
    };
    finder.event(spec, explicit, found)
}

fn list(lister: &Lister, spec: &Spec) -> Result<Vec<Listed>> {
    let (file, symbol) = spec.target.rsplit_once(':').unwrap_or((&spec.target, "*"));
    let binary = Binary::open(&binary::find(file)?)?;
    let wanted = Wanted::new(symbol)?;
    let names: Vec<&str> = match &wanted {
        // A place in the file needs no name.
        Wanted::Exactly(place) if place.starts_with("0x") => vec![place],
        Wanted::Exactly(name) => binary.offsets_of(name).map(|_| vec![name.as_str()])?,
        Wanted::Like(_) => functions(&binary, &wanted)?.into_iter().filter(|name| can_be_written(name)).collect(),
    };
    let returns = spec.kind == ProbeKind::Uretprobe;
    let event = |name: &str| {
        let path = binary.path().display().to_string();
        let name = format!("{}:{}:{name}", spec.kind.name(), quoted(&path));
        lister.listed(spec.kind, name, || Declared::of(&call_of(None, returns, Convention::Registers)))
    };
    Ok(names.into_iter().map(event).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_function_without_types_has() {
        let declared = |returns| {
            let declared = Declared::of(&call_of(None, returns, Convention::Registers)).into_iter();
            declared.map(|value| format!("{} {}", value.c_type, value.name)).collect::<Vec<_>>()
        };
        assert_eq!(declared(false)[..2], ["u64 arg0", "u64 arg1"]);
        assert_eq!(declared(true), ["u64 retval"]);
    }
}
