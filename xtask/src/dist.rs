//! `cargo xtask dist`: what is given to users: a static program, its manual pages and completions, and a Debian package of them all.

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use relay_build::ebpf;

use crate::{
    exec, make_folder_of, setup,
    targets::{self, Target},
};

/// Shells, and the name that each wants for what it completes relayd's command line by.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "relayd"), ("zsh", "_relayd"), ("fish", "relayd.fish")];

/// An architecture that relayd is built for.
#[derive(Clone, Copy)]
struct Architecture {
    /// Rust's and the kernel's name for it.
    name: &'static str,
    target: Target,
    strip: &'static str,
}

const ARCHITECTURES: [Architecture; 2] = [
    Architecture { name: "x86_64", target: targets::X86_64, strip: "strip" },
    Architecture { name: "aarch64", target: targets::ARM64, strip: "aarch64-linux-gnu-strip" },
];

/// Builds all for an architecture, or this machine's.
pub(crate) fn run(name: Option<&str>) -> Result<()> {
    let architecture = architecture(name.unwrap_or(env::consts::ARCH))?;
    // Whatever it is built for, what it says of itself is the same.
    let here = program()?;
    let documents = folder();
    let pages = documents.join("man");
    if pages.exists() {
        // Of commands that there are no more.
        fs::remove_dir_all(&pages).with_context(|| format!("removing {}", pages.display()))?;
    }
    exec(Command::new(&here).args(["man", "--output"]).arg(&pages))?;
    for (shell, file) in COMPLETIONS {
        let path = documents.join("completions").join(file);
        make_folder_of(&path)?;
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        exec(Command::new(&here).args(["completions", shell]).stdout(file))?;
    }
    let program = if architecture.target.is_here() { here } else { architecture.program()? };
    let deb = setup::cargo_deb()?;
    let package = ["--package", "relay-daemon", "--no-build", "--target", architecture.target.triple];
    exec(Command::new(deb).current_dir(ebpf::root()).args(package).arg("--output").arg(folder()))?;
    let size = fs::metadata(&program).with_context(|| format!("looking at {}", program.display()))?.len();
    println!("{} ({:.1} MB) and a package in {}", program.display(), size as f64 / 1e6, folder().display());
    Ok(())
}

/// Builds relayd for this machine's architecture, static and stripped, and returns it.
pub(crate) fn program() -> Result<PathBuf> {
    architecture(env::consts::ARCH)?.program()
}

fn architecture(name: &str) -> Result<Architecture> {
    match ARCHITECTURES.into_iter().find(|known| known.name == name) {
        Some(known) => Ok(known),
        None => bail!("relayd is built for {}, not for {name}", ARCHITECTURES.map(|known| known.name).join(" and ")),
    }
}

impl Architecture {
    /// Builds relayd, static and stripped, and returns it.
    fn program(self) -> Result<PathBuf> {
        self.target.set_up()?;
        let program = self.target.relayd()?;
        let stripped = folder().join(self.name).join("relayd");
        make_folder_of(&stripped)?;
        exec(Command::new(self.strip).arg(&program).arg("-o").arg(&stripped))?;
        Ok(stripped)
    }
}

fn folder() -> PathBuf {
    ebpf::target_dir().join("dist")
}
