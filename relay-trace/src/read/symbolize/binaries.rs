//! Functions of executables and libraries, by blazesym.

use std::{
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use blazesym::{
    helper::read_elf_build_id,
    symbolize::{Input, Symbolized, Symbolizer, source},
};

use crate::form::builds;

/// The binaries that have been looked at.
#[derive(Debug, Default)]
pub(super) struct Binaries {
    /// By build id; `None` when there is no such file any more.
    readable: HashMap<String, Option<Binary>>,
    symbolizer: Symbolizer,
}

/// A file that can be read.
#[derive(Clone, Debug)]
struct Binary {
    path: PathBuf,
    /// What of it is code, in bytes from its beginning.
    code: Vec<Range<u64>>,
}

impl Binaries {
    /// `FUNCTION+0xOFFSET` of an offset in the file of a build id, which was at `recorded` below `root`. Where nothing can be executed there is no
    /// function: such a frame was none.
    pub(super) fn function(&mut self, build_id: &str, root: &Path, recorded: &Path, offset: u64) -> Option<String> {
        if !self.readable.contains_key(build_id) {
            self.readable.insert(build_id.to_owned(), find(build_id, root, recorded));
        }
        let binary = self.readable.get(build_id)?.as_ref()?;
        if !binary.code.iter().any(|code| code.contains(&offset)) {
            return None;
        }
        // What is told for debugging calls parts of a function that lie elsewhere by its name, as if they were before it: then
        // the symbol itself is asked for.
        [true, false].into_iter().find_map(|debug_syms| {
            let mut source = source::Elf::new(&binary.path);
            source.debug_syms = debug_syms;
            match self.symbolizer.symbolize_single(&source::Source::Elf(source), Input::FileOffset(offset)) {
                Ok(Symbolized::Sym(symbol)) => {
                    is_in(symbol.offset, symbol.size).then(|| format!("{}+{:#x}", symbol.name, symbol.offset))
                }
                Ok(Symbolized::Unknown(_)) => None,
                Err(error) => {
                    log::debug!("{offset:#x} in {}: {error}", recorded.display());
                    None
                }
            }
        })
    }
}

/// What a function is called in the language that it was written in.
pub(super) fn demangled(name: &str) -> String {
    if let Ok(name) = rustc_demangle::try_demangle(name) {
        return format!("{name:#}");
    }
    let symbol = cpp_demangle::Symbol::new(name).ok();
    symbol.and_then(|symbol| symbol.demangle().ok()).unwrap_or_else(|| name.to_owned())
}

/// Whether a place so many bytes after the beginning of a symbol is in it. One without a length goes on to the next.
fn is_in(offset: usize, size: Option<usize>) -> bool {
    match size {
        Some(size) if size > 0 => offset < size,
        _ => isize::try_from(offset).is_ok(),
    }
}

/// What of an executable or a library is code: its segments that can be executed (elf(5)).
fn code_of(file: &File) -> io::Result<Vec<Range<u64>>> {
    const LOAD: u64 = 1;
    const EXECUTABLE: u64 = 1;
    let number = |at: u64, len: usize| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes[..len], at)?;
        io::Result::Ok(u64::from_le_bytes(bytes))
    };
    // Places and lengths of the fields, in files of 64 bits and of 32.
    let is_64 = number(4, 1)? == 2;
    let word = if is_64 { 8 } else { 4 };
    let (headers, size, count) = if is_64 { (0x20, 0x36, 0x38) } else { (0x1c, 0x2a, 0x2c) };
    let (flags, offset, length) = if is_64 { (4, 8, 0x20) } else { (0x18, 4, 0x10) };
    let (first, size, count) = (number(headers, word)?, number(size, 2)?, number(count, 2)?);
    let mut code = Vec::new();
    for index in 0..count {
        let header = first.saturating_add(index * size);
        let at = |field: u64| header.saturating_add(field);
        if number(header, 4)? == LOAD && number(at(flags), 4)? & EXECUTABLE != 0 {
            let begin = number(at(offset), word)?;
            code.push(begin..begin.saturating_add(number(at(length), word)?));
        }
    }
    Ok(code)
}

/// The file of a build id: where it was when it was recorded, if it is still the same.
fn find(build_id: &str, root: &Path, recorded: &Path) -> Option<Binary> {
    let is_it = |path: &Path| {
        path.is_file() && read_elf_build_id(path).ok().flatten().is_some_and(|id| builds::hex(&id) == build_id)
    };
    let path = root.join(recorded.strip_prefix("/").ok()?);
    if !is_it(&path) {
        return None;
    }
    let code = File::open(&path).and_then(|file| code_of(&file));
    let code = code.inspect_err(|error| log::debug!("the segments of {}: {error}", path.display())).ok()?;
    Some(Binary { path, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word that is written to, in a segment of data.
    static DATA: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(7);

    /// Where in this program's file an address of it is.
    fn offset_of(address: usize) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let found = maps.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (begin, end) = words.next()?.split_once('-')?;
            let number = |text: &str| u64::from_str_radix(text, 16).ok();
            let (begin, end, offset) = (number(begin)?, number(end)?, number(words.nth(1)?)?);
            (begin..end).contains(&(address as u64)).then(|| offset + address as u64 - begin)
        });
        found.unwrap_or_else(|| panic!("{address:#x} is nowhere in {maps}"))
    }

    #[test]
    fn functions_have_names_and_data_has_none() {
        let program = std::env::current_exe().unwrap();
        let id = builds::hex(&read_elf_build_id(&program).unwrap().unwrap());
        let mut binaries = Binaries::default();
        let mut name = |address: usize| binaries.function(&id, Path::new("/"), &program, offset_of(address));
        let function = name(code_of as *const () as usize).unwrap();
        assert!(function.contains("::code_of+0x0"), "{function}");
        let function = name(code_of as *const () as usize + 8).unwrap();
        assert!(function.contains("::code_of+0x8"), "{function}");
        assert_eq!(name(std::ptr::from_ref(&DATA) as usize), None);
    }

    #[test]
    fn what_lies_after_a_symbol_or_before_it_is_not_in_it() {
        assert!(is_in(0, Some(1)) && is_in(5, Some(0)) && is_in(5, None));
        assert!(!is_in(1, Some(1)) && !is_in(usize::MAX, Some(0)) && !is_in(usize::MAX - 9, None));
    }
}
