//! The subcommands: arguments in, calls to the library, text out.

pub(crate) mod check;
pub(crate) mod export;
pub(crate) mod klog;
pub(crate) mod list;
pub(crate) mod print;
pub(crate) mod reading;
pub(crate) mod repair;
pub(crate) mod stat;
pub(crate) mod summary;
pub(crate) mod symbolize;
pub(crate) mod trace;
pub(crate) mod verify;

/// A time, like 500ms or 2m; seconds without a unit.
fn parse_duration(text: &str) -> Result<std::time::Duration, humantime::DurationError> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(std::time::Duration::from_secs(seconds.into())),
        Err(_) => humantime::parse_duration(text),
    }
}

/// A size in bytes, like 64K or 1M.
fn parse_size(text: &str) -> Result<u64, parse_size::Error> {
    parse_size::Config::new().with_binary().parse_size(text)
}
