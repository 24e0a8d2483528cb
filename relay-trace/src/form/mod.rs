//! What a trace is on disk: its directory and what is in it beside the records. `docs/format.md` has the bytes.

pub mod archive;
pub mod builds;
pub mod clock;
pub mod code;
pub mod directory;
pub mod folder;
pub mod format;
pub mod kallsyms;
pub mod metadata;
pub mod new;
pub mod pieces;
pub mod session;
pub mod strings;
pub mod tasks;

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The folder that a place is in: that of a name alone is the working directory.
#[must_use]
pub fn folder_of(place: &Path) -> &Path {
    place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file under another name and renames it, so that nobody sees a part of it.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let next = free_name(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&next)?;
    file.write_all(content)?;
    std::fs::rename(&next, path)
}

/// Gives a file that this process has written another place too, without its bytes taking room once more. Neither is changed afterwards: what is new is
/// written by [`replace`].
pub fn share(from: &Path, path: &Path) -> io::Result<()> {
    let next = free_name(path)?;
    std::fs::hard_link(from, &next)?;
    std::fs::rename(&next, path)
}

/// The name beside a place under which its next content is made.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    let next = path.with_extension("next");
    // What a recording that was killed has left, or anybody else has put there, is not written to.
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(next),
    }
}
