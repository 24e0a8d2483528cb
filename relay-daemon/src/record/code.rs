//! `.relayd/code.json`: names for code of processes that is in no file, as far as somebody has them: programs that make code while they run write
//! them to `/tmp/perf-PID.map`, as perf wants it, and the kernel's vDSO has symbols of its own.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use object::{
    LittleEndian,
    elf::{FileHeader64, SHT_DYNSYM, STB_GLOBAL, STT_FUNC},
    read::elf::{FileHeader as _, Sym as _},
};
use relay_trace::form::{
    code::{self, Code, FILE, FunctionRange},
    replace,
};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::host::{Namespace, is_in_own};

/// Most bytes of a process's map; those of all processes together are at most twice that.
const LONGEST: u64 = 16 << 20;

/// What has been seen so far.
pub(crate) struct CodeMaps {
    code: Code,
    /// Processes that have had code in no file.
    processes: BTreeSet<u32>,
    /// In a PID namespace, `/proc` and perf number processes otherwise than records do.
    knows_processes: bool,
}

impl CodeMaps {
    pub(crate) fn new() -> Self {
        let vdso = vdso().unwrap_or_else(|error| {
            log::info!("the functions of the vDSO have no names: {error:#}");
            Vec::new()
        });
        let code = Code { vdso, ..Code::default() };
        Self { code, processes: BTreeSet::new(), knows_processes: !is_in_own(Namespace::Pid) }
    }

    /// A process has mapped this as code.
    pub(crate) fn add(&mut self, process: u32, begin: u64, name: &[u8]) {
        match name {
            _ if !self.knows_processes => {}
            b"[vdso]" => drop(self.code.processes.entry(process).or_default().vdso.insert(begin)),
            b"" | b"//anon" => drop(self.processes.insert(process)),
            _ => {}
        }
    }

    /// Writes the file into the trace's own folder, with what the processes have told by now.
    pub(crate) fn write(&mut self, folder: &Path) -> Result<()> {
        let mut left = 2 * LONGEST;
        for process in &self.processes {
            let Some(map) = map_of(*process) else { continue };
            let len = map.len() as u64;
            if len > left {
                log::warn!(
                    "process {process} and others have told more of their code than is kept: stacks may have fewer names"
                );
                break;
            }
            left -= len;
            self.code.processes.entry(*process).or_default().made = code::parse_map(&map);
        }
        let path = folder.join(FILE);
        let text = serde_json::to_vec(&self.code).context("writing the names of code as JSON")?;
        replace(&path, &text).with_context(|| format!("writing {}", path.display()))
    }
}

/// What a process has told of its code.
fn map_of(process: u32) -> Option<Vec<u8>> {
    let proc = Path::new("/proc").join(process.to_string());
    let (file, owner) = match fs::metadata(&proc) {
        Ok(metadata) => {
            // As it numbers itself, and in its own file system.
            let status = fs::read_to_string(proc.join("status")).ok()?;
            let own = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().next_back()?;
            let root = File::open(proc.join("root")).ok()?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let file = openat2(root, format!("tmp/perf-{own}.map"), flags, Mode::empty(), resolve).ok()?;
            (File::from(file), metadata.uid())
        }
        // It has ended: whose it was is not known any more.
        Err(_) => {
            let path = format!("/tmp/perf-{process}.map");
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
            (file, rustix::process::geteuid().as_raw())
        }
    };
    let metadata = file.metadata().ok()?;
    let is_its_own = metadata.uid() == owner || metadata.uid() == 0;
    if !metadata.is_file() || !is_its_own || metadata.mode() & 0o022 != 0 {
        log::warn!("perf-{process}.map is somebody else's, or others may write to it: its names are not used");
        return None;
    }
    let mut map = Vec::new();
    file.take(LONGEST).read_to_end(&mut map).ok()?;
    Some(map)
}

/// The functions of the vDSO: every process has the same one.
fn vdso() -> Result<Vec<FunctionRange>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let range = maps.lines().find(|line| line.ends_with("[vdso]")).context("this process has none")?;
    let range = range.split(' ').next().and_then(|range| range.split_once('-')).context("no range")?;
    let (begin, end) = (u64::from_str_radix(range.0, 16)?, u64::from_str_radix(range.1, 16)?);
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(begin).min(LONGEST))?];
    File::open("/proc/self/mem")?.read_exact_at(&mut bytes, begin)?;
    let data = bytes.as_slice();
    let header = FileHeader64::<LittleEndian>::parse(data)?;
    let symbols = header.sections(LittleEndian, data)?.symbols(LittleEndian, data, SHT_DYNSYM)?;
    let mut functions = Vec::new();
    // The others are other names of the same.
    for symbol in symbols.iter().filter(|symbol| symbol.st_type() == STT_FUNC && symbol.st_bind() == STB_GLOBAL) {
        let name = String::from_utf8_lossy(symbol.name(LittleEndian, symbols.strings())?).into_owned();
        functions.push((symbol.st_value(LittleEndian), symbol.st_size(LittleEndian), name));
    }
    functions.sort_unstable();
    Ok(functions)
}
