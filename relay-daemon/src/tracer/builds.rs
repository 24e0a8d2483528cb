//! `.relayd/build-ids.json`: which files the code of processes is from, so that frames of their stacks get names later.
//!
//! A frame says its file by build id alone, and where it was on this machine is known only while it is mapped. What is mapped when recording
//! begins is read from `/proc`; what comes later the kernel tells as it tells perf (`PERF_RECORD_MMAP2`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use blazesym::helper::read_elf_build_id;
use perf_event::{Builder, Sampler, data::Record, events::Software};

use super::session::replace;

/// Its name in the trace's own folder.
pub(super) const FILE: &str = "build-ids.json";
/// Bytes in which the kernel tells one CPU's mappings, about 150 each, between two [`Builds::poll`]s.
const ROOM: usize = 512 * 1024;

/// The files that have been seen, by build id in hexadecimal.
#[derive(Default)]
pub(super) struct Builds {
    files: BTreeMap<String, PathBuf>,
    samplers: Vec<Sampler>,
}

impl Builds {
    /// Begins to collect what processes map as code on `cpus`, and what they have mapped.
    ///
    /// # Errors
    /// When the kernel does not tell mappings.
    pub(super) fn watch(cpus: &[u32]) -> Result<Self> {
        let mut builds = Self::default();
        for &cpu in cpus {
            let mut builder = Builder::new(Software::DUMMY);
            builder.any_pid().one_cpu(usize::try_from(cpu)?).mmap(true).mmap2(true).build_id(true);
            let what = || format!("watching what processes map on cpu {cpu}, for --context ustack");
            let counter = match builder.build() {
                // Offline.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                counter => counter.with_context(what)?,
            };
            let mut sampler = counter.sampled(ROOM).with_context(what)?;
            sampler.enable().with_context(what)?;
            builds.samplers.push(sampler);
        }
        builds.add_mapped();
        Ok(builds)
    }

    /// Adds what the kernel has told since.
    pub(super) fn poll(&mut self) {
        for sampler in &mut self.samplers {
            while let Some(record) = sampler.next_record() {
                // What cannot be parsed, or was lost for want of room, is found at the end if it is still mapped.
                if let Ok(Record::Mmap2(mapped)) = record.parse_record()
                    && let Some(id) = mapped.build_id()
                {
                    let name = mapped.filename.split(|byte| *byte == 0).next().unwrap_or_default();
                    add(&mut self.files, id, Path::new(OsStr::from_bytes(name)));
                }
            }
        }
    }

    /// Adds what any process has mapped now.
    pub(super) fn add_mapped(&mut self) {
        let mut seen = BTreeSet::new();
        let Ok(processes) = fs::read_dir("/proc") else { return };
        for process in processes.filter_map(Result::ok).map(|entry| entry.path()) {
            // A process that has ended meanwhile has no maps, and no kernel thread has any.
            let Ok(maps) = fs::read(process.join("maps")) else { continue };
            for (file, path) in maps.split(|byte| *byte == b'\n').filter_map(code_file) {
                if seen.insert(file.map(<[u8]>::to_vec))
                    && let Ok(inside) = path.strip_prefix("/")
                    && let Ok(Some(id)) = read_elf_build_id(&process.join("root").join(inside))
                {
                    add(&mut self.files, &id, path);
                }
            }
        }
    }

    /// Writes the file into the trace's own folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let files: BTreeMap<_, _> = self.files.iter().map(|(id, path)| (id, path.to_string_lossy())).collect();
        let text = serde_json::to_string_pretty(&files).context("writing build ids as JSON")?;
        replace(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
    }
}

/// The first path stays: it is as good as any other.
fn add(files: &mut BTreeMap<String, PathBuf>, id: &[u8], path: &Path) {
    // `//anon`, `[vdso]`: no files.
    if path.is_absolute() && !path.as_os_str().as_bytes().starts_with(b"//") && id.iter().any(|byte| *byte != 0) {
        files.entry(hex(id)).or_insert_with(|| path.to_path_buf());
    }
}

/// A build id as tools write it.
#[must_use]
pub(super) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of a line of `maps`, where code of a file is mapped: device and inode, and the path (`man proc_pid_maps`).
fn code_file(line: &[u8]) -> Option<([&[u8]; 2], &Path)> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let (_, permissions, _) = (words.next()?, words.next()?, words.next()?);
    let file = [words.next()?, words.next()?];
    let path = words.next()?.trim_ascii_start();
    let is_code = permissions.get(2) == Some(&b'x') && path.starts_with(b"/");
    is_code.then(|| (file, Path::new(OsStr::from_bytes(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_is_found_in_maps() {
        let line = b"7f8a1c028000-7f8a1c17d000 r-xp 00028000 fe:01 131 \t   /usr/lib/with space.so";
        assert_eq!(code_file(line), Some(([&b"fe:01"[..], b"131"], Path::new("/usr/lib/with space.so"))));
        for other in [
            "7f8a1c028000-7f8a1c17d000 r--p 00028000 fe:01 131   /usr/lib/data.so",
            "7ffd1-7ffd2 r-xp 00000000 00:00 0   [vdso]",
            "7ffd1-7ffd2 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code_file(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_file_is_left_out() {
        let mut files = BTreeMap::new();
        add(&mut files, &[1, 0xab], Path::new("/bin/a"));
        add(&mut files, &[1, 0xab], Path::new("/bin/b"));
        add(&mut files, &[0, 0], Path::new("/bin/c"));
        add(&mut files, &[2], Path::new("[vdso]"));
        add(&mut files, &[3], Path::new("//anon"));
        assert_eq!(files.into_iter().collect::<Vec<_>>(), [("01ab".to_owned(), PathBuf::from("/bin/a"))]);
    }
}
