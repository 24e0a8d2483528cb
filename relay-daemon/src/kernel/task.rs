//! What programs need to know of the kernel's types: where it keeps what they read of a task, and what its tracepoints of all system calls pass.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::calls::Side;
use crate::btf::{Btf, Kernel};

/// Places in the kernel's `struct task_struct`, in bytes; zero where that is not known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskMembers {
    pub(crate) tid: u32,
    pub(crate) pid: u32,
    /// Its process's first thread.
    pub(crate) leader: u32,
    /// When it began.
    pub(crate) born: u32,
    /// Bits of a number that say whether its system call is one of 32 bits, and the bits.
    pub(crate) compat: u32,
    pub(crate) compat_bits: u32,
}

/// The BTF ids of the types of `sys_enter` and `sys_exit`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTypes {
    pub(crate) enter: u32,
    pub(crate) exit: u32,
}

/// TS_COMPAT (arch/x86/include/asm/thread_info.h) or TIF_32BIT (arch/arm64/include/asm/thread_info.h): a member, and bits of it.
const COMPAT: (&str, u32) = if cfg!(target_arch = "aarch64") { ("flags", 1 << 22) } else { ("status", 2) };

impl TaskMembers {
    /// Asks the kernel's BTF. What needs members that are not there is done without them, but for following processes where that is `needed`.
    ///
    /// The second value is there where programs can be given the types of the tracepoints of all calls, and calls of 32 bits told from others.
    pub(crate) fn find(needed: bool) -> Result<(Self, Option<CallTypes>)> {
        const WHAT: &str = "following processes (--follow)";
        match Kernel::load(Path::new("/sys/kernel/btf")) {
            Ok(kernel) => {
                let members = Self::of(kernel.vmlinux(), needed).context(WHAT)?;
                let types = CallTypes::of(kernel.vmlinux()).filter(|_| members.compat_bits != 0 && members.tid != 0);
                Ok((members, types))
            }
            Err(error) if needed => Err(error.context(WHAT)),
            Err(error) => {
                log::debug!("struct task_struct is not known: {error:#}");
                Ok((Self::default(), None))
            }
        }
    }

    fn of(btf: &Btf, needed: bool) -> Result<Self> {
        let at = |structure: &str, name: &str| {
            let id = btf
                .structure_named(structure)
                .with_context(|| format!("the kernel's BTF has no struct {structure}"))?;
            let member = btf.member(id, name).with_context(|| format!("struct {structure} has no {name}"))?;
            anyhow::Ok(u32::try_from(member.bit_offset / 8)?)
        };
        let task = |name| at("task_struct", name);
        let numbers = || anyhow::Ok((task("pid")?, task("tgid")?));
        let born = || anyhow::Ok((task("group_leader")?, task("start_boottime")?));
        let compat = || anyhow::Ok((task("thread_info")? + at("thread_info", COMPAT.0)?, COMPAT.1));
        let known = |without: &str, found: Result<(u32, u32)>| {
            let found = found.inspect_err(|error| log::debug!("{without}: {error:#}"));
            found.unwrap_or_default()
        };
        let (tid, pid) = if needed { numbers()? } else { known("processes cannot be followed", numbers()) };
        let (leader, born) = known("a recorder that was killed is told by its number alone", born());
        let (compat, compat_bits) = known("each system call has a tracepoint of its own", compat());
        Ok(Self { tid, pid, leader, born, compat, compat_bits })
    }
}

impl CallTypes {
    fn of(btf: &Btf) -> Option<Self> {
        Some(Self { enter: btf.tracepoint_type("sys_enter")?, exit: btf.tracepoint_type("sys_exit")? })
    }

    pub(crate) fn of_side(self, side: Side) -> u32 {
        match side {
            Side::Entry => self.enter,
            Side::Exit => self.exit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::builder::Builder;

    #[test]
    fn what_is_not_found_takes_nothing_else_along() {
        let kernel = |members: &[(&str, u32)]| {
            let mut builder = Builder::new();
            let number = builder.int("int", 4, 0);
            let info = builder.structure("thread_info", 8, &[(COMPAT.0, number, 32)]);
            let members: Vec<_> = members
                .iter()
                .map(|(name, at)| (*name, if *name == "thread_info" { info } else { number }, at * 8))
                .collect();
            builder.structure("task_struct", 64, &members);
            builder.btf()
        };
        let all = [("thread_info", 8), ("pid", 16), ("tgid", 20), ("group_leader", 24), ("start_boottime", 32)];
        let whole = TaskMembers { tid: 16, pid: 20, leader: 24, born: 32, compat: 12, compat_bits: COMPAT.1 };
        assert_eq!(TaskMembers::of(&kernel(&all), true).unwrap(), whole);
        for (missing, left) in [
            ("thread_info", TaskMembers { compat: 0, compat_bits: 0, ..whole }),
            ("start_boottime", TaskMembers { leader: 0, born: 0, ..whole }),
            ("tgid", TaskMembers { tid: 0, pid: 0, ..whole }),
        ] {
            let members: Vec<_> = all.into_iter().filter(|(name, _)| *name != missing).collect();
            assert_eq!(TaskMembers::of(&kernel(&members), false).unwrap(), left, "without {missing}");
            let followed = TaskMembers::of(&kernel(&members), true);
            assert_eq!(followed.is_err(), missing == "tgid", "without {missing}: {followed:?}");
        }
    }
}
