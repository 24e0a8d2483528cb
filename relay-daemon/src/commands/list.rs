//! `relayd list`: what can be traced on this machine, a line each.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;
use relay_daemon::probe::listing::{self, Found, Listed, ListedMember, Structure};

/// Shown on a terminal under all tracepoints.
const MORE: &str = "\
relayd: these are the tracepoints; other kinds: relayd list 'rawtracepoint:*', 'syscall:*', 'kprobe:*', 'fentry:*',
relayd: 'uprobe:PATH:*', 'usdt:PATH:*', 'compat:*' (system calls of 32-bit programs); a WORD finds what has it in its name; -v shows the arguments";

/// List what can be traced on this machine, in the spelling of relayd trace -e.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  relayd list                       (all tracepoints)
  relayd list open                  (whatever has `open` in its name)
  relayd list -v sched:sched_switch (its fields)
  relayd list 'syscall:*' 'rawtracepoint:sched_*' 'kprobe:vfs_*'
  relayd list 'uprobe:libc:mall*' 'usdt:/usr/bin/python3'
  relayd list struct:file           (the members of a structure of the kernel)")]
pub(crate) struct Arguments {
    /// What to list: events as relayd trace -e takes them, KIND:… with * ? [] as wildcards; a WORD that tracepoints, system
    /// calls, raw tracepoints and functions may have in their names; or struct:NAME [default: all tracepoints].
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Show the arguments too, as they can be recorded and used in conditions.
    #[arg(short, long)]
    verbose: bool,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let items = listing::list(&arguments.patterns, arguments.verbose)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let print = |out: &mut dyn Write| -> Result<()> {
        for item in &items {
            if arguments.json {
                writeln!(out, "{}", serde_json::to_string(item)?)?;
            } else {
                write_item(out, item, items.len() == 1)?;
            }
        }
        Ok(out.flush()?)
    };
    print(&mut out).context("writing the list")?;
    if arguments.patterns.is_empty() && io::stderr().is_terminal() {
        say!("{MORE}");
    }
    Ok(ExitCode::SUCCESS)
}

fn write_item(out: &mut dyn Write, item: &Found, alone: bool) -> io::Result<()> {
    match item {
        Found::Event(Listed { event, arguments, .. }) => {
            writeln!(out, "{event}")?;
            for argument in arguments.iter().flatten() {
                writeln!(out, "    {}", declaration(&argument.c_type, &argument.name))?;
            }
        }
        Found::Structure(Structure { members, .. }) => {
            if !alone {
                writeln!(out, "{}", item.name())?;
            }
            for member in members.iter().flatten() {
                writeln!(out, "{}", line(member))?;
            }
        }
    }
    Ok(())
}

/// `offset  type name`; of a bit field also its first bit and how many it has.
fn line(member: &ListedMember) -> String {
    let bit = member.bit.map_or(String::new(), |bit| format!(".{bit}"));
    let bits = member.bits.map_or(String::new(), |bits| format!(" : {bits}"));
    format!("{:>6}{bit:<2}  {}{bits}", member.offset, declaration(&member.c_type, &member.name))
}

fn declaration(c_type: &str, name: &str) -> String {
    let space = if c_type.ends_with('*') { "" } else { " " };
    format!("{c_type}{space}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_their_places() {
        let member = |bit, bits| ListedMember { name: "x".to_owned(), c_type: "int".to_owned(), offset: 96, bit, bits };
        assert_eq!(line(&member(None, None)), "    96    int x");
        assert_eq!(line(&member(Some(3), Some(1))), "    96.3  int x : 1");
        assert_eq!(declaration("struct file *", "f"), "struct file *f");
    }
}
