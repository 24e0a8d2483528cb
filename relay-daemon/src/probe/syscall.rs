//! System calls by name: the pair of tracepoints at entry and exit.

use std::sync::Arc;

use anyhow::{Result, bail};
use relay_common::recipe::{Fetch, FetchKind, MAX_STRING, input};
use relay_trace::condition::spec::{ProbeKind, Spec};

use super::{
    Event, Finder, Pair, Probe, Room, compat,
    listing::{Declared, Listed, Lister},
    of_values, select,
    tracepoint::Catalogue,
    wanted::Wanted,
};
use crate::{
    kernel::{
        attach::{Attached, Instance},
        calls::Side,
        hook::Hook,
        served::Served,
    },
    values::{
        arguments,
        layout::{self, RecordedValue, Stored},
    },
};

/// The room of system calls.
pub(super) const ROOM: Room = Room { lacks: || None, find, list };

/// What the names of the tracepoints before system calls begin with.
const ENTER: &str = "syscalls:sys_enter_";
/// System calls whose return no tracepoint tells.
const NO_RETURN: [&str; 3] = ["exit", "exit_group", "rt_sigreturn"];

/// A system call.
#[derive(Debug)]
struct SystemCall {
    name: String,
    /// The id in tracefs of the tracepoint before it.
    enter: u64,
    /// And after it, if it returns.
    exit: Option<u64>,
}

impl Probe for SystemCall {
    fn hook(&self) -> Hook<'static> {
        Hook::SystemCall
    }

    fn can_run_in_nmi(&self) -> bool {
        false
    }

    fn attach(&self, event: &Served<'_>, to: &mut Attached) -> Result<()> {
        let Some(exit) = self.exit else { return to.tracepoint(event, self.hook(), Instance::Syscall, self.enter) };
        to.tracepoint(event, self.hook(), Instance::Syscall, exit)?;
        to.tracepoint(&event.entry(), self.hook(), Instance::Syscall, self.enter)
    }

    fn call(&self) -> Option<(&str, &'static [Side])> {
        let sides: &[Side] = if self.exit.is_some() { &[Side::Exit, Side::Entry] } else { &[Side::Entry] };
        Some((&self.name, sides))
    }

    fn executes(&self) -> bool {
        self.exit.is_some() && matches!(self.name.as_str(), "execve" | "execveat")
    }
}

/// Whether a record of it has what it returned, and how long it took.
fn returns(name: &str) -> bool {
    !NO_RETURN.contains(&name)
}

/// All system calls that have tracepoints.
pub(super) fn known(catalogue: &Catalogue) -> impl Iterator<Item = &str> {
    catalogue.names().iter().filter_map(|name| name.strip_prefix(ENTER))
}

/// The names that are meant.
fn names<'a>(catalogue: &'a Catalogue, spec: &Spec) -> Result<(Vec<&'a str>, bool)> {
    let known = || known(catalogue);
    if known().next().is_none() {
        bail!(
            "this kernel does not name system calls (CONFIG_FTRACE_SYSCALLS is off); raw_syscalls:* has their numbers"
        );
    }
    let wanted = Wanted::new(&spec.target)?;
    let names: Vec<_> = known().filter(|name| wanted.is(name)).collect();
    if names.is_empty() {
        bail!("there is no system call '{}'{}", spec.target, wanted.nearest(known()));
    }
    Ok((names, wanted.is_exact()))
}

fn list(lister: &Lister, spec: &Spec) -> Result<Vec<Listed>> {
    let catalogue = lister.finder()?.tracepoints();
    Ok(names(catalogue, spec)?.0.into_iter().map(|name| listed(lister, name, catalogue)).collect())
}

/// A system call as it is listed.
pub(super) fn listed(lister: &Lister, name: &str, catalogue: &Catalogue) -> Listed {
    let arguments = || {
        let mut arguments = catalogue.declared(&format!("{ENTER}{name}"));
        arguments.retain(|argument| argument.name != "__syscall_nr");
        if returns(name) {
            arguments.extend([Declared::new("long", "ret"), Declared::new("u64", arguments::DURATION)]);
        }
        arguments
    };
    lister.listed(ProbeKind::Syscall, format!("syscall:{name}"), arguments)
}

fn find(finder: &Finder, spec: &Spec) -> Result<Vec<Event>> {
    let (names, explicit) = names(&finder.tracepoints, spec)?;
    let events = names.into_iter().map(|name| event(&finder.tracepoints, spec, name, explicit));
    let mut events: Vec<_> = events.collect::<Result<_>>()?;
    // A condition, or a choice of arguments, is of one call's own.
    if spec.target == "*" && spec.condition.is_none() && spec.arguments.is_none() {
        for side in [Side::Entry, Side::Exit] {
            events.push(compat::event(&finder.tracepoints, side, true, false)?);
        }
    } else {
        log::info!("{}: the calls of 64 bits alone; compat:* are those of 32-bit programs", spec.text);
    }
    Ok(events)
}

fn event(catalogue: &Catalogue, spec: &Spec, name: &str, explicit: bool) -> Result<Event> {
    let enter = catalogue.event(&format!("{ENTER}{name}"), true)?;
    let exit = catalogue.event(&format!("syscalls:sys_exit_{name}"), true)?;
    // After exec* the process has other memory: the texts are gone.
    let at_entry = name.starts_with("exec") || !returns(name);
    let mut values = Vec::new();
    // The first field is the call's number.
    for (index, field) in (0u16..).zip(enter.format.fields.iter().filter(|field| field.name != "__syscall_nr")) {
        let c_type = field.c_type.clone();
        let word = index + 1;
        let source = if at_entry { word } else { input::ENTRY + word };
        let is_text = c_type.replace(' ', "") == "constchar*" && !matches!(&*field.name, "buf" | "ubuf");
        let size = c_size(&c_type);
        let (content, fetch) = if is_text {
            let kind = FetchKind::String as u8;
            (Stored::String, Fetch { source, kind, len: MAX_STRING, ..Fetch::default() })
        } else if at_entry && field.name == "argv" {
            // The environment may hold secrets: who wants it says envp:strv.
            let kind = FetchKind::Strings as u8;
            (Stored::Strings, Fetch { source, kind, len: MAX_STRING, ..Fetch::default() })
        } else {
            let hexadecimal = c_type.contains('*');
            let content = Stored::Number { size: size.unsigned_abs(), signed: size < 0, hexadecimal };
            (content, layout::input(source, size.unsigned_abs()))
        };
        values.push(RecordedValue { name: field.name.clone(), c_type, content, fetch });
    }
    let mut probe = SystemCall { name: name.to_owned(), enter: enter.format.id, exit: None };
    let full = format!("syscall:{name}");
    if !returns(name) {
        return of_values(spec.kind, full, explicit, Arc::new(probe), select(spec, values)?, None);
    }
    probe.exit = Some(exit.format.id);
    let n_entry = if at_entry { values.len() } else { 0 };
    values.push(RecordedValue {
        name: "ret".to_owned(),
        c_type: "long".to_owned(),
        content: Stored::Number { size: 8, signed: true, hexadecimal: false },
        fetch: layout::input(1, 8),
    });
    values.push(arguments::duration());
    let values = select(spec, values)?;
    let n_entry =
        values.iter().take(n_entry).filter(|value| !matches!(&*value.name, "ret" | arguments::DURATION)).count();
    let at_exec = cfg!(target_arch = "x86_64") && name == "execveat";
    let pair = Pair { frame: None, is_single: true, at_exec };
    of_values(spec.kind, full, explicit, Arc::new(probe), values, Some((pair, n_entry)))
}

/// Bytes of an argument of a system call, negative for a signed one.
fn c_size(c_type: &str) -> i8 {
    match c_type.trim_start_matches("const ").trim() {
        "int" | "pid_t" | "clockid_t" | "timer_t" | "key_serial_t" | "mqd_t" | "rwf_t" | "__s32" | "s32" => -4,
        "unsigned" | "unsigned int" | "uid_t" | "gid_t" | "qid_t" | "u32" | "__u32" | "key_t" => 4,
        "umode_t" => 2,
        "long" | "off_t" | "loff_t" | "ssize_t" | "time_t" => -8,
        _ => 8,
    }
}
