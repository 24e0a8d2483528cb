//! `.relayd/build-ids.json`: which files the code of processes is from, so that frames of their stacks get names later.
//!
//! A frame says its file by build id alone, and where it was on this machine is known only while it is mapped. What is mapped when recording
//! begins is read from `/proc`; what comes later the kernel tells as it tells perf (`PERF_RECORD_MMAP2`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use perf_event::{Builder, Sampler, data::Record, events::Software};

use super::{code::CodeMaps, text::Text};
use crate::{
    binary,
    host::{open_in_root, process_folder},
};
use relay_trace::form::{
    builds::{self, FILE, FUNCTION_SIZE, FUNCTIONS_FILE, MOST_FUNCTIONS, hex},
    code::FunctionRange,
    folder::Folder,
    replace,
};

/// Bytes in which the kernel tells one CPU's mappings, about 150 each, between two [`Builds::poll`]s.
const ROOM: usize = 512 * 1024;
/// `/proc` says this behind the path of a file that has none any more.
const DELETED: &[u8] = b" (deleted)";

/// The files that have been seen, by build id in hexadecimal.
#[derive(Default)]
pub(crate) struct Builds {
    files: BTreeMap<String, Seen>,
    /// The functions that are kept, as they were written last.
    functions: Text,
    samplers: Vec<Sampler>,
    /// Code in no file.
    made: Option<CodeMaps>,
}

/// A file that has been seen.
struct Seen {
    /// As a process saw it.
    path: PathBuf,
    /// The stamp of the file, as long as it is at the path: whoever reads the trace looks there.
    there: Option<Stamp>,
    /// Its functions, where they are kept since it is not there.
    functions: Option<Vec<FunctionRange>>,
}

/// Tells a file from another, or another content of it: device, inode, bytes, and when it was changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp([u64; 3], [i64; 2]);

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self([file.dev(), file.ino(), file.len()], [file.ctime(), file.ctime_nsec()]))
    }

    /// The stamp of a path, if the file there has that build id.
    fn with_id(path: &Path, id: &str) -> Option<Self> {
        let stamp = Self::of(path)?;
        binary::build_id(path).is_some_and(|there| hex(&there) == id).then_some(stamp)
    }
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
            let there = Stamp::with_id(&path, &id);
            self.files.entry(id).or_insert(Seen { path, there, functions: None });
        }
        for (id, functions) in builds::read_functions(folder).unwrap_or_default() {
            if let Some(seen) = self.files.get_mut(&id) {
                seen.functions = Some(functions);
            }
        }
    }

    /// Adds what the kernel has told since.
    pub(crate) fn poll(&mut self) {
        self.take();
        if let Some(made) = &mut self.made {
            made.poll();
        }
        // Who still runs it has it.
        if self.has_lost_one() {
            self.add_mapped();
        }
    }

    fn take(&mut self) {
        for sampler in &mut self.samplers {
            while let Some(record) = sampler.next_record() {
                // What cannot be parsed, or was lost for want of room, is found at the end if it is still mapped.
                let Ok(Record::Mmap2(mapped)) = record.parse_record() else { continue };
                let name = mapped.filename.split(|byte| *byte == 0).next().unwrap_or_default();
                match (mapped.build_id(), &mut self.made) {
                    (Some(id), _) if name.starts_with(b"/") => {
                        let process = process_folder(mapped.pid);
                        let range = format!("{:x}-{:x}", mapped.addr, mapped.addr.saturating_add(mapped.len));
                        add(&mut self.files, id, name, || file_of(&process, &range, name));
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
                let path = mapped.path.as_os_str().as_bytes();
                if seen.insert(mapped.file.map(<[u8]>::to_vec))
                    && let Some(file) = file_of(&process, &mapped.range, path)
                    && let Some(id) = file.try_clone().ok().and_then(binary::build_id_of)
                {
                    add(&mut self.files, &id, path, || Some(file));
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
        let files: BTreeMap<_, _> = self.files.iter().map(|(id, seen)| (id, seen.path.to_string_lossy())).collect();
        let text = serde_json::to_string_pretty(&files).context("writing build ids as JSON")?;
        replace(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
        let gone = self.files.iter().filter(|(_, seen)| seen.there.is_none());
        let functions: BTreeMap<_, _> = gone.filter_map(|(id, seen)| Some((id, seen.functions.as_ref()?))).collect();
        if functions.is_empty() {
            return Ok(());
        }
        self.functions.update(serde_json::to_string(&functions).context("writing functions as JSON")?);
        self.functions.save(&folder.join(FUNCTIONS_FILE))
    }

    /// Whether a file is not at its path any more whose functions are not kept.
    fn has_lost_one(&mut self) -> bool {
        let mut has = false;
        for (id, seen) in self.files.iter_mut().filter(|(_, seen)| seen.there.is_some()) {
            if seen.there != Stamp::of(&seen.path) {
                seen.there = Stamp::with_id(&seen.path, id);
                has |= seen.there.is_none() && seen.functions.is_none();
            }
        }
        has
    }
}

/// Adds a file. The first path stays: it is as good as any other. One that is not at its path has its functions taken now, from where a process has it.
fn add(files: &mut BTreeMap<String, Seen>, id: &[u8], path: &[u8], file: impl FnOnce() -> Option<File>) {
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    // `//anon`, `[vdso]`: no files.
    if !path.starts_with(b"/") || path.starts_with(b"//") || id.iter().all(|byte| *byte == 0) {
        return;
    }
    let name = hex(id);
    let seen = files.entry(name.clone()).or_insert_with(|| {
        let path = PathBuf::from(OsStr::from_bytes(path));
        let there = Stamp::with_id(&path, &name);
        Seen { path, there, functions: None }
    });
    if seen.there.is_some() || seen.functions.is_some() {
        return;
    }
    let Some(file) = file() else { return };
    let path = seen.path.display().to_string();
    let kept = files.values().filter_map(|seen| seen.functions.as_ref()).flatten();
    let kept: usize = kept.map(|(.., name)| name.len() + FUNCTION_SIZE).sum();
    let functions = binary::functions(file, id, MOST_FUNCTIONS.saturating_sub(kept));
    let functions = functions.unwrap_or_else(|error| {
        log::info!("the functions of {path} are not kept: {error:#}");
        Vec::new()
    });
    if let Some(seen) = files.get_mut(&name) {
        seen.functions = Some(functions);
    }
}

/// The file that a process has mapped: itself, whatever is at its path by now, or what is at its path in the process's own root.
fn file_of(process: &Path, range: &str, path: &[u8]) -> Option<File> {
    let mapped = binary::open_file(&process.join("map_files").join(range));
    mapped.ok().or_else(|| open_in_root(process, Path::new(OsStr::from_bytes(path)), false))
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
        let mut add = |id: &[u8], path: &str| add(&mut files, id, path.as_bytes(), || None);
        add(&[1, 0xab], "/bin/a (deleted)");
        add(&[1, 0xab], "/bin/b");
        add(&[0, 0], "/bin/c");
        add(&[2], "[vdso]");
        add(&[3], "//anon");
        let files: Vec<_> = files.into_iter().map(|(id, seen)| (id, seen.path)).collect();
        assert_eq!(files, [("01ab".to_owned(), PathBuf::from("/bin/a"))]);
    }
}
