//! `.relayd/build-ids.json`: which files the code of processes is from, so that frames of their stacks get names later.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;

use super::folder::Folder;

/// Its name in the trace's own folder.
pub const FILE: &str = "build-ids.json";
/// The most bytes that it can have: a hundred thousand files take half of that.
const LONGEST: u64 = 32 << 20;

/// The path where each file was when the trace was recorded, by build id in hexadecimal; none when the trace has not kept them.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read(folder: &Folder) -> Result<BTreeMap<String, PathBuf>> {
    folder.read_json(FILE, LONGEST)
}

/// A build id as tools write it.
#[must_use]
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
