//! The one way to open what is in a trace: by names that are known, regular files alone, no links, and as many bytes as are meant to be there.
//!
//! Whoever may write to a trace's directory may put anything in the place of a file: a link to what only root may read, a FIFO that nobody writes
//! to, a device that has an effect when it is opened, a file without an end. Each is named and left out, and none is waited for.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, openat, stat, statat},
    io::Errno,
};
use serde::de::DeserializeOwned;

/// Where files of a trace are: a directory that is open, or a folder of an archive that was unpacked.
#[derive(Debug)]
pub struct Folder {
    content: Content,
    path: PathBuf,
}

#[derive(Debug)]
enum Content {
    /// What is opened in it is in this one, whatever is at its path by then.
    Directory(OwnedFd),
    /// Files that have no other name.
    Unpacked(BTreeMap<String, Arc<File>>),
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Folder {
    /// Opens the directory of a path that the user has given, which may be a link.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let content = Content::Directory(openat(CWD, path, DIRECTORY, Mode::empty())?);
        Ok(Self { content, path: path.to_path_buf() })
    }

    /// A folder of an archive: what was unpacked of it, by name.
    pub(super) fn unpacked(path: PathBuf, files: BTreeMap<String, Arc<File>>) -> Self {
        Self { content: Content::Unpacked(files), path }
    }

    /// The directory.
    fn fd(&self) -> io::Result<&OwnedFd> {
        match &self.content {
            Content::Directory(fd) => Ok(fd),
            Content::Unpacked(_) => Err(Errno::NOTDIR.into()),
        }
    }

    /// Opens a directory in this one, unless it is a link.
    ///
    /// # Errors
    /// What the system says; `ENOTDIR` for a link.
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        let fd = openat(self.fd()?, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self { content: Content::Directory(fd), path: self.path.join(name) })
    }

    /// Its path, to be named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file to be read; `None` when there is none.
    ///
    /// # Errors
    /// When there is something else in its place, which the error names, or it cannot be opened.
    pub fn file(&self, name: &str) -> io::Result<Option<Arc<File>>> {
        match &self.content {
            Content::Directory(fd) => Ok(open_file(fd, Path::new(name), OFlags::NOFOLLOW)?.map(Arc::new)),
            Content::Unpacked(files) => Ok(files.get(name).cloned()),
        }
    }

    /// Reads a whole file of at most `most` bytes; `None` when there is none.
    ///
    /// # Errors
    /// As [`Self::file`], and when it is longer.
    pub fn read(&self, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.file(name)? else { return Ok(None) };
        // That of an archive is opened once.
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has more than {} MiB, which no trace has there", most >> 20),
            ));
        }
        Ok(Some(bytes))
    }

    /// Reads a file of JSON of at most `most` bytes; a value of nothing when there is none.
    ///
    /// # Errors
    /// As [`Self::read`], and when it is damaged.
    pub fn read_json<T: DeserializeOwned + Default>(&self, name: &str, most: u64) -> Result<T> {
        let read = || match self.read(name, most)? {
            Some(text) => anyhow::Ok(serde_json::from_slice(&text)?),
            None => Ok(T::default()),
        };
        read().with_context(|| format!("reading {}", self.path.join(name).display()))
    }

    /// Bytes of a file; `None` when there is none, or something else.
    #[must_use]
    pub fn len_of(&self, name: &str) -> Option<u64> {
        let there = match &self.content {
            Content::Directory(fd) => statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?,
            Content::Unpacked(files) => fstat(files.get(name)?).ok()?,
        };
        let is_file = FileType::from_raw_mode(there.st_mode) == FileType::RegularFile;
        is_file.then(|| u64::try_from(there.st_size).unwrap_or_default())
    }

    /// Whether an open file is the one of this name now.
    #[must_use]
    pub fn has(&self, name: &str, file: &File) -> bool {
        let there = self.fd().and_then(|fd| Ok(statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?));
        let there = there.map(|stat| (stat.st_dev, stat.st_ino));
        let open = fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((there, open), (Ok(there), Ok(open)) if there == open)
    }

    /// Whether it is what a path leads to now.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        let here = self.fd().and_then(|fd| Ok(fstat(fd)?)).map(|stat| (stat.st_dev, stat.st_ino));
        let there = stat(path).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((here, there), (Ok(here), Ok(there)) if here == there)
    }

    /// Where it is by now, if it was moved.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn place(&self) -> io::Result<PathBuf> {
        if self.is_at(&self.path) {
            return Ok(self.path.clone());
        }
        std::fs::read_link(format!("/proc/self/fd/{}", self.fd()?.as_raw_fd()))
    }

    /// Whether it was removed.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.fd().is_ok_and(|fd| fstat(fd).is_ok_and(|stat| stat.st_nlink == 0))
    }

    /// Has it for this process alone for as long as it is open; says whether no other has it. On a file system that locks nothing, none has.
    ///
    /// # Errors
    /// What the system says; an archive is nobody's.
    pub fn lock(&self) -> io::Result<bool> {
        match flock(self.fd()?, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a process has it locked.
    ///
    /// # Errors
    /// What the system says: also that the file system locks nothing.
    pub fn is_locked(&self) -> io::Result<bool> {
        // Of its own: that of this one, if it has one, is not given up. Shared: two that ask at once do not see one another.
        let fd = openat(self.fd()?, ".", DIRECTORY, Mode::empty())?;
        match flock(&fd, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The process that has locked it, where `/proc/locks` tells.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        let inode = fstat(self.fd().ok()?).ok()?.st_ino.to_string();
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let of_this = locks.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.any(|word| word == "FLOCK") && words.any(|word| word.rsplit(':').next() == Some(&inode))
        });
        of_this?.split_whitespace().nth(4)?.parse().ok().filter(|pid| *pid > 0)
    }

    /// The names of what is in it, sorted; names that are not text are left out.
    ///
    /// # Errors
    /// What the system says.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let fd = match &self.content {
            Content::Directory(fd) => fd,
            Content::Unpacked(files) => return Ok(files.keys().cloned().collect()),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(fd)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }
}

/// Opens a regular file below a directory to be read; `None` when there is none. A link is followed unless `links` is `NOFOLLOW`.
///
/// # Errors
/// When there is something else in its place, which the error names, or it cannot be opened.
pub(super) fn open_file(directory: impl AsFd, path: &Path, links: OFlags) -> io::Result<Option<File>> {
    // What is there is looked at before it is opened: opening a device may have an effect.
    let place = match openat(&directory, path, OFlags::PATH | links | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        place => place?,
    };
    let there = fstat(place.as_fd())?;
    let kind = FileType::from_raw_mode(there.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {}, not a file", name_of(kind))));
    }
    // It may have been replaced since: then this neither follows nor waits, and the numbers differ.
    let flags = OFlags::RDONLY | links | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = openat(&directory, path, flags, Mode::empty())?;
    let opened = fstat(fd.as_fd())?;
    if (opened.st_dev, opened.st_ino) != (there.st_dev, there.st_ino) {
        return Err(io::Error::other("it was replaced while it was opened"));
    }
    Ok(Some(File::from(fd)))
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a link",
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix};

    use super::*;

    #[test]
    fn nothing_but_files_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("file"), "0123456789").unwrap();
        unix::fs::symlink("file", path("link")).unwrap();
        unix::fs::symlink("/dev/zero", path("endless")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        unix::fs::symlink("directory", path("elsewhere")).unwrap();
        rustix::fs::mkfifoat(CWD, path("fifo"), Mode::RUSR).unwrap();
        let socket = unix::net::UnixListener::bind(path("socket")).unwrap();
        let folder = Folder::open(root.path()).unwrap();
        for (name, what) in [
            ("link", "a link"),
            ("endless", "a link"),
            ("directory", "a directory"),
            ("fifo", "a FIFO"),
            ("socket", "a socket"),
        ] {
            assert_eq!(folder.file(name).unwrap_err().to_string(), format!("it is {what}, not a file"), "{name}");
            assert_eq!(folder.len_of(name), None, "{name}");
        }
        drop(socket);
        assert!(folder.file("nothing").unwrap().is_none());
        assert_eq!(folder.read("file", 10).unwrap().unwrap(), b"0123456789");
        assert!(folder.read("file", 9).is_err());
        assert!(folder.folder("directory").is_ok() && folder.folder("elsewhere").is_err());
        assert!(!folder.is_locked().unwrap());
        assert!(
            folder.lock().unwrap()
                && folder.is_locked().unwrap()
                && !Folder::open(root.path()).unwrap().lock().unwrap()
        );
        assert_eq!(folder.holder(), Some(std::process::id()));
        let devices = Folder::open(Path::new("/dev")).unwrap();
        assert_eq!(devices.file("null").unwrap_err().to_string(), "it is a device, not a file");
    }
}
