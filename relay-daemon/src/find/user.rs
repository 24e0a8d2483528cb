//! Functions and static probes of programs and libraries, and samples.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use relay_common::recipe::{Fetch, Kind as FetchKind, Recipe, input};

use super::{Finder, Found, event, offset, pattern, select};
use crate::{
    binary::{
        self, Binary,
        usdt::{Operand, Usdt},
    },
    events::{Event, Probe},
    values::{
        arguments::Call,
        layout::{self, Content, Value},
        registers,
    },
};
use relay_trace::{
    condition::spec::{Kind, Spec},
    similar::did_you_mean,
};

impl Finder {
    pub(crate) fn uprobes(&self, spec: &Spec) -> Result<Vec<Event>> {
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
            let (places, begins) = match name.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16)) {
                // A place in the file, as perf has it.
                Some(Ok(place)) => (vec![place], false),
                _ => (binary.offsets_of(name)?, extra == 0),
            };
            for place in places {
                let place = place.checked_add(extra).with_context(|| format!("'{}': no file is so long", spec.text))?;
                if !begins {
                    binary.check_place(place).with_context(|| format!("'{}'", spec.text))?;
                }
                let entry = || if extra == 0 { Call::unknown_entry() } else { Call::nothing() };
                let (call, paired) =
                    if returns { (Call::unknown_exit(), self.latency.then(entry)) } else { (entry(), None) };
                let suffix = if extra == 0 { String::new() } else { format!("+{extra:#x}") };
                events.push(self.event(
                    spec,
                    explicit,
                    Found {
                        name: format!("{}:{}:{name}{suffix}", spec.kind.name(), path.display()),
                        probe: Probe::Uprobe { path: path.clone(), offset: place, returns, semaphore: None },
                        call,
                        entry: paired,
                    },
                )?);
            }
        }
        Ok(events)
    }

    pub(crate) fn usdts(spec: &Spec) -> Result<Vec<Event>> {
        let (file, wanted) = split_usdt(&spec.target);
        let path = binary::find(file)?;
        let probes = Binary::open(&path)?.probes()?;
        let (glob, explicit) = match pattern(wanted)? {
            Some(pattern) => (pattern, false),
            None => (glob::Pattern::new(&glob::Pattern::escape(wanted))?, true),
        };
        let full = |probe: &Usdt| format!("{}:{}", probe.provider, probe.name);
        let found: Vec<&Usdt> =
            probes.iter().filter(|probe| glob.matches(&full(probe)) || glob.matches(&probe.name)).collect();
        if found.is_empty() {
            let names: Vec<_> = probes.iter().map(full).collect();
            if names.is_empty() {
                bail!("{} has no USDT probes", path.display());
            }
            bail!(
                "{} has no USDT probe '{wanted}'{}",
                path.display(),
                did_you_mean(wanted, names.iter().map(String::as_str))
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
}

/// The file, and which of its static probes: `PROVIDER:NAME`, a part of that, or all.
pub(crate) fn split_usdt(target: &str) -> (&str, &str) {
    if Path::new(target).exists() {
        return (target, "*");
    }
    match target.rmatch_indices(':').map(|(at, _)| at).take(2).last() {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, "*"),
    }
}

/// Samples at a rate.
pub(crate) fn profile(spec: &Spec) -> Result<Event> {
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

/// `arg0` and so on of a static probe; those that are not understood are left out.
pub(crate) fn usdt_values(probe: &Usdt) -> Vec<Value> {
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
