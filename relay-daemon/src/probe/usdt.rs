//! Static probes of programs and libraries: USDT.

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, bail};
use relay_common::recipe::{Fetch, FetchKind, input};
use relay_trace::condition::spec::{Spec, quoted};

use super::{
    Event, Finder, Probe, Room,
    listing::{Declared, Listed, Lister},
    of_values, select, uprobe,
    wanted::{Wanted, can_be_written},
};
use crate::{
    binary::{
        self, Binary,
        usdt::{Usdt, UsdtOperand},
    },
    kernel::{
        attach::{Attached, Place},
        hook::Hook,
        served::Served,
    },
    values::layout::{RecordedValue, Stored},
};

/// The room of static probes.
pub(super) const ROOM: Room = Room { lacks: uprobe::lacks, find, list };

/// A static probe in a file.
#[derive(Debug)]
struct StaticProbe {
    file: PathBuf,
    /// Where it is in the file.
    offset: u64,
    /// Where in the file a number is kept above zero while it is attached.
    semaphore: Option<u64>,
}

impl Probe for StaticProbe {
    fn hook(&self) -> Hook<'static> {
        Hook::Uprobe
    }

    fn can_run_in_nmi(&self) -> bool {
        false
    }

    fn attach(&self, event: &Served<'_>, to: &mut Attached) -> Result<()> {
        let file = CString::new(self.file.as_os_str().as_bytes())?;
        let place = Place { name: &file, offset: self.offset, returns: false, semaphore: self.semaphore };
        to.place(event, self.hook(), place)
    }

    fn place(&self) -> u64 {
        self.offset
    }
}

/// `PROVIDER:NAME`
fn full(probe: &Usdt) -> String {
    format!("{}:{}", probe.provider, probe.name)
}

/// The file, its static probes that are meant, and whether they are named in full.
fn probes(spec: &Spec) -> Result<(PathBuf, Vec<Usdt>, bool)> {
    let (file, wanted) = split(&spec.target);
    let path = binary::find(file)?;
    let probes = Binary::open(&path)?.probes()?;
    if probes.is_empty() {
        bail!("{} has no USDT probes", path.display());
    }
    let wanted = Wanted::new(wanted)?;
    let is_meant = |probe: &&Usdt| wanted.is(&full(probe)) || wanted.is(&probe.name);
    let meant: Vec<_> = probes.iter().filter(is_meant).cloned().collect();
    if meant.is_empty() {
        let has_provider = wanted.text().contains(':');
        let name = |probe: &Usdt| if has_provider { full(probe) } else { probe.name.clone() };
        let names: Vec<_> = probes.iter().map(name).collect();
        let near = wanted.nearest(names.iter().map(String::as_str));
        bail!("{} has no USDT probe '{}'{near}", path.display(), wanted.text());
    }
    Ok((path, meant, wanted.is_exact()))
}

fn find(_: &Finder, spec: &Spec) -> Result<Vec<Event>> {
    let (path, probes, explicit) = probes(spec)?;
    let left_out: Vec<String> = probes.iter().flat_map(|probe| values(probe).1).collect();
    if let Some((first, others)) = left_out.split_first() {
        let others = if others.is_empty() {
            String::new()
        } else {
            format!(", and {} more (relayd list -v names them)", others.len())
        };
        log::warn!("{}: not recorded, since it is not known where they are: {first}{others}", path.display());
    }
    let event = |probe: &Usdt| {
        let place = StaticProbe { file: path.clone(), offset: probe.offset, semaphore: probe.semaphore };
        let name = format!("usdt:{}:{}", path.display(), full(probe));
        of_values(spec.kind, name, explicit, Arc::new(place), select(spec, values(probe).0)?, None)
    };
    probes.iter().map(event).collect()
}

fn list(lister: &Lister, spec: &Spec) -> Result<Vec<Listed>> {
    let (path, probes, _) = probes(spec)?;
    let written = probes.iter().filter(|probe| can_be_written(&probe.provider) && can_be_written(&probe.name));
    let event = |probe: &Usdt| {
        let declared = || {
            let (values, left_out) = values(probe);
            let recorded = values.iter().map(|value| Declared::new(&value.c_type, &value.name));
            let left_out = left_out.iter().filter_map(|left_out| left_out.rsplit_once(": "));
            recorded.chain(left_out.map(|(_, left_out)| Declared::new("not recorded:", left_out))).collect()
        };
        let file = path.display().to_string();
        lister.listed(spec.kind, format!("usdt:{}:{}", quoted(&file), full(probe)), declared)
    };
    Ok(written.map(event).collect())
}

/// The file, and which of its static probes: `PROVIDER:NAME`, a part of that, or all.
fn split(target: &str) -> (&str, &str) {
    if Path::new(target).exists() {
        return (target, "*");
    }
    match target.rmatch_indices(':').map(|(at, _)| at).take(2).last() {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, "*"),
    }
}

/// `arg0` and so on of a static probe, and what is left out since it is not understood.
fn values(probe: &Usdt) -> (Vec<RecordedValue>, Vec<String>) {
    let (mut values, mut left_out) = (Vec::new(), Vec::new());
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
            UsdtOperand::Constant(constant) => number(input::ZERO, *constant, 0, false, 0),
            UsdtOperand::Register { register, shift } => number(register.0, 0, 0, false, *shift),
            UsdtOperand::Memory { base, index, offset } => {
                number(base.0, *offset, 0, true, 0).map(|fetch| match index {
                    Some((index, scale)) => Fetch { index: index.0, scale: *scale, ..fetch },
                    None => fetch,
                })
            }
            UsdtOperand::Symbol { .. } | UsdtOperand::Unsupported(_) => None,
        };
        let Some(fetch) = fetch else {
            let operand = match &argument.operand {
                UsdtOperand::Unsupported(text) => text.clone(),
                other => format!("{other:?}"),
            };
            left_out.push(format!("{}: arg{index} at {operand}", full(probe)));
            continue;
        };
        values.push(RecordedValue {
            name: format!("arg{index}"),
            c_type: format!("{}{}", if argument.signed { "s" } else { "u" }, u16::from(size) * 8),
            content: Stored::Number { size, signed: argument.signed, hexadecimal: false },
            fetch,
        });
    }
    (values, left_out)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn probes_may_be_left_out_of_a_pattern() {
        for (target, expected) in [
            ("/nosuch/x:a:b*", ("/nosuch/x", "a:b*")),
            ("/nosuch/x:b*", ("/nosuch/x", "b*")),
            ("/nosuch/x", ("/nosuch/x", "*")),
            ("/nosuch/x:y:a:b", ("/nosuch/x:y", "a:b")),
        ] {
            assert_eq!(split(target), expected, "{target}");
        }
    }
}
