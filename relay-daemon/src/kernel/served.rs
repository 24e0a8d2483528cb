//! An event as its programs know it.

use relay_common::{
    placeholder::MAX_FIELDS,
    trace::{COMMON_FIELDS, Cookie},
};

/// An event as the programs know it that serve it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served<'a> {
    /// Its name, for whoever looks at the programs, and for messages.
    pub(crate) name: &'a str,
    /// Its programs are told this when they run.
    pub(crate) cookie: Cookie,
    /// There is a recipe for it: else a tracepoint's fields are copied as they are.
    pub(crate) by_recipe: bool,
    /// Entry and return are one record.
    pub(crate) is_pair: bool,
    /// Its record ends the recording.
    pub(crate) is_trigger: bool,
}

impl Served<'_> {
    /// Bytes of a tracepoint's fields, where they are all of fixed size and few enough to be copied by loads and stores; else zero.
    pub(super) fn fields(&self) -> i16 {
        let Cookie { size, last_loc, .. } = self.cookie;
        let fields = i64::from(size) - COMMON_FIELDS.cast_signed();
        let fits = (1..=i64::from(MAX_FIELDS)).contains(&fields) && last_loc == 0;
        i16::try_from(fields).ok().filter(|_| fits && !self.by_recipe).unwrap_or(0)
    }

    /// At the entry of a pair.
    pub(crate) fn entry(&self) -> Self {
        Self { cookie: Cookie { entry: true, ..self.cookie }, ..*self }
    }
}
