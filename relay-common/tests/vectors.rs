//! Every golden vector of `tests/vectors/channel.json`, and of the folder named by `RELAY_VECTORS`,
//! through the protocol on plain memory.

#![allow(clippy::unwrap_used, reason = "a test")]

mod sim;

use std::{fs, path::Path};

use relay_common::{Geometry, Mode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use sim::Sim;

#[derive(Deserialize)]
struct Vector {
    name: String,
    subbuf_size: u64,
    n_subbufs: u64,
    header: u64,
    mode: String,
    ops: Vec<Vec<serde_json::Value>>,
    expect: Expect,
}

#[derive(Deserialize, Debug, PartialEq)]
struct Expect {
    accepted: String,
    produced: u64,
    consumed: u64,
    subbufs_processed: u64,
    max_backlog: u64,
    lost_full: u64,
    lost_too_big: u64,
    subbufs_overrun: u64,
    file_len: usize,
    file_sha256: String,
    #[serde(default)]
    file_hex: Option<String>,
}

fn run(vector: &Vector) -> Expect {
    assert_eq!(vector.header, relay_common::HEADER, "{}: another header", vector.name);
    let mode = match vector.mode.as_str() {
        "overwrite" => Mode::Overwrite,
        "no-overwrite" => Mode::NoOverwrite,
        other => panic!("{}: mode {other}", vector.name),
    };
    let mut sim = Sim::new(Geometry::new(vector.subbuf_size, vector.n_subbufs).unwrap(), mode);
    let mut accepted = String::new();
    for op in &vector.ops {
        let number = op.get(1).and_then(serde_json::Value::as_u64);
        match (op[0].as_str().unwrap(), number) {
            ("write", Some(len)) => {
                let bytes = sim::pattern(accepted.len(), usize::try_from(len).unwrap());
                accepted.push(if sim.write(&bytes).is_ok() { '1' } else { '0' });
            }
            ("flush", None) => sim.flush(),
            ("drain", most) => sim.drain(most.unwrap_or(u64::MAX)),
            other => panic!("{}: operation {other:?}", vector.name),
        }
    }
    let control = sim.control();
    Expect {
        accepted,
        produced: sim.produced(),
        consumed: sim.consumed(),
        subbufs_processed: sim.subbufs_processed,
        max_backlog: sim.max_backlog,
        lost_full: control.lost_full,
        lost_too_big: control.lost_too_big,
        subbufs_overrun: sim.subbufs_overrun,
        file_len: sim.file.len(),
        file_sha256: hex(&Sha256::digest(&sim.file)),
        file_hex: vector.expect.file_hex.is_some().then(|| hex(&sim.file)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Runs every vector of every `.json` file in a folder; returns how many.
fn check_folder(folder: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let vectors: Vec<Vector> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for vector in &vectors {
            assert_eq!(run(vector), vector.expect, "{}: {}", path.display(), vector.name);
        }
        count += vectors.len();
    }
    count
}

#[test]
fn the_golden_vectors_come_out_to_the_byte() {
    assert_eq!(check_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")), 73);
    if let Some(folder) = std::env::var_os("RELAY_VECTORS") {
        let folder = Path::new(&folder);
        assert!(check_folder(folder) > 0, "RELAY_VECTORS={} holds no vector", folder.display());
    }
}
