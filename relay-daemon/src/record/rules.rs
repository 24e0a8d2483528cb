//! When a piece ends, and what becomes of it, as the user wants it.

use std::time::Duration;

/// When a piece ends, and what becomes of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// When its files have so many bytes.
    pub size: Option<u64>,
    /// When so much time has passed.
    pub time: Option<Duration>,
    /// How many pieces are kept, beside the one that is being written.
    pub keep: Option<usize>,
    /// How many bytes they may have together.
    pub keep_size: Option<u64>,
    /// How much of the file system is to stay free.
    pub min_free: Option<Free>,
    /// Whether pieces are compressed.
    pub compress: bool,
}

/// A part of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Free {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths.
    Percent(u8),
}

impl Rules {
    /// Whether there are to be any.
    pub(crate) fn make_pieces(&self) -> bool {
        self.size.is_some() || self.time.is_some()
    }

    /// Whether old ones give way.
    pub(crate) fn remove_pieces(&self) -> bool {
        self.keep.is_some() || self.keep_size.is_some() || self.min_free.is_some()
    }
}
