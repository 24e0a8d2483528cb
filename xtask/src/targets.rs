//! What is built for: any x86-64 or arm64 machine, whatever its C library.

use std::{env, path::PathBuf, process::Command};

use anyhow::Result;
use relay_build::ebpf;

use crate::{cargo, exec, setup};

/// A machine, and how what runs there is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Rust's name for it.
    pub(crate) triple: &'static str,
    /// Of the C code and of linking, where it is another than this machine's.
    compiler: Option<&'static str>,
}

/// Any x86-64 machine, whatever its C library.
pub(crate) const X86_64: Target = Target { triple: "x86_64-unknown-linux-musl", compiler: None };
/// Any arm64 machine, whatever its C library.
pub(crate) const ARM64: Target = Target {
    triple: "aarch64-unknown-linux-musl",
    // It compiles nothing that depends on the C library.
    compiler: Some("aarch64-linux-gnu-gcc"),
};

impl Target {
    /// Installs what building for it takes.
    pub(crate) fn set_up(self) -> Result<()> {
        setup::ebpf_toolchain()?;
        setup::rust_target(self.triple)?;
        match self.compiler {
            Some(_) => setup::arm64_compiler(),
            None => setup::musl_compiler(),
        }
    }

    /// Whether it is this machine's architecture.
    pub(crate) fn is_here(self) -> bool {
        self.triple.starts_with(env::consts::ARCH)
    }

    /// cargo that builds for it.
    pub(crate) fn cargo(self) -> Command {
        let mut cargo = cargo();
        cargo.arg("--config").arg(format!("build.target=\"{}\"", self.triple));
        if let Some(compiler) = self.compiler {
            let name = self.triple.replace('-', "_");
            cargo.env(format!("CC_{name}"), compiler);
            cargo.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler);
        }
        cargo
    }

    /// Builds relayd as users are given it, but for its symbols.
    pub(crate) fn relayd(self) -> Result<PathBuf> {
        exec(self.cargo().args(["build", "--locked", "--release", "--package", "relay-daemon"]))?;
        Ok(ebpf::target_dir().join(self.triple).join("release/relayd"))
    }
}
