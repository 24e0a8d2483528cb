//! A text beside a trace, or its pieces, that several of them share.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use relay_trace::form::{replace, share};

/// A text that may be megabytes, and seldom changes: the kernel's symbols.
#[derive(Default)]
pub(super) struct Text {
    pub(super) known: String,
    /// Where they are written as they are known.
    written: Option<PathBuf>,
}

impl Text {
    pub(super) fn update(&mut self, now: String) {
        if now != self.known {
            (self.known, self.written) = (now, None);
        }
    }

    pub(super) fn save(&mut self, path: &Path) -> Result<()> {
        let is_there = match &self.written {
            Some(written) if written == path => fs::symlink_metadata(path).is_ok(),
            // Of the pieces of a trace each is whole, and most have the same symbols.
            Some(written) => share(written, path).is_ok(),
            None => false,
        };
        if !is_there {
            replace(path, self.known.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
        }
        self.written = Some(path.to_path_buf());
        Ok(())
    }
}
