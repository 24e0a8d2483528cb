//! What is built for: any x86-64 or arm64 machine, whatever its C library, and an emulated one.

use std::{env, path::PathBuf, process::Command};

use anyhow::Result;
use xtask::ebpf;

use crate::{cargo, exec, setup};

/// A machine, and how what runs there is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Rust's name for it.
    pub(crate) triple: &'static str,
    profile: &'static str,
    /// Of the C code and of linking, where it is another than this machine's.
    compiler: Option<&'static str>,
}

/// Any x86-64 machine, whatever its C library.
pub(crate) const X86_64: Target = Target { triple: "x86_64-unknown-linux-musl", profile: "release", compiler: None };
/// Any arm64 machine, whatever its C library.
pub(crate) const ARM64: Target = Target {
    triple: "aarch64-unknown-linux-musl",
    profile: "release",
    // It compiles nothing that depends on the C library.
    compiler: Some("aarch64-linux-gnu-gcc"),
};
/// The same for tests: built quickly, and not as slow on an emulated machine as what is not optimized at all.
pub(crate) const TESTED_X86_64: Target = Target { profile: "tested", ..X86_64 };
pub(crate) const TESTED_ARM64: Target = Target { profile: "tested", ..ARM64 };

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

    /// `cargo COMMAND` for it.
    pub(crate) fn cargo(self, command: &str) -> Command {
        let mut cargo = cargo();
        cargo.args([command, "--locked", "--profile", self.profile, "--target", self.triple]);
        if let Some(compiler) = self.compiler {
            let name = self.triple.replace('-', "_");
            cargo.env(format!("CC_{name}"), compiler);
            cargo.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler);
        }
        cargo
    }

    /// Builds packages.
    pub(crate) fn build(self, packages: &[&str]) -> Result<()> {
        exec(self.cargo("build").args(packages.iter().flat_map(|package| ["--package", package])))
    }

    /// A program that was built.
    pub(crate) fn program(self, name: &str) -> PathBuf {
        ebpf::target_dir().join(self.triple).join(self.profile).join(name)
    }
}
