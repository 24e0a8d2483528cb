//! Tracepoints, with their own fields as the kernel lays them out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use relay_trace::{
    condition::spec::{ProbeKind, Spec},
    form::format::Format,
    similar::{nearest, offer},
};

use super::{
    Event, Finder, Probe, Room, compat,
    enumerators::{self, Enumerators},
    listing::{Declared, Listed, Lister},
    wanted::Wanted,
    without_arguments,
};
use crate::kernel::{
    attach::{Attached, Instance},
    calls::{COMPAT, Side},
    hook::Hook,
    served::Served,
};

/// The room of tracepoints.
pub(super) const ROOM: Room = Room { lacks: || None, find, list };

/// Categories whose events run no eBPF programs, although the kernel lets one be attached (kernel/trace/trace_events_user.c and
/// trace_events_synth.c).
const NO_PROGRAMS: [&str; 3] = ["synthetic", "user_events", "user_events_multi"];

/// Categories whose tracepoints never run in NMI context: they stand where locks are held or where only tasks and ordinary
/// interrupts come by. Where a session has others, stamps are kept from falling, at the cost of one exchange a record.
const NEVER_IN_NMI: [&str; 16] = [
    "block",
    "ext4",
    "irq",
    "net",
    "raw_syscalls",
    "sched",
    "signal",
    "skb",
    "sock",
    "syscalls",
    "task",
    "tcp",
    "timer",
    "udp",
    "workqueue",
    "writeback",
];

/// A tracepoint.
#[derive(Debug)]
struct Tracepoint {
    /// `category:name`.
    name: String,
    /// Its id in tracefs.
    id: u64,
}

impl Tracepoint {
    fn category(&self) -> &str {
        self.name.split(':').next().unwrap_or_default()
    }
}

impl Probe for Tracepoint {
    fn hook(&self) -> Hook<'static> {
        if self.category() == "syscalls" { Hook::SystemCall } else { Hook::Tracepoint }
    }

    fn can_run_in_nmi(&self) -> bool {
        !NEVER_IN_NMI.contains(&self.category())
    }

    fn attach(&self, event: &Served<'_>, to: &mut Attached) -> Result<()> {
        to.tracepoint(event, self.hook(), Instance::First, self.id)
    }

    fn all_calls(&self) -> Option<Side> {
        let sides = [Side::Entry, Side::Exit];
        sides.into_iter().find(|side| self.name.strip_prefix("raw_syscalls:") == Some(side.tracepoint()))
    }

    fn call(&self) -> Option<(&str, &'static [Side])> {
        let name = self.name.strip_prefix("syscalls:")?;
        match name.strip_prefix("sys_enter_") {
            Some(name) => Some((name, &[Side::Entry])),
            None => Some((name.strip_prefix("sys_exit_")?, &[Side::Exit])),
        }
    }
}

/// Tracepoints as the kernel describes them, with values in place of enumerators' names.
fn find(finder: &Finder, spec: &Spec) -> Result<Vec<Event>> {
    without_arguments(spec)?;
    let compat = compat::named(&finder.tracepoints, spec)?;
    if !compat.is_empty() {
        return Ok(compat);
    }
    let mut events = finder.tracepoints.select(std::slice::from_ref(&spec.target))?;
    for event in events.iter_mut().filter(|event| enumerators::has_names(&event.text)) {
        let known = finder.enumerators.get_or_init(|| Some(Enumerators::of(finder.kernel().ok()?.vmlinux())));
        if let Some(known) = known {
            event.text = known.replace(&event.text);
        }
    }
    events.extend(compat::left_out(&finder.tracepoints, spec)?);
    Ok(events)
}

fn list(lister: &Lister, spec: &Spec) -> Result<Vec<Listed>> {
    let catalogue = lister.finder()?.tracepoints();
    let wanted = Wanted::new(&spec.target)?;
    let names = catalogue.names().iter().filter(|name| wanted.is(name));
    let mut events: Vec<_> = names.map(|name| listed(lister, name, catalogue)).collect();
    for (name, same) in compat::known().filter(|(name, _)| spec.target.starts_with(COMPAT) && wanted.is(name)) {
        events.push(lister.listed(ProbeKind::Tracepoint, name, || catalogue.declared(&same)));
    }
    if events.is_empty() {
        bail!("{}", catalogue.not_found(&spec.target, wanted.is_exact()));
    }
    Ok(events)
}

/// The events that are somebody's own probes, made through `kprobe_events`, `uprobe_events` or `dynamic_events`: the kernel takes other programs there than
/// at tracepoints (kernel/events/core.c, `perf_event_set_bpf_prog`).
fn made_by_others(tracefs: &Path) -> BTreeSet<String> {
    let files = ["kprobe_events", "uprobe_events", "dynamic_events"];
    let texts = files.iter().filter_map(|file| fs::read_to_string(tracefs.join(file)).ok());
    let name = |line: &str| Some(line.split_once(':')?.1.split_whitespace().next()?.replacen('/', ":", 1));
    texts.flat_map(|text| text.lines().filter_map(name).collect::<Vec<_>>()).collect()
}

/// A tracepoint as it is listed.
pub(super) fn listed(lister: &Lister, name: &str, catalogue: &Catalogue) -> Listed {
    lister.listed(ProbeKind::Tracepoint, name.to_owned(), || catalogue.declared(name))
}

/// The tracepoints of the running kernel.
#[derive(Debug)]
pub struct Catalogue {
    folder: PathBuf,
    names: Vec<String>,
    /// Those that are somebody's own probes.
    others: Vec<String>,
}

impl Catalogue {
    /// Lists the tracepoints in tracefs.
    ///
    /// # Errors
    /// When tracefs cannot be read.
    pub fn read(tracefs: &Path) -> Result<Self> {
        let folder = tracefs.join("events");
        let mut names = Vec::new();
        let others = made_by_others(tracefs);
        for category in subfolders(&folder)?.into_iter().filter(|category| !NO_PROGRAMS.contains(&category.as_str())) {
            for name in subfolders(&folder.join(&category))? {
                // Without `enable`: formats of ftrace's own entries, not tracepoints.
                if folder.join(&category).join(&name).join("enable").exists() {
                    names.push(format!("{category}:{name}"));
                }
            }
        }
        names.sort_unstable();
        let (names, others) = names.into_iter().partition(|name| !others.contains(name));
        Ok(Self { folder, names, others })
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
        let name = name.to_owned();
        Ok(Event {
            id: 0,
            probe: Arc::new(Tracepoint { name: name.clone(), id: format.id }),
            name,
            kind: ProbeKind::Tracepoint,
            explicit,
            format,
            text,
            values: None,
            pair: None,
            condition: None,
            limit: None,
            is_trigger: false,
        })
    }

    /// The fields of a tracepoint as they are listed; nothing of one whose layout is not understood.
    pub(super) fn declared(&self, name: &str) -> Vec<Declared> {
        match self.event(name, false) {
            Ok(event) => event.format.fields.iter().map(Declared::field).collect(),
            Err(error) => {
                log::warn!("{name} cannot be recorded: {error:#}");
                Vec::new()
            }
        }
    }

    fn not_found<'a>(&'a self, pattern: &str, explicit: bool) -> String {
        let what = if explicit { "no tracepoint is named" } else { "no tracepoint matches" };
        let message = format!("{what} '{pattern}'");
        let is_meant = |name: &&String| glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name));
        if let Some(other) = self.others.iter().find(is_meant) {
            return format!(
                "{message}; {other} is a probe that somebody has made through tracefs: record the same place by kprobe:, uprobe: or their kin"
            );
        }
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
