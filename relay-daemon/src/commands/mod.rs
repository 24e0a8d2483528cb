//! The subcommands: arguments in, calls to the library, text out.

pub(crate) mod check;
pub(crate) mod summary;
pub(crate) mod trace;
