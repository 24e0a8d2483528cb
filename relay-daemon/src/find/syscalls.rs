//! System calls by name: the pair of tracepoints at entry and exit.

use anyhow::{Result, bail};
use relay_common::recipe::{Fetch, Kind as FetchKind, MAX_STRING, Recipe, flag, input};

use super::{Finder, event, pattern, select};
use crate::{
    events::{Event, Probe},
    values::{
        arguments,
        layout::{self, Content, Value},
    },
};
use relay_trace::{condition::spec::Spec, similar::did_you_mean};

/// System calls whose return no tracepoint tells.
const NO_RETURN: [&str; 3] = ["exit", "exit_group", "rt_sigreturn"];

/// Whether a record of it has what it returned, and how long it took.
pub(crate) fn returns(name: &str) -> bool {
    !NO_RETURN.contains(&name)
}

impl Finder {
    pub(crate) fn system_calls(&self, spec: &Spec) -> Result<Vec<Event>> {
        const ENTER: &str = "syscalls:sys_enter_";
        let known = || self.tracepoints.names().iter().filter_map(|name| name.strip_prefix(ENTER));
        if known().next().is_none() {
            bail!(
                "this kernel does not name system calls (CONFIG_FTRACE_SYSCALLS is off); raw_syscalls:* has their numbers"
            );
        }
        let (names, explicit) = match pattern(&spec.target)? {
            Some(pattern) => (known().filter(|name| pattern.matches(name)).collect::<Vec<_>>(), false),
            None => (known().filter(|name| *name == spec.target).collect(), true),
        };
        if names.is_empty() {
            bail!("there is no system call '{}'{}", spec.target, did_you_mean(&spec.target, known()));
        }
        names.into_iter().map(|name| self.system_call(spec, name, explicit)).collect()
    }

    fn system_call(&self, spec: &Spec, name: &str, explicit: bool) -> Result<Event> {
        let enter = self.tracepoints.event(&format!("syscalls:sys_enter_{name}"), true)?;
        let exit = self.tracepoints.event(&format!("syscalls:sys_exit_{name}"), true)?;
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
                (Content::String, Fetch { source, kind, len: MAX_STRING, ..Fetch::default() })
            } else {
                let hexadecimal = c_type.contains('*');
                let content = Content::Number { size: size.unsigned_abs(), signed: size < 0, hexadecimal };
                (content, layout::input(source, size.unsigned_abs()))
            };
            values.push(Value { name: field.name.clone(), c_type, content, fetch });
        }
        if !returns(name) {
            let mut values = select(spec, values)?;
            let probe = Probe::Tracepoint { id: enter.format.id };
            return event(format!("syscall:{name}"), explicit, probe, &mut values, 0, &mut Recipe::EMPTY.clone());
        }
        let n_entry = if at_entry { values.len() } else { 0 };
        values.push(Value {
            name: "ret".to_owned(),
            c_type: "long".to_owned(),
            content: Content::Number { size: 8, signed: true, hexadecimal: false },
            fetch: layout::input(1, 8),
        });
        values.push(arguments::duration());
        let mut values = select(spec, values)?;
        let n_entry =
            values.iter().take(n_entry).filter(|value| !matches!(&*value.name, "ret" | "duration_ns")).count();
        let probe = Probe::Syscall { enter: enter.format.id, exit: exit.format.id };
        let mut recipe = Recipe { flags: flag::PAIR | flag::SINGLE, ..Recipe::EMPTY };
        event(format!("syscall:{name}"), explicit, probe, &mut values, n_entry, &mut recipe)
    }
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
