//! `.relayd/code.json`: names for code of processes that is in no file, as far as somebody has them: programs that make code while they run write
//! them to `/tmp/perf-PID.map`, as perf wants it, and the kernel's vDSO has symbols of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, Instant},
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

use crate::host::{Namespace, is_in_own, open_in_root, process_folder};

/// Most bytes of a process's map; those of all processes together are at most twice that.
const LONGEST: u64 = 16 << 20;

/// How long a process that makes code is left alone, at first and at most, before what it has told is read again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What has been seen so far.
pub(crate) struct CodeMaps {
    code: Code,
    /// Processes that have had code in no file.
    makers: BTreeMap<u32, Maker>,
    /// In a PID namespace, `/proc` and perf number processes otherwise than records do.
    knows_processes: bool,
}

/// A process that makes code.
struct Maker {
    /// Its user, when it was seen last.
    owner: Option<u32>,
    /// Bytes of what it has told.
    told: u64,
    /// When it is looked at again, and how long it is left alone after that.
    look: (Instant, Duration),
}

impl CodeMaps {
    pub(crate) fn new() -> Self {
        let vdso = vdso().unwrap_or_else(|error| {
            log::info!("the functions of the vDSO have no names: {error:#}");
            Vec::new()
        });
        let code = Code { vdso, ..Code::default() };
        Self { code, makers: BTreeMap::new(), knows_processes: !is_in_own(Namespace::Pid) }
    }

    /// A process has mapped this as code.
    pub(crate) fn add(&mut self, process: u32, begin: u64, name: &[u8]) {
        match name {
            _ if !self.knows_processes => {}
            b"[vdso]" => drop(self.code.processes.entry(process).or_default().vdso.insert(begin)),
            b"" | b"//anon" => {
                let maker = || Maker { owner: owner(process), told: 0, look: (Instant::now(), PAUSES.0) };
                self.makers.entry(process).or_insert_with(maker);
            }
            _ => {}
        }
    }

    /// Reads what living processes have told: when they have ended, what only they could reach is gone. To be called every second or so.
    pub(crate) fn poll(&mut self) {
        let now = Instant::now();
        let due = self.makers.iter_mut().filter(|(_, maker)| maker.look.0 <= now);
        let due: Vec<u32> = due
            .map(|(process, maker)| {
                let (_, pause) = maker.look;
                maker.look = (now + pause, (2 * pause).min(PAUSES.1));
                *process
            })
            .collect();
        for process in due {
            self.read(process);
        }
    }

    /// Writes the file into the trace's own folder, with what the processes have told by now.
    pub(crate) fn write(&mut self, folder: &Path) -> Result<()> {
        for process in self.makers.keys().copied().collect::<Vec<_>>() {
            self.read(process);
        }
        let path = folder.join(FILE);
        let text = serde_json::to_vec(&self.code).context("writing the names of code as JSON")?;
        replace(&path, &text).with_context(|| format!("writing {}", path.display()))
    }

    /// Reads what a process has told, unless all together have told too much.
    fn read(&mut self, process: u32) {
        let all: u64 = self.makers.values().map(|maker| maker.told).sum();
        let Some(maker) = self.makers.get_mut(&process) else { return };
        maker.owner = owner(process).or(maker.owner);
        let Some(map) = map_of(process, maker.owner) else { return };
        let told = map.len() as u64;
        if all - maker.told + told > 2 * LONGEST {
            log::warn!(
                "process {process} and others have told more of their code than is kept: stacks may have fewer names"
            );
            return;
        }
        maker.told = told;
        self.code.processes.entry(process).or_default().made = code::parse_map(&map);
    }
}

/// The user of a process, if it is there.
fn owner(process: u32) -> Option<u32> {
    Some(fs::metadata(process_folder(process)).ok()?.uid())
}

/// What a process has told of its code, which belongs to a user, or did.
fn map_of(process: u32, owner: Option<u32>) -> Option<Vec<u8>> {
    let proc = process_folder(process);
    // Of one that has ended and was not waited for, the kernel shows a status, but no root.
    let file = if fs::read_link(proc.join("root")).is_ok() {
        // As it numbers itself, and in its own file system.
        let status = fs::read_to_string(proc.join("status")).ok()?;
        let own = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().next_back()?;
        open_in_root(&proc, Path::new(&format!("tmp/perf-{own}.map")), true)?
    } else {
        let path = format!("/tmp/perf-{process}.map");
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?
    };
    let metadata = file.metadata().ok()?;
    // Of one that nobody has seen alive: what this process's own user has written.
    let owner = owner.unwrap_or_else(|| rustix::process::geteuid().as_raw());
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
