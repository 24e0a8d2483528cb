//! Functions of executables and libraries, by blazesym.

use std::{
    collections::HashMap,
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
    /// What is read for a build id; `None` when there is no such file any more.
    readable: HashMap<String, Option<PathBuf>>,
    symbolizer: Symbolizer,
}

impl Binaries {
    /// `FUNCTION+0xOFFSET` of an offset in the file of a build id, which was at `recorded` below `root`.
    pub(super) fn function(&mut self, build_id: &str, root: &Path, recorded: &Path, offset: u64) -> Option<String> {
        if !self.readable.contains_key(build_id) {
            self.readable.insert(build_id.to_owned(), find(build_id, root, recorded));
        }
        let path = self.readable.get(build_id)?.clone()?;
        let source = source::Source::Elf(source::Elf::new(path));
        match self.symbolizer.symbolize_single(&source, Input::FileOffset(offset)) {
            Ok(Symbolized::Sym(symbol)) => Some(format!("{}+{:#x}", symbol.name, symbol.offset)),
            Ok(Symbolized::Unknown(_)) => None,
            Err(error) => {
                log::debug!("{offset:#x} in {}: {error}", recorded.display());
                None
            }
        }
    }
}

/// The file of a build id: where it was when it was recorded, if it is still the same.
fn find(build_id: &str, root: &Path, recorded: &Path) -> Option<PathBuf> {
    let is_it = |path: &Path| {
        path.is_file() && read_elf_build_id(path).ok().flatten().is_some_and(|id| builds::hex(&id) == build_id)
    };
    let path = root.join(recorded.strip_prefix("/").ok()?);
    is_it(&path).then_some(path)
}
