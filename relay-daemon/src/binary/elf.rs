//! Reads the parts of an ELF file that probes need, and only those: such files can be large.
//!
//! Anybody may have made the file that is probed. Whatever it says about itself, a bounded amount of it is read and kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
};

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    LittleEndian,
    elf::{self, FileHeader64, ProgramHeader64, SectionHeader64, Sym64},
    read::{
        ReadCache, ReadRef, SymbolIndex,
        elf::{FileHeader as _, NoteIterator, ProgramHeader as _, SectionHeader as _, Sym as _, VersionTable},
    },
};

use relay_trace::form::builds::FUNCTION_SIZE;

use super::usdt;

type Header = FileHeader64<LittleEndian>;
type Section = SectionHeader64<LittleEndian>;
type Symbol = Sym64<LittleEndian>;

const ENDIAN: LittleEndian = LittleEndian;

#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = elf::EM_AARCH64;
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = elf::EM_X86_64;

/// Most bytes of one table.
const MAX_TABLE: u64 = 512 << 20;
/// Most bytes of all names together. Tables can be made in which few bytes are the names of many symbols.
const MAX_NAMES: usize = 512 << 20;
/// Most bytes of the notes of one section.
const MAX_NOTES: u64 = 16 << 20;
/// Most loaded segments; programs have fewer than ten.
const MAX_SEGMENTS: usize = 256;
/// Most sections and segments of notes in which the build id is looked for.
const MAX_NOTE_PARTS: usize = 32;

/// Refuses to read very much at once: sizes in the file may say anything, and holes make files long for nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounded<'data>(pub(crate) &'data ReadCache<File>);

impl<'data> ReadRef<'data> for Bounded<'data> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'data [u8], ()> {
        if size > MAX_TABLE { Err(()) } else { self.0.read_bytes_at(offset, size) }
    }

    fn read_bytes_at_until(self, range: std::ops::Range<u64>, delimiter: u8) -> Result<&'data [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

/// What an ELF file has.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// What is loaded of it.
    pub(crate) segments: Vec<Segment>,
    /// Its functions, sorted.
    pub(crate) functions: Vec<ElfFunction>,
    /// Names of functions that the dynamic loader chooses at run time, sorted.
    pub(crate) indirect: Vec<(Box<str>, Rank)>,
    /// Names, versions and offsets of functions that have versions, sorted.
    pub(crate) versions: Vec<(Box<str>, Box<str>, u64)>,
    /// It has the table of all its symbols, not only that of those it exports.
    pub(crate) all_symbols: bool,
    /// What identifies it.
    pub(crate) build_id: Option<Vec<u8>>,
    /// The section `.note.stapsdt`.
    pub(crate) usdt: Vec<u8>,
    /// The address of the section `.stapsdt.base`.
    pub(crate) usdt_base: Option<u64>,
    /// The addresses of the variables that USDT notes name; none of one that is not there, or of which there are several.
    pub(crate) variables: BTreeMap<String, Option<u64>>,
}

/// A part of the file that is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    address: u64,
    size: u64,
    offset: u64,
    flags: u32,
}

/// A place that a symbol names. The order is that of names, then of preference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ElfFunction {
    /// Without version.
    pub(crate) name: Box<str>,
    /// Which of several of one name is meant.
    pub(crate) rank: Rank,
    /// Where in the file it is.
    pub(crate) offset: u64,
}

/// Which of several functions of one name is meant: the first of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The one that others see.
    Global,
    /// An old version, for programs linked in former times.
    OldVersion,
    /// One of a source file's own.
    Local,
}

/// Why a file is not one that this machine runs, if it is not.
pub(crate) fn foreign(start: &[u8]) -> Option<String> {
    if let Some(script) = start.strip_prefix(b"#!") {
        let line = script.split(|byte| *byte == b'\n').next().unwrap_or_default();
        return Some(format!("a script of {}, not an ELF file", line.trim_ascii().escape_ascii()));
    }
    if !start.starts_with(&elf::ELFMAG) {
        return Some("not an ELF file".to_owned());
    }
    let half = |at: usize| start.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes);
    match (start.get(4), start.get(5), half(16), half(18)) {
        (Some(&elf::ELFCLASS32), ..) => Some("a 32-bit ELF file; only 64-bit ones can be probed".to_owned()),
        (Some(&elf::ELFCLASS64), Some(&elf::ELFDATA2LSB), Some(kind), Some(machine)) => match kind {
            _ if machine != MACHINE => {
                Some(format!("an ELF file for {}; this machine is {}", machine_name(machine), std::env::consts::ARCH))
            }
            elf::ET_EXEC | elf::ET_DYN => None,
            elf::ET_REL => Some("an object file, not yet linked".to_owned()),
            elf::ET_CORE => Some("a core dump".to_owned()),
            _ => Some("neither an executable nor a library".to_owned()),
        },
        (_, Some(&elf::ELFDATA2MSB), ..) => Some("a big-endian ELF file".to_owned()),
        _ => Some("an ELF file with a damaged header".to_owned()),
    }
}

fn machine_name(machine: u16) -> String {
    match machine {
        elf::EM_X86_64 => "x86_64".to_owned(),
        elf::EM_AARCH64 => "aarch64".to_owned(),
        elf::EM_RISCV => "riscv64".to_owned(),
        elf::EM_S390 => "s390x".to_owned(),
        elf::EM_PPC64 => "powerpc64".to_owned(),
        elf::EM_LOONGARCH => "loongarch64".to_owned(),
        _ => format!("another architecture (machine {machine})"),
    }
}

/// What identifies a file.
pub(crate) fn build_id<'data, R: ReadRef<'data>>(data: R) -> Option<Vec<u8>> {
    Parts::read(data).ok()?.build_id()
}

impl Contents {
    /// Reads a file's.
    pub(crate) fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<Self> {
        let parts = Parts::read(data)?;
        let mut contents = Self { segments: parts.segments()?, build_id: parts.build_id(), ..Self::default() };
        if let Some(section) = parts.section_named(b".note.stapsdt") {
            ensure!(section.sh_size(ENDIAN) <= MAX_NOTES, "{} bytes of USDT notes", section.sh_size(ENDIAN));
            contents.usdt = section.data(ENDIAN, data).context("reading the USDT notes")?.to_vec();
            let notes = usdt::notes(&contents.usdt).unwrap_or_default();
            contents.variables =
                notes.iter().flat_map(|note| note.symbols()).map(|name| (name.to_owned(), None)).collect();
        }
        contents.add_functions(&parts)?;
        contents.usdt_base = parts.section_named(b".stapsdt.base").map(|section| section.sh_addr(ENDIAN));
        Ok(contents)
    }

    /// Adds the functions that the file's separate debug file knows. It has the same addresses, but not the same offsets.
    pub(crate) fn add_debug_file<'data, R: ReadRef<'data>>(&mut self, data: R) -> Result<()> {
        let parts = Parts::read(data)?;
        ensure!(parts.build_id() == self.build_id, "it is of another build");
        self.add_functions(&parts)
    }

    /// Where in the file the byte at an address is, if a segment with the flags has it.
    pub(crate) fn file_offset(&self, address: u64, flags: u32) -> Option<u64> {
        self.segments.iter().filter(|segment| segment.flags & flags == flags).find_map(|segment| {
            let within = address.checked_sub(segment.address).filter(|within| *within < segment.size)?;
            segment.offset.checked_add(within)
        })
    }

    fn add_functions<'data, R: ReadRef<'data>>(&mut self, parts: &Parts<'data, R>) -> Result<()> {
        let mut left = MAX_NAMES;
        let mut variables: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
            let Some(section) = parts.section_of(kind) else { continue };
            let symbols: &[Symbol] = section.data_as_array(ENDIAN, parts.data).context("reading the symbols")?;
            let names = parts.linked(section).context("reading the symbols' names")?;
            let is_dynamic = kind == elf::SHT_DYNSYM;
            let hidden = if is_dynamic { parts.hidden_versions() } else { &[] };
            let versions = if is_dynamic { parts.versions(hidden) } else { VersionTable::default() };
            self.all_symbols |= kind == elf::SHT_SYMTAB;
            for (at, symbol) in symbols.iter().enumerate() {
                let hidden = hidden.get(at).is_some_and(|version| version.0.get(ENDIAN) & elf::VERSYM_HIDDEN != 0);
                let version = versions.version(versions.version_index(ENDIAN, SymbolIndex(at))).ok().flatten();
                let version = version.and_then(|version| std::str::from_utf8(version.name()).ok());
                self.add_symbol(symbol, names, (hidden, version), &mut left)?;
                let is_variable =
                    matches!(symbol.st_type(), elf::STT_OBJECT | elf::STT_NOTYPE) && !symbol.is_undefined(ENDIAN);
                if is_variable
                    && !self.variables.is_empty()
                    && let Some(name) = text_at(names, symbol.st_name(ENDIAN)).and_then(|n| std::str::from_utf8(n).ok())
                    && self.variables.contains_key(name)
                {
                    variables.entry(name.to_owned()).or_default().insert(symbol.st_value(ENDIAN));
                }
            }
        }
        for (name, addresses) in variables {
            let only = addresses.first().copied().filter(|_| addresses.len() == 1);
            self.variables.insert(name, only);
        }
        self.versions.sort_unstable();
        self.versions.dedup();
        self.functions.sort_unstable();
        self.functions.dedup();
        self.indirect.sort_unstable();
        self.indirect.dedup_by(|b, a| a.0 == b.0);
        // An old version of libc's memcpy is a function, but who says memcpy means the one that is chosen.
        let indirect = &self.indirect;
        self.functions.retain(|function| {
            let chosen = indirect.binary_search_by(|(name, _)| name.cmp(&function.name)).ok();
            chosen.and_then(|at| indirect.get(at)).is_none_or(|(_, rank)| *rank >= function.rank)
        });
        Ok(())
    }

    fn add_symbol(
        &mut self,
        symbol: &Symbol,
        names: &[u8],
        (hidden, known): (bool, Option<&str>),
        left: &mut usize,
    ) -> Result<()> {
        let indirect = symbol.st_type() == elf::STT_GNU_IFUNC;
        if symbol.is_undefined(ENDIAN) || !(indirect || symbol.st_type() == elf::STT_FUNC) {
            return Ok(());
        }
        let Some(offset) = self.file_offset(symbol.st_value(ENDIAN), elf::PF_X) else { return Ok(()) };
        let Some(name) = text_at(names, symbol.st_name(ENDIAN)) else { return Ok(()) };
        // Names that are not kept count too: looking at them takes time.
        let Some(rest) = left.checked_sub(name.len()) else { bail!("too many names of symbols") };
        *left = rest;
        let Ok(name) = std::str::from_utf8(name) else { return Ok(()) };
        // `memcpy@@GLIBC_2.14` is what others see, `memcpy@GLIBC_2.2.5` is old.
        let (name, version) = name.split_once('@').unwrap_or((name, "@"));
        if name.is_empty() || name.contains(char::is_control) {
            return Ok(());
        }
        let rank = match symbol.st_bind() {
            elf::STB_LOCAL => Rank::Local,
            _ if hidden || !version.starts_with('@') => Rank::OldVersion,
            _ => Rank::Global,
        };
        let known = known.unwrap_or(version.trim_start_matches('@'));
        if !indirect && !known.is_empty() && !known.contains(char::is_control) {
            self.versions.push((name.into(), known.into(), offset));
        }
        if indirect {
            self.indirect.push((name.into(), rank));
        } else {
            self.functions.push(ElfFunction { name: name.into(), rank, offset });
        }
        Ok(())
    }
}

/// The functions of a file, by where they begin in it; of several names of one place the first: global ones come before local ones. At most so many
/// bytes of names.
pub(crate) fn functions<'data, R: ReadRef<'data>>(data: R, most: usize) -> Result<BTreeMap<u64, (u64, String)>> {
    let parts = Parts::read(data)?;
    let loaded = Contents { segments: parts.segments()?, ..Contents::default() };
    let mut functions = BTreeMap::new();
    let mut left = most;
    // The table of all symbols has those that are exported, too.
    let Some(section) = [elf::SHT_SYMTAB, elf::SHT_DYNSYM].into_iter().find_map(|kind| parts.section_of(kind)) else {
        return Ok(functions);
    };
    let symbols: &[Symbol] = section.data_as_array(ENDIAN, data).context("reading the symbols")?;
    let names = parts.linked(section).context("reading the symbols' names")?;
    let is_function = |symbol: &&Symbol| {
        matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC) && !symbol.is_undefined(ENDIAN)
    };
    for is_local in [false, true] {
        for symbol in symbols.iter().filter(is_function).filter(|symbol| symbol.is_local() == is_local) {
            let Some(offset) = loaded.file_offset(symbol.st_value(ENDIAN), elf::PF_X) else { continue };
            let Some(name) = text_at(names, symbol.st_name(ENDIAN)).filter(|name| !name.is_empty()) else { continue };
            let Some(rest) = left.checked_sub(name.len() + FUNCTION_SIZE) else { bail!("too many functions") };
            left = rest;
            let name = || (symbol.st_size(ENDIAN), String::from_utf8_lossy(name).into_owned());
            functions.entry(offset).or_insert_with(name);
        }
    }
    Ok(functions)
}

/// A file's tables.
struct Parts<'data, R> {
    data: R,
    segments: &'data [ProgramHeader64<LittleEndian>],
    sections: &'data [Section],
    names: &'data [u8],
}

impl<'data, R: ReadRef<'data>> Parts<'data, R> {
    fn read(data: R) -> Result<Self> {
        let start = data.read_bytes_at(0, data.len().unwrap_or(0).min(128)).unwrap_or_default();
        if let Some(reason) = foreign(start) {
            bail!("{reason}");
        }
        let header = Header::parse(data).context("reading the ELF header")?;
        let segments = header.program_headers(ENDIAN, data).context("reading the program headers")?;
        let sections = header.section_headers(ENDIAN, data).context("reading the section headers")?;
        let mut parts = Self { data, segments, sections, names: &[] };
        if !sections.is_empty() {
            let at = header.shstrndx(ENDIAN, data).context("looking for the sections' names")?;
            parts.names = parts.strings(at).context("reading the sections' names")?;
        }
        Ok(parts)
    }

    fn segments(&self) -> Result<Vec<Segment>> {
        let loaded = self.segments.iter().filter(|segment| segment.p_type(ENDIAN) == elf::PT_LOAD);
        let segments: Vec<_> = loaded
            .take(MAX_SEGMENTS + 1)
            .map(|segment| Segment {
                address: segment.p_vaddr(ENDIAN),
                size: segment.p_filesz(ENDIAN),
                offset: segment.p_offset(ENDIAN),
                flags: segment.p_flags(ENDIAN),
            })
            .collect();
        ensure!(segments.len() <= MAX_SEGMENTS, "more than {MAX_SEGMENTS} segments");
        Ok(segments)
    }

    fn section_of(&self, kind: u32) -> Option<&'data Section> {
        self.sections.iter().find(|section| section.sh_type(ENDIAN) == kind)
    }

    fn section_named(&self, name: &[u8]) -> Option<&'data Section> {
        self.sections.iter().find(|section| {
            let rest = usize::try_from(section.sh_name(ENDIAN)).ok().and_then(|at| self.names.get(at..));
            rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.first() == Some(&0))
        })
    }

    /// The names that a table of symbols refers to.
    fn linked(&self, section: &Section) -> Result<&'data [u8]> {
        self.strings(section.sh_link(ENDIAN))
    }

    fn strings(&self, section: u32) -> Result<&'data [u8]> {
        let section = usize::try_from(section).ok().and_then(|at| self.sections.get(at)).context("no such section")?;
        Ok(section.data(ENDIAN, self.data)?)
    }

    /// The versions of the exported symbols, if they have any.
    fn hidden_versions(&self) -> &'data [elf::Versym<LittleEndian>] {
        let section = self.section_of(elf::SHT_GNU_VERSYM);
        section.and_then(|section| section.data_as_array(ENDIAN, self.data).ok()).unwrap_or_default()
    }

    /// What the versions of the exported symbols are called.
    fn versions(&self, of_symbols: &'data [elf::Versym<LittleEndian>]) -> VersionTable<'data, Header> {
        let small = self.sections.iter().filter(|section| section.sh_size(ENDIAN) <= MAX_NOTES);
        let defined = small.filter_map(|section| section.gnu_verdef(ENDIAN, self.data).ok().flatten()).next();
        let table = defined.and_then(|(defined, names)| {
            let names = self.sections.get(names.0)?.strings(ENDIAN, self.data).ok().flatten()?;
            VersionTable::parse(ENDIAN, of_symbols, Some(defined), None, names).ok()
        });
        table.unwrap_or_default()
    }

    /// The build id, from the notes that are loaded or else from a section: a debug file has only that.
    fn build_id(&self) -> Option<Vec<u8>> {
        let segments = self.segments.iter().filter(|segment| segment.p_type(ENDIAN) == elf::PT_NOTE);
        let small = segments.filter(|segment| segment.p_filesz(ENDIAN) <= MAX_NOTES / 16).take(MAX_NOTE_PARTS);
        let loaded = small.filter_map(|segment| segment.notes(ENDIAN, self.data).ok().flatten());
        let sections = self.sections.iter().filter(|section| section.sh_type(ENDIAN) == elf::SHT_NOTE);
        let small = sections.filter(|section| section.sh_size(ENDIAN) <= MAX_NOTES / 16).take(MAX_NOTE_PARTS);
        let others = small.filter_map(|section| section.notes(ENDIAN, self.data).ok().flatten());
        loaded.chain(others).find_map(id_of)
    }
}

fn id_of(notes: NoteIterator<'_, Header>) -> Option<Vec<u8>> {
    let notes = notes.map_while(Result::ok);
    let mut ids = notes.filter(|note| note.name() == b"GNU" && note.n_type(ENDIAN) == elf::NT_GNU_BUILD_ID);
    // SHA-1 has 20 bytes, SHA-256 has 32; one byte would not make a path.
    ids.find(|note| (2..=64).contains(&note.desc().len())).map(|note| note.desc().to_vec())
}

/// The string that begins at an offset in a table of names.
fn text_at(table: &[u8], offset: u32) -> Option<&[u8]> {
    let rest = table.get(usize::try_from(offset).ok()?..)?;
    rest.split(|byte| *byte == 0).next()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a small ELF file is to have.
    pub(crate) struct SampleElf {
        /// Without a table of all symbols.
        pub(crate) stripped: bool,
        /// Every byte of it.
        pub(crate) build_id: u8,
        /// How far the file was moved after it had been linked.
        pub(crate) moved: u64,
        /// Added to where the segments are said to be in the file.
        pub(crate) offset: u64,
        /// Other USDT notes.
        pub(crate) notes: Option<Vec<u8>>,
    }

    impl Default for SampleElf {
        fn default() -> Self {
            Self { stripped: false, build_id: 0xab, moved: 0, offset: 0, notes: None }
        }
    }

    /// Makes an ELF file: code at 0x401000 (in the file at 0x1000), data at 0x403000 (0x2000).
    pub(crate) fn made(made: &SampleElf) -> Vec<u8> {
        let symbols = [
            // Name, type, binding, section, address.
            ("compress", elf::STT_FUNC, elf::STB_GLOBAL, 1, 0x40_1010),
            ("decompress", elf::STT_FUNC, elf::STB_WEAK, 1, 0x40_1020),
            ("own", elf::STT_FUNC, elf::STB_LOCAL, 1, 0x40_1030),
            ("own", elf::STT_FUNC, elf::STB_LOCAL, 1, 0x40_1040),
            ("versioned@@V2", elf::STT_FUNC, elf::STB_GLOBAL, 1, 0x40_1050),
            ("versioned@V1", elf::STT_FUNC, elf::STB_GLOBAL, 1, 0x40_1060),
            ("versioned", elf::STT_FUNC, elf::STB_LOCAL, 1, 0x40_1070),
            ("chosen@@V2", elf::STT_GNU_IFUNC, elf::STB_GLOBAL, 1, 0x40_1080),
            ("chosen@V1", elf::STT_FUNC, elf::STB_GLOBAL, 1, 0x40_1088),
            ("chosen", elf::STT_GNU_IFUNC, elf::STB_LOCAL, 1, 0x40_1080),
            ("chosen_fast", elf::STT_FUNC, elf::STB_LOCAL, 1, 0x40_108c),
            // Not to be found: elsewhere, no function, not code, outside of the file, without a name.
            ("elsewhere", elf::STT_FUNC, elf::STB_GLOBAL, 0, 0x40_1090),
            ("variable", elf::STT_OBJECT, elf::STB_GLOBAL, 1, 0x40_1090),
            ("data", elf::STT_FUNC, elf::STB_GLOBAL, 1, 0x40_3000),
            ("outside", elf::STT_FUNC, elf::STB_GLOBAL, 1, 0x40_1100),
            ("", elf::STT_FUNC, elf::STB_GLOBAL, 1, 0x40_1010),
        ];
        let (mut table, mut names) = (vec![0; 24], vec![0]);
        for (name, kind, binding, section, address) in symbols {
            table.extend_from_slice(&u32::try_from(names.len()).unwrap().to_le_bytes());
            table.extend_from_slice(&[binding << 4 | kind, 0, section, 0]);
            table.extend([address + made.moved, 16].map(u64::to_le_bytes).concat());
            names.extend(name.bytes().chain([0]));
        }

        let note = |owner: &[u8], kind: u32, description: &[u8]| {
            let sizes = [owner.len(), description.len()].map(|size| u32::try_from(size).unwrap());
            let mut note = [sizes[0], sizes[1], kind].map(u32::to_le_bytes).concat();
            note.extend_from_slice(owner);
            note.extend_from_slice(description);
            note.resize(note.len().next_multiple_of(4), 0);
            note
        };
        let probe = |texts: &str, location: u64, semaphore: u64| {
            let addresses = [location, 0x40_3000, semaphore].map(u64::to_le_bytes).concat();
            note(b"stapsdt\0", 3, &[&addresses, texts.as_bytes()].concat())
        };
        let notes = [
            probe("app\0start\08@$1 8@x\0", 0x40_1014, 0x40_3008),
            probe("app\0start\0\0", 0x40_1018, 0x40_3008),
            // Taken out by the linker, and one whose semaphore is.
            probe("app\0gone\0\0", 0, 0),
            probe("app\0gone\0\0", 0x40_1018, 0x40_1000),
            probe("app\0stop\0\0", 0x40_1020, 0),
        ]
        .concat();
        let notes = made.notes.clone().unwrap_or(notes);
        let build_id = note(b"GNU\0", elf::NT_GNU_BUILD_ID, &[made.build_id; 20]);
        let section_names = b"\0.text\0.symtab\0.strtab\0.note.stapsdt\0.stapsdt.base\0.note.gnu.build-id\0.shstrtab\0";

        // After the header, three program headers.
        let mut file = vec![0; 64 + 3 * 56];
        let mut sections = vec![0; 64];
        let mut add = |name: &[u8], kind: u32, link: u32, address: u64, bytes: &[u8]| {
            file.resize(file.len().next_multiple_of(8), 0);
            let at = section_names.windows(name.len()).position(|window| window == name).unwrap();
            sections.extend([u32::try_from(at).unwrap(), kind].map(u32::to_le_bytes).concat());
            let (start, size) = (u64::try_from(file.len()).unwrap(), u64::try_from(bytes.len()).unwrap());
            sections.extend([0, address, start, size].map(u64::to_le_bytes).concat());
            sections.extend([link, 0].map(u32::to_le_bytes).concat());
            sections.extend([4, 24].map(u64::to_le_bytes).concat());
            file.extend_from_slice(bytes);
            start
        };
        add(b".text\0", elf::SHT_PROGBITS, 0, 0x40_1000 + made.moved, &[]);
        let kind = if made.stripped { elf::SHT_PROGBITS } else { elf::SHT_SYMTAB };
        add(b".symtab\0", kind, 3, 0, &table);
        add(b".strtab\0", elf::SHT_STRTAB, 0, 0, &names);
        add(b".note.stapsdt\0", elf::SHT_NOTE, 0, 0, &notes);
        add(b".stapsdt.base\0", elf::SHT_PROGBITS, 0, 0x40_3000 + made.moved, &[0]);
        let id_at = add(b".note.gnu.build-id\0", elf::SHT_NOTE, 0, 0, &build_id);
        add(b".shstrtab\0", elf::SHT_STRTAB, 0, 0, section_names);
        file.resize(file.len().next_multiple_of(8), 0);
        let sections_at = u64::try_from(file.len()).unwrap();
        file.extend_from_slice(&sections);

        let mut head = elf::ELFMAG.to_vec();
        head.extend_from_slice(&[elf::ELFCLASS64, elf::ELFDATA2LSB, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        head.extend([elf::ET_DYN, MACHINE, 1, 0].map(u16::to_le_bytes).concat());
        head.extend([0, 64, sections_at].map(u64::to_le_bytes).concat());
        head.extend([0, 0, 64, 56, 3, 64, 8, 7].map(u16::to_le_bytes).concat());
        for (kind, flags, offset, address, size) in [
            (elf::PT_LOAD, elf::PF_R | elf::PF_X, 0x1000 + made.offset, 0x40_1000 + made.moved, 0x100),
            (elf::PT_LOAD, elf::PF_R | elf::PF_W, 0x2000 + made.offset, 0x40_3000 + made.moved, 0x100),
            (elf::PT_NOTE, elf::PF_R, id_at, 0, u64::try_from(build_id.len()).unwrap()),
        ] {
            head.extend([kind, flags].map(u32::to_le_bytes).concat());
            head.extend([offset, address, address, size, size, 4].map(u64::to_le_bytes).concat());
        }
        file[..head.len()].copy_from_slice(&head);
        file
    }

    /// The first 64 KiB of this program.
    fn start_of_this_program() -> Vec<u8> {
        use std::io::Read as _;
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let mut start = Vec::new();
        file.take(1 << 16).read_to_end(&mut start).unwrap();
        start
    }

    fn changed(mut bytes: Vec<u8>, changes: &[(usize, u8)], length: usize) -> Vec<u8> {
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = *value;
        }
        bytes.truncate(length);
        bytes
    }

    fn changes() -> impl proptest::strategy::Strategy<Value = Vec<(usize, u8)>> {
        proptest::collection::vec((0_usize..1 << 16, proptest::num::u8::ANY), 0..12)
    }

    proptest::proptest! {
        /// The headers are where changes matter most, so half of them are made there.
        #[test]
        fn a_changed_file_is_refused_or_read(
            changes in changes(),
            headers in proptest::collection::vec((0_usize..64 + 3 * 56, proptest::num::u8::ANY), 0..4),
            length in proptest::option::of(0_usize..2500),
        ) {
            let all = [changes, headers].concat();
            let bytes = changed(made(&SampleElf::default()), &all, length.unwrap_or(usize::MAX));
            if let Ok(contents) = Contents::parse(&*bytes) {
                assert!(contents.functions.is_sorted());
                let _ = usdt::notes(&contents.usdt);
            }
        }

        #[test]
        fn a_changed_program_is_refused_or_read(changes in changes(), length in 0_usize..1 << 16) {
            let start = start_of_this_program();
            let _ = Contents::parse(&*changed(start.clone(), &changes, usize::MAX));
            let _ = Contents::parse(&*changed(start, &changes, length));
        }
    }

    #[test]
    fn the_made_file_is_read_whole() {
        let bytes = made(&SampleElf::default());
        let contents = Contents::parse(&*bytes).unwrap();
        assert_eq!((contents.segments.len(), contents.functions.len(), contents.indirect.len()), (2, 8, 1));
        assert!(contents.all_symbols && contents.build_id.is_some() && !contents.usdt.is_empty());
    }

    #[test]
    fn few_bytes_cannot_name_very_many_symbols() {
        let mut contents = Contents::parse(&*made(&SampleElf::default())).unwrap();
        let mut symbol = Symbol {
            st_name: object::U32::new(ENDIAN, 0),
            st_info: 0,
            st_other: 0,
            st_shndx: object::U16::new(ENDIAN, 1),
            st_value: object::U64::new(ENDIAN, 0x40_1000),
            st_size: object::U64::new(ENDIAN, 0),
        };
        symbol.set_st_info(elf::STB_GLOBAL, elf::STT_FUNC);
        let mut left = 8;
        assert!(contents.add_symbol(&symbol, b"compress\0", (false, None), &mut left).is_ok());
        assert!(contents.add_symbol(&symbol, b"\xff\0", (false, None), &mut left).is_err());
    }
}
