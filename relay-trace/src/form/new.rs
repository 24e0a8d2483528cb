//! The one way to make what a user has named: new, beside its place, with its own owner and mode, and renamed into the place when it is whole.
//!
//! So nothing is written through a link, what was there keeps until its successor is complete, and an owner or a mode that somebody has
//! prepared is not inherited.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tempfile::{NamedTempFile, TempDir};

use super::folder_of;

/// What the names begin with of what is not whole yet.
const PREFIX: &str = ".relayd-";

/// A file that is being made. Dropped before [`NewFile::put`], it leaves nothing.
#[derive(Debug)]
pub struct NewFile {
    file: NamedTempFile,
    place: PathBuf,
    replace: bool,
}

impl NewFile {
    /// Begins a file that is to be at `place`, instead of the one that is there if `replace`.
    ///
    /// # Errors
    /// When something is there that may not be replaced, or the file cannot be made.
    pub fn create(place: &Path, replace: bool) -> Result<Self> {
        check(place, replace, "a file", fs::Metadata::is_file)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).permissions(Permissions::from_mode(0o640));
        let file = builder.tempfile_in(folder_of(place)).with_context(|| format!("making {}", place.display()))?;
        Ok(Self { file, place: place.to_path_buf(), replace })
    }

    /// Puts the whole file into its place.
    ///
    /// # Errors
    /// When the system refuses, or somebody has made something there meanwhile.
    pub fn put(self) -> Result<File> {
        let Self { file, place, replace } = self;
        let put = if replace { file.persist(&place) } else { file.persist_noclobber(&place) };
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
    place: PathBuf,
    replace: bool,
}

impl NewDirectory {
    /// Begins a directory that is to be at `place`, instead of the one that is there if `replace`; that may have nothing in it but files whose
    /// names end in `extension`.
    ///
    /// # Errors
    /// When something is there that may not be replaced, or the directory cannot be made.
    pub fn create(place: &Path, replace: bool, extension: &str) -> Result<Self> {
        check(place, replace, "a directory", fs::Metadata::is_dir)?;
        for entry in fs::read_dir(place).into_iter().flatten() {
            let entry = entry.with_context(|| format!("reading {}", place.display()))?;
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
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).permissions(Permissions::from_mode(0o750));
        let directory = builder.tempdir_in(folder_of(place)).with_context(|| format!("making {}", place.display()))?;
        Ok(Self { directory, place: place.to_path_buf(), replace })
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
        let Self { directory, place, replace } = self;
        let put = || match renameat_with(CWD, directory.path(), CWD, &place, RenameFlags::NOREPLACE) {
            // What was there is then at the temporary name, which goes.
            Err(Errno::EXIST) if replace => {
                renameat_with(CWD, directory.path(), CWD, &place, RenameFlags::EXCHANGE).map(|()| true)
            }
            other => other.map(|()| false),
        };
        let exchanged = put().with_context(|| format!("putting {} into its place", place.display()))?;
        if !exchanged {
            let _moved = directory.keep();
        }
        Ok(())
    }
}

/// That nothing is at a place, or what may be replaced.
fn check(place: &Path, replace: bool, what: &str, is_it: impl Fn(&fs::Metadata) -> bool) -> Result<()> {
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("looking at {}", place.display())),
        Ok(_) if !replace => bail!("{} is there already; --force replaces it", place.display()),
        Ok(there) if is_it(&there) => Ok(()),
        Ok(_) => bail!("{} is not {what}: it is not replaced", place.display()),
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
            let new = NewDirectory::create(&place, round == "b", "parquet").unwrap();
            fs::write(new.path().join(format!("{round}.parquet")), round).unwrap();
            new.put().unwrap();
            assert_eq!(
                (names(&place), names(root.path())),
                (vec![format!("{round}.parquet")], vec!["tables".to_owned()])
            );
        }
        fs::write(place.join("notes"), "mine").unwrap();
        let error = NewDirectory::create(&place, true, "parquet").unwrap_err().to_string();
        assert!(error.contains("notes"), "{error}");
        assert_eq!(names(root.path()), ["tables"]);
    }
}
