//! System calls in words: what the numbers of their arguments and returns are called in C.

#[rustfmt::skip]
mod tables;

use std::borrow::Cow;

use self::tables as names;
use super::{Conversion, Decoder, Expression, Names, Otherwise, Part};
use crate::form::format::Field;

/// How an argument is shown.
#[derive(Clone, Copy)]
enum Argument {
    /// One of these.
    One(Names),
    /// Some of these; where it is zero, that.
    Some(Names, &'static str),
    /// One of these in the bits of a mask, and some of the others in the rest.
    OneAndSome(u32, Names, Names),
    Clone,
    Futex,
    /// `0644`
    Mode,
    /// `S_IFIFO|0644`
    Node,
    Open,
    /// A directory's file descriptor.
    Directory,
    /// What it is depends on the level.
    SocketOption,
}

use Argument::{Clone as CloneFlags, Directory, Futex, Mode, Node, One, OneAndSome, Open, SocketOption, Some as Any};

/// What arguments are, by the names that tracefs gives calls and arguments.
const ARGUMENTS: &[(&str, &str, Argument)] = &[
    ("accept4", "flags", Any(names::SOCKET_FLAGS, "0")),
    ("access faccessat faccessat2", "mode", Any(names::PERMISSIONS, "F_OK")),
    ("arch_prctl", "option", One(names::ARCH_PRCTL)),
    ("bpf", "cmd", One(names::BPF)),
    ("chmod creat fchmod fchmodat fchmodat2 mkdir mkdirat open openat", "mode", Mode),
    ("mknod mknodat", "mode", Node),
    ("clock_getres clock_gettime clock_nanosleep clock_settime timer_create", "which_clock", One(names::CLOCK)),
    ("clock_nanosleep timer_settime", "flags", Any(names::TIMER, "0")),
    ("clone", "clone_flags", CloneFlags),
    ("close_range", "flags", Any(names::CLOSE_RANGE, "0")),
    ("dup3", "flags", Any(names::DUP, "0")),
    ("epoll_create1", "flags", Any(names::EPOLL_CREATE, "0")),
    ("epoll_ctl", "op", One(names::EPOLL_OP)),
    ("eventfd2", "flags", Any(names::EVENTFD, "0")),
    (
        "execveat fchmodat2 fchownat linkat name_to_handle_at newfstatat statx utimensat",
        "flag flags",
        Any(names::AT, "0"),
    ),
    ("execveat", "fd", Directory),
    (
        "faccessat faccessat2 fanotify_mark fchmodat fchmodat2 fchownat futimesat mkdirat mknodat name_to_handle_at newfstatat openat openat2 \
      readlinkat statx unlinkat utimensat",
        "dfd",
        Directory,
    ),
    ("linkat renameat renameat2 symlinkat", "newdfd olddfd", Directory),
    ("faccessat2", "flags", Any(names::FACCESS, "0")),
    ("fadvise64", "advice", One(names::FADVICE)),
    ("fallocate", "mode", Any(names::FALLOCATE, "0")),
    ("fcntl", "cmd", One(names::FCNTL)),
    ("flock", "cmd", One(names::FLOCK)),
    ("futex", "op", Futex),
    ("getitimer setitimer", "which", One(names::ITIMER)),
    ("getpriority setpriority", "which", One(names::PRIORITY_WHICH)),
    ("getrandom", "flags", Any(names::GETRANDOM, "0")),
    ("getrlimit prlimit64 setrlimit", "resource", One(names::RESOURCE)),
    ("getrusage", "who", One(names::USAGE)),
    ("getsockopt setsockopt", "level", One(names::LEVEL)),
    ("getsockopt setsockopt", "optname", SocketOption),
    ("inotify_add_watch", "mask", Any(names::INOTIFY, "0")),
    ("inotify_init1", "flags", Any(names::INOTIFY_INIT, "0")),
    ("ioctl", "cmd", One(names::IOCTL)),
    ("kill pidfd_send_signal rt_sigaction rt_sigqueueinfo rt_tgsigqueueinfo tgkill tkill", "sig", One(names::SIGNAL)),
    ("lseek", "whence", One(names::SEEK)),
    ("madvise", "behavior", One(names::ADVICE)),
    ("memfd_create", "flags", Any(names::MEMFD, "0")),
    ("mlockall", "flags", Any(names::MLOCKALL, "0")),
    ("mmap mprotect pkey_mprotect", "prot", Any(names::PROT, "PROT_NONE")),
    ("mmap", "flags", OneAndSome(0xf, names::MAP_TYPE, names::MAP)),
    ("mount", "flags", Any(names::MOUNT, "0")),
    ("mremap", "flags", Any(names::MREMAP, "0")),
    ("msync", "flags", Any(names::MSYNC, "0")),
    ("open openat", "flags", Open),
    ("perf_event_open", "flags", Any(names::PERF_OPEN, "0")),
    ("pipe2", "flags", Any(names::PIPE, "0")),
    ("prctl", "option", One(names::PRCTL)),
    ("recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto", "flags", Any(names::MSG, "0")),
    ("renameat2", "flags", Any(names::RENAME, "0")),
    ("rt_sigprocmask", "how", One(names::MASK_HOW)),
    ("sched_setscheduler", "policy", One(names::POLICY)),
    ("seccomp", "op", One(names::SECCOMP)),
    ("setns", "flags", Any(names::NAMESPACE, "0")),
    ("shutdown", "how", One(names::SHUT)),
    ("signalfd4", "flags", Any(names::SIGNALFD, "0")),
    ("socket socketpair", "family", One(names::FAMILY)),
    ("socket socketpair", "type", OneAndSome(0xf, names::SOCKET_TYPE, names::SOCKET_FLAGS)),
    ("splice", "flags", Any(names::SPLICE, "0")),
    ("statx", "mask", Any(names::STATX, "0")),
    ("timerfd_create", "clockid", One(names::CLOCK)),
    ("timerfd_create", "flags", Any(names::TIMERFD, "0")),
    ("timerfd_settime", "flags", Any(names::TIMERFD_SET, "0")),
    ("umount", "flags", Any(names::UMOUNT, "0")),
    ("unlinkat", "flag", Any(names::UNLINK, "0")),
    ("unshare", "unshare_flags", Any(names::NAMESPACE, "0")),
    ("wait4 waitid", "options", Any(names::WAIT, "0")),
    ("waitid", "which", One(names::WAIT_WHICH)),
];

/// How the field of this index of an event shows its words, if it is a system call's and has some. `machine`: as uname(1) calls it.
pub(super) fn decoder(event: &str, index: usize, fields: &[Field], machine: &str) -> Option<Decoder> {
    let field = fields.get(index)?;
    let exit = event.strip_prefix("syscalls:sys_exit_");
    let call = event.strip_prefix("syscall:").or(exit).or_else(|| event.strip_prefix("syscalls:sys_enter_"));
    match field.name.as_str() {
        "ret" if call.is_some() || event == "raw_syscalls:sys_exit" => {
            let error = Expression::Unary('-', Box::new(Expression::Field(index)));
            Some(Decoder::words(true, vec![one(error, names::ERRNO)]))
        }
        "id" if event.starts_with("raw_syscalls:sys_") => {
            let names = match machine {
                "aarch64" => names::CALLS_ARM64,
                "x86_64" => names::CALLS_X86_64,
                _ => return None,
            };
            Some(Decoder::words(true, vec![one(Expression::Field(index), names)]))
        }
        name => {
            let has = |words: &str, word| words.split_ascii_whitespace().any(|other| other == word);
            let (.., argument) = ARGUMENTS
                .iter()
                .find(|(calls, names, _)| call.is_some_and(|call| has(calls, call)) && has(names, name))?;
            // An argument of fewer bits than a register has anything in the rest.
            let bits = if field.c_type.contains("long") { 64 } else { 32 };
            let value = Expression::Cast { bits, signed: false, of: Box::new(Expression::Field(index)) };
            if let SocketOption = argument {
                let level = fields.iter().position(|field| field.name == "level")?;
                return Some(Decoder { is_alone: false, ..Decoder::words(false, socket_option(&value, level)) });
            }
            Some(Decoder::words(false, argument.parts(&value, machine)))
        }
    }
}

impl Argument {
    fn parts(self, value: &Expression, machine: &str) -> Vec<Part> {
        match self {
            Self::One(names) => vec![one(value.clone(), names)],
            Self::Some(names, zero) => {
                vec![text(choose(value.clone(), flags(value.clone(), names), Expression::Text(zero.to_owned())))]
            }
            Self::OneAndSome(mask, of, names) => one_and_some(value, mask, of, names),
            Self::Open if machine == "aarch64" => one_and_some(value, 3, names::ACCESS, names::OPEN_ARM64),
            Self::Open => one_and_some(value, 3, names::ACCESS, names::OPEN),
            Self::Mode => vec![octal(value.clone())],
            Self::Node => {
                let (of, empty) = (and(value, 0o170_000), Expression::Text(String::new()));
                let name =
                    Expression::Symbolic(Box::new(of.clone()), Cow::Borrowed(names::FILE_TYPE), Otherwise::Number);
                let bar = Expression::Text("|".to_owned());
                vec![
                    text(choose(of.clone(), name, empty.clone())),
                    text(choose(of, bar, empty)),
                    octal(and(value, 0o7777)),
                ]
            }
            Self::Directory => vec![one(value.clone(), &[(0xffff_ff9c, Cow::Borrowed("AT_FDCWD"))])],
            Self::SocketOption => Vec::new(),
            Self::Clone => {
                // The signal for the parent is in the lowest byte.
                let (signal, rest) = (and(value, 0xff), and(value, !0xff));
                let both = Expression::Binary("&&", Box::new(signal.clone()), Box::new(rest.clone()));
                let (empty, bar) = (Expression::Text(String::new()), Expression::Text("|".to_owned()));
                let name =
                    Expression::Symbolic(Box::new(signal.clone()), Cow::Borrowed(names::SIGNAL), Otherwise::Number);
                vec![
                    text(flags(rest, names::CLONE)),
                    text(choose(both, bar, empty.clone())),
                    text(choose(signal, name, choose(value.clone(), empty, Expression::Text("0".to_owned())))),
                ]
            }
            Self::Futex => {
                let suffix = |bit, suffix: &str| {
                    text(choose(and(value, bit), Expression::Text(suffix.to_owned()), Expression::Text(String::new())))
                };
                vec![
                    one(and(value, 0x7f), names::FUTEX),
                    suffix(0x80, "_PRIVATE"),
                    suffix(0x100, "|FUTEX_CLOCK_REALTIME"),
                ]
            }
        }
    }
}

fn socket_option(value: &Expression, level: usize) -> Vec<Part> {
    let named = |names| Expression::Symbolic(Box::new(value.clone()), Cow::Borrowed(names), Otherwise::Nothing);
    let is =
        |number| Expression::Binary("==", Box::new(Expression::Field(level)), Box::new(Expression::Constant(number)));
    // SOL_SOCKET and SOL_TCP
    vec![text(choose(is(1), named(names::SO), choose(is(6), named(names::TCP), named(&[]))))]
}

fn one_and_some(value: &Expression, mask: u32, of: Names, others: Names) -> Vec<Part> {
    let rest = and(value, !i128::from(mask));
    let bar = choose(rest.clone(), Expression::Text("|".to_owned()), Expression::Text(String::new()));
    vec![one(and(value, mask.into()), of), text(bar), text(flags(rest, others))]
}

fn and(value: &Expression, mask: i128) -> Expression {
    Expression::Binary("&", Box::new(value.clone()), Box::new(Expression::Constant(mask)))
}

fn choose(condition: Expression, yes: Expression, no: Expression) -> Expression {
    Expression::Choose(Box::new(condition), Box::new(yes), Box::new(no))
}

fn flags(value: Expression, names: Names) -> Expression {
    Expression::Flags(Box::new(value), "|".to_owned(), Cow::Borrowed(names))
}

/// A number without a name stays a number.
fn one(value: Expression, names: Names) -> Part {
    text(Expression::Symbolic(Box::new(value), Cow::Borrowed(names), Otherwise::Nothing))
}

fn octal(value: Expression) -> Part {
    Part::Value { conversion: Conversion::parse("#03o").0, width: None, precision: None, value }
}

fn text(value: Expression) -> Part {
    Part::Value { conversion: Conversion::parse("s").0, width: None, precision: None, value }
}
