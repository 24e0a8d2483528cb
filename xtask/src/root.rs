//! Root file systems of containers and virtual machines: packages or programs of this machine, the tests, and the folders that things are
//! mounted at.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{copy, exec, make_folder_of};

/// Makes one anew: what `fill` puts there, and programs under their names.
pub(crate) fn make(root: &Path, programs: &[(PathBuf, &str)], fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("removing {}", root.display()))?;
    }
    make_folder_of(root)?;
    fill(root)?;
    for folder in ["proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("making {}", root.display()))?;
    }
    for file in ["passwd", "group"] {
        copy(&Path::new("/etc").join(file), &root.join("etc").join(file))?;
    }
    programs.iter().try_for_each(|(program, name)| copy(program, &root.join("usr/bin").join(name)))
}

/// Fills it with packages that were unpacked, and are kept.
pub(crate) fn fill_with(packages: &Path, root: &Path) -> Result<()> {
    exec(Command::new("cp").arg("-a").args([packages, root]))
}
