//! The names of what is beside the directory of a trace in pieces: `DIR-piece-000001` and so on, or `DIR-piece-000001.tar.zst`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::folder_of;

/// What stands between a trace's name and a piece's number.
const PIECE: &str = "-piece-";
/// What a compressed piece ends with.
const ARCHIVE: &str = ".tar.zst";
/// What one ends with that is being written.
pub const PARTIAL: &str = ".partial";

/// Where a trace's piece of this number is.
#[must_use]
pub fn path(trace: &Path, number: u64) -> PathBuf {
    let mut path = trace.as_os_str().to_owned();
    path.push(format!("{PIECE}{number:06}"));
    path.into()
}

/// Where it is compressed; `end` is nothing, or [`PARTIAL`].
#[must_use]
pub fn archive(piece: &Path, end: &str) -> PathBuf {
    let mut path = piece.as_os_str().to_owned();
    path.push(format!("{ARCHIVE}{end}"));
    path.into()
}

/// The numbers of a trace's pieces, compressed or not, sorted.
///
/// # Errors
/// When the folder that the trace is in cannot be read.
pub fn numbers(trace: &Path) -> Result<Vec<u64>> {
    let folder = folder_of(trace);
    let start = format!("{}{PIECE}", trace.file_name().unwrap_or_default().to_string_lossy());
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&start) else { continue };
        let rest = rest.strip_suffix(PARTIAL).unwrap_or(rest);
        numbers.extend(rest.strip_suffix(ARCHIVE).unwrap_or(rest).parse::<u64>());
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}
