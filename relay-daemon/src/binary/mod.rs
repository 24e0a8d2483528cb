//! What uprobes need of an executable or a library: its functions, where in the file they are, and its USDT probes.

mod elf;
mod instructions;
pub mod usdt;

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    elf::{PF_W, PF_X},
    read::ReadCache,
};

use self::{
    elf::{Bounded, Contents, Rank, foreign},
    usdt::{Usdt, UsdtError},
};
use relay_trace::{
    form::{builds::hex, code::FunctionRange},
    similar::{self, SUGGESTIONS, offer},
};

/// How many functions among which a program chooses.
const CHOICES: usize = 8;
/// Longer names are not offered: nobody types them.
const MAX_OFFERED: usize = 128;

/// Longest function in which a place is looked at, in bytes.
const MAX_FUNCTION: u64 = 1 << 20;
/// At least as long as any instruction, in bytes.
const MAX_INSTRUCTION: u64 = 16;

/// Where separate debug files are.
const DEBUG_FILES: &str = "/usr/lib/debug/.build-id";

/// Where libraries are; the machine's own folder in each comes before it.
const LIBRARIES: [&str; 6] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"];

/// An executable or a library.
#[derive(Debug)]
pub struct Binary {
    path: PathBuf,
    contents: Contents,
}

/// Why a probe cannot be put where it was wanted.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// No function has the name.
    #[error("{path} has no function '{symbol}'{}{}", offer(.near), if *.stripped { STRIPPED } else { "" })]
    Unknown {
        /// The file.
        path: String,
        /// What was looked for.
        symbol: String,
        /// What it may have been meant to be.
        near: Vec<String>,
        /// Only exported functions are known.
        stripped: bool,
    },
    /// The program chooses one of several functions when it starts.
    #[error("'{symbol}' of {path} is chosen among several functions when a program starts; probe the one that it is here{}", one_of(.near))]
    Indirect {
        /// The file.
        path: String,
        /// What was looked for.
        symbol: String,
        /// What it may be at run time.
        near: Vec<String>,
    },
    /// The file's USDT notes are damaged.
    #[error("{path}: {error}")]
    Usdt {
        /// The file.
        path: String,
        /// What is wrong with them.
        error: UsdtError,
    },
}

const STRIPPED: &str = "; it is stripped of its symbols, and no debug file is installed: only the functions that it \
                        exports are known";

fn one_of(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(", such as {}", near.join(", ")) }
}

impl Binary {
    /// Reads a file's symbols and notes.
    ///
    /// # Errors
    /// When it cannot be read, or when it is neither a program nor a library of this machine.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, Path::new(DEBUG_FILES))
    }

    fn open_with(path: &Path, debug_files: &Path) -> Result<Self> {
        let file = open_file(path).with_context(|| format!("opening {}", path.display()))?;
        let contents = Contents::parse(Bounded(&ReadCache::new(file)));
        let contents = contents.with_context(|| format!("{} cannot be probed", path.display()))?;
        let mut binary = Self { path: path.to_owned(), contents };
        if binary.is_stripped()
            && let Some(debug) = binary.contents.build_id.as_deref().and_then(debug_path).map(|at| debug_files.join(at))
            && let Ok(file) = open_file(&debug)
        {
            // The probes that need no debug file are not to fail for it.
            if let Err(error) = binary.contents.add_debug_file(Bounded(&ReadCache::new(file))) {
                log::warn!("the symbols of {} in {}: {error:#}", path.display(), debug.display());
            }
        }
        Ok(binary)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the functions that can be probed, sorted, each once. Those that are chosen at run time are left out.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.contents.functions.chunk_by(|a, b| a.name == b.name).filter_map(|same| Some(&*same.first()?.name))
    }

    /// Where in the file functions of a name begin: at least one place, several where source files have functions of their own
    /// by the same name. A function that others see comes before those, and its newest version before old ones.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn offsets_of(&self, symbol: &str) -> Result<Vec<u64>, BinaryError> {
        if let Some((name, version)) = symbol.split_once('@') {
            return self.offsets_of_version(name, version.trim_start_matches('@'));
        }
        let functions = &self.contents.functions;
        let rest = functions.get(functions.partition_point(|function| *function.name < *symbol)..).unwrap_or_default();
        let rank = rest.first().map_or(Rank::Local, |function| function.rank);
        let meant = rest.iter().take_while(|function| *function.name == *symbol && function.rank == rank);
        let offsets: Vec<_> = meant.map(|function| function.offset).collect();
        if !offsets.is_empty() {
            return Ok(offsets);
        }
        let (path, symbol) = (self.name(), symbol.to_owned());
        if self.contents.indirect.binary_search_by(|(name, _)| (**name).cmp(&*symbol)).is_ok() {
            // `__memcpy_avx_unaligned`, but not `__memcpy_ifunc`, which chooses.
            let is_choice = |name: &&str| {
                let rest = name.trim_start_matches('_').strip_prefix(symbol.trim_start_matches('_'));
                rest.is_some_and(|rest| rest.starts_with('_') && rest != "_ifunc")
            };
            let near = self.functions().filter(is_choice).take(CHOICES).map(str::to_owned).collect();
            return Err(BinaryError::Indirect { path, symbol, near });
        }
        let near = self.nearest(&symbol);
        Err(BinaryError::Unknown { path, symbol, near, stripped: self.is_stripped() })
    }

    /// The same of one version of a function: `memcpy@GLIBC_2.2.5`.
    fn offsets_of_version(&self, symbol: &str, version: &str) -> Result<Vec<u64>, BinaryError> {
        let known = self.contents.versions.iter().filter(|(name, ..)| **name == *symbol);
        let meant = known.clone().filter(|(_, known, _)| **known == *version);
        let mut offsets: Vec<_> = meant.map(|(.., offset)| *offset).collect();
        offsets.dedup();
        if !offsets.is_empty() {
            return Ok(offsets);
        }
        let versions: Vec<_> = known.map(|(_, version, _)| format!("{symbol}@{version}")).collect();
        let (path, symbol) = (self.name(), format!("{symbol}@{version}"));
        let near = if versions.is_empty() { self.nearest(&symbol) } else { versions };
        Err(BinaryError::Unknown { path, symbol, near, stripped: false })
    }

    /// Checks that an instruction begins at a place in the file that is not a function's beginning.
    ///
    /// # Errors
    /// When none does, or it cannot be known: no function is known to begin at or before the place.
    pub fn check_place(&self, place: u64) -> Result<()> {
        let before = self.contents.functions.iter().filter(|function| function.offset <= place);
        let function = before.max_by_key(|function| function.offset);
        let function = function.filter(|function| place - function.offset < MAX_FUNCTION);
        let function = function.with_context(|| {
            format!("{}: no function is known near {place:#x}, so no probe is put there", self.name())
        })?;
        let at = place - function.offset;
        if at == 0 {
            return Ok(());
        }
        let mut code = Vec::new();
        let mut file = open_file(&self.path).with_context(|| format!("opening {}", self.name()))?;
        file.seek(SeekFrom::Start(function.offset))?;
        file.take(at + MAX_INSTRUCTION).read_to_end(&mut code).with_context(|| format!("reading {}", self.name()))?;
        instructions::check(&code, at).with_context(|| format!("{}: {}+{at:#x}", self.name(), function.name))
    }

    /// What identifies the file among all others.
    #[must_use]
    pub fn build_id(&self) -> Option<Vec<u8>> {
        self.contents.build_id.clone()
    }

    /// Only exported functions are known: all others' names are neither in the file nor in a separate debug file.
    #[must_use]
    pub fn is_stripped(&self) -> bool {
        !self.contents.all_symbols
    }

    /// The places of USDT probes, in the file's order. Those that the linker took out of the program are left out.
    ///
    /// # Errors
    /// When the notes are damaged.
    pub fn probes(&self) -> Result<Vec<Usdt>, BinaryError> {
        let notes = usdt::notes(&self.contents.usdt);
        let notes = notes.map_err(|error| BinaryError::Usdt { path: self.name(), error })?;
        let mut probes = Vec::new();
        for note in notes {
            // The file was moved after it had been linked: notes stay behind, sections do not.
            let moved = match self.contents.usdt_base {
                Some(base) if note.base != 0 => base.wrapping_sub(note.base),
                _ => 0,
            };
            let location = note.location.wrapping_add(moved);
            let variable = |name: &str| self.contents.variables.get(name).copied().flatten();
            let place = |address: u64, flags| self.contents.file_offset(address.wrapping_add(moved), flags);
            let semaphore = (note.semaphore != 0).then_some(note.semaphore);
            let at = (place(note.location, PF_X), semaphore.map(|address| place(address, PF_W)));
            let (Some(offset), None | Some(Some(_))) = at else {
                log::debug!("{}: the probe {}:{} is nowhere", self.path.display(), note.provider, note.name);
                continue;
            };
            probes.push(Usdt {
                provider: note.provider.to_owned(),
                name: note.name.to_owned(),
                offset,
                semaphore: at.1.flatten(),
                arguments: note.arguments.into_iter().map(|argument| argument.placed(location, variable)).collect(),
            });
        }
        Ok(probes)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The names that are most like `wanted`, then some that contain it, as the mangled names of C++ and Rust do.
    fn nearest(&self, wanted: &str) -> Vec<String> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let mut names: Vec<&str> = similar::nearest(wanted, self.functions(), |name| name);
        for name in self.functions().filter(|name| name.len() <= MAX_OFFERED && name.contains(wanted)) {
            if names.len() == SUGGESTIONS {
                break;
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.into_iter().map(str::to_owned).collect()
    }
}

/// What identifies a file that anybody may have put there.
pub(crate) fn build_id(path: &Path) -> Option<Vec<u8>> {
    build_id_of(open_file(path).ok()?)
}

pub(crate) fn build_id_of(file: File) -> Option<Vec<u8>> {
    elf::build_id(Bounded(&ReadCache::new(file)))
}

/// The functions of a file with a build id, by where they begin in it: at most so many bytes of them.
///
/// # Errors
/// When it is another file, or cannot be read, or they are more.
pub(crate) fn functions(file: File, id: &[u8], most: usize) -> Result<Vec<FunctionRange>> {
    let cache = ReadCache::new(file);
    ensure!(elf::build_id(Bounded(&cache)).as_deref() == Some(id), "it is another file by now");
    let functions = elf::functions(Bounded(&cache), most)?;
    let next = functions.keys().skip(1).copied().map(Some).chain([None]);
    let with_end = functions.iter().zip(next).map(|((begin, (len, name)), next)| {
        // One that says no length, as those in assembly do, goes on to the next.
        let len = if *len == 0 { next.map_or(1, |next| next - begin) } else { *len };
        (*begin, len, name.clone())
    });
    Ok(with_end.collect())
}

/// Opens a regular file, and does not wait for a pipe's other end.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    ensure!(file.metadata()?.is_file(), "not a regular file");
    Ok(file)
}

/// `xx/yyyy.debug`.
fn debug_path(build_id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_at_checked(1)?;
    Some(Path::new(&hex(first)).join(hex(rest) + ".debug"))
}

/// Finds what a user means: a path (anything with a `/`), a library (`libc`, `libc.so.6`), or a program in `PATH`.
///
/// # Errors
/// When there is none; the message says where it was looked for.
pub fn find(name: &str) -> Result<PathBuf> {
    ensure!(!name.is_empty(), "an empty name; give a path, a program or a library, for example libc");
    if name.contains('/') {
        // Links stay: the kernel follows those in /proc/PID/root to other containers, their text does not.
        let path = std::path::absolute(name).with_context(|| format!("the path {name}"))?;
        fs::metadata(&path).with_context(|| format!("looking for {}", path.display()))?;
        return Ok(path);
    }
    let folders = library_folders();
    if is_library(name)
        && let Some(path) = find_library(name, &folders)
    {
        return Ok(path);
    }
    // A script of that name may start the program of that name.
    let mut programs = which::which_all(name).into_iter().flatten();
    let first = programs.next();
    let runs = first.iter().cloned().chain(programs).find(|path| runs_here(path));
    if let Some(path) = runs.or(first) {
        return Ok(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = path.to_string_lossy().replace(':', ", ");
    if is_library(name) {
        let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        bail!("no library '{name}' for this machine in {}; nor a program in {programs}", folders.join(", "));
    }
    bail!("no program '{name}' in {programs}; a library's name begins with lib, any other file needs its path");
}

fn is_library(name: &str) -> bool {
    name.starts_with("lib") || name.ends_with(".so") || name.contains(".so.")
}

fn library_folders() -> Vec<PathBuf> {
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = LIBRARIES.iter().flat_map(|folder| [Path::new(folder).join(&triplet), PathBuf::from(folder)]);
    folders.filter(|folder| folder.is_dir()).collect()
}

/// A file of just that name, or else of that name with `.so` and the highest version.
fn find_library(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let exact = folders.iter().map(|folder| folder.join(name)).find(|path| runs_here(path));
    exact.or_else(|| folders.iter().find_map(|folder| newest_library(name, folder)))
}

fn newest_library(name: &str, folder: &Path) -> Option<PathBuf> {
    let stem = if name.contains(".so") { name.to_owned() } else { format!("{name}.so") };
    let mut found: Vec<(Vec<u64>, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).ok()?.map_while(Result::ok) {
        let file = entry.file_name();
        let Some(version) = file.to_str().and_then(|file| file.strip_prefix(&stem)) else { continue };
        let numbers = match version.strip_prefix('.') {
            Some(numbers) => numbers.split('.').map(|number| number.parse().ok()).collect(),
            None => version.is_empty().then(Vec::new),
        };
        if let Some(numbers) = numbers {
            found.push((numbers, entry.path()));
        }
    }
    found.sort();
    // A file without a version is a link to what programs are linked with; or a script for the linker, which does not run.
    let unversioned = found.first().filter(|(numbers, _)| numbers.is_empty()).cloned();
    let by_age = unversioned.into_iter().chain(found.into_iter().rev());
    by_age.map(|(_, path)| path).find(|path| runs_here(path))
}

/// Whether a file is a program or library of this machine, judged by its first bytes.
fn runs_here(path: &Path) -> bool {
    let mut start = Vec::new();
    let file = open_file(path).ok();
    file.is_some_and(|file| file.take(64).read_to_end(&mut start).is_ok() && foreign(&start).is_none())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::binary::elf::tests::{SampleElf, made};

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn opened(made_of: &SampleElf) -> Binary {
        Binary::open(file(&made(made_of)).path()).unwrap()
    }

    fn error<T: std::fmt::Debug>(result: Result<T>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn this_program_has_its_functions_where_it_says() {
        let path = std::env::current_exe().unwrap();
        let binary = Binary::open(&path).unwrap();
        assert!(!binary.is_stripped());
        let names: Vec<_> = binary.functions().collect();
        assert!(names.is_sorted_by(|a, b| a < b));
        assert!(names.contains(&"main"));
        // Where the program really is: its address, less where the file's part begins that holds it.
        let here = find as fn(&str) -> Result<PathBuf> as usize;
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let offset = maps.lines().find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (start, end) = fields[0].split_once('-')?;
            let number = |text| usize::from_str_radix(text, 16).ok();
            let (start, end) = (number(start)?, number(end)?);
            Some(number(fields[2])? + here.checked_sub(start).filter(|_| here < end)?)
        });
        let wanted = u64::try_from(offset.unwrap()).unwrap();
        let offsets: Vec<_> = names
            .iter()
            .filter(|name| name.contains("binary4find"))
            .flat_map(|name| binary.offsets_of(name).unwrap())
            .collect();
        assert!(offsets.contains(&wanted), "{wanted:#x} in {offsets:x?}");
    }

    #[test]
    fn offsets_are_of_the_file() {
        let binary = opened(&SampleElf::default());
        assert_eq!(
            binary.functions().collect::<Vec<_>>(),
            ["chosen_fast", "compress", "decompress", "own", "versioned"]
        );
        assert_eq!(binary.offsets_of("compress").unwrap(), [0x1010]);
        assert_eq!(binary.offsets_of("versioned").unwrap(), [0x1050]);
        for (version, offset) in [("@V1", 0x1060), ("@V2", 0x1050), ("@@V2", 0x1050)] {
            assert_eq!(binary.offsets_of(&format!("versioned{version}")).unwrap(), [offset]);
        }
        assert_eq!(binary.offsets_of("own").unwrap(), [0x1030, 0x1040]);
        assert_eq!(binary.build_id().unwrap(), [0xab; 20]);
        let message = |symbol| binary.offsets_of(symbol).unwrap_err().to_string();
        assert!(message("compres").ends_with("has no function 'compres'; did you mean compress, decompress?"));
        assert!(message("press").ends_with("did you mean compress, decompress?"));
        assert!(message("versioned@V3").ends_with("'versioned@V3'; did you mean versioned@V1, versioned@V2?"));
        assert!(message("chosen").contains("chosen among several functions"));
        assert!(message("chosen").ends_with(", such as chosen_fast"));
        for name in ["", "elsewhere", "zzz"] {
            assert!(message(name).ends_with(&format!("has no function '{name}'")), "{name}");
        }
    }

    #[test]
    fn a_stripped_file_says_so_unless_there_is_its_debug_file() {
        let stripped = file(&made(&SampleElf { stripped: true, ..SampleElf::default() }));
        let folder = tempfile::tempdir().unwrap();
        let binary = Binary::open_with(stripped.path(), folder.path()).unwrap();
        assert!(binary.is_stripped());
        assert!(binary.offsets_of("compress").unwrap_err().to_string().ends_with(STRIPPED));

        let debug = folder.path().join("ab").join("ab".repeat(19) + ".debug");
        fs::create_dir(debug.parent().unwrap()).unwrap();
        fs::write(&debug, made(&SampleElf { offset: 0x800, ..SampleElf::default() })).unwrap();
        let binary = Binary::open_with(stripped.path(), folder.path()).unwrap();
        assert!(!binary.is_stripped());
        assert_eq!(binary.offsets_of("compress").unwrap(), [0x1010]);

        fs::write(&debug, made(&SampleElf { build_id: 1, ..SampleElf::default() })).unwrap();
        assert!(Binary::open_with(stripped.path(), folder.path()).unwrap().is_stripped());
        fs::write(&debug, "what?").unwrap();
        assert!(Binary::open_with(stripped.path(), folder.path()).unwrap().is_stripped());
    }

    #[test]
    fn probes_are_placed_in_the_file() {
        let places = |made_of| {
            let probes = opened(&made_of).probes().unwrap();
            probes
                .into_iter()
                .map(|probe| (probe.provider + ":" + &probe.name, probe.offset, probe.semaphore))
                .collect::<Vec<_>>()
        };
        let expected = [
            ("app:start".to_owned(), 0x1014, Some(0x2008)),
            ("app:start".to_owned(), 0x1018, Some(0x2008)),
            ("app:stop".to_owned(), 0x1020, None),
        ];
        assert_eq!(places(SampleElf::default()), expected);
        // Moved after it was linked: the notes' addresses are the former ones.
        assert_eq!(places(SampleElf { moved: 0x10_0000, ..SampleElf::default() }), expected);
        let damaged = opened(&SampleElf { notes: Some(vec![1; 20]), ..SampleElf::default() });
        assert!(damaged.probes().unwrap_err().to_string().ends_with("the USDT notes are cut off"));
    }

    #[test]
    fn what_cannot_be_probed_is_said() {
        let open = |bytes: &[u8]| error(Binary::open(file(bytes).path()));
        assert!(error(Binary::open(Path::new("/nowhere/x"))).starts_with("opening /nowhere/x: No such file"));
        assert!(error(Binary::open(Path::new("/"))).ends_with("not a regular file"));
        assert!(open(b"").ends_with("cannot be probed: not an ELF file"));
        assert!(open(b"#!/bin/sh -e\ntrue").ends_with("a script of /bin/sh -e, not an ELF file"));
        let changed = |at: usize, value: u8| {
            let mut bytes = made(&SampleElf::default());
            bytes[at] = value;
            open(&bytes)
        };
        assert!(changed(4, 1).contains("a 32-bit ELF file"));
        assert!(changed(5, 2).contains("big-endian"));
        assert!(changed(18, 243).contains("for riscv64; this machine is"));
        assert!(changed(16, 1).contains("an object file"));
        assert!(changed(16, 4).contains("a core dump"));
        assert!(open(&made(&SampleElf::default())[..18]).contains("a damaged header"));
    }

    #[test]
    fn names_are_found_as_programs_and_libraries() {
        assert!(find("sh").unwrap().is_absolute());
        assert_eq!(find("/bin/../bin/sh").unwrap(), Path::new("/bin/../bin/sh"));
        assert!(error(find("no-such-program")).starts_with("no program 'no-such-program' in "));
        assert!(error(find("libno-such")).starts_with("no library 'libno-such' for this machine in /"));
        assert!(error(find("/no/such")).starts_with("looking for /no/such: No such file"));
        assert!(find("").is_err());
    }

    #[test]
    fn of_several_libraries_the_newest_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let add = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let found = |name: &str| {
            let path = find_library(name, &[folder.path().to_owned()])?;
            Some(path.file_name()?.to_str()?.to_owned())
        };
        let library = made(&SampleElf::default());
        add("libx.so", b"INPUT(libx.so.2)");
        add("libx.so.11", b"not for this machine");
        for name in ["libx.so.2", "libx.so.10", "libx.so.10.debug", "libxy.so.99", "libx-3.so"] {
            add(name, &library);
        }
        assert_eq!(found("libx").as_deref(), Some("libx.so.10"));
        assert_eq!(found("libx.so").as_deref(), Some("libx.so.10"));
        assert_eq!(found("libx.so.2").as_deref(), Some("libx.so.2"));
        assert_eq!(found("libx.so.1"), None);
        assert_eq!(found("lib"), None);
        add("libx.so", &library);
        assert_eq!(found("libx").as_deref(), Some("libx.so"));
    }
}
