//! The system calls of 32-bit programs, which no tracepoint of `syscalls:*` tells: all of them are two events, as `raw_syscalls:*` has them, with
//! their own names.

use std::sync::Arc;

use anyhow::{Result, bail};
use relay_common::trace::CALL_NUMBERS;
use relay_trace::{condition::spec::Spec, form::format::Format};

use super::{Event, Probe, tracepoint::Catalogue, wanted::Wanted};
use crate::kernel::{
    attach::Attached,
    calls::{COMPAT, Side},
    hook::Hook,
    served::Served,
};

const SIDES: [Side; 2] = [Side::Entry, Side::Exit];

/// One side of all of them.
#[derive(Debug)]
struct Compat {
    side: Side,
    /// Those of 64 bits are recorded beside it, by recipes.
    beside_syscalls: bool,
}

impl Probe for Compat {
    fn hook(&self) -> Hook<'static> {
        Hook::Tracepoint
    }

    fn can_run_in_nmi(&self) -> bool {
        false
    }

    /// Only where the table of system calls cannot serve it.
    fn attach(&self, event: &Served<'_>, _: &mut Attached) -> Result<()> {
        bail!("{}: which system calls are of 32-bit programs cannot be told: the kernel has no BTF", event.name)
    }

    fn call(&self) -> Option<(&str, &'static [Side])> {
        let sides: &[Side] = match self.side {
            Side::Entry => &[Side::Entry],
            Side::Exit => &[Side::Exit],
        };
        Some((COMPAT, sides))
    }

    fn is_by_recipe(&self) -> bool {
        self.beside_syscalls
    }
}

/// Those that are asked for by name.
pub(super) fn named(catalogue: &Catalogue, spec: &Spec) -> Result<Vec<Event>> {
    let wanted = Wanted::new(&spec.target)?;
    let is_wanted = |side: &Side| spec.target.starts_with(COMPAT) && wanted.is(&name(*side));
    SIDES.into_iter().filter(is_wanted).map(|side| event(catalogue, side, false, wanted.is_exact())).collect()
}

/// Those that all of `syscalls:*`, or of its entries or exits, leave out.
pub(super) fn left_out(catalogue: &Catalogue, spec: &Spec) -> Result<Vec<Event>> {
    let wanted = Wanted::new(&spec.target)?;
    // No call has such a name: a pattern that means it means all.
    let means_all = |side: &Side| wanted.is(&format!("syscalls:{}_\u{1}", side.tracepoint()));
    let is_wanted = |side: &Side| !wanted.is_exact() && spec.condition.is_none() && means_all(side);
    SIDES.into_iter().filter(is_wanted).map(|side| event(catalogue, side, false, false)).collect()
}

/// Their names, and of which tracepoints they have the fields.
pub(super) fn known() -> impl Iterator<Item = (String, String)> {
    SIDES.into_iter().map(|side| (name(side), format!("raw_syscalls:{}", side.tracepoint())))
}

fn name(side: Side) -> String {
    format!("{COMPAT}:{}", side.tracepoint())
}

/// One side of all of them. `beside_syscalls`: those of 64 bits are recorded too, by recipes.
pub(super) fn event(catalogue: &Catalogue, side: Side, beside_syscalls: bool, explicit: bool) -> Result<Event> {
    let all = catalogue.event(&format!("raw_syscalls:{}", side.tracepoint()), explicit)?;
    let names: Vec<String> = names().map(|(number, name)| format!("{{ {number}, \"{name}\" }}")).collect();
    let call = format!("__print_symbolic(REC->id, {})", names.join(", "));
    let fields = all.text.split("print fmt:").next().unwrap_or_default();
    let print = match side {
        Side::Entry => {
            let arguments: Vec<_> = (0..6).map(|index| format!("REC->args[{index}]")).collect();
            format!("\"%s(%lx, %lx, %lx, %lx, %lx, %lx)\", {call}, {}", arguments.join(", "))
        }
        Side::Exit => format!("\"%s = %ld\", {call}, REC->ret"),
    };
    let text = format!("{fields}print fmt: {print}\n");
    let probe = Arc::new(Compat { side, beside_syscalls });
    Ok(Event { name: name(side), probe, format: Format::parse(&text)?, text, ..all })
}

/// Their numbers and names.
fn names() -> impl Iterator<Item = (u32, &'static str)> {
    #[cfg(target_arch = "aarch64")]
    use syscalls::arm::Sysno;
    #[cfg(target_arch = "x86_64")]
    use syscalls::x86::Sysno;
    (0..CALL_NUMBERS).filter_map(|number| Some((number, Sysno::new(usize::try_from(number).ok()?)?.name())))
}
