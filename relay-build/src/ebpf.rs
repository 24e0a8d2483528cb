//! How an eBPF object is built: with which toolchain, linker and flags.
//!
//! bpf-linker links with the LLVM of the rustc that runs it, so compiler and linker are chosen together. This
//! file finds what is installed; installing what is not is `cargo xtask`'s work (`setup.rs`).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::btf;

/// The nightly that is installed where none fits: `-Z build-std` needs one.
pub const NIGHTLY: &str = "nightly-2026-05-20";
/// Its LLVM, which the linker must share.
const LLVM_MAJOR: &str = "22";
/// What the programs are compiled for.
const TARGET: &str = "bpfel-unknown-none";
/// The linker's version. Later ones want a later LLVM.
pub const BPF_LINKER: &str = "0.10.0";

/// Why such a machine is refused.
pub const BIG_ENDIAN: &str =
    "big-endian machines are not supported: traces, and what both sides share in memory, are little-endian";

/// The workspace's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Builds `binary` of `package` for the BPF target and returns the object.
///
/// # Errors
/// When the toolchain is not there (the message says how to get it) or the build fails.
pub fn build(package: &str, binary: &str) -> Result<Vec<u8>> {
    let target_dir = target_dir().join("ebpf");
    let mut cargo = cargo("build", package)?;
    cargo.args(["--bin", binary]);
    let output = cargo.output().with_context(|| format!("running {cargo:?}"))?;
    if !output.status.success() {
        bail!("building {package} for {TARGET} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let path = target_dir.join(TARGET).join("release").join(binary);
    let mut object = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    btf::sanitize(&mut object).with_context(|| format!("mending the BTF of {}", path.display()))?;
    btf::strip(&object).with_context(|| format!("stripping {}", path.display()))
}

/// For build scripts: builds `binary` of `package`, whose sources are in `folder` of the workspace, into `OUT_DIR`. With
/// `RELAYD_SKIP_EBPF` in the environment it makes an empty file, which nobody can load: checks and tests that load nothing
/// then need no nightly.
///
/// # Errors
/// When the build fails.
pub fn embed(package: &str, binary: &str, folder: &str) -> Result<()> {
    println!("cargo:rerun-if-env-changed=RELAYD_SKIP_EBPF");
    for source in [folder, "relay-ebpf", "relay-common/src", "relay-build/src", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root().join(source).display());
    }
    let object = Path::new(&env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join(binary);
    let content = if env::var_os("RELAYD_SKIP_EBPF").is_some() { Vec::new() } else { build(package, binary)? };
    fs::write(&object, content).with_context(|| format!("writing {}", object.display()))
}

/// Runs clippy on packages for the BPF target.
///
/// # Errors
/// When the toolchain is not there or clippy finds something.
pub fn clippy(packages: &[&str]) -> Result<()> {
    for package in packages {
        let mut cargo = cargo("clippy", package)?;
        let status = cargo.args(["--", "-Dwarnings"]).status().with_context(|| format!("running {cargo:?}"))?;
        if !status.success() {
            bail!("clippy on {package} for {TARGET}: {status}");
        }
    }
    Ok(())
}

/// Cargo, to do something with a package for the BPF target.
fn cargo(command: &str, package: &str) -> Result<Command> {
    // Set for build scripts: what is built for may be another machine.
    if env::var("CARGO_CFG_TARGET_ENDIAN").is_ok_and(|endian| endian == "big") || cfg!(target_endian = "big") {
        bail!(BIG_ENDIAN);
    }
    let toolchain = toolchain()?;
    let flags = [
        // Compare-and-exchange and fetching adds.
        "-Ctarget-cpu=v3".into(),
        // The kernel reads BTF, which the linker makes from debug information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        format!("-Clinker={}", linker()?.display()),
        format!("--cfg=bpf_target_arch=\"{}\"", target_arch()),
    ];
    let mut cargo = Command::new("rustup");
    cargo
        .current_dir(root())
        .args(["run", &toolchain, "cargo", command, "--release", "--locked", "--package", package])
        .args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        // A target directory of its own: the build scripts run while cargo holds the lock of the main one.
        .arg(target_dir().join("ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // Set by the cargo that runs a build script, for its own toolchain.
    for key in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "CARGO", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(key);
    }
    Ok(cargo)
}

/// The nightly to build with: the pinned one, or an installed `nightly` with the same LLVM.
///
/// # Errors
/// When neither is installed with the rust-src component.
pub fn toolchain() -> Result<String> {
    let mut seen = String::new();
    for name in [NIGHTLY, "nightly"] {
        let Some(version) = output(Command::new("rustup").args(["run", name, "rustc", "-vV"])) else {
            continue;
        };
        let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")).unwrap_or("unknown");
        if llvm.split('.').next() == Some(LLVM_MAJOR) {
            return Ok(name.to_owned());
        }
        seen = format!(" (the installed {name} has LLVM {llvm})");
    }
    bail!(
        "the eBPF programs need a nightly Rust with LLVM {LLVM_MAJOR}{seen}; \
         `cargo xtask build-ebpf` installs it, or: rustup toolchain install {NIGHTLY} --component rust-src"
    );
}

/// Whether the standard library's source is there for a toolchain.
#[must_use]
pub fn has_rust_src(toolchain: &str) -> bool {
    output(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]))
        .is_some_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir())
}

/// The bpf-linker to link with: the user's if it is the right version, else the one that `cargo xtask` put
/// in [`tools_dir`].
///
/// # Errors
/// When neither is there.
pub fn linker() -> Result<PathBuf> {
    for candidate in [PathBuf::from("bpf-linker"), tools_dir().join("bin/bpf-linker")] {
        let version = output(Command::new(&candidate).arg("--version"));
        if version.is_some_and(|v| v.split_whitespace().nth(1) == Some(BPF_LINKER)) {
            return Ok(candidate);
        }
    }
    bail!(
        "the eBPF programs need bpf-linker {BPF_LINKER}; `cargo xtask build-ebpf` installs it, or: \
         cargo install bpf-linker --version {BPF_LINKER} --locked"
    );
}

/// Where `cargo xtask` keeps what every clone of the repository can use: `relayd-xtask` in the user's folder for such things
/// (`$XDG_CACHE_HOME`, or `~/.cache`), and in cargo's target directory where there is none.
#[must_use]
pub fn cache_dir() -> PathBuf {
    let set = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    cache.unwrap_or_else(target_dir).join("relayd-xtask")
}

/// Where `cargo xtask` installs tools.
#[must_use]
pub fn tools_dir() -> PathBuf {
    cache_dir().join("tools")
}

/// Cargo's target directory.
#[must_use]
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The architecture whose registers and structures the programs will see.
fn target_arch() -> String {
    env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned())
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
