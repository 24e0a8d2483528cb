//! Functions of the kernel, which two kinds of probes are at: which are meant, and what is known of them.

use std::{collections::HashSet, fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail};
use relay_common::recipe::input;
use relay_trace::condition::spec::{ProbeKind, Spec};

use super::{
    Entry, Finder, call_of,
    listing::{Declared, Listed, Lister},
    symbols::Symbol,
    wanted::Wanted,
};
use crate::{
    btf::{Btf, Function, Prototype},
    values::{
        arguments::{Convention, Parameters},
        registers,
    },
};

/// What the kernel itself is called where modules are named.
const VMLINUX: &str = "vmlinux";
/// Most functions that one pattern may mean.
const MOST: usize = 20_000;

impl Finder {
    /// Function and types by name: also those of a module that is loaded.
    pub(super) fn function(&self, name: &str) -> Option<(Arc<Btf>, Option<String>, Function)> {
        self.kernel().ok()?.find_function(name)
    }

    /// The functions that `[MODULE:]FUNCTION` or a pattern means, and whether it names one in full.
    pub(super) fn functions(&self, target: &str) -> Result<(Vec<&Symbol>, bool)> {
        let (module, name) = match target.rsplit_once(':') {
            Some((module, name)) => (Some(module), name),
            None => (None, target),
        };
        module.map_or(Ok(()), check_module)?;
        let symbols = self.symbols()?;
        let is_of_module =
            |symbol: &Symbol| module.is_none_or(|name| symbol.module.as_deref().unwrap_or(VMLINUX) == name);
        match Wanted::new(name)? {
            Wanted::Exactly(name) => {
                let symbol =
                    symbols.find(&name).with_context(|| self.unknown_function(&name, symbols.nearest(&name)))?;
                if !is_of_module(symbol) {
                    let (found, module) = (symbol.module.as_deref().unwrap_or(VMLINUX), module.unwrap_or(VMLINUX));
                    bail!("'{target}': {name} is a function of {found}, not of {module}");
                }
                Ok((vec![symbol], true))
            }
            Wanted::Like(pattern) => {
                let meant: Vec<_> = symbols.matching(&pattern).filter(|symbol| is_of_module(symbol)).collect();
                if meant.is_empty() {
                    bail!("no function of the kernel matches '{target}'{}", symbols.nearest(name));
                }
                Ok((meant, false))
            }
        }
    }

    fn unknown_function(&self, name: &str, near: String) -> String {
        let reason = if self.function(name).is_some() {
            "it was inlined everywhere"
        } else {
            "it may have been inlined, or be in a module that is not loaded"
        };
        format!("the kernel has no function '{name}' ({reason}){near}")
    }

    /// What can be named at an entry or a return, and of a pair also at the entry.
    pub(super) fn calls<'a>(
        &self,
        typed: Option<(&'a Btf, &Prototype)>,
        returns: bool,
        convention: Convention,
    ) -> (Parameters<'a>, Option<Entry<'a>>) {
        let call = call_of(typed, returns, convention);
        let entry = (self.latency && returns).then(|| match convention {
            Convention::Registers => Entry { call: call_of(typed, false, convention), frame: registers::STACK_POINTER },
            // A trampoline passes the arguments at the exit too.
            Convention::Context => Entry { call: Parameters::nothing(), frame: input::FRAME },
        });
        (call, entry)
    }
}

/// Refuses a pattern that means too many functions.
pub(super) fn check_count(spec: &Spec, count: usize) -> Result<()> {
    if count > MOST {
        bail!("'{}' means {count} functions; {MOST} are the most", spec.text);
    }
    Ok(())
}

/// That a module is there whose functions are meant: loaded, or built in.
fn check_module(module: &str) -> Result<()> {
    if module == VMLINUX || Path::new("/sys/module").join(module).is_dir() {
        return Ok(());
    }
    bail!("the module {module} is not loaded; `modprobe {module}` loads it")
}

/// What to say of a function that has no types.
pub(super) fn untyped(name: &str) -> String {
    format!("the kernel's types do not describe the function {name}: kprobe:{name} needs no types")
}

/// Functions that kprobes are not allowed in. The kernel tells in debugfs; where that is not mounted, attaching fails.
pub(super) fn blacklist() -> HashSet<String> {
    let list = fs::read_to_string("/sys/kernel/debug/kprobes/blacklist").unwrap_or_default();
    list.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// An event of a function as it is listed.
pub(super) fn listed(
    lister: &Lister,
    kind: ProbeKind,
    symbol: &Symbol,
    typed: Option<(&Btf, &Prototype)>,
    convention: Convention,
) -> Listed {
    let returns = matches!(kind, ProbeKind::Kretprobe | ProbeKind::Fexit);
    let arguments = || Declared::of(&call_of(typed, returns, convention));
    let listed = lister.listed(kind, format!("{}:{}", kind.name(), symbol.name), arguments);
    Listed { module: symbol.module.clone(), ..listed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{btf::Kernel, probe::BTF};

    /// Needs `/sys/kernel/btf/vmlinux`.
    #[test]
    fn functions_have_what_can_be_recorded_of_them() {
        let kernel = Kernel::load(Path::new(BTF)).expect("this test needs /sys/kernel/btf/vmlinux");
        let btf = kernel.vmlinux();
        let read = btf.function("vfs_read").unwrap();
        let declared = |returns, convention| {
            let declared = Declared::of(&call_of(Some((btf, &read.prototype)), returns, convention));
            let spelled = |value: &Declared| format!("{} {}", value.c_type.replace(" __user", ""), value.name);
            declared.iter().map(spelled).collect::<Vec<_>>()
        };
        let parameters = ["struct file * file", "char * buf", "size_t count", "loff_t * pos"];
        for convention in [Convention::Registers, Convention::Context] {
            assert_eq!(declared(false, convention), parameters);
        }
        assert_eq!(declared(true, Convention::Registers), ["ssize_t retval"]);
        assert_eq!(declared(true, Convention::Context), [&parameters[..], &["ssize_t retval"]].concat());
    }
}
