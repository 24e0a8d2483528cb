//! `.relayd/build-ids.json`: which files the code of processes is from, so that frames of their stacks get names later.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;

use super::{code::FunctionRange, folder::Folder};

/// Its name in the trace's own folder.
pub const FILE: &str = "build-ids.json";
/// The most bytes that it can have: a hundred thousand files take half of that.
const LONGEST: u64 = 32 << 20;

/// Its name, where functions of files are that could not be looked up where they were.
pub const FUNCTIONS_FILE: &str = "functions.json";
/// The most bytes that this can have: [`MOST_FUNCTIONS`] as JSON.
const LONGEST_FUNCTIONS: u64 = 64 << 20;
/// The most bytes of functions that a recorder keeps, each its name and [`FUNCTION_SIZE`] more.
pub const MOST_FUNCTIONS: usize = 16 << 20;
/// About what a function takes beside its name, in bytes.
pub const FUNCTION_SIZE: usize = 24;

/// The path where each file was when the trace was recorded, by build id in hexadecimal; none when the trace has not kept them.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read(folder: &Folder) -> Result<BTreeMap<String, PathBuf>> {
    folder.read_json(FILE, LONGEST)
}

/// The functions of files that are not at their paths, by build id in hexadecimal: of each where it begins in the file, its bytes, and its name as
/// the file has it.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read_functions(folder: &Folder) -> Result<BTreeMap<String, Vec<FunctionRange>>> {
    let mut functions: BTreeMap<String, Vec<FunctionRange>> = folder.read_json(FUNCTIONS_FILE, LONGEST_FUNCTIONS)?;
    functions.values_mut().for_each(|functions| functions.sort_unstable());
    Ok(functions)
}

/// A build id as tools write it.
#[must_use]
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
