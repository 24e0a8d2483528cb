//! Reads the parts of an ELF file that probes need, and only those: such files can be large.
//!
//! Anybody may have made the file that is probed. Whatever it says about itself, a bounded amount of it is read and kept.

use std::fs::File;

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    LittleEndian,
    elf::{self, FileHeader64, ProgramHeader64, SectionHeader64, Sym64},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader as _, NoteIterator, ProgramHeader as _, SectionHeader as _, Sym as _},
    },
};

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
pub(super) struct Bounded<'data>(pub(super) &'data ReadCache<File>);

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
pub(super) struct Contents {
    /// What is loaded of it.
    pub(super) segments: Vec<Segment>,
    /// Its functions, sorted.
    pub(super) functions: Vec<Function>,
    /// Names of functions that the dynamic loader chooses at run time, sorted.
    pub(super) indirect: Vec<Box<str>>,
    /// It has the table of all its symbols, not only that of those it exports.
    pub(super) all_symbols: bool,
    /// What identifies it.
    pub(super) build_id: Option<Vec<u8>>,
    /// The section `.note.stapsdt`.
    pub(super) usdt: Vec<u8>,
    /// The address of the section `.stapsdt.base`.
    pub(super) usdt_base: Option<u64>,
}

/// A part of the file that is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    address: u64,
    size: u64,
    offset: u64,
    flags: u32,
}

/// A place that a symbol names. The order is that of names, then of preference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Function {
    /// Without version.
    pub(super) name: Box<str>,
    /// Which of several of one name is meant.
    pub(super) rank: Rank,
    /// Where in the file it is.
    pub(super) offset: u64,
}

/// Which of several functions of one name is meant: the first of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The one that others see.
    Global,
    /// An old version, for programs linked in former times.
    OldVersion,
    /// One of a source file's own.
    Local,
}

/// Why a file is not one that this machine runs, if it is not.
pub(super) fn foreign(start: &[u8]) -> Option<String> {
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

impl Contents {
    /// Reads a file's.
    pub(super) fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<Self> {
        let parts = Parts::read(data)?;
        let mut contents = Self { segments: parts.segments()?, build_id: parts.build_id(), ..Self::default() };
        contents.add_functions(&parts)?;
        if let Some(section) = parts.section_named(b".note.stapsdt") {
            ensure!(section.sh_size(ENDIAN) <= MAX_NOTES, "{} bytes of USDT notes", section.sh_size(ENDIAN));
            contents.usdt = section.data(ENDIAN, data).context("reading the USDT notes")?.to_vec();
        }
        contents.usdt_base = parts.section_named(b".stapsdt.base").map(|section| section.sh_addr(ENDIAN));
        Ok(contents)
    }

    /// Adds the functions that the file's separate debug file knows. It has the same addresses, but not the same offsets.
    pub(super) fn add_debug_file<'data, R: ReadRef<'data>>(&mut self, data: R) -> Result<()> {
        let parts = Parts::read(data)?;
        ensure!(parts.build_id() == self.build_id, "it is of another build");
        self.add_functions(&parts)
    }

    /// Where in the file the byte at an address is, if a segment with the flags has it.
    pub(super) fn file_offset(&self, address: u64, flags: u32) -> Option<u64> {
        self.segments.iter().filter(|segment| segment.flags & flags == flags).find_map(|segment| {
            let within = address.checked_sub(segment.address).filter(|within| *within < segment.size)?;
            segment.offset.checked_add(within)
        })
    }

    fn add_functions<'data, R: ReadRef<'data>>(&mut self, parts: &Parts<'data, R>) -> Result<()> {
        let mut left = MAX_NAMES;
        for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
            let Some(section) = parts.section_of(kind) else { continue };
            let symbols: &[Symbol] = section.data_as_array(ENDIAN, parts.data).context("reading the symbols")?;
            let names = parts.linked(section).context("reading the symbols' names")?;
            let hidden = if kind == elf::SHT_DYNSYM { parts.hidden_versions() } else { &[] };
            self.all_symbols |= kind == elf::SHT_SYMTAB;
            for (at, symbol) in symbols.iter().enumerate() {
                let hidden = hidden.get(at).is_some_and(|version| version.0.get(ENDIAN) & elf::VERSYM_HIDDEN != 0);
                self.add_symbol(symbol, names, hidden, &mut left)?;
            }
        }
        self.functions.sort_unstable();
        self.functions.dedup();
        self.indirect.sort_unstable();
        self.indirect.dedup();
        Ok(())
    }

    fn add_symbol(&mut self, symbol: &Symbol, names: &[u8], hidden: bool, left: &mut usize) -> Result<()> {
        let indirect = symbol.st_type() == elf::STT_GNU_IFUNC;
        if symbol.is_undefined(ENDIAN) || !(indirect || symbol.st_type() == elf::STT_FUNC) {
            return Ok(());
        }
        let Some(offset) = self.file_offset(symbol.st_value(ENDIAN), elf::PF_X) else { return Ok(()) };
        let Some(name) = text_at(names, symbol.st_name(ENDIAN)).and_then(|name| std::str::from_utf8(name).ok()) else {
            return Ok(());
        };
        // `memcpy@@GLIBC_2.14` is what others see, `memcpy@GLIBC_2.2.5` is old.
        let (name, version) = name.split_once('@').unwrap_or((name, "@"));
        if name.is_empty() || name.contains(char::is_control) {
            return Ok(());
        }
        let Some(rest) = left.checked_sub(name.len()) else { bail!("too many names of symbols") };
        *left = rest;
        let rank = match symbol.st_bind() {
            elf::STB_LOCAL => Rank::Local,
            _ if hidden || !version.starts_with('@') => Rank::OldVersion,
            _ => Rank::Global,
        };
        if indirect {
            self.indirect.push(name.into());
        } else {
            self.functions.push(Function { name: name.into(), rank, offset });
        }
        Ok(())
    }
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
