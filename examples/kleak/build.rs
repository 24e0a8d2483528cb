//! Builds kleak's eBPF object.

use anyhow::Result;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=src/record.rs");
    relay_build::ebpf::embed("example-kleak-ebpf", "kleak", "examples/kleak/ebpf")
}
