//! In place of `binaries.rs` without the feature `symbols`: no function is known.

use std::path::Path;

/// Nothing.
#[derive(Debug, Default)]
pub(super) struct Binaries {}

impl Binaries {
    /// `None`: the frame is shown by its file and offset.
    #[expect(clippy::unused_self, reason = "as the other has it")]
    pub(super) fn function(&mut self, _: &str, _: &Path, _: &Path, _: u64) -> Option<String> {
        None
    }
}

/// The name as it stands.
pub(super) fn demangled(name: &str) -> String {
    name.to_owned()
}
