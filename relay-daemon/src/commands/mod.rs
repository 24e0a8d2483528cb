//! The subcommands: arguments in, calls to the library, text out.

pub(crate) mod check;
pub(crate) mod klog;
pub(crate) mod list;
pub(crate) mod summary;
pub(crate) mod symbolize;
pub(crate) mod trace;

/// A size in bytes, like 64K or 1M.
fn parse_size(text: &str) -> Result<u64, parse_size::Error> {
    parse_size::Config::new().with_binary().parse_size(text)
}
