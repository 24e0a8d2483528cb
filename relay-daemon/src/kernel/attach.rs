//! Attaches the tracer's programs to events, each kind in its own way.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use anyhow::{Context as _, Result, anyhow, bail};
use relay_common::trace::Cookie;

use super::{
    hook::{Guard, Hook},
    object::Object,
    programs::{Link, Loaded},
};
use crate::{
    events::{Event, Probe},
    host,
    sys::{
        attach_raw, btf_by_id, btf_name, link_functions, link_perf_event, next_btf_id, open_probe, open_sampler,
        open_tracepoint,
    },
};
use relay_channel::machine;
use relay_trace::form::format;

/// What is attached, and by which programs.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    programs: Vec<Loaded>,
    /// Closing them detaches.
    links: Vec<Link>,
    /// Of the programs, those that serve many events: by name, by what keeps the kernel from running them twice at once, and by instance.
    shared: HashMap<(&'static str, Guard, Instance), usize>,
    modules: HashMap<String, OwnedFd>,
}

/// Why a program is loaded more than once for hooks with one guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Instance {
    First,
    /// For kprobe.multi, which is an attach type of its own.
    Multi,
    /// For what ends the recording: the same event may be recorded by itself too.
    Until,
    /// For system calls: their tracepoints may be recorded by themselves too, and the kernel lets no program be attached to one twice.
    Syscall,
    /// For a layer of a table of system calls, likewise.
    Layer(usize),
}

impl Attached {
    /// What stays in the kernel.
    pub(crate) fn into_parts(self) -> (Vec<Loaded>, Vec<Link>) {
        (self.programs, self.links)
    }

    fn push(&mut self, events: &[Cookie], link: OwnedFd) {
        self.links.push(Link { events: events.iter().map(|cookie| cookie.id).collect(), is_shared: false, link });
    }

    /// The program of a name that serves any number of events, loaded when it is first needed.
    fn shared(
        &mut self,
        object: &Object,
        name: &'static str,
        hook: Hook<'_>,
        instance: Instance,
    ) -> Result<BorrowedFd<'_>> {
        let key = (name, hook.guard(), instance);
        let index = match self.shared.get(&key) {
            Some(index) => *index,
            None => {
                let program = object.load(name, hook, None)?;
                self.programs.push(Loaded { name: name.to_owned(), program });
                self.shared.insert(key, self.programs.len() - 1);
                self.programs.len() - 1
            }
        };
        Ok(self.programs[index].program.as_fd())
    }

    /// A program for one event; with a cookie where its attachment can have none.
    fn own(
        &mut self,
        object: &Object,
        name: &str,
        hook: Hook<'_>,
        event: &Event,
        cookie: Option<Cookie>,
    ) -> Result<BorrowedFd<'_>> {
        let number = cookie.map(|cookie| i32::try_from(cookie.pack())).transpose().context("the event's cookie")?;
        let program = object.load(name, hook, number)?;
        self.programs.push(Loaded { name: format!("{name} ({})", event.name), program });
        let last = self.programs.last().context("a program")?;
        Ok(last.program.as_fd())
    }

    /// Attaches what follows processes to those that they start.
    pub(crate) fn follow(&mut self, object: &Object) -> Result<()> {
        for (name, tracepoint) in [("on_free", c"sched_process_free"), ("on_fork", c"sched_process_fork")] {
            let program = self.shared(object, name, Hook::RawTracepoint, Instance::First)?;
            let link = attach_raw(program, Some(tracepoint)).with_context(|| format!("attaching {name}"))?;
            self.push(&[], link);
        }
        Ok(())
    }

    /// Attaches a program to the tracepoint of all system calls, `id`, for some of them: their places in its layer's table begin at `begin`.
    pub(crate) fn calls(
        &mut self,
        object: &Object,
        program: &'static str,
        layer: usize,
        (id, begin): (u64, u32),
        events: Vec<u16>,
    ) -> Result<()> {
        let program = self.shared(object, program, Hook::Tracepoint, Instance::Layer(layer))?;
        let link = tracepoint(program, id, begin.into()).context("attaching to the tracepoints of all system calls")?;
        self.links.push(Link { events, is_shared: true, link });
        Ok(())
    }

    /// Attaches to an event; `index` is its id.
    pub(crate) fn attach(&mut self, object: &Object, index: usize, event: &Event) -> Result<()> {
        let exit = cookie(event, index)?;
        let entry = Cookie { entry: true, ..exit };
        // The return first: an entry that nobody takes up again would stay for ever.
        match &event.probe {
            Probe::Tracepoint { id } => self.tracepoint(object, event, *id, exit),
            Probe::Syscall { enter, exit: after } => {
                self.tracepoint(object, event, *after, exit)?;
                self.tracepoint(object, event, *enter, entry)
            }
            Probe::RawTracepoint { name } => {
                let program = self.own(object, "on_raw_tracepoint", Hook::RawTracepoint, event, Some(exit))?;
                let link = attach_raw(program, Some(&CString::new(name.as_str())?));
                let link = link.map_err(|error| explain(error, "attaching to", event))?;
                self.push(&[exit], link);
                Ok(())
            }
            Probe::Kprobe { function, offset, returns } => {
                let name = CString::new(function.as_str())?;
                self.probe(object, event, Hook::Kprobe, &name, *offset, u64::from(*returns), exit)?;
                if *returns && event.is_pair() {
                    self.probe(object, event, Hook::Kprobe, &name, 0, 0, entry)?;
                }
                Ok(())
            }
            Probe::Uprobe { path, offset, returns, semaphore } => {
                let name = CString::new(path.as_os_str().as_bytes())?;
                // The reference counter's place is in the upper half of the configuration.
                let config = u64::from(*returns) | semaphore.unwrap_or(0) << 32;
                self.probe(object, event, Hook::Uprobe, &name, *offset, config, exit)?;
                if *returns && event.is_pair() {
                    self.probe(object, event, Hook::Uprobe, &name, *offset, 0, entry)?;
                }
                Ok(())
            }
            Probe::Function { id, module, returns, .. } => {
                self.function(object, event, *id, module.as_deref(), *returns, exit)?;
                if *returns && event.is_pair() {
                    self.function(object, event, *id, module.as_deref(), false, entry)?;
                }
                Ok(())
            }
            Probe::Sampler { hertz } => {
                let program = self.shared(object, "on_sample", Hook::Sample, Instance::First)?.try_clone_to_owned()?;
                for cpu in machine::online_cpus()? {
                    let sampler = open_sampler(*hertz, cpu).map_err(|error| explain(error, "opening", event))?;
                    let link = link_perf_event(program.as_fd(), sampler.as_fd(), exit.pack());
                    let link = link.map_err(|error| explain(error, "attaching to", event))?;
                    self.push(&[exit], link);
                }
                Ok(())
            }
        }
    }

    fn tracepoint(&mut self, object: &Object, event: &Event, id: u64, cookie: Cookie) -> Result<()> {
        let instance = match event.probe {
            _ if event.is_trigger() => Instance::Until,
            Probe::Syscall { .. } => Instance::Syscall,
            _ => Instance::First,
        };
        let name = if event.recipe.is_some() { "on_tp_recipe" } else { "on_tracepoint" };
        let hook = Hook::of_tracepoint(event);
        // A task that is preempted inside a program keeps all others on its CPU out of it: of this event, then, and not of every system call.
        let program = if hook.guard() == Guard::Program && hook.is_preemptible() {
            self.own(object, name, hook, event, None)?
        } else {
            self.shared(object, name, hook, instance)?
        };
        let link = tracepoint(program, id, cookie.pack()).map_err(|error| explain(error, "attaching to", event))?;
        self.push(&[cookie], link);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "what perf_event_open wants to know of a probe")]
    fn probe(
        &mut self,
        object: &Object,
        event: &Event,
        hook: Hook<'_>,
        name: &CStr,
        offset: u64,
        config: u64,
        cookie: Cookie,
    ) -> Result<()> {
        let kind = host::perf_source(if matches!(hook, Hook::Uprobe) { "uprobe" } else { "kprobe" })?;
        let program = self.shared(object, "on_probe", hook, Instance::First)?;
        let opened = open_probe(kind, config, name, offset).map_err(|error| explain(error, "opening", event))?;
        let link = link_perf_event(program, opened.as_fd(), cookie.pack());
        let link = link.map_err(|error| explain(error, "attaching to", event))?;
        self.push(&[cookie], link);
        Ok(())
    }

    fn function(
        &mut self,
        object: &Object,
        event: &Event,
        id: u32,
        module: Option<&str>,
        returns: bool,
        cookie: Cookie,
    ) -> Result<()> {
        let module = module.map(|module| self.module(module)).transpose()?;
        let module = module.as_ref().map(|module| module.as_fd());
        let (name, hook) =
            if returns { ("on_exit", Hook::Exit(id, module)) } else { ("on_entry", Hook::Entry(id, module)) };
        let program = self.own(object, name, hook, event, Some(cookie)).map_err(|error| no_trampoline(error, event))?;
        let link = attach_raw(program, None).map_err(|error| no_trampoline(error.into(), event))?;
        self.push(&[cookie], link);
        Ok(())
    }

    /// The BTF of a module.
    fn module(&mut self, name: &str) -> Result<OwnedFd> {
        if let Some(btf) = self.modules.get(name) {
            return Ok(btf.try_clone()?);
        }
        let mut id = 0;
        while let Some(next) = next_btf_id(id).context("listing the kernel's BTF")? {
            id = next;
            // One that is gone meanwhile is not the one.
            let Ok(btf) = btf_by_id(id) else { continue };
            if btf_name(btf.as_fd()).is_ok_and(|found| found == name) {
                self.modules.insert(name.to_owned(), btf.try_clone()?);
                return Ok(btf);
            }
        }
        bail!("the module {name} is not loaded")
    }

    /// Attaches to many functions of the kernel at once, where it can do that; `false` where not.
    pub(crate) fn attach_functions(
        &mut self,
        object: &Object,
        events: &[(usize, &Event)],
        first: u16,
        returns: bool,
    ) -> Result<bool> {
        let function = |event: &Event| match &event.probe {
            Probe::Kprobe { function, .. } => Ok(CString::new(function.as_str())?),
            _ => bail!("{} is no kprobe", event.name),
        };
        let names: Vec<CString> = events.iter().map(|(_, event)| function(event)).collect::<Result<_>>()?;
        let names: Vec<&CStr> = names.iter().map(CString::as_c_str).collect();
        let cookies: Vec<Cookie> =
            events.iter().map(|(index, event)| cookie(event, usize::from(first) + index)).collect::<Result<_>>()?;
        let Ok(program) = self
            .shared(object, "on_probe", Hook::Kprobes, Instance::Multi)
            .and_then(|program| Ok(program.try_clone_to_owned()?))
        else {
            return Ok(false);
        };
        let packed: Vec<u64> = cookies.iter().map(|cookie| cookie.pack()).collect();
        let Ok(link) = link_functions(program.as_fd(), &names, &packed, returns) else { return Ok(false) };
        self.push(&cookies, link);
        Ok(true)
    }
}

fn tracepoint(program: BorrowedFd<'_>, id: u64, cookie: u64) -> io::Result<OwnedFd> {
    let event = open_tracepoint(id)?;
    // The link keeps the perf event.
    link_perf_event(program, event.as_fd(), cookie)
}

pub(crate) fn is_out_of_files(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(libc::EMFILE))
}

fn explain(error: io::Error, what: &str, event: &Event) -> anyhow::Error {
    if error.raw_os_error() == Some(libc::EILSEQ) {
        // What the number says otherwise is about text.
        return anyhow!("{what} {}: no instruction begins at that offset", event.name);
    }
    let is_tracepoint = matches!(event.probe, Probe::Tracepoint { .. });
    let is_of_a_program = matches!(event.probe, Probe::Uprobe { .. });
    let advice = match error.kind() {
        io::ErrorKind::InvalidInput if is_tracepoint => {
            "; it may be no static tracepoint, or the kernel older than 5.15"
        }
        io::ErrorKind::InvalidInput => {
            "; no probe may be put there: the kernel uses it to handle probes, or it is not the start of an instruction"
        }
        io::ErrorKind::NotFound => "; it may have been inlined everywhere, or its module not be loaded",
        io::ErrorKind::PermissionDenied if is_of_a_program => {
            "; kernels with the fix of CVE-2025-38466 let only CAP_SYS_ADMIN put probes into programs"
        }
        _ if error.raw_os_error() == Some(libc::EMFILE) => "; too many open files: raise `ulimit -n`",
        _ => "",
    };
    let name = if is_tracepoint { format!("the tracepoint {}", event.name) } else { event.name.clone() };
    anyhow::Error::new(error).context(format!("{what} {name}{advice}"))
}

/// Of a kernel, or a function, without fentry.
fn no_trampoline(error: anyhow::Error, event: &Event) -> anyhow::Error {
    let Probe::Function { name, returns, .. } = &event.probe else { return error };
    let advice = if host::has_kprobes() {
        format!("{}:{name} would work here", if *returns { "kretprobe" } else { "kprobe" })
    } else {
        "this kernel has no kprobes either; tracepoint:, rawtracepoint: and syscall: work here".to_owned()
    };
    error.context(format!("{}: the kernel lets no trampoline be put there; {advice}", event.name))
}

pub(crate) fn cookie(event: &Event, index: usize) -> Result<Cookie> {
    let Ok(id) = u16::try_from(index) else {
        bail!("{} events are too many for one trace: ids have 16 bits", index + 1);
    };
    let whole = Cookie { id, size: 0, last_loc: 0, relative: false, entry: false };
    if !matches!(event.probe, Probe::Tracepoint { .. }) {
        return Ok(whole);
    }
    // Dynamic data lie in the order of their location words: the last ends the record.
    let last = format::dynamic(&event.format.fields).next_back();
    Ok(Cookie {
        size: u16::try_from(event.format.size())?,
        last_loc: last.map_or(Ok(0), |(field, ..)| u16::try_from(field.bytes.start))?,
        relative: last.is_some_and(|(.., relative)| relative),
        ..whole
    })
}
