//! Installs what building and testing take, and says so. Quick when everything is there.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use relay_build::ebpf;

use crate::{CannotRun, as_root, exec, find, targets};

/// What a program is needed for, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

/// Programs that the tests compare with. The last is a library of Debian's own Python.
const TEST_TOOLS: [Tool; 7] = [
    Tool { program: "babeltrace2", package: "babeltrace2" },
    Tool { program: "perf", package: "linux-perf" },
    Tool { program: "bpftrace", package: "bpftrace" },
    Tool { program: "strace", package: "strace" },
    Tool { program: "chromium", package: "chromium" },
    Tool { program: "pip3", package: "python3-pip" },
    Tool { program: "/usr/lib/python3/dist-packages/bt2/__init__.py", package: "python3-bt2" },
];
/// What tests decode exports with, from PyPI.
const PYTHON_PACKAGES: [&str; 2] = ["perfetto==0.59.1", "duckdb==1.4.2"];

/// What boots a kernel.
const VM_TOOLS: [Tool; 4] = [
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Tool { program: "qemu-system-aarch64", package: "qemu-system-arm" },
    Tool { program: "busybox", package: "busybox-static" },
    Tool { program: "cpio", package: "cpio" },
];

/// What compiles C for other targets. The last is its C library.
const MUSL_COMPILER: [Tool; 1] = [Tool { program: "musl-gcc", package: "musl-tools" }];
const ARM64_COMPILER: [Tool; 2] = [
    Tool { program: "aarch64-linux-gnu-gcc", package: "gcc-aarch64-linux-gnu" },
    Tool { program: "/usr/aarch64-linux-gnu/include/stdio.h", package: "libc6-dev-arm64-cross" },
];

/// All that the checks take, so that they can run beside one another.
pub(crate) fn everything() -> Result<()> {
    ebpf_toolchain()?;
    ebpf_clippy()?;
    miri()?;
    test_tools()?;
    vm_tools()?;
    targets::X86_64.set_up()?;
    targets::ARM64.set_up()?;
    cargo_fuzz()?;
    cargo_deb()?;
    cargo_deny()?;
    Ok(())
}

/// The nightly with its rust-src, and bpf-linker.
pub(crate) fn ebpf_toolchain() -> Result<()> {
    let toolchain = match ebpf::toolchain() {
        Ok(toolchain) => toolchain,
        Err(_) => {
            say(&format!("installing {} (the eBPF programs need a nightly with a certain LLVM)", ebpf::NIGHTLY));
            exec(Command::new("rustup").args(["toolchain", "install", ebpf::NIGHTLY, "--profile", "minimal"]))?;
            ebpf::toolchain()?
        }
    };
    if !ebpf::has_rust_src(&toolchain) {
        say(&format!("adding rust-src to {toolchain} (core is built for the BPF target)"));
        exec(Command::new("rustup").args(["component", "add", "rust-src", "--toolchain", &toolchain]))?;
    }
    if ebpf::linker().is_err() {
        say(&format!("installing bpf-linker {} (takes a minute or two)", ebpf::BPF_LINKER));
        // The linker is built by the toolchain that everything else is.
        exec(
            Command::new("cargo")
                .current_dir(ebpf::root())
                .args(["install", "bpf-linker", "--version", ebpf::BPF_LINKER, "--locked", "--root"])
                .arg(ebpf::tools_dir()),
        )?;
        ebpf::linker()?;
    }
    Ok(())
}

/// clippy for that nightly.
pub(crate) fn ebpf_clippy() -> Result<()> {
    let toolchain = ebpf::toolchain()?;
    let clippy = Command::new("rustup").args(["run", &toolchain, "cargo", "clippy", "--version"]).output();
    if clippy.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    say(&format!("adding clippy to {toolchain}"));
    exec(Command::new("rustup").args(["component", "add", "clippy", "--toolchain", &toolchain]))
}

/// miri for that nightly, whose name is returned.
pub(crate) fn miri() -> Result<String> {
    ebpf_toolchain()?;
    let toolchain = ebpf::toolchain()?;
    let miri = Command::new("rustup").args(["run", &toolchain, "cargo", "miri", "--version"]).output();
    if !miri.is_ok_and(|output| output.status.success()) {
        say(&format!("adding miri to {toolchain}"));
        exec(Command::new("rustup").args(["component", "add", "miri", "--toolchain", &toolchain]))?;
    }
    Ok(toolchain)
}

/// cargo-fuzz; its path and the name of the nightly that it runs with are returned.
pub(crate) fn cargo_fuzz() -> Result<(PathBuf, String)> {
    ebpf_toolchain()?;
    Ok((cargo_tool("cargo-fuzz", "0.13.1")?, ebpf::toolchain()?))
}

/// What makes Debian packages.
pub(crate) fn cargo_deb() -> Result<PathBuf> {
    cargo_tool("cargo-deb", "3.8.0")
}

/// What looks at dependencies.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    cargo_tool("cargo-deny", "0.20.2")
}

/// A version of a cargo command.
fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let folder = ebpf::tools_dir().join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        say(&format!("installing {name} {version}"));
        let install = ["install", name, "--version", version, "--locked", "--root"];
        exec(Command::new("cargo").current_dir(ebpf::root()).args(install).arg(&folder))?;
    }
    Ok(program)
}

/// The programs that tests compare with: installed by apt where there is apt. Says by name what is missing otherwise; the
/// tests that need it then say so too.
pub(crate) fn test_tools() -> Result<()> {
    install(&TEST_TOOLS)?;
    python_packages()
}

/// The Python packages, beside the other tools: nothing is installed into the system. Says so when they cannot be had.
fn python_packages() -> Result<()> {
    let folder = ebpf::tools_dir().join("python");
    let wanted = PYTHON_PACKAGES.join(" ");
    let stamp = folder.join("installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) || find("pip3").is_none() {
        return Ok(());
    }
    say(&format!("installing Python packages for the tests, beside the other tools: {wanted}"));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
    match exec(pip.arg(&folder).args(PYTHON_PACKAGES)) {
        Ok(()) => std::fs::write(&stamp, wanted).context("writing down what is installed"),
        Err(error) => {
            say(&format!("{error:#}. Tests that need them will not run"));
            Ok(())
        }
    }
}

/// Rust's standard library for a target.
pub(crate) fn rust_target(triple: &str) -> Result<()> {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).current_dir(ebpf::root()).output();
    let installed = installed.context("running rustup")?.stdout;
    if String::from_utf8_lossy(&installed).lines().any(|line| line == triple) {
        return Ok(());
    }
    say(&format!("adding Rust's standard library for {triple}"));
    exec(Command::new("rustup").args(["target", "add", triple]).current_dir(ebpf::root()))
}

/// What compiles C for static programs.
pub(crate) fn musl_compiler() -> Result<()> {
    install(&MUSL_COMPILER)
}

/// What compiles C for arm64.
pub(crate) fn arm64_compiler() -> Result<()> {
    install(&ARM64_COMPILER)
}

/// What `cargo xtask vm` takes.
pub(crate) fn vm_tools() -> Result<()> {
    install(&VM_TOOLS)?;
    match VM_TOOLS.iter().find(|tool| !is_there(tool)) {
        Some(tool) => Err(CannotRun).with_context(|| format!("there is no {}", tool.program)),
        None => Ok(()),
    }
}

fn install(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|tool| tool.program).collect();
    if find("apt-get").is_none() {
        say(&format!("not installed, and this is not Debian: {}. What needs them will not run", programs.join(", ")));
        return Ok(());
    }
    say(&format!("installing with apt: {}", programs.join(", ")));
    apt(&["update", "-q"])?;
    let packages: Vec<String> = missing.iter().map(|tool| package(tool)).collect();
    let packages = packages.iter().map(String::as_str);
    apt(&["install", "-q", "-y", "--no-install-recommends"].into_iter().chain(packages).collect::<Vec<_>>())
        .with_context(|| format!("installing {}", programs.join(", ")))
}

fn is_there(tool: &Tool) -> bool {
    match ubuntu_tools(tool) {
        // What is called perf there only looks for this one.
        Some(tools) => Path::new("/usr/lib/linux-tools").join(tools).join(tool.program).exists(),
        None => find(tool.program).is_some(),
    }
}

fn package(tool: &Tool) -> String {
    ubuntu_tools(tool).map_or(tool.package.to_owned(), |kernel| format!("linux-tools-{kernel}"))
}

/// Ubuntu has perf in a package for each kernel: which is running, if this is that.
fn ubuntu_tools(tool: &Tool) -> Option<String> {
    let release = std::fs::read_to_string("/etc/os-release").ok()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    (tool.program == "perf" && release.lines().any(|line| line == "ID=ubuntu")).then(|| kernel.trim().to_owned())
}

fn apt(arguments: &[&str]) -> Result<()> {
    // sudo keeps none of our environment.
    let mut command = as_root(Path::new("env"))?;
    exec(command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(arguments))
}

fn say(text: &str) {
    eprintln!("xtask: {text}");
}
