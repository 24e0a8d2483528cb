//! Builds the eBPF objects that the daemon embeds: the tracer's (`src/kernel/loader.rs`), and the example that `relayd klog`
//! runs when it is given nothing else.

use anyhow::Result;

fn main() -> Result<()> {
    relay_build::ebpf::embed("relay-ebpf", "tracer", "relay-ebpf")?;
    relay_build::ebpf::embed("example-klog", "klog", "examples/klog")
}
