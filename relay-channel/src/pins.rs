//! Folders in the BPF file system: what keeps maps, programs and links when no process has them open.
//!
//! One folder for each channel that is to outlive a process, and one for the moment in which maps are handed to an object. Who works with a
//! folder holds its lock: a folder that can be locked and is not complete was left by a process that was killed.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
        },
    },
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{machine, sys};

/// The folder of all folders, in the BPF file system.
const BASE: &str = "relayd";
/// How often a folder is made that another process removes at once.
const CREATE_TRIES: u32 = 10;
/// How often, and after which pause, a lock is tried: one that is held for a look at what a folder is, or by a command that is about to end.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A folder. Who has [opened](PinFolder::open) or [made](PinFolder::create) it has it alone, as long as this lives.
#[derive(Debug)]
pub struct PinFolder {
    path: PathBuf,
    /// Closing it gives the lock back.
    _lock: Option<File>,
    /// It goes when this is dropped.
    temporary: AtomicBool,
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none of that name.
    #[error("there is no {0}")]
    Missing(PathBuf),
    /// Another process works with it.
    #[error("another relayd is at work on {0}")]
    Locked(PathBuf),
    /// It cannot be trusted, or not be opened.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl PinFolder {
    /// Makes a folder that is not there yet. It goes again when this is dropped, until [`Self::keep`].
    ///
    /// # Errors
    /// When there is one of that name, or the BPF file system is not to be had.
    pub fn create(name: &str) -> Result<Self> {
        let path = place(name)?;
        for _ in 0..CREATE_TRIES {
            make(&path, 0o750).with_context(|| format!("making {}", path.display()))?;
            match Self::lock(&path) {
                Ok(folder) => {
                    folder.temporary.store(true, Relaxed);
                    return Ok(folder);
                }
                // Another process took it for one that was left behind.
                Err(OpenError::Missing(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("{} is removed by another process as soon as it is made", path.display())
    }

    /// Opens a folder that is there.
    ///
    /// # Errors
    /// When it is not there, another process works with it, or somebody else could have made it.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        Self::lock(Self::look(name)?.path())
    }

    /// Opens a folder to look at it, whoever works with it.
    ///
    /// # Errors
    /// When it is not there, or somebody else could have made it.
    pub fn look(name: &str) -> Result<Self, OpenError> {
        check_name(name)?;
        let Some(path) = base_if_there()?.map(|base| base.join(name)).filter(|path| path.exists()) else {
            return Err(OpenError::Missing(Path::new(BASE).join(name)));
        };
        check_owner(&path)?;
        Ok(Self { path, _lock: None, temporary: AtomicBool::new(false) })
    }

    fn lock(path: &Path) -> Result<Self, OpenError> {
        let path = path.to_path_buf();
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::Missing(path)),
            other => other.with_context(|| format!("opening {}", path.display()))?,
        };
        let mut tries = LOCK_TRIES;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                // Its owner may have removed it before we had the lock, and another may have made one of the same name.
                Ok(()) if !is_at(&lock, &path) => return Err(OpenError::Missing(path)),
                Ok(()) => return Ok(Self { path, _lock: Some(lock), temporary: AtomicBool::new(false) }),
                Err(Errno::WOULDBLOCK) if tries > 1 => {
                    tries -= 1;
                    thread::sleep(LOCK_PAUSE);
                }
                Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked(path)),
                Err(error) => {
                    return Err(anyhow::Error::new(error).context(format!("locking {}", path.display())).into());
                }
            }
        }
    }

    /// Whether a process works with it, whoever has opened it to look at it.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        // Shared: two that ask at once do not see one another.
        File::open(&self.path).is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// From now on it stays when this is dropped.
    pub fn keep(&self) {
        self.temporary.store(false, Relaxed);
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Pins a map, a program or a link under a name.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pin(&self, name: &str, object: BorrowedFd<'_>) -> Result<PathBuf> {
        let path = self.path.join(name);
        sys::pin(object, &c_path(&path)?).with_context(|| format!("pinning {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))
            .with_context(|| format!("closing {} to others", path.display()))?;
        Ok(path)
    }

    /// Pins in place of what has the name already: at no moment nothing has it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn replace(&self, name: &str, object: BorrowedFd<'_>) -> Result<()> {
        let next = format!("{name}-next");
        self.unpin(&next)?;
        let path = self.pin(&next, object)?;
        fs::rename(&path, self.path.join(name)).with_context(|| format!("renaming {}", path.display()))
    }

    /// Opens what is pinned under a name.
    ///
    /// # Errors
    /// When nothing is, or it could be somebody else's.
    pub fn get(&self, name: &str) -> Result<OwnedFd> {
        let path = self.path.join(name);
        check_owner(&path)?;
        sys::open_pinned(&c_path(&path)?).with_context(|| format!("opening {}", path.display()))
    }

    /// Whether something is pinned under a name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// The names of what is pinned, sorted.
    ///
    /// # Errors
    /// What the system says.
    pub fn names(&self) -> Result<Vec<String>> {
        names(&self.path)
    }

    /// Takes a name away, if it is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn unpin(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes the folder with all that is in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self) -> Result<()> {
        self.keep();
        for name in self.names()? {
            self.unpin(&name)?;
        }
        fs::remove_dir(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}

impl PinFolder {
    /// Removes it, unless it is to stay.
    pub fn remove_temporary(&self) {
        if self.temporary.load(Relaxed)
            && let Err(error) = self.remove()
        {
            log::warn!("{} stays behind: {error:#}", self.path.display());
        }
    }
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        self.remove_temporary();
    }
}

/// The names of all folders, sorted.
///
/// # Errors
/// When the BPF file system cannot be read.
pub fn list() -> Result<Vec<String>> {
    base_if_there()?.map_or(Ok(Vec::new()), |base| names(&base))
}

/// Removes the folders whose names begin so and that a process has left which was killed.
pub fn sweep(start: &str, is_left: impl Fn(&PinFolder) -> bool) {
    for name in list().unwrap_or_default().iter().filter(|name| name.starts_with(start)) {
        // Those that are in use are not locked, not even for a moment.
        if PinFolder::look(name).is_ok_and(|folder| is_left(&folder) && !folder.is_locked())
            && let Ok(folder) = PinFolder::open(name)
            && is_left(&folder)
            && let Err(error) = folder.remove()
        {
            log::warn!("{name} stays in the BPF file system: {error:#}");
        }
    }
}

/// The folder of all folders, if it is there: who only looks makes nothing.
fn base_if_there() -> Result<Option<PathBuf>> {
    let Some(path) = machine::find_mount("bpf", &["/sys/fs/bpf"]).map(|mount| mount.join(BASE)) else {
        return Ok(None);
    };
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("looking at {}", path.display())),
        Ok(_) => check_owner(&path).map(|()| Some(path)),
    }
}

/// The folder of all folders, made if it is not there.
fn base() -> Result<PathBuf> {
    let path = machine::bpffs()?.join(BASE);
    // Others may pass through, to what is for their group, and not look.
    match make(&path, 0o711) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("making {}", path.display()));
        }
        _ => {}
    }
    check_owner(&path)?;
    Ok(path)
}

/// Where a folder of this name is, and nowhere else.
fn place(name: &str) -> Result<PathBuf> {
    check_name(name)?;
    Ok(base()?.join(name))
}

fn check_name(name: &str) -> Result<()> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Ok(()),
        _ => bail!("'{name}' is not a name: it would lie elsewhere"),
    }
}

/// Whether an open folder is the one that the path leads to.
fn is_at(folder: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    folder.metadata().is_ok_and(|folder| fs::symlink_metadata(path).is_ok_and(|there| id(there) == id(folder)))
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(path)
}

/// Whoever owns it, or may write to it, could have put there what we are about to trust.
fn check_owner(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    let (owner, ours) = (metadata.uid(), rustix::process::geteuid());
    if owner != ours.as_raw() && !ours.is_root() {
        bail!("{} belongs to user {owner}: run as that user", path.display());
    }
    if owner != ours.as_raw() || metadata.mode() & 0o022 != 0 || metadata.is_symlink() {
        bail!("{} belongs to user {owner}, or others may write to it; remove it: rm -r {0}", path.display());
    }
    Ok(())
}

fn names(path: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut names = read().with_context(|| format!("reading {}", path.display()))?;
    names.sort_unstable();
    Ok(names)
}

fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
