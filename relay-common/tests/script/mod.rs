//! The golden vectors: scripts of writes, flushes and drains, each with what must come out. The tests on plain memory and those in
//! the kernel run the same ones.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs;

use relay_common::{Geometry, Mode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// A script, and what must come out.
#[derive(Deserialize)]
pub(crate) struct Vector {
    pub(crate) name: String,
    subbuf_size: u64,
    n_subbufs: u64,
    header: u64,
    mode: String,
    ops: Vec<Vec<serde_json::Value>>,
    pub(crate) expect: Expect,
}

/// One step of a script.
pub(crate) enum Step {
    /// Write these bytes as one record.
    Write(Vec<u8>),
    Flush,
    /// Take at most so many sub-buffers.
    Drain(u64),
}

/// What comes out of a script.
#[derive(Deserialize, Debug, Default, PartialEq)]
pub(crate) struct Expect {
    /// `1` for each write that was stored, `0` for each that was not.
    pub(crate) accepted: String,
    pub(crate) produced: u64,
    pub(crate) consumed: u64,
    pub(crate) subbufs_processed: u64,
    pub(crate) max_backlog: u64,
    pub(crate) lost_full: u64,
    pub(crate) lost_too_big: u64,
    pub(crate) subbufs_overrun: u64,
    pub(crate) file_len: usize,
    pub(crate) file_sha256: String,
    #[serde(default)]
    pub(crate) file_hex: Option<String>,
}

impl Vector {
    pub(crate) fn geometry(&self) -> Geometry {
        Geometry::new(self.subbuf_size, self.n_subbufs).unwrap()
    }

    pub(crate) fn mode(&self) -> Mode {
        match self.mode.as_str() {
            "overwrite" => Mode::Overwrite,
            "no-overwrite" => Mode::NoOverwrite,
            other => panic!("{}: mode {other}", self.name),
        }
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> {
        assert_eq!(self.header, relay_common::HEADER, "{}: another header", self.name);
        let mut writes = 0;
        self.ops.iter().map(move |op| {
            let number = op.get(1).and_then(serde_json::Value::as_u64);
            match (op[0].as_str().unwrap(), number) {
                ("write", Some(len)) => {
                    writes += 1;
                    Step::Write(pattern(writes - 1, usize::try_from(len).unwrap()))
                }
                ("flush", None) => Step::Flush,
                ("drain", most) => Step::Drain(most.unwrap_or(u64::MAX)),
                other => panic!("{}: operation {other:?}", self.name),
            }
        })
    }

    /// `found`, with the file's bytes as this vector tells of them.
    pub(crate) fn with_file(&self, found: Expect, file: &[u8]) -> Expect {
        Expect {
            file_len: file.len(),
            file_sha256: hex(&Sha256::digest(file)),
            file_hex: self.expect.file_hex.is_some().then(|| hex(file)),
            ..found
        }
    }
}

/// Byte `j` of the `i`-th write of a script, as the vectors define it.
pub(crate) fn pattern(i: usize, len: usize) -> Vec<u8> {
    (0..len).map(|j| u8::try_from((1 + 31 * i + 7 * j) % 256).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The project's own vectors, and those in every `.json` file of the folder that `RELAY_VECTORS` names.
pub(crate) fn vectors() -> Vec<Vector> {
    let mut vectors: Vec<Vector> = serde_json::from_str(include_str!("../vectors/channel.json")).unwrap();
    assert_eq!(vectors.len(), 73);
    if let Some(folder) = std::env::var_os("RELAY_VECTORS") {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                let more: Vec<Vector> =
                    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                vectors.extend(more);
            }
        }
        assert!(vectors.len() > 73, "RELAY_VECTORS={} holds no vector", folder.display());
    }
    vectors
}
