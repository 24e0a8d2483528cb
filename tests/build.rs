//! Builds the tests' own eBPF object.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    for source in ["ebpf", "../relay-ebpf", "../relay-common/src", "../xtask/src", "../Cargo.lock"] {
        println!("cargo:rerun-if-changed={source}");
    }
    let object = Path::new(&env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join("bytes");
    fs::write(&object, xtask::ebpf::build("relay-tests-ebpf", "bytes")?)?;
    Ok(())
}
