//! Which folders in the BPF file system are sessions: of flight recorders, by their names, of traces, by their UUIDs; and which were left
//! behind.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Serialize;

use super::Description;
use relay_channel::pins::{self, OpenError, PinFolder};
use relay_trace::form::{
    directory,
    session::{self, SessionFile},
};

/// What the pins of the session that `relayd trace` makes are named, before the trace's UUID.
const TRACE: &str = "trace-";
/// What no session may be named like: folders of other uses.
const RESERVED: [&str; 2] = [TRACE, "load-"];
/// The longest name of a session.
const LONGEST_NAME: usize = 64;

/// Checks the name of a session.
///
/// # Errors
/// When none can have it.
pub fn check_name(name: &str) -> Result<()> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('-') || !name.bytes().all(is_good) {
        bail!("'{name}' can be no session's name: give letters, digits, - and _, at most {LONGEST_NAME}");
    }
    if let Some(start) = RESERVED.iter().find(|start| name.starts_with(**start)) {
        bail!("'{name}' can be no session's name: what begins with {start} is relayd's own");
    }
    Ok(())
}

/// The names of all sessions, without those of `relayd trace`.
///
/// # Errors
/// When the BPF file system cannot be read.
pub fn names() -> Result<Vec<String>> {
    let mut names = pins::list()?;
    names.retain(|name| check_name(name).is_ok());
    Ok(names)
}

/// A trace whose recorder was killed.
#[derive(Clone, Debug, Serialize)]
pub struct Orphan {
    /// What its session is pinned as.
    pub name: String,
    /// Its directory, when it was begun.
    pub trace: PathBuf,
}

/// The traces whose recorders were killed.
///
/// # Errors
/// When the BPF file system cannot be read.
pub fn orphans() -> Result<Vec<Orphan>> {
    let mut names = pins::list()?;
    names.retain(|name| name.starts_with(TRACE));
    let orphan = |name: String| {
        let folder = PinFolder::look(&name).ok()?;
        if folder.is_locked() {
            return None;
        }
        let (trace, _) = Description::read(&folder, &name).ok()?.recorder?;
        Some(Orphan { name, trace })
    };
    Ok(names.into_iter().filter_map(orphan).collect())
}

/// Removes a session that cannot be opened.
///
/// # Errors
/// When there is none of that name, or another process works with it.
pub fn remove(name: &str) -> Result<(), OpenError> {
    Ok(PinFolder::open(name)?.remove()?)
}

/// What the pins of the session are named whose trace has this UUID.
#[must_use]
pub fn trace_name(uuid: &str) -> String {
    format!("{TRACE}{uuid}")
}

/// Removes what processes have left that were killed while they made a session, and the sessions of traces that were replaced.
pub fn sweep() {
    pins::sweep("", |folder| !Description::is_in(folder));
    pins::sweep(TRACE, |folder| {
        let Ok(Description { session, recorder: Some((path, _)), .. }) = Description::read(folder, "") else {
            return false;
        };
        // A directory that is gone may have been moved: then it can still be recovered.
        let Ok(written) = directory::open_private(&path) else { return false };
        match written.len_of(session::FILE) {
            None => true,
            Some(_) => SessionFile::read(&written).is_ok_and(|written| written.uuid != session.uuid),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_files_and_not_relayds_own() {
        for name in ["flight", "web-01", "a_b", "0"] {
            check_name(name).unwrap();
        }
        for name in ["", "a/b", "..", "a.b", "-x", "trace-1", "load-7", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
