//! Samples of what runs, at a rate, on every CPU.

use std::sync::Arc;

use anyhow::{Result, bail};
use relay_trace::condition::spec::{ProbeKind, Spec};

use super::{
    Event, Finder, Probe, Room,
    listing::{Declared, Listed, Lister},
    of_values,
    wanted::Wanted,
    without_arguments,
};
use crate::{
    kernel::{attach::Attached, hook::Hook, served::Served},
    values::{
        layout::{self, RecordedValue, Stored},
        registers,
    },
};

/// The room of samples.
pub(super) const ROOM: Room = Room { lacks: || None, find, list };

/// The rate that is listed.
const SHOWN: &str = "hz:99";
/// Most samples a second.
const FASTEST: u64 = 100_000;

/// The clock of every CPU.
#[derive(Debug)]
struct Sampler {
    /// Samples a second.
    hertz: u64,
}

impl Probe for Sampler {
    fn hook(&self) -> Hook<'static> {
        Hook::Sample
    }

    fn can_run_in_nmi(&self) -> bool {
        true
    }

    fn attach(&self, event: &Served<'_>, to: &mut Attached) -> Result<()> {
        to.sampler(event, self.hertz)
    }
}

fn find(_: &Finder, spec: &Spec) -> Result<Vec<Event>> {
    without_arguments(spec)?;
    event(spec).map(|event| vec![event])
}

fn event(spec: &Spec) -> Result<Event> {
    let rate = spec.target.strip_prefix("hz:").and_then(|rate| rate.parse::<u64>().ok());
    let Some(hertz) = rate.filter(|rate| (1..=FASTEST).contains(rate)) else {
        bail!("'{}': give profile:hz:RATE, samples a second of each CPU, from 1 to {FASTEST}", spec.text);
    };
    let ip = RecordedValue {
        name: "ip".to_owned(),
        c_type: "void *".to_owned(),
        content: Stored::Number { size: 8, signed: false, hexadecimal: true },
        fetch: layout::input(registers::INSTRUCTION_POINTER, 8),
    };
    of_values(spec.kind, format!("profile:hz:{hertz}"), true, Arc::new(Sampler { hertz }), vec![ip], None)
}

fn list(lister: &Lister, spec: &Spec) -> Result<Vec<Listed>> {
    let wanted = Wanted::new(&spec.target)?;
    if !wanted.is_exact() && wanted.is(SHOWN) {
        return Ok(vec![shown(lister)?]);
    }
    Ok(vec![listed(lister, spec)?])
}

/// Samples at a usual rate, as they are listed.
pub(super) fn shown(lister: &Lister) -> Result<Listed> {
    listed(lister, &Spec::of(ProbeKind::Profile, SHOWN))
}

fn listed(lister: &Lister, spec: &Spec) -> Result<Listed> {
    let event = event(spec)?;
    Ok(lister.listed(ProbeKind::Profile, event.name, || event.format.fields.iter().map(Declared::field).collect()))
}
