//! Attaches the tracer's programs to hooks. A kind of probe knows which (`probe/`).

use std::{
    collections::HashMap,
    ffi::CStr,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow, bail};
use relay_common::trace::Cookie;

use super::{
    calls,
    hook::{Guard, Hook},
    object::Object,
    programs::{Link, Loaded},
    served::Served,
};
use crate::{
    host,
    sys::{
        attach_raw, btf_by_id, btf_name, link_functions, link_perf_event, next_btf_id, open_probe, open_sampler,
        open_tracepoint,
    },
};
use relay_channel::machine;

/// A function of the kernel, by its types.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traced<'a> {
    /// Its BTF id.
    pub(crate) id: u32,
    /// The BTF of the module that has it.
    pub(crate) module: Option<BorrowedFd<'a>>,
    /// To its return.
    pub(crate) returns: bool,
}

/// An instruction of the kernel or of a program, or a return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The function, or the file.
    pub(crate) name: &'a CStr,
    /// Bytes from there.
    pub(crate) offset: u64,
    /// To the return of the function that begins there.
    pub(crate) returns: bool,
    /// Where in the file a number is kept above zero while it is attached.
    pub(crate) semaphore: Option<u64>,
}

/// What is attached, and by which programs.
#[derive(Debug)]
pub(crate) struct Attached {
    object: Object,
    programs: Vec<Loaded>,
    /// Closing them detaches.
    links: Vec<Link>,
    /// Of the programs, those that serve many events: by name, by what keeps the kernel from running them twice at once, by instance, and by the
    /// bytes of the fields that they copy themselves.
    shared: HashMap<(&'static str, Guard, Instance, i16), usize>,
    modules: HashMap<String, OwnedFd>,
}

/// Why a program is loaded more than once for hooks with one guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Instance {
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
    /// Nothing yet, by programs of this object.
    pub(crate) fn by(object: Object) -> Self {
        Self { object, programs: Vec::new(), links: Vec::new(), shared: HashMap::new(), modules: HashMap::new() }
    }

    /// What stays in the kernel.
    pub(crate) fn into_parts(self) -> (Vec<Loaded>, Vec<Link>) {
        (self.programs, self.links)
    }

    fn push(&mut self, events: &[u16], link: OwnedFd) {
        self.links.push(Link { events: events.to_vec(), is_shared: false, link });
    }

    /// The program of a name that serves any number of events, loaded when it is first needed.
    fn shared(&mut self, name: &'static str, hook: Hook<'_>, instance: Instance) -> Result<BorrowedFd<'_>> {
        self.shared_for(name, hook, instance, 0)
    }

    /// The same for tracepoints with so many bytes of fields.
    fn shared_for(
        &mut self,
        name: &'static str,
        hook: Hook<'_>,
        instance: Instance,
        fields: i16,
    ) -> Result<BorrowedFd<'_>> {
        let key = (name, hook.guard(), instance, fields);
        let index = match self.shared.get(&key) {
            Some(index) => *index,
            None => {
                let program = self.object.load_for(name, hook, None, fields)?;
                self.programs.push(Loaded { name: name.to_owned(), program });
                self.shared.insert(key, self.programs.len() - 1);
                self.programs.len() - 1
            }
        };
        Ok(self.programs[index].program.as_fd())
    }

    /// A program for one event; with a cookie where its attachment can have none, and for so many bytes of fields.
    fn own(
        &mut self,
        name: &str,
        hook: Hook<'_>,
        event: &Served<'_>,
        cookie: Option<Cookie>,
        fields: i16,
    ) -> Result<BorrowedFd<'_>> {
        let number = cookie.map(|cookie| i32::try_from(cookie.pack())).transpose().context("the event's cookie")?;
        let program = self.object.load_for(name, hook, number, fields)?;
        self.programs.push(Loaded { name: format!("{name} ({})", event.name), program });
        let last = self.programs.last().context("a program")?;
        Ok(last.program.as_fd())
    }

    /// Attaches what follows processes to those that they start.
    pub(crate) fn follow(&mut self) -> Result<()> {
        for (name, tracepoint) in [("on_free", c"sched_process_free"), ("on_fork", c"sched_process_fork")] {
            let program = self.shared(name, Hook::RawTracepoint, Instance::First)?;
            let link = attach_raw(program, Some(tracepoint)).with_context(|| format!("attaching {name}"))?;
            self.push(&[], link);
        }
        Ok(())
    }

    /// Attaches a program to the tracepoint of all system calls, `id`, for some of them: their places in its layer's table begin at `begin`.
    pub(crate) fn calls(
        &mut self,
        program: &'static str,
        layer: usize,
        (id, begin): (u64, u32),
        events: Vec<u16>,
    ) -> Result<()> {
        let program = self.shared(program, Hook::Tracepoint, Instance::Layer(layer))?;
        let link = tracepoint(program, id, begin.into()).context("attaching to the tracepoints of all system calls")?;
        self.links.push(Link { events, is_shared: true, link });
        Ok(())
    }

    /// Attaches a program of its own to all system calls by their types, for some of them or for one event of all. What it is told stands in its
    /// instructions.
    pub(crate) fn calls_by_type(
        &mut self,
        (program, hook): (&str, Hook<'_>),
        order: u32,
        events: Vec<u16>,
        is_shared: bool,
    ) -> Result<()> {
        let loaded = self.object.load(program, hook, Some(i32::try_from(order).context("the program's order")?))?;
        let link = attach_raw(loaded.as_fd(), None).context("attaching to all system calls")?;
        self.programs.push(Loaded { name: program.to_owned(), program: loaded });
        self.links.push(Link { events, is_shared, link });
        Ok(())
    }

    /// Attaches to a tracepoint, by its id in tracefs.
    pub(crate) fn tracepoint(&mut self, event: &Served<'_>, hook: Hook<'_>, instance: Instance, id: u64) -> Result<()> {
        let instance = if event.is_trigger { Instance::Until } else { instance };
        let fields = event.fields();
        let name = match fields {
            0 if event.by_recipe => "on_tp_recipe",
            0 => "on_tracepoint",
            _ => "on_fields",
        };
        // A task that is preempted inside a program keeps all others on its CPU out of it: of this event, then, and not of every system call.
        let program = if hook.guard() == Guard::Program && hook.is_preemptible() {
            self.own(name, hook, event, None, fields)?
        } else {
            self.shared_for(name, hook, instance, fields)?
        };
        let link = tracepoint(program, id, event.cookie.pack());
        let link = link.map_err(|error| explain(error, "attaching to", hook, event))?;
        self.push(&[event.cookie.id], link);
        Ok(())
    }

    /// Attaches an event of a system call that executes programs to where those of 32 bits have been: the kernel does not show that such a call
    /// returns.
    pub(crate) fn exec(&mut self, event: &Served<'_>) -> Result<()> {
        const TRACEPOINT: &str = "sched/sched_process_exec";
        let program = self.own("on_exec", Hook::Tracepoint, event, None, 0)?;
        let id = calls::id(&machine::tracefs()?, TRACEPOINT)?;
        let link = tracepoint(program, id, event.cookie.pack());
        let link = link.with_context(|| format!("attaching {} to {TRACEPOINT}", event.name))?;
        self.push(&[event.cookie.id], link);
        Ok(())
    }

    /// Attaches to a tracepoint without its fields, by its name.
    pub(crate) fn raw_tracepoint(&mut self, event: &Served<'_>, tracepoint: &CStr) -> Result<()> {
        let hook = Hook::RawTracepoint;
        let program = self.own("on_raw_tracepoint", hook, event, Some(event.cookie), 0)?;
        let link = attach_raw(program, Some(tracepoint));
        let link = link.map_err(|error| explain(error, "attaching to", hook, event))?;
        self.push(&[event.cookie.id], link);
        Ok(())
    }

    /// Attaches to an instruction or a return, of the kernel or of a program as the hook says.
    pub(crate) fn place(&mut self, event: &Served<'_>, hook: Hook<'_>, place: Place<'_>) -> Result<()> {
        let kind = host::perf_source(if matches!(hook, Hook::Uprobe) { "uprobe" } else { "kprobe" })?;
        let program = self.shared("on_probe", hook, Instance::First)?;
        // The reference counter's place is in the upper half of the configuration.
        let config = u64::from(place.returns) | place.semaphore.unwrap_or(0) << 32;
        let opened = open_probe(kind, config, place.name, place.offset);
        let opened = opened.map_err(|error| explain(error, "opening", hook, event))?;
        let link = link_perf_event(program, opened.as_fd(), event.cookie.pack());
        let link = link.map_err(|error| explain(error, "attaching to", hook, event))?;
        self.push(&[event.cookie.id], link);
        Ok(())
    }

    /// Attaches to a function of the kernel by a trampoline.
    pub(crate) fn trampoline(&mut self, event: &Served<'_>, function: Traced<'_>) -> Result<()> {
        let Traced { id, module, returns } = function;
        let (name, hook) =
            if returns { ("on_exit", Hook::Exit(id, module)) } else { ("on_entry", Hook::Entry(id, module)) };
        let program = self.own(name, hook, event, Some(event.cookie), 0)?;
        let link = attach_raw(program, None)?;
        self.push(&[event.cookie.id], link);
        Ok(())
    }

    /// Attaches to the clock of every CPU.
    pub(crate) fn sampler(&mut self, event: &Served<'_>, hertz: u64) -> Result<()> {
        let hook = Hook::Sample;
        let program = self.shared("on_sample", hook, Instance::First)?.try_clone_to_owned()?;
        for cpu in machine::online_cpus()? {
            let sampler = open_sampler(hertz, cpu).map_err(|error| explain(error, "opening", hook, event))?;
            let link = link_perf_event(program.as_fd(), sampler.as_fd(), event.cookie.pack());
            let link = link.map_err(|error| explain(error, "attaching to", hook, event))?;
            self.push(&[event.cookie.id], link);
        }
        Ok(())
    }

    /// The BTF of a module.
    pub(crate) fn module(&mut self, name: &str) -> Result<OwnedFd> {
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
    pub(crate) fn functions(&mut self, functions: &[(&CStr, Cookie)], returns: bool) -> Result<bool> {
        let program = self.shared("on_probe", Hook::Kprobes, Instance::Multi);
        let Ok(program) = program.and_then(|program| Ok(program.try_clone_to_owned()?)) else { return Ok(false) };
        let names: Vec<&CStr> = functions.iter().map(|(name, _)| *name).collect();
        let cookies: Vec<u64> = functions.iter().map(|(_, cookie)| cookie.pack()).collect();
        let Ok(link) = link_functions(program.as_fd(), &names, &cookies, returns) else { return Ok(false) };
        let events: Vec<u16> = functions.iter().map(|(_, cookie)| cookie.id).collect();
        self.push(&events, link);
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

fn explain(error: io::Error, what: &str, hook: Hook<'_>, event: &Served<'_>) -> anyhow::Error {
    if error.raw_os_error() == Some(libc::EILSEQ) {
        // What the number says otherwise is about text.
        return anyhow!("{what} {}: no instruction begins at that offset", event.name);
    }
    let is_tracepoint = matches!(hook, Hook::Tracepoint | Hook::SystemCall);
    let advice = match error.kind() {
        io::ErrorKind::InvalidInput if is_tracepoint => {
            "; it may be no static tracepoint, or the kernel older than 5.15"
        }
        io::ErrorKind::InvalidInput => {
            "; no probe may be put there: the kernel uses it to handle probes, or it is not the start of an instruction"
        }
        io::ErrorKind::NotFound => "; it may have been inlined everywhere, or its module not be loaded",
        io::ErrorKind::PermissionDenied if matches!(hook, Hook::Uprobe) => {
            "; kernels with the fix of CVE-2025-38466 let only CAP_SYS_ADMIN put probes into programs"
        }
        _ if error.raw_os_error() == Some(libc::EMFILE) => "; too many open files: raise `ulimit -n`",
        _ => "",
    };
    let kind = if is_tracepoint { "the tracepoint " } else { "" };
    anyhow::Error::new(error).context(format!("{what} {kind}{}{advice}", event.name))
}
