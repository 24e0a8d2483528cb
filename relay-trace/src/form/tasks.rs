//! `.relayd/tasks.json`: the names of threads, by thread id. `.relayd/cgroups.json`: the paths of cgroups, by id, where records have such ids.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{folder::Folder, replace};

/// The name of the threads' file in the trace's own folder.
pub const FILE: &str = "tasks.json";
/// The most bytes that each can have: a million names take a third of that.
const LONGEST: u64 = 32 << 20;
/// That of the cgroups'.
pub const CGROUPS_FILE: &str = "cgroups.json";

/// The names of a trace's threads; none when it has not kept them.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read(folder: &Folder) -> Result<BTreeMap<u32, String>> {
    folder.read_json(FILE, LONGEST)
}

/// The paths of cgroups, by id; none when a trace has not kept them.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read_cgroups(folder: &Folder) -> Result<BTreeMap<u64, String>> {
    folder.read_json(CGROUPS_FILE, LONGEST)
}

/// Writes one of the two files.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path, file: &str, names: &impl Serialize) -> Result<()> {
    let path = folder.join(file);
    let text = serde_json::to_vec(names).with_context(|| format!("writing {file} as JSON"))?;
    replace(&path, &text).with_context(|| format!("writing {}", path.display()))
}
