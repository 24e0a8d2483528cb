//! System calls through two hooks. The kernel's tracepoints `syscalls:*` come by `raw_syscalls:sys_enter` and `sys_exit` themselves
//! (kernel/trace/trace_syscalls.c) and have the same fields at the same places: there, a table tells by a call's number which event it is.
//!
//! So it is where a task can be preempted inside a program of `syscalls:*` and would keep it from all others on its CPU, and where there are many: the
//! kernel takes a tenth of a second to detach from each.

use std::{collections::BTreeMap, fs, path::Path, str::FromStr as _};

use anyhow::{Context as _, Result};
use relay_common::trace::{CALL_NUMBERS, CALL_PLACES, Cookie};

use super::{hook::Hook, served::Served};

/// Tracepoints of so many sides of system calls are worth that: each has an attachment that is waited for, and two hooks run at every call.
const MANY: usize = 16;
/// The category of the events of all system calls of 32-bit programs, which no tracepoint of `syscalls:*` tells (`probe/compat.rs` makes them).
pub(crate) const COMPAT: &str = "compat";

/// One side of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    Entry,
    Exit,
}

/// A system call that is an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syscall<'a> {
    /// Its name, as the kernel's tracepoints have it.
    pub(crate) name: &'a str,
    /// What is recorded of it: the return before the entry.
    pub(crate) sides: &'static [Side],
    /// The event.
    pub(crate) event: Served<'a>,
}

impl Side {
    /// The tracepoint of all calls.
    pub(crate) fn tracepoint(self) -> &'static str {
        match self {
            Self::Entry => "sys_enter",
            Self::Exit => "sys_exit",
        }
    }
}

/// Events of system calls, in layers.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) layers: Vec<Layer>,
}

/// Events of which no two are of the same side of the same call: a program serves them.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The program records by recipe.
    pub(crate) by_recipe: bool,
    /// By the side, and the call's name.
    pub(crate) events: BTreeMap<(Side, String), Cookie>,
}

impl Plan {
    /// What serves these calls; nothing where each is better served by a tracepoint of its own. `by_type`: programs can be given the registers by
    /// their types, which makes a record so much cheaper that it is worth the hook at every call, however few are events.
    pub(crate) fn new<'a>(calls: impl Iterator<Item = Syscall<'a>>, by_type: bool) -> Self {
        let mut plan = Self::default();
        let (mut sides, mut has_compat) = (0, false);
        for Syscall { name, sides: of_call, event } in calls {
            let exit = event.cookie;
            let entry = Cookie { entry: of_call.len() == 2, ..exit };
            sides += of_call.len();
            has_compat |= name == COMPAT;
            let layer = plan.layer(event.by_recipe, name, of_call);
            for side in of_call {
                layer.events.insert((*side, name.to_owned()), if *side == Side::Entry { entry } else { exit });
            }
        }
        if by_type || has_compat || sides > MANY || Hook::SystemCall.is_preemptible() { plan } else { Self::default() }
    }

    /// The first layer with this program that has room for an event.
    fn layer(&mut self, by_recipe: bool, name: &str, sides: &[Side]) -> &mut Layer {
        let has_room = |layer: &Layer| {
            layer.by_recipe == by_recipe
                && !sides.iter().any(|side| layer.events.contains_key(&(*side, name.to_owned())))
        };
        let index = self.layers.iter().position(has_room).unwrap_or_else(|| {
            self.layers.push(Layer { by_recipe, events: BTreeMap::new() });
            self.layers.len() - 1
        });
        &mut self.layers[index]
    }

    /// How many entries the table has.
    pub(crate) fn table_len(&self) -> Result<u32> {
        Ok(u32::try_from(self.layers.len())? * 2 * CALL_PLACES)
    }
}

/// The name of the program that serves a side of calls, by its types.
pub(crate) fn program_by_type(side: Side, by_recipe: bool) -> &'static str {
    match (side, by_recipe) {
        (Side::Entry, false) => "on_enter",
        (Side::Entry, true) => "on_enter_recipe",
        (Side::Exit, false) => "on_leave",
        (Side::Exit, true) => "on_leave_recipe",
    }
}

/// The place in the table of number 0 of a side of a layer.
pub(crate) fn begin(layer: usize, side: Side) -> Result<u32> {
    Ok((u32::try_from(layer)? * 2 + u32::from(side == Side::Exit)) * CALL_PLACES)
}

/// The place in the table of a system call, or of all of 32-bit programs.
fn place(name: &str) -> Option<u32> {
    if name == COMPAT { Some(CALL_NUMBERS) } else { number(name) }
}

/// The number of a system call by the name that the kernel's tracepoints have for it: that of its function (include/linux/syscalls.h), which for a few is
/// not what programs call it. `None` where it is not known.
fn number(name: &str) -> Option<u32> {
    const NAMES: [(&str, &str); 6] = [
        ("newfstat", "fstat"),
        ("newlstat", "lstat"),
        ("newstat", "stat"),
        ("newuname", "uname"),
        ("sendfile64", "sendfile"),
        ("umount", "umount2"),
    ];
    let known = NAMES.iter().find(|(function, _)| *function == name).map_or(name, |(_, known)| known);
    let number = u32::try_from(syscalls::Sysno::from_str(known).ok()?.id()).ok()?;
    (number < CALL_NUMBERS).then_some(number)
}

/// The id of a tracepoint, `category/name`.
pub(crate) fn id(tracefs: &Path, tracepoint: &str) -> Result<u64> {
    let path = tracefs.join("events").join(tracepoint).join("id");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} is not a number: {text:?}", path.display()))
}

/// The events that a layer has on a side, with the places of their calls; without those whose numbers are not known.
pub(crate) fn known(layer: &Layer, side: Side) -> impl Iterator<Item = (u32, Cookie)> {
    let of_side = layer.events.iter().filter(move |((this, _), _)| *this == side);
    of_side.filter_map(|((_, name), cookie)| Some((place(name)?, *cookie)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &[Side] = &[Side::Entry];
    const EXIT: &[Side] = &[Side::Exit];
    const BOTH: &[Side] = &[Side::Exit, Side::Entry];

    fn call<'a>(name: &'a str, sides: &'static [Side], id: u16, by_recipe: bool) -> Syscall<'a> {
        let cookie = Cookie { id, size: 0, last_loc: 0, relative: false, entry: false };
        Syscall { name, sides, event: Served { name, cookie, by_recipe, is_pair: false, is_trigger: false } }
    }

    #[test]
    fn one_event_of_a_side_of_a_call_is_in_a_layer() {
        let names: Vec<_> = (0..=MANY).map(|n| format!("call{n}")).collect();
        let mut calls: Vec<_> = names.iter().zip(7..).map(|(name, id)| call(name, ENTRY, id, false)).collect();
        calls.push(call("call1", BOTH, 24, true));
        calls.push(call("call1", BOTH, 25, true));
        calls.push(call("call1", EXIT, 26, false));
        assert_eq!(Plan::new(calls[MANY + 1..].iter().copied(), false).layers.len(), 0);
        assert_eq!(Plan::new(calls[MANY + 1..].iter().copied(), true).layers.len(), 3);
        calls.push(call(COMPAT, EXIT, 27, false));
        let plan = Plan::new(calls.into_iter(), false);
        let layers: Vec<_> = plan.layers.iter().map(|layer| (layer.by_recipe, layer.events.len())).collect();
        assert_eq!(layers, [(false, MANY + 3), (true, 2), (true, 2)]);
        assert_eq!(plan.table_len().unwrap(), 3 * 2 * CALL_PLACES);
        let of_call = |side| plan.layers[1].events[&(side, "call1".to_owned())];
        assert_eq!((of_call(Side::Entry).id, of_call(Side::Entry).entry), (24, true));
        assert_eq!((of_call(Side::Exit).id, of_call(Side::Exit).entry), (24, false));
        assert_eq!(begin(1, Side::Exit).unwrap(), 3 * CALL_PLACES);
        assert!(known(&plan.layers[0], Side::Exit).any(|(place, cookie)| (place, cookie.id) == (CALL_NUMBERS, 27)));
    }

    #[test]
    fn calls_have_the_numbers_that_programs_know() {
        assert_eq!(number("read"), u32::try_from(libc::SYS_read).ok());
        assert_eq!(number("newuname"), u32::try_from(libc::SYS_uname).ok());
        assert_eq!(number("no_such_call"), None);
    }
}
