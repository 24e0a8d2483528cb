//! `.relayd/tasks.json`: the names of the threads that there were when recording began and when it ended, by thread id.

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::{Context as _, Result};

use super::session::replace;

const FILE: &str = "tasks.json";

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    names: BTreeMap<u32, String>,
}

impl Tasks {
    /// Adds the threads that there are now, and writes all into the trace's own folder. A name that was seen first stays: the records
    /// that tell of another come after it.
    pub(super) fn save(&mut self, folder: &Path) -> Result<()> {
        for process in numbers("/proc") {
            for thread in numbers(&format!("/proc/{process}/task")) {
                // It may have ended meanwhile.
                if let Ok(name) = fs::read(format!("/proc/{process}/task/{thread}/comm")) {
                    let name = String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned();
                    self.names.entry(thread).or_insert(name);
                }
            }
        }
        let path = folder.join(FILE);
        let text = serde_json::to_vec(&self.names).context("writing the threads' names as JSON")?;
        replace(&path, &text).with_context(|| format!("writing {}", path.display()))
    }
}

/// The names of a trace's threads; none when it has not kept them.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read(folder: &Path) -> Result<BTreeMap<u32, String>> {
    let path = folder.join(FILE);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// The entries of a folder that are numbers.
fn numbers(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
