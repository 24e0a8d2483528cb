//! The kernel's functions: those that can be probed, and those that a wrong name may have meant.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use relay_trace::similar::did_you_mean;

/// What the room before a function is named after it, where the kernel leaves some to patch.
const ROOM: [&str; 2] = ["__pfx_", "__cfi_"];

/// A function of the kernel or of a loaded module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// The module that has it.
    pub module: Option<String>,
}

/// The kernel's functions, sorted by name.
#[derive(Debug)]
pub struct KernelSymbols {
    functions: Vec<Symbol>,
    /// Those at whose entry a trampoline can be put; none when the kernel does not say.
    traceable: Vec<Symbol>,
}

impl KernelSymbols {
    /// Reads `/proc/kallsyms`, and in tracefs which functions can be traced.
    ///
    /// # Errors
    /// When the former cannot be read.
    pub fn read(tracefs: &Path) -> Result<Self> {
        let text = fs::read_to_string("/proc/kallsyms").context("reading /proc/kallsyms")?;
        let traceable = fs::read_to_string(tracefs.join("available_filter_functions")).unwrap_or_default();
        Ok(Self::parse(&text, &traceable))
    }

    fn parse(kallsyms: &str, traceable: &str) -> Self {
        let functions = kallsyms.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (_, kind, name) = (words.next()?, words.next()?, words.next()?);
            let is_function = matches!(kind, "t" | "T" | "w" | "W");
            let module = words.next().map(bare);
            // Programs and trampolines come and go, and are not functions of a module.
            let is_generated = module.as_deref().is_some_and(|name| name == "bpf" || name.starts_with("__builtin__"));
            let is_function = is_function && !is_generated && !ROOM.iter().any(|room| name.starts_with(room));
            is_function.then(|| Symbol { name: name.to_owned(), module })
        });
        let traceable = traceable.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Symbol { name: words.next()?.to_owned(), module: words.next().map(bare) })
        });
        let sorted = |symbols: &mut dyn Iterator<Item = Symbol>| {
            let mut symbols: Vec<_> = symbols.collect();
            symbols.sort_unstable();
            symbols
        };
        let mut functions = functions;
        let mut traceable = traceable;
        Self { functions: sorted(&mut functions), traceable: sorted(&mut traceable) }
    }

    /// Whether the kernel has a function of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The function of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Symbol> {
        let at = self.functions.partition_point(|symbol| symbol.name.as_str() < name);
        self.functions.get(at).filter(|symbol| symbol.name == name)
    }

    /// The functions that a pattern may mean: those that can be traced, where the kernel says which; else all. Several of one name are
    /// left out: which of them is meant cannot be said.
    pub fn matching<'a>(&'a self, pattern: &glob::Pattern) -> impl Iterator<Item = &'a Symbol> {
        let all = if self.traceable.is_empty() { &self.functions } else { &self.traceable };
        all.chunk_by(|a, b| a.name == b.name).filter_map(move |same| match same {
            // A part of another function, which the compiler has put elsewhere.
            [symbol] if pattern.matches(&symbol.name) && !symbol.name.contains('.') => Some(symbol),
            _ => None,
        })
    }

    /// `; did you mean …?`, or nothing.
    #[must_use]
    pub fn nearest(&self, wanted: &str) -> String {
        did_you_mean(wanted, self.functions.iter().map(|symbol| symbol.name.as_str()))
    }
}

/// `[module]` without the brackets.
fn bare(module: &str) -> String {
    module.trim_matches(['[', ']']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "ffffffff81000000 T vfs_read\nffffffff81000010 t vfs_write\nffffffff81000020 D data\n\
        ffffffff81000030 t twice\nffffffff81000040 t twice\nffffffff81000050 t vfs_read.cold\n\
        ffffffffc0000000 t nf_hook\t[nf_tables]\nffffffff80fffff0 t __pfx_vfs_read\n\
        ffffffffc0001000 t bpf_prog_6deef7357e7b4530_x\t[bpf]\nffffffffc0002000 t ftrace_trampoline\t[__builtin__ftrace]\n";

    #[test]
    fn functions_are_known_with_their_modules() {
        let symbols = KernelSymbols::parse(KALLSYMS, "");
        assert!(symbols.has("vfs_read") && symbols.has("twice") && !symbols.has("data"));
        assert!(!symbols.has("__pfx_vfs_read") && !symbols.has("ftrace_trampoline"));
        assert_eq!(symbols.find("nf_hook").unwrap().module.as_deref(), Some("nf_tables"));
        assert_eq!(symbols.nearest("vfs_raed"), "; did you mean vfs_read, vfs_read.cold, vfs_write?");
    }

    #[test]
    fn patterns_mean_what_can_be_traced() {
        let names = |traceable, pattern| {
            let symbols = KernelSymbols::parse(KALLSYMS, traceable);
            let pattern = glob::Pattern::new(pattern).unwrap();
            symbols.matching(&pattern).map(|symbol| symbol.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("", "vfs_*"), ["vfs_read", "vfs_write"]);
        assert_eq!(names("vfs_write\nnf_hook [nf_tables]\n", "*"), ["nf_hook", "vfs_write"]);
        assert_eq!(names("", "twice"), Vec::<String>::new());
        assert_eq!(names("", "*"), ["nf_hook", "vfs_read", "vfs_write"]);
    }
}
