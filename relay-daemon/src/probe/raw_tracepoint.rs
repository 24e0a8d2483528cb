//! Tracepoints with the arguments that the kernel passes, before it makes fields of them.

use std::{ffi::CString, sync::Arc};

use anyhow::{Context as _, Result, bail};
use relay_trace::condition::spec::{Argument, ProbeKind, Spec};

use super::{
    Event, Finder, Found, Probe, Room,
    listing::{Declared, Listed, Lister},
    wanted::Wanted,
};
use crate::{
    btf::Btf,
    kernel::{attach::Attached, hook::Hook, served::Served},
    values::{
        arguments::{Convention, Parameters},
        layout::RecordedValue,
    },
};

/// The room of raw tracepoints.
pub(super) const ROOM: Room = Room { lacks: || None, find, list };

/// A tracepoint, by its name.
#[derive(Debug)]
struct RawTracepoint(String);

impl Probe for RawTracepoint {
    fn hook(&self) -> Hook<'static> {
        Hook::RawTracepoint
    }

    fn can_run_in_nmi(&self) -> bool {
        true
    }

    fn attach(&self, event: &Served<'_>, to: &mut Attached) -> Result<()> {
        to.raw_tracepoint(event, &CString::new(self.0.as_str())?)
    }

    fn hidden(&self, finder: &Finder, argument: &Argument) -> Result<Option<RecordedValue>> {
        let btf = finder.kernel()?.vmlinux();
        let prototype = btf.tracepoint(&self.0).context("the tracepoint's types")?;
        Parameters::entry(btf, &prototype, Convention::Context).select(argument).map(Some)
    }
}

/// The names that are meant, sorted.
fn names<'a>(btf: &'a Btf, spec: &Spec) -> Result<(Vec<&'a str>, bool)> {
    let wanted = Wanted::new(&spec.target)?.without_place();
    let mut names: Vec<_> = btf.tracepoints().filter(|name| wanted.is(name)).collect();
    names.sort_unstable();
    match (names.is_empty(), wanted.is_exact()) {
        (false, is_exact) => Ok((names, is_exact)),
        (true, true) => {
            bail!("there is no raw tracepoint '{}'{}", wanted.text(), wanted.nearest(btf.tracepoints()))
        }
        (true, false) => bail!("no raw tracepoint matches '{}'{}", spec.target, wanted.nearest(btf.tracepoints())),
    }
}

fn find(finder: &Finder, spec: &Spec) -> Result<Vec<Event>> {
    let btf = finder.kernel()?.vmlinux();
    let (names, explicit) = names(btf, spec)?;
    let event = |name: &&str| {
        let prototype = btf.tracepoint(name).with_context(|| format!("the types of the raw tracepoint '{name}'"))?;
        let found = Found {
            name: format!("rawtracepoint:{name}"),
            probe: Arc::new(RawTracepoint((*name).to_owned())),
            call: Parameters::entry(btf, &prototype, Convention::Context),
            entry: None,
        };
        finder.event(spec, explicit, found)
    };
    names.iter().map(event).collect()
}

fn list(lister: &Lister, spec: &Spec) -> Result<Vec<Listed>> {
    let btf = lister.finder()?.kernel()?.vmlinux();
    Ok(names(btf, spec)?.0.into_iter().filter_map(|name| listed(lister, name, btf)).collect())
}

/// A raw tracepoint as it is listed; nothing of one without types.
pub(super) fn listed(lister: &Lister, name: &str, btf: &Btf) -> Option<Listed> {
    let prototype = btf.tracepoint(name)?;
    let arguments = || Declared::of(&Parameters::entry(btf, &prototype, Convention::Context));
    Some(lister.listed(ProbeKind::RawTracepoint, format!("rawtracepoint:{name}"), arguments))
}
