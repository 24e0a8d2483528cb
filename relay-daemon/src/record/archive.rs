//! Makes archives of pieces. What is in one is `relay_trace::form::archive`'s.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use relay_trace::form::{
    archive, directory,
    pieces::{PARTIAL, archive as archive_of},
};

/// Puts a piece into an archive beside it, and removes it. Either may have been removed meanwhile, when it was the oldest.
pub(crate) fn compress(piece: &Path) -> Result<()> {
    let (partial, whole) = (archive_of(piece, PARTIAL), archive_of(piece, ""));
    // An archive under this name is whole: whoever made it was killed before the piece was gone, and may have begun to remove it.
    let is_ours = |there: fs::Metadata| there.is_file() && there.uid() == rustix::process::geteuid().as_raw();
    let done = fs::symlink_metadata(&whole).ok().map(is_ours);
    if done == Some(false) {
        bail!("{} is somebody else's", whole.display());
    }
    if done.is_none() {
        let written = write_archive(piece, &partial).and_then(|()| Ok(fs::rename(&partial, &whole)?));
        if let Err(error) = written {
            // Best effort: it may be why there is no room.
            let _ = fs::remove_file(&partial);
            if piece.exists() {
                return Err(error.context(format!("writing {}", whole.display())));
            }
        }
    }
    remove_directory(piece)
}

/// Removes a piece's directory, if it is there. Under its own name it is whole, or not there.
pub(crate) fn remove_directory(piece: &Path) -> Result<()> {
    // The recorder removes a piece that is too old while its compressor may be removing it.
    static REMOVING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = REMOVING.lock().unwrap_or_else(PoisonError::into_inner);
    let partial = with_end(piece, PARTIAL);
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    // What a recorder that was killed has left.
    if is_there(&partial) {
        directory::remove(&partial)?;
    }
    if is_there(piece) {
        directory::check_owner(piece)?;
        fs::rename(piece, &partial).with_context(|| format!("renaming {}", piece.display()))?;
        directory::remove(&partial)?;
    }
    Ok(())
}

pub(crate) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

fn write_archive(piece: &Path, to: &Path) -> Result<()> {
    // What a recorder that was killed has left.
    let _ = fs::remove_file(to);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(to)?;
    // On the disk, before the piece is not.
    Ok(archive::write(piece, file)?.sync_all()?)
}
