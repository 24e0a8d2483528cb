//! Builds the eBPF objects that the daemon embeds: the tracer's (`src/tracer/programs.rs`), and the example that `relayd klog`
//! runs when it is given nothing else.

use anyhow::Result;

fn main() -> Result<()> {
    xtask::ebpf::embed("relay-ebpf", "tracer", "relay-ebpf")?;
    xtask::ebpf::embed("example-klog", "klog", "examples/klog")
}
