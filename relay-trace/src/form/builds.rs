//! `.relayd/build-ids.json`: which files the code of processes is from, so that frames of their stacks get names later.

/// Its name in the trace's own folder.
pub const FILE: &str = "build-ids.json";

/// A build id as tools write it.
#[must_use]
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
