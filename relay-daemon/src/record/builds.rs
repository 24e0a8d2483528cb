//! `.relayd/build-ids.json`: which files the code of processes is from, so that frames of their stacks get names later.
//!
//! A frame says its file by build id alone, and where it was on this machine is known only while it is mapped. What is mapped when recording
//! begins is read from `/proc`; what comes later the kernel tells as it tells perf (`PERF_RECORD_MMAP2`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use perf_event::{Builder, Sampler, data::Record, events::Software};

use super::code::CodeMaps;
use crate::binary;
use relay_trace::form::{
    builds::{self, FILE, hex},
    folder::Folder,
    replace,
};

/// Bytes in which the kernel tells one CPU's mappings, about 150 each, between two [`Builds::poll`]s.
const ROOM: usize = 512 * 1024;

/// The files that have been seen, by build id in hexadecimal.
#[derive(Default)]
pub(crate) struct Builds {
    files: BTreeMap<String, PathBuf>,
    samplers: Vec<Sampler>,
    /// Code in no file.
    made: Option<CodeMaps>,
}

impl Builds {
    /// Begins to collect what processes map as code on `cpus`. What they have mapped by now is for [`Self::add_mapped`].
    pub(crate) fn watch(cpus: &[u32]) -> Self {
        let mut builds = Self { made: Some(CodeMaps::new()), ..Self::default() };
        for &cpu in cpus {
            match sampler(cpu) {
                Ok(sampler) => builds.samplers.push(sampler),
                // Offline.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    log::warn!("what processes map on cpu {cpu} is not told ({error}): stacks may have fewer names");
                }
            }
        }
        builds
    }

    /// Adds what is in a trace's own folder, if it has anything.
    pub(crate) fn add_known(&mut self, folder: &Folder) {
        for (id, path) in builds::read(folder).unwrap_or_default() {
            self.files.entry(id).or_insert(path);
        }
    }

    /// Adds what the kernel has told since.
    pub(crate) fn poll(&mut self) {
        for sampler in &mut self.samplers {
            while let Some(record) = sampler.next_record() {
                // What cannot be parsed, or was lost for want of room, is found at the end if it is still mapped.
                let Ok(Record::Mmap2(mapped)) = record.parse_record() else { continue };
                let name = mapped.filename.split(|byte| *byte == 0).next().unwrap_or_default();
                match (mapped.build_id(), &mut self.made) {
                    (Some(id), _) if name.starts_with(b"/") => {
                        add(&mut self.files, id, Path::new(OsStr::from_bytes(name)));
                    }
                    (_, Some(made)) => made.add(mapped.pid, mapped.addr, name),
                    _ => {}
                }
            }
        }
    }

    /// Adds what any process has mapped now.
    pub(crate) fn add_mapped(&mut self) {
        let mut seen = BTreeSet::new();
        let Ok(processes) = fs::read_dir("/proc") else { return };
        for process in processes.filter_map(Result::ok).map(|entry| entry.path()) {
            // A process that has ended meanwhile has no maps, and no kernel thread has any.
            let Ok(maps) = fs::read(process.join("maps")) else { continue };
            let number = process.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
            if let (Some(made), Some(number)) = (&mut self.made, number) {
                for (begin, name) in maps.split(|byte| *byte == b'\n').filter_map(code_in_no_file) {
                    made.add(number, begin, name);
                }
            }
            for mapped in maps.split(|byte| *byte == b'\n').filter_map(code_file) {
                // The file itself, whatever is at its path by now.
                let file = process.join("map_files").join(mapped.range);
                if seen.insert(mapped.file.map(<[u8]>::to_vec))
                    && let Some(id) = binary::build_id(&file)
                {
                    add(&mut self.files, &id, mapped.path);
                }
            }
        }
    }

    /// Writes the file into the trace's own folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&mut self, folder: &Path) -> Result<()> {
        if let Some(made) = &mut self.made {
            made.write(folder)?;
        }
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

/// Has the kernel tell what any process maps on a CPU.
fn sampler(cpu: u32) -> io::Result<Sampler> {
    let cpu = usize::try_from(cpu).map_err(io::Error::other)?;
    let mut builder = Builder::new(Software::DUMMY);
    builder.any_pid().one_cpu(cpu).mmap(true).mmap2(true).build_id(true);
    let mut sampler = builder.build()?.sampled(ROOM)?;
    sampler.enable()?;
    Ok(sampler)
}

/// Where code of a file is mapped.
#[derive(Debug, PartialEq, Eq)]
struct Mapped<'a> {
    /// The name of the mapping in `map_files`.
    range: String,
    /// Device and inode.
    file: [&'a [u8]; 2],
    path: &'a Path,
}

/// Where code begins that is in no file, and what the kernel calls it, by a line of `maps`.
fn code_in_no_file(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let (range, permissions) = (words.next()?, words.next()?);
    let name = words.nth(3).unwrap_or_default().trim_ascii();
    let (begin, _) = str::from_utf8(range).ok()?.split_once('-')?;
    let begin = u64::from_str_radix(begin, 16).ok()?;
    (permissions.get(2) == Some(&b'x') && !name.starts_with(b"/")).then_some((begin, name))
}

/// What a line of `maps` says (`man proc_pid_maps`), when it is code of a file.
fn code_file(line: &[u8]) -> Option<Mapped<'_>> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let (range, permissions, _) = (words.next()?, words.next()?, words.next()?);
    let file = [words.next()?, words.next()?];
    let path = words.next()?.trim_ascii_start();
    if permissions.get(2) != Some(&b'x') || !path.starts_with(b"/") {
        return None;
    }
    // There the addresses have no zeros before them.
    let (begin, end) = str::from_utf8(range).ok()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    let range = format!("{:x}-{:x}", address(begin)?, address(end)?);
    Some(Mapped { range, file, path: Path::new(OsStr::from_bytes(path)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_is_found_in_maps() {
        let line = b"00401000-7f8a1c17d000 r-xp 00028000 fe:01 131 \t   /usr/lib/with space.so";
        let (range, path) = ("401000-7f8a1c17d000".to_owned(), Path::new("/usr/lib/with space.so"));
        assert_eq!(code_file(line), Some(Mapped { range, file: [b"fe:01", b"131"], path }));
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
    fn code_in_no_file_is_found_in_maps() {
        let found = |line: &'static str| code_in_no_file(line.as_bytes());
        assert_eq!(found("7ffd1000-7ffd2000 r-xp 00000000 00:00 0   [vdso]"), Some((0x7ffd_1000, &b"[vdso]"[..])));
        assert_eq!(found("7f001000-7f002000 rwxp 00000000 00:00 0 "), Some((0x7f00_1000, &b""[..])));
        assert_eq!(found("7f001000-7f002000 rw-p 00000000 00:00 0 "), None);
        assert_eq!(found("00401000-7f8a1c17d000 r-xp 00028000 fe:01 131   /usr/lib/x.so"), None);
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
