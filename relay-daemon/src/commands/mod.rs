//! The subcommands: arguments in, calls to the library, text out.

pub(crate) mod check;
pub(crate) mod export;
pub(crate) mod external;
pub(crate) mod klog;
pub(crate) mod list;
pub(crate) mod manual;
pub(crate) mod options;
pub(crate) mod print;
pub(crate) mod reading;
pub(crate) mod recover;
pub(crate) mod repair;
#[cfg(feature = "report")]
pub(crate) mod report;
pub(crate) mod signals;
pub(crate) mod snapshot;
pub(crate) mod spans;
pub(crate) mod start;
pub(crate) mod stat;
pub(crate) mod status;
pub(crate) mod summary;
pub(crate) mod symbolize;
pub(crate) mod trace;
pub(crate) mod units;
pub(crate) mod verify;

use anyhow::{Context as _, Result};
use relay_daemon::{host::make_files_of_group, session::PinnedSession};

/// A command line that cannot be meant, which ends with status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(String);

/// What is wrong with a value of the command line.
fn misuse(error: impl Into<anyhow::Error>) -> anyhow::Error {
    Misuse(format!("{:#}", error.into())).into()
}

/// Lets the group of a name, or number, read the files that are made from now on; without one, that of a session, if there is one.
fn share_with(group: Option<&str>, session: Option<&PinnedSession>) -> Result<()> {
    let make = |gid: u32, group: &str| {
        make_files_of_group(gid).with_context(|| format!("making files of the group {group} (needs CAP_SETGID)"))
    };
    let Some(group) = group else {
        return session.map_or(Ok(()), |session| session.group().and_then(|gid| make(gid, &gid.to_string())));
    };
    let named = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse::<u32>().ok())?
    };
    let gid = match group.parse() {
        Ok(gid) => Some(gid),
        Err(_) => {
            let groups =
                std::fs::read_to_string("/etc/group").context("reading /etc/group (a group's number needs none)")?;
            groups.lines().find_map(named)
        }
    };
    make(gid.with_context(|| format!("there is no group '{group}'"))?, group)
}

/// A time, like 500ms or 2m; seconds without a unit, like 2 or 0.5.
fn parse_duration(text: &str) -> std::result::Result<std::time::Duration, &'static str> {
    let nanoseconds = relay_trace::show::time::parse_span(text);
    nanoseconds.map(std::time::Duration::from_nanos).ok_or("this is not a time, like 2, 0.5, 500ms or 1m 30s")
}

/// A size in bytes, like 64K or 1M.
fn parse_size(text: &str) -> std::result::Result<u64, &'static str> {
    let parsed = parse_size::Config::new().with_binary().parse_size(text);
    parsed.map_err(|_| "this is not a size in bytes, like 4096, 64K or 1M")
}
