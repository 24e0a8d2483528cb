//! Builds the tests' own eBPF objects.

use anyhow::Result;

fn main() -> Result<()> {
    for binary in ["bench", "bytes", "clients"] {
        relay_build::ebpf::embed("relay-tests-ebpf", binary, "tests/ebpf")?;
    }
    Ok(())
}
