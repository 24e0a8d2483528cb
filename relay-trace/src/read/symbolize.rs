//! Names for the addresses in the stacks of a trace, on this machine or another.
//!
//! The kernel's come from what the trace has kept of its symbols (`kallsyms.rs`), those of processes from the files that their build ids
//! name (`builds.rs`), where these are still to be had.

#[cfg_attr(not(feature = "symbols"), path = "symbolize/none.rs")]
mod binaries;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, bail};
use regex::bytes::{Captures, Regex};

use self::binaries::Binaries;
use super::print_format::Lookup;
use crate::form::{
    archive::{self, Opened, Unpacked},
    builds,
    code::{self, Code, FunctionRange},
    folder::Folder,
    kallsyms::{self, Kallsyms},
    strings,
};

/// What a trace has kept to name its addresses by.
#[derive(Debug, Default)]
pub struct SymbolSources {
    kernel: Kallsyms,
    /// The kernel's constant texts, by address.
    strings: HashMap<u64, String>,
    /// Path where it was recorded, by build id.
    files: BTreeMap<String, PathBuf>,
    /// Functions of files that were not at their paths, by build id.
    functions: BTreeMap<String, Vec<FunctionRange>>,
    /// Code in no file.
    code: Code,
    /// Where the recording machine's files are.
    root: PathBuf,
}

/// Names one trace's addresses.
#[derive(Debug)]
pub struct Symbols {
    sources: Arc<SymbolSources>,
    binaries: Binaries,
}

/// Names the addresses in babeltrace2's text, with or without the names of fields.
#[derive(Debug)]
pub struct TextSymbols {
    symbols: Symbols,
    kernel: Regex,
    user: Regex,
    byte: Regex,
}

impl SymbolSources {
    /// Reads what a trace has kept, which may be nothing. The recording machine's files are looked for below `root`.
    ///
    /// # Errors
    /// When it is not a trace of relayd, or its files cannot be read.
    pub fn read(private: &Folder, root: &Path) -> Result<Self> {
        let kernel = Kallsyms::parse(kallsyms::read(private)?.unwrap_or_default());
        if kernel.skipped() > 0 {
            let path = private.path().join(kallsyms::FILE);
            log::warn!("{}: {} lines are not symbols", path.display(), kernel.skipped());
        }
        let strings = strings::parse(&strings::read(private)?.unwrap_or_default());
        Ok(Self {
            kernel,
            strings,
            files: builds::read(private)?,
            functions: builds::read_functions(private)?,
            code: code::read(private)?,
            root: root.to_path_buf(),
        })
    }
}

impl TextSymbols {
    /// Reads what a trace has kept. The recording machine's files are looked for below `root`.
    ///
    /// # Errors
    /// When it is not a trace of relayd, holds no stacks, or its files cannot be read.
    pub fn open(trace: &Path, root: &Path, progress: &mut Unpacked<'_>) -> Result<Self> {
        let Opened { private, flaws, .. } = archive::open(trace, progress)?;
        flaws.iter().for_each(|flaw| log::warn!("{flaw}"));
        let sources = SymbolSources::read(&private, root)?;
        if [kallsyms::FILE, builds::FILE].iter().all(|file| private.len_of(file).is_none()) {
            bail!("{} holds no stacks: record with --context kstack,ustack", trace.display());
        }
        Ok(Self {
            symbols: Symbols::new(Arc::new(sources)),
            kernel: Regex::new("0x[Ff]{4}[0-9A-Fa-f]{12}")?,
            user: Regex::new(concat!(
                r"\{ (?:status = )?([0-9]+), (?:build_id = )?\[ ((?:(?:\[[0-9]+\] = )?0x[0-9A-Fa-f]{1,2}(?:, )?){20}) \], ",
                r"(?:offset = )?0x([0-9A-Fa-f]{1,16}) \}"
            ))?,
            byte: Regex::new("0x([0-9A-Fa-f]{1,2})")?,
        })
    }

    /// A line of babeltrace2's with names in place of the addresses that have one.
    #[must_use]
    pub fn replace<'a>(&mut self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let (byte, symbols) = (&self.byte, &mut self.symbols);
        let line = self.user.replace_all(line, |frame: &Captures<'_>| {
            let id = byte.captures_iter(&frame[2]).filter_map(|byte| u8::try_from(number(&byte[1])?).ok());
            let offset = number(&frame[3]).unwrap_or_default();
            if &frame[1] != b"1" {
                // No file has it, or the kernel could not look.
                return format!("{offset:#x} (no file)").into_bytes();
            }
            symbols.user(&builds::hex(&id.collect::<Vec<u8>>()), offset).into_bytes()
        });
        let in_kernel = |address: &Captures<'_>| {
            let known = number(&address[0][2..]).and_then(|address| symbols.kernel(address));
            known.map_or_else(|| address[0].to_vec(), String::into_bytes)
        };
        match self.kernel.replace_all(&line, in_kernel) {
            Cow::Borrowed(_) => line,
            Cow::Owned(replaced) => Cow::Owned(replaced),
        }
    }
}

impl Symbols {
    /// Names by these sources.
    #[must_use]
    pub fn new(sources: Arc<SymbolSources>) -> Self {
        Self { sources, binaries: Binaries::default() }
    }

    /// `FUNCTION+0xOFFSET [MODULE]` of an address in the kernel.
    #[must_use]
    pub fn kernel(&self, address: u64) -> Option<String> {
        let symbol = self.sources.kernel.find(address)?;
        let module = symbol.module.map(|module| format!(" [{module}]")).unwrap_or_default();
        Some(format!("{}+{:#x}{module}", symbol.name, symbol.offset))
    }

    /// `FUNCTION+0xOFFSET (FILE)` of an offset in the file of a build id; where there is no name, the offset in the file and the build id.
    #[must_use]
    pub fn user(&mut self, build_id: &str, offset: u64) -> String {
        let sources = Arc::clone(&self.sources);
        let file = sources.files.get(build_id);
        let name = file.map_or_else(|| format!("build id {build_id}"), |path| path.display().to_string());
        let looked_up = file.and_then(|path| self.binaries.function(build_id, &sources.root, path, offset));
        let function = looked_up.or_else(|| {
            let (name, within) = code::find(sources.functions.get(build_id)?, offset)?;
            Some(format!("{}+{within:#x}", binaries::demangled(name)))
        });
        function.map(|function| format!("{function} ({name})")).unwrap_or_else(|| match file {
            Some(_) => format!("{offset:#x} ({name}, build id {build_id})"),
            None => format!("{offset:#x} ({name})"),
        })
    }
}

impl Symbols {
    /// `FUNCTION+0xOFFSET (WHERE)` of an address in a process that is in no file.
    #[must_use]
    pub fn code(&self, process: u32, address: u64) -> Option<String> {
        self.sources.code.name(process, address)
    }
}

impl Lookup for Symbols {
    fn symbol(&self, address: u64) -> Option<String> {
        self.kernel(address)
    }

    fn string(&self, address: u64) -> Option<String> {
        self.sources.strings.get(&address).cloned()
    }
}

/// A number in base 16.
fn number(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::form::directory::PRIVATE;

    const KALLSYMS: &str = "ffffffff81000010 t vfs_read\nffffffff81000080 T _etext\nffffffffc0000000 t hook\t[nf]\n";

    fn trace() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(PRIVATE)).unwrap();
        folder
    }

    fn write(trace: &tempfile::TempDir, name: &str, text: &str) {
        fs::write(trace.path().join(PRIVATE).join(name), text).unwrap();
    }

    #[test]
    fn addresses_are_replaced_where_they_are_known() {
        let trace = trace();
        write(&trace, kallsyms::FILE, KALLSYMS);
        write(&trace, builds::FILE, r#"{"000102030405060708090a0b0c0d0e0f10111213": "/nowhere/at/all"}"#);
        let mut symbols = TextSymbols::open(trace.path(), Path::new("/"), &mut |_, _| ()).unwrap();
        let bytes = (0..20).map(|byte| format!("0x{byte:X}")).collect::<Vec<_>>().join(", ");
        let named = (0..20).map(|byte| format!("[{byte}] = 0x{byte:X}")).collect::<Vec<_>>().join(", ");
        let frame = "0xab (/nowhere/at/all, build id 000102030405060708090a0b0c0d0e0f10111213)";
        for (line, expected) in [
            ("[0] = 0xFFFFFFFF81000018 ]", "[0] = vfs_read+0x8 ]".to_owned()),
            ("0xFFFFFFFFC0000001", "hook+0x1 [nf]".to_owned()),
            ("0xFFFFFFFF81000081, 0xFFFF888812345678", "0xFFFFFFFF81000081, 0xFFFF888812345678".to_owned()),
            ("nothing", "nothing".to_owned()),
            (&format!("[ {{ 1, [ {bytes} ], 0xAB }} ]"), format!("[ {frame} ]")),
            (&format!("{{ status = 1, build_id = [ {named} ], offset = 0xAB }}"), frame.to_owned()),
            (&format!("{{ 2, [ {bytes} ], 0xAB }}"), "0xab (no file)".to_owned()),
            (&format!("{{ 1, [ {bytes} ], 0xFFFFFFFFFFFFFFFF }}"), frame.replace("0xab", "0xffffffffffffffff")),
        ] {
            assert_eq!(symbols.replace(line.as_bytes()), expected.as_bytes());
        }
    }

    #[test]
    fn what_is_no_trace_with_stacks_is_refused() {
        let error = |trace: &tempfile::TempDir| {
            format!("{:#}", TextSymbols::open(trace.path(), Path::new("/"), &mut |_, _| ()).unwrap_err())
        };
        assert!(error(&tempfile::tempdir().unwrap()).contains("is not a trace of relayd"));
        let trace = trace();
        assert!(error(&trace).contains("record with --context"));
        write(&trace, builds::FILE, "[1, 2");
        assert!(error(&trace).contains("build-ids.json"), "{}", error(&trace));
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_through(line in proptest::collection::vec(0u8.., 0..64)) {
            let trace = trace();
            write(&trace, kallsyms::FILE, "");
            let mut symbols = TextSymbols::open(trace.path(), Path::new("/"), &mut |_, _| ()).unwrap();
            proptest::prop_assert_eq!(symbols.replace(&line), line.as_slice());
        }
    }
}
