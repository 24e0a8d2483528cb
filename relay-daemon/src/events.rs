//! Finds the tracepoints that the user means.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use relay_common::recipe::{Recipe, flag};

use relay_trace::{
    condition::spec::Kind,
    form::format::Format,
    similar::{nearest, offer},
};

/// Categories whose events run no eBPF programs, although the kernel lets one be attached (kernel/trace/trace_events_user.c and
/// trace_events_synth.c).
const NO_PROGRAMS: [&str; 3] = ["synthetic", "user_events", "user_events_multi"];

/// An event that can be recorded.
#[derive(Clone, Debug)]
pub struct Event {
    /// `category:name` of a tracepoint, `kind:…` of anything else.
    pub name: String,
    /// Its layout.
    pub format: Format,
    /// The description of the layout: the kernel's as it stands, or one of the same form.
    pub text: String,
    /// Named by the user in full: it must be attached. A pattern's events may turn out not to be attachable.
    pub explicit: bool,
    /// Where its program is attached.
    pub probe: Probe,
    /// What is to be done beyond copying a tracepoint's fields.
    pub recipe: Option<Box<Recipe>>,
}

/// Where an event's program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// To a tracepoint.
    Tracepoint {
        /// By its id in tracefs.
        id: u64,
    },
    /// To the tracepoints of a system call.
    Syscall {
        /// By its id in tracefs: before it.
        enter: u64,
        /// After it.
        exit: u64,
    },
    /// To a tracepoint, without its fields.
    RawTracepoint {
        /// By its name.
        name: String,
    },
    /// To an instruction of the kernel, or to the return of a function.
    Kprobe {
        /// By its function.
        function: String,
        /// Bytes from there.
        offset: u64,
        /// To its return.
        returns: bool,
    },
    /// To a function of the kernel, by a trampoline.
    Function {
        /// Its name.
        name: String,
        /// Its BTF id.
        id: u32,
        /// The module that has it.
        module: Option<String>,
        /// To its return.
        returns: bool,
    },
    /// To an instruction of a program or a library, or to the return of a function.
    Uprobe {
        /// The file.
        path: PathBuf,
        /// Where it is in the file.
        offset: u64,
        /// To the return.
        returns: bool,
        /// Where in the file a number is kept above zero while it is attached.
        semaphore: Option<u64>,
    },
    /// To the clock of every CPU.
    Sampler {
        /// Samples a second.
        hertz: u64,
    },
}

impl Event {
    /// Whether entry and return are one record.
    #[must_use]
    pub fn is_pair(&self) -> bool {
        self.recipe.as_ref().is_some_and(|recipe| recipe.flags & flag::PAIR != 0)
    }

    /// Whether its record ends the recording.
    #[must_use]
    pub fn is_trigger(&self) -> bool {
        self.recipe.as_ref().is_some_and(|recipe| recipe.flags & flag::TRIGGER != 0)
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.probe {
            Probe::Tracepoint { .. } => Kind::Tracepoint,
            Probe::Syscall { .. } => Kind::Syscall,
            Probe::RawTracepoint { .. } => Kind::RawTracepoint,
            Probe::Kprobe { returns: false, .. } => Kind::Kprobe,
            Probe::Kprobe { .. } => Kind::Kretprobe,
            Probe::Function { returns: false, .. } => Kind::Fentry,
            Probe::Function { .. } => Kind::Fexit,
            Probe::Uprobe { semaphore: Some(_), .. } => Kind::Usdt,
            Probe::Uprobe { returns: false, .. } => Kind::Uprobe,
            Probe::Uprobe { .. } => Kind::Uretprobe,
            Probe::Sampler { .. } => Kind::Profile,
        }
    }
}

/// The tracepoints of the running kernel.
#[derive(Debug)]
pub struct Catalogue {
    folder: PathBuf,
    names: Vec<String>,
}

impl Catalogue {
    /// Lists the tracepoints in tracefs.
    ///
    /// # Errors
    /// When tracefs cannot be read.
    pub fn read(tracefs: &Path) -> Result<Self> {
        let folder = tracefs.join("events");
        let mut names = Vec::new();
        for category in subfolders(&folder)?.into_iter().filter(|category| !NO_PROGRAMS.contains(&category.as_str())) {
            for name in subfolders(&folder.join(&category))? {
                // Without `enable`: formats of ftrace's own entries, not tracepoints.
                if folder.join(&category).join(&name).join("enable").exists() {
                    names.push(format!("{category}:{name}"));
                }
            }
        }
        names.sort_unstable();
        Ok(Self { folder, names })
    }

    /// `category:name` of every tracepoint, sorted.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The tracepoints that patterns mean: `category:name` with `*`, `?` and `[…]`, several in one string separated by commas.
    /// Each is taken once, in the catalogue's order.
    ///
    /// # Errors
    /// When a pattern means nothing; the message has the nearest names.
    pub fn select(&self, patterns: &[String]) -> Result<Vec<Event>> {
        // Per name of the catalogue: not selected, by a pattern, in full.
        let mut selected = vec![None; self.names.len()];
        for pattern in patterns.iter().flat_map(|list| list.split(',')).map(str::trim) {
            if pattern.is_empty() {
                bail!("an empty event name; give CATEGORY:NAME, for example sched:sched_switch");
            }
            let glob = glob::Pattern::new(pattern).with_context(|| format!("the event pattern '{pattern}'"))?;
            let explicit = glob::Pattern::escape(pattern) == pattern;
            let mut found = false;
            for (name, selected) in self.names.iter().zip(&mut selected) {
                if glob.matches(name) {
                    found = true;
                    *selected = Some(explicit || selected.unwrap_or(false));
                }
            }
            if !found {
                bail!("{}", self.not_found(pattern, explicit));
            }
        }
        let chosen = self.names.iter().zip(selected);
        let mut events = Vec::new();
        for (name, explicit) in chosen {
            match explicit.map(|explicit| self.event(name, explicit)) {
                Some(Ok(event)) => events.push(event),
                Some(Err(error)) if explicit == Some(false) => log::warn!("left out {name}: {error:#}"),
                Some(Err(error)) => return Err(error),
                None => {}
            }
        }
        Ok(events)
    }

    /// The tracepoint of a name.
    ///
    /// # Errors
    /// When its format cannot be read, or not be understood.
    pub fn event(&self, name: &str, explicit: bool) -> Result<Event> {
        let path = self.folder.join(name.replacen(':', "/", 1)).join("format");
        let mut text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        if name.starts_with("syscalls:sys_enter_") {
            text = without_located(&text);
        }
        let format = Format::parse(&text).with_context(|| format!("parsing {}", path.display()))?;
        let probe = Probe::Tracepoint { id: format.id };
        Ok(Event { name: name.to_owned(), format, text, explicit, probe, recipe: None })
    }

    pub(crate) fn not_found<'a>(&'a self, pattern: &str, explicit: bool) -> String {
        let what = if explicit { "no tracepoint is named" } else { "no tracepoint matches" };
        let message = format!("{what} '{pattern}'");
        if !pattern.contains(':') {
            let category = format!("{pattern}:");
            if self.names.iter().any(|name| name.starts_with(&category)) {
                return format!("{message}; all of the category: -e '{pattern}:*'");
            }
            let same_name: Vec<_> = self
                .names
                .iter()
                .filter(|name| name.split_once(':').is_some_and(|(_, name)| name == pattern))
                .collect();
            if let [name] = same_name[..] {
                return format!("{message}; did you mean {name}?");
            }
        }
        let name = |full: &'a String| match full.split_once(':') {
            Some((_, bare)) if !pattern.contains(':') => bare,
            _ => full,
        };
        message + &offer(&nearest(pattern, &self.names, name))
    }
}

/// From Linux 6.19 on ftrace copies the texts of system calls' arguments and says where in fields of its own; programs are not shown these
/// (kernel/trace/trace_syscalls.c, `perf_call_bpf_enter`).
fn without_located(format: &str) -> String {
    format.split_inclusive('\n').filter(|line| !line.contains("field:__data_loc ")).collect()
}

fn subfolders(folder: &Path) -> Result<Vec<String>> {
    let reading = || format!("reading {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tracefs with three tracepoints, and an entry that is none.
    fn catalogue() -> (tempfile::TempDir, Catalogue) {
        let root = tempfile::tempdir().unwrap();
        for (id, name) in
            ["sched/sched_switch", "sched/sched_wakeup", "irq/irq_handler_entry", "ftrace/print"].iter().enumerate()
        {
            let folder = root.path().join("events").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("format"), format!("name: x\nID: {id}\nformat:\n")).unwrap();
            if !name.starts_with("ftrace") {
                fs::write(folder.join("enable"), "0").unwrap();
            }
        }
        let catalogue = Catalogue::read(root.path()).unwrap();
        (root, catalogue)
    }

    fn select(patterns: &[&str]) -> Result<Vec<(String, bool)>, String> {
        let (_root, catalogue) = catalogue();
        let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        let events = catalogue.select(&patterns).map_err(|e| format!("{e:#}"))?;
        Ok(events.into_iter().map(|event| (event.name, event.explicit)).collect())
    }

    #[test]
    fn globs_and_lists_select_each_event_once() {
        let switch = ("sched:sched_switch".to_owned(), true);
        let wakeup = ("sched:sched_wakeup".to_owned(), false);
        assert_eq!(select(&["sched:*,sched:sched_switch"]), Ok(vec![switch.clone(), wakeup.clone()]));
        assert_eq!(select(&["sched:sched_switch", "sched:*"]), Ok(vec![switch, wakeup]));
    }

    #[test]
    fn an_unknown_name_offers_the_nearest() {
        let error = select(&["sched:sched_swich"]).unwrap_err();
        assert!(error.contains("did you mean sched:sched_switch"), "{error}");
        let error = select(&["sched_switch"]).unwrap_err();
        assert!(error.contains("did you mean sched:sched_switch?"), "{error}");
        let error = select(&["sched"]).unwrap_err();
        assert!(error.contains("-e 'sched:*'"), "{error}");
    }

    #[test]
    fn what_programs_of_system_calls_are_not_shown_is_no_field() {
        let format = "ID: 1\nformat:\n\tfield:const char * filename;\toffset:16;\tsize:8;\tsigned:0;\n\
            \tfield:__data_loc char[] __filename_val;\toffset:24;\tsize:4;\tsigned:0;\n";
        let format = Format::parse(&without_located(format)).unwrap();
        assert_eq!((format.fields.len(), format.size()), (1, 24));
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        let error = select(&["nosuch:*"]).unwrap_err();
        assert!(error.contains("no tracepoint matches 'nosuch:*'"), "{error}");
        assert!(select(&["sched:*,"]).unwrap_err().contains("empty event name"));
        assert!(select(&["ftrace:print"]).is_err());
    }
}
