//! A trace's directory: what may be in it, and who may read it.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    builds, code,
    folder::Folder,
    kallsyms, replace,
    session::{self, SessionFile},
    strings, tasks,
};

/// Where the session's own files are: hidden, since CTF readers take every visible file for a stream.
pub const PRIVATE: &str = ".relayd";
/// CTF's description of the trace.
pub const METADATA: &str = "metadata";
/// The session's own files that names are found in.
pub const NAMES: [&str; 8] = [
    tasks::FILE,
    tasks::LAST_FILE,
    tasks::CGROUPS_FILE,
    kallsyms::FILE,
    strings::FILE,
    builds::FILE,
    builds::FUNCTIONS_FILE,
    code::FILE,
];

/// Opens the directory of a trace, and in it the folder of its own files.
///
/// # Errors
/// When `path` is not the directory of a trace, or it cannot be opened.
pub fn open(path: &Path) -> Result<(Folder, Folder)> {
    let folder = Folder::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => {
            anyhow!("{} is not a trace of relayd: give the directory that relayd trace has made", path.display())
        }
        _ => anyhow!(error).context(format!("opening the trace {}", path.display())),
    })?;
    let private = folder.folder(PRIVATE).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow!("{} is not a trace of relayd: it has no {PRIVATE}", path.display()),
        io::ErrorKind::NotADirectory => {
            anyhow!("{} is not a trace of relayd: its {PRIVATE} is not a directory", path.display())
        }
        _ => anyhow!(error).context(format!("opening {}", path.join(PRIVATE).display())),
    })?;
    Ok((folder, private))
}

/// Opens the folder of a trace's own files alone.
///
/// # Errors
/// As [`open`].
pub fn open_private(path: &Path) -> Result<Folder> {
    Ok(open(path)?.1)
}

/// The name of a CPU's file.
pub fn cpu_file(cpu: u32) -> String {
    format!("cpu{cpu}")
}

/// The CPU whose file has this name.
pub fn cpu_of(name: &str) -> Option<u32> {
    let cpu = name.strip_prefix("cpu")?.parse().ok()?;
    (cpu_file(cpu) == name).then_some(cpu)
}

/// Whether a trace has a file of this name, which is that below its directory.
pub fn is_known(name: &str) -> bool {
    let of_session = name.strip_prefix(PRIVATE).and_then(|name| name.strip_prefix('/'));
    of_session.is_some_and(|name| name == session::FILE || NAMES.contains(&name))
        || name == METADATA
        || cpu_of(name).is_some()
}

/// The directory of a trace that is being made. Until [`TraceDirectory::keep`], dropping it removes it again.
///
/// It is open, and so is the folder of its own files, which nobody else can have locked: it is followed when it is renamed, and not replaced
/// while it is written.
#[derive(Debug)]
pub struct TraceDirectory {
    folder: Folder,
    private: Folder,
    made: bool,
    kept: bool,
}

impl TraceDirectory {
    /// Makes the directory, for the owner and the group only. A trace that is there already is replaced if `force`, unless it is being recorded.
    ///
    /// # Errors
    /// When there is something else, or a trace and not `force`, or it cannot be made.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o750);
        let made = match builder.create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).with_context(|| format!("making the directory {}", path.display())),
        };
        if !made {
            clear(path, force)?;
        }
        let private = path.join(PRIVATE);
        builder.create(&private).with_context(|| format!("making {}", private.display()))?;
        let (folder, private) = open(path)?;
        ensure_unlocked(&private, path)?;
        Ok(Self { folder, private, made, kept: false })
    }

    /// Opens the directory of a trace that was not ended in order. Dropping it leaves it as it is.
    ///
    /// # Errors
    /// When it is not a trace of relayd, others may write to it, or it is being recorded.
    pub fn open(path: &Path) -> Result<Self> {
        let (folder, private) = open(path)?;
        check_owner(path)?;
        ensure_unlocked(&private, path)?;
        Ok(Self { folder, private, made: false, kept: true })
    }

    /// The group that may read the trace.
    ///
    /// # Errors
    /// What the system says.
    pub fn group(&self) -> Result<u32> {
        let path = self.path();
        Ok(fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?.gid())
    }

    /// Its path, however it was given: what is beside it can be named by that.
    ///
    /// # Errors
    /// What the system says.
    pub fn absolute(&self) -> Result<PathBuf> {
        let path = self.path();
        fs::canonicalize(&path).with_context(|| format!("finding {}", path.display()))
    }

    /// Its path: the one it was given by, or where it is if it was renamed since.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.place().unwrap_or_else(|_| self.folder.path().to_path_buf())
    }

    /// Whether somebody has removed it.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.folder.is_removed() || self.private.is_removed()
    }

    /// Bytes of a CPU's file; `None` when there is none.
    #[must_use]
    pub fn bytes_of(&self, cpu: u32) -> Option<u64> {
        self.folder.len_of(&cpu_file(cpu))
    }

    /// The folder of the session's own files, to be read.
    #[must_use]
    pub fn own_files(&self) -> &Folder {
        &self.private
    }

    /// Where the session's own files are.
    #[must_use]
    pub fn private(&self) -> PathBuf {
        self.path().join(PRIVATE)
    }

    /// Writes the trace's metadata.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_metadata(&self, text: &str) -> Result<()> {
        let path = self.path().join(METADATA);
        replace(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
    }

    /// From now on it stays.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Sees to it that at the end there is room for `bytes` bytes, more than none, even when the disk is full by then.
    ///
    /// # Errors
    /// When the room is not there.
    pub fn set_aside(&self, bytes: u64) -> Result<()> {
        let path = self.reserve();
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path);
        let file = file.with_context(|| format!("making {}", path.display()))?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot set room aside.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("setting {bytes} bytes aside in {}", path.display()));
            }
        }
        Ok(())
    }

    /// Gives the room that was set aside back to the disk, to write the end.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn release_reserve(&self) -> Result<()> {
        let path = self.reserve();
        match fs::remove_file(&path) {
            // Somebody has: that is not a reason to write no account.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| format!("removing {}", path.display())),
        }
    }

    fn reserve(&self) -> PathBuf {
        self.private().join("reserve")
    }
}

impl Drop for TraceDirectory {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let path = self.path();
        let removed = remove_trace(&path).and_then(|()| if self.made { fs::remove_dir(&path) } else { Ok(()) });
        if let Err(error) = removed {
            log::warn!("{} stays behind: {error}", path.display());
        }
    }
}

/// Locks the folder of a trace's own files, which says that no living process records the trace.
fn ensure_unlocked(private: &Folder, path: &Path) -> Result<()> {
    if private.lock().with_context(|| format!("locking {}", private.path().display()))? {
        return Ok(());
    }
    let by = private.holder().map_or_else(String::new, |pid| format!(" by process {pid}"));
    let session = SessionFile::read(private).map(|session| format!(" (trace {})", session.uuid)).unwrap_or_default();
    bail!("{} is being recorded{by}{session}: its recorder lives", path.display());
}

/// That nobody else can write to a directory: whoever could would have root write elsewhere, by links.
///
/// # Errors
/// When somebody could.
pub fn check_owner(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    let is_ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || metadata.mode() & 0o022 != 0 {
        bail!("{} is not a directory of ours, or others may write to it", path.display());
    }
    Ok(())
}

fn clear(path: &Path, force: bool) -> Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    if !metadata.is_dir() {
        bail!("{} is there and is not a directory; give another with -o", path.display());
    }
    check_owner(path).context("give one that is not there yet with -o")?;
    let list = || fs::read_dir(path).with_context(|| format!("reading {}", path.display()));
    if list()?.next().is_none() {
        return Ok(());
    }
    let Ok(private) = open_private(path) else {
        bail!("{} is not empty and is not a trace of relayd; give another with -o", path.display());
    };
    if !force {
        bail!("{} holds a trace already; give another with -o, or replace it with --force", path.display());
    }
    ensure_unlocked(&private, path).context("it is not replaced; give another with -o")?;
    remove_trace(path).with_context(|| format!("removing the trace in {}", path.display()))
}

/// Removes a trace and its directory.
pub fn remove(path: &Path) -> Result<()> {
    check_owner(path)?;
    remove_trace(path).and_then(|()| fs::remove_dir(path)).with_context(|| format!("removing {}", path.display()))
}

/// Removes a trace's files, and nothing else.
fn remove_trace(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if cpu_of(&name).is_some() || name == METADATA || name == "metadata.next" {
            fs::remove_file(entry.path())?;
        } else if name == PRIVATE {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_replaced_only_by_force_and_nothing_else_ever() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("trace");
        let mut first = TraceDirectory::create(&path, false).unwrap();
        first.write_metadata("old").unwrap();
        first.set_aside(1000).unwrap();
        first.keep();
        drop(first);
        let error = TraceDirectory::create(&path, false).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        fs::write(path.join("cpu0"), "old").unwrap();
        fs::write(path.join("notes"), "mine").unwrap();
        drop(TraceDirectory::create(&path, true).unwrap());
        assert!(!path.join("cpu0").exists() && !path.join("metadata").exists());
        assert_eq!(fs::read(path.join("notes")).unwrap(), b"mine");
        let error = TraceDirectory::create(&path, true).unwrap_err().to_string();
        assert!(error.contains("is not a trace"), "{error}");
    }

    #[test]
    fn a_directory_that_was_not_kept_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("trace");
        let directory = TraceDirectory::create(&path, false).unwrap();
        fs::write(path.join("cpu3"), "x").unwrap();
        drop(directory);
        assert!(!path.exists());
    }
}
