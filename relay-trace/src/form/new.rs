//! The one way to make what a user has named: new, beside its place, with its own owner and mode, and renamed into the place when it is whole.
//!
//! So nothing is written through a link, what was there keeps until its successor is complete, and an owner or a mode that somebody has
//! prepared is not inherited.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    mem,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with},
    io::Errno,
};
use tempfile::{NamedTempFile, TempDir};

use super::{folder::Folder, folder_of};

/// What the names begin with of what is not whole yet.
const PREFIX: &str = ".relayd-";

/// A file that is being made. Dropped before [`NewFile::put`], it leaves nothing.
#[derive(Debug)]
pub struct NewFile {
    file: NamedTempFile,
    making: Making,
    place: PathBuf,
    replace: bool,
}

impl NewFile {
    /// Begins a file that is to be at `place`, instead of the one that is there if `replace`.
    ///
    /// # Errors
    /// When something is there that may not be replaced, or the file cannot be made.
    pub fn create(place: &Path, replace: bool) -> Result<Self> {
        match fs::symlink_metadata(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("looking at {}", place.display())),
            Ok(_) if !replace => bail!("{} is there already; --force replaces it", place.display()),
            Ok(there) if there.is_file() => {}
            Ok(_) => bail!("{} is not a file: it is not replaced", place.display()),
        }
        name_leftovers(folder_of(place));
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).permissions(Permissions::from_mode(0o640));
        let begin = || {
            let mut all = making();
            let file = builder.tempfile_in(folder_of(place))?;
            let making = Making::begin(&mut all, file.path(), file.as_file());
            io::Result::Ok((file, making))
        };
        let (file, making) = begin().with_context(|| format!("making {}", place.display()))?;
        Ok(Self { file, making, place: place.to_path_buf(), replace })
    }

    /// Puts the whole file into its place.
    ///
    /// # Errors
    /// When the system refuses, or somebody has made something there meanwhile.
    pub fn put(self) -> Result<File> {
        let Self { file, making, place, replace } = self;
        let put = making.end(|| if replace { file.persist(&place) } else { file.persist_noclobber(&place) });
        put.map_err(|error| error.error).with_context(|| format!("putting {} into its place", place.display()))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A directory that is being made. Dropped before [`NewDirectory::put`], it leaves nothing.
#[derive(Debug)]
pub struct NewDirectory {
    directory: TempDir,
    making: Making,
    place: PathBuf,
    replace: bool,
}

impl NewDirectory {
    /// Begins a directory that is to be at `place`, where there may be an empty one. With `replace` there may also be one that has nothing but
    /// files whose names end in that extension.
    ///
    /// # Errors
    /// When something else is there, or the directory cannot be made.
    pub fn create(place: &Path, replace: Option<&str>) -> Result<Self> {
        match fs::symlink_metadata(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("looking at {}", place.display())),
            Ok(there) if there.is_dir() => check_content(place, replace)?,
            Ok(_) => bail!("{} is there already and is not a directory: it is not replaced", place.display()),
        }
        name_leftovers(folder_of(place));
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).permissions(Permissions::from_mode(0o750));
        let begin = || {
            let mut all = making();
            let directory = builder.tempdir_in(folder_of(place))?;
            let making = Making::begin(&mut all, directory.path(), &File::open(directory.path())?);
            io::Result::Ok((directory, making))
        };
        let (directory, making) = begin().with_context(|| format!("making {}", place.display()))?;
        Ok(Self { directory, making, place: place.to_path_buf(), replace: replace.is_some() })
    }

    /// Where it is until then.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts the whole directory into its place.
    ///
    /// # Errors
    /// When the system refuses, or somebody has made something there meanwhile.
    pub fn put(self) -> Result<()> {
        let Self { directory, making, place, replace } = self;
        // What was there is removed before a signal can end the process, too.
        let put = || {
            let rename = |flags| renameat_with(CWD, directory.path(), CWD, &place, flags);
            match rename(RenameFlags::empty()) {
                // What was there is then at the temporary name, which goes.
                Err(Errno::EXIST | Errno::NOTEMPTY) if replace => {
                    rename(RenameFlags::EXCHANGE).map(|()| drop(directory))
                }
                other => other.map(|()| drop(directory.keep())),
            }
        };
        making.end(put).with_context(|| format!("putting {} into its place", place.display()))
    }
}

/// That there is nothing in a directory but what may be replaced.
fn check_content(place: &Path, replace: Option<&str>) -> Result<()> {
    for entry in fs::read_dir(place).with_context(|| format!("reading {}", place.display()))? {
        let entry = entry.with_context(|| format!("reading {}", place.display()))?;
        let Some(extension) = replace else {
            bail!("{} is there already and is not empty: it is not replaced", place.display());
        };
        let is_of_ours = entry.path().extension().is_some_and(|found| found == extension)
            && entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_of_ours {
            bail!(
                "{} has {:?}, which is not a .{extension} file: it is not replaced",
                place.display(),
                entry.file_name()
            );
        }
    }
    Ok(())
}

/// All that this process is making.
static MAKING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn making() -> MutexGuard<'static, Vec<PathBuf>> {
    MAKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what this process is making, and lets it neither begin anything nor put anything into its place any more: for a process that a
/// signal ends.
pub fn abandon() {
    /// How often a directory is tried into which a thread still writes.
    const TRIES: u32 = 100;
    let all = making();
    for path in &*all {
        for _ in 0..TRIES {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            if removed.is_ok() {
                break;
            }
            sleep(Duration::from_millis(1));
        }
    }
    // Locked for good.
    mem::forget(all);
}

/// One of them, for as long as this lives. It is locked meanwhile: what is not was left behind.
#[derive(Debug)]
struct Making {
    path: PathBuf,
    _lock: Option<File>,
}

impl Making {
    fn begin(all: &mut Vec<PathBuf>, path: &Path, file: &File) -> Self {
        all.push(path.to_path_buf());
        // On a file system that locks nothing, another process may say that it was left behind.
        let _ = flock(file, FlockOperation::NonBlockingLockExclusive);
        Self { path: path.to_path_buf(), _lock: file.try_clone().ok() }
    }

    /// Puts it into its place, unless the process is ending.
    fn end<T>(self, put: impl FnOnce() -> T) -> T {
        let mut all = making();
        let put = put();
        all.retain(|other| *other != self.path);
        drop(all);
        put
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        making().retain(|other| *other != self.path);
    }
}

/// Says what a process of ours that was killed has left in a folder.
fn name_leftovers(folder: &Path) {
    let Ok(open) = Folder::open(folder) else { return };
    let ours = rustix::process::geteuid().as_raw();
    for name in open.names().unwrap_or_default().into_iter().filter(|name| name.starts_with(PREFIX)) {
        let path = folder.join(&name);
        let is_ours = fs::symlink_metadata(&path).is_ok_and(|there| there.uid() == ours);
        let is_locked = match (open.folder(&name), open.file(&name)) {
            (Ok(folder), _) => folder.is_locked().unwrap_or(true),
            (_, Ok(Some(file))) => flock(&file, FlockOperation::NonBlockingLockShared).is_err(),
            _ => continue,
        };
        if is_ours && !is_locked {
            log::warn!("{} was left by a relayd that was killed: remove it", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{self, fs::MetadataExt as _};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("out");
        let mut first = NewFile::create(&place, false).unwrap();
        first.write_all(b"half").unwrap();
        assert!(!place.exists());
        drop(first);
        assert!(names(root.path()).is_empty());
        let mut second = NewFile::create(&place, false).unwrap();
        second.write_all(b"whole").unwrap();
        second.put().unwrap();
        assert_eq!(
            (fs::read(&place).unwrap(), fs::metadata(&place).unwrap().mode() & 0o777 & !0o640),
            (b"whole".to_vec(), 0)
        );
        assert!(NewFile::create(&place, false).unwrap_err().to_string().contains("--force"));
        // Somebody else's, open to all: what comes is not.
        fs::set_permissions(&place, Permissions::from_mode(0o666)).unwrap();
        let mut third = NewFile::create(&place, true).unwrap();
        third.write_all(b"new").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        third.put().unwrap();
        assert_eq!((fs::read(&place).unwrap(), fs::metadata(&place).unwrap().mode() & 0o006), (b"new".to_vec(), 0));
        assert_eq!(names(root.path()), ["out"]);
    }

    #[test]
    fn nothing_is_written_through_a_link_nor_over_what_is_no_file() {
        let root = tempfile::tempdir().unwrap();
        let victim = root.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        let link = root.path().join("link");
        unix::fs::symlink(&victim, &link).unwrap();
        for place in [&link, &root.path().to_path_buf(), &PathBuf::from("/dev/null")] {
            let error = NewFile::create(place, true).unwrap_err().to_string();
            assert!(error.contains("is not a file"), "{error}");
        }
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn a_directory_replaces_only_one_of_its_kind() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("tables");
        for round in ["a", "b"] {
            let new = NewDirectory::create(&place, (round == "b").then_some("parquet")).unwrap();
            fs::write(new.path().join(format!("{round}.parquet")), round).unwrap();
            new.put().unwrap();
            assert_eq!(
                (names(&place), names(root.path())),
                (vec![format!("{round}.parquet")], vec!["tables".to_owned()])
            );
        }
        fs::write(place.join("notes"), "mine").unwrap();
        let error = NewDirectory::create(&place, Some("parquet")).unwrap_err().to_string();
        assert!(error.contains("notes"), "{error}");
        let error = NewDirectory::create(&place, None).unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
        assert_eq!(names(root.path()), ["tables"]);
    }

    #[test]
    fn a_directory_comes_to_be_where_there_is_none_or_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("out");
        for there in [false, true] {
            if there {
                fs::remove_dir_all(&place).unwrap();
                fs::create_dir(&place).unwrap();
            }
            let new = NewDirectory::create(&place, None).unwrap();
            fs::write(new.path().join("file"), "x").unwrap();
            new.put().unwrap();
            assert_eq!((names(&place), names(root.path())), (vec!["file".to_owned()], vec!["out".to_owned()]));
        }
        let new = NewDirectory::create(&root.path().join("other"), None).unwrap();
        fs::create_dir_all(root.path().join("other/mine")).unwrap();
        assert!(new.put().is_err(), "somebody has made something there meanwhile");
        assert_eq!(names(root.path()), ["other", "out"]);
    }
}
