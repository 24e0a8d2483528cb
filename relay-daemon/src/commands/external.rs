//! `relayd NAME` runs an installed `relayd-NAME` when NAME is not a command of its own, as git and cargo do.

use std::{env, ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

/// Becomes the program that a command line means which has no command of relayd's; comes back when there is no such program.
///
/// # Errors
/// When there is such a program and it cannot be run.
pub(crate) fn run() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let Some(name) = arguments.next().and_then(|name| name.into_string().ok()) else { return Ok(()) };
    let is_name = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    if !is_name {
        return Ok(());
    }
    let Ok(program) = which::which(format!("relayd-{name}")) else { return Ok(()) };
    let arguments: Vec<OsString> = arguments.collect();
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("running {}", program.display()))
}
