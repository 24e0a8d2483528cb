//! Builds the tracer's eBPF object, which `src/tracer/programs.rs` embeds.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=RELAYD_SKIP_EBPF");
    for source in ["../relay-ebpf", "../relay-common/src", "../xtask/src", "../Cargo.lock"] {
        println!("cargo:rerun-if-changed={source}");
    }
    let object = Path::new(&env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join("tracer");
    if env::var_os("RELAYD_SKIP_EBPF").is_some() {
        // For checks and tests that load nothing: stable Rust is then enough. Loading refuses an empty object.
        fs::write(&object, [])?;
    } else {
        fs::write(&object, xtask::ebpf::build("relay-ebpf", "tracer")?)?;
    }
    Ok(())
}
