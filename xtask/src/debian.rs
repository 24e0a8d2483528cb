//! Debian's packages for any architecture, beside what is installed: apt with lists of its own, which touches nothing of the system's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use xtask::ebpf;

use crate::exec;

/// In every folder that is complete.
const STAMP: &str = ".unpacked";

/// apt for one of Debian's architectures, like `arm64`.
pub(crate) struct Apt {
    architecture: &'static str,
    state: PathBuf,
}

impl Apt {
    pub(crate) fn new(architecture: &'static str) -> Result<Self> {
        let state = folder().join(format!("apt-{architecture}"));
        for name in ["lists/partial", "archives/partial"] {
            let path = state.join(name);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let status = state.join("status");
        fs::write(&status, "").with_context(|| format!("making {}", status.display()))?;
        Ok(Self { architecture, state })
    }

    /// The package that a metapackage depends on, in its newest version, unpacked into a folder, which is returned with the package's name.
    pub(crate) fn unpack_newest(&self, metapackage: &str) -> Result<(String, PathBuf)> {
        let package = match self.depends(metapackage) {
            Some(package) if is_complete(&self.folder_of(&package)) => package,
            // What was newest some time ago is no longer to be had.
            _ => {
                self.update()?;
                let package = self.depends(metapackage);
                package.with_context(|| format!("apt knows no package {metapackage} for {}", self.architecture))?
            }
        };
        let folder = self.folder_of(&package);
        if !is_complete(&folder) {
            self.unpack(&["download", &package], &folder)?;
        }
        Ok((package, folder))
    }

    /// Packages with all that they depend on, unpacked into one folder.
    pub(crate) fn unpack_with_dependencies(&self, packages: &[&str]) -> Result<PathBuf> {
        let folder = self.folder_of(&packages.join("+"));
        if !is_complete(&folder) {
            self.update()?;
            let install = ["install", "-q", "-y", "--download-only", "--no-install-recommends"];
            self.unpack(&[&install, packages].concat(), &folder)?;
        }
        Ok(folder)
    }

    fn folder_of(&self, packages: &str) -> PathBuf {
        folder().join(format!("{packages}_{}", self.architecture))
    }

    fn depends(&self, metapackage: &str) -> Option<String> {
        let output = self.command("apt-cache").args(["depends", metapackage]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned)
    }

    fn update(&self) -> Result<()> {
        exec(self.command("apt-get").args(["update", "-q"]))
    }

    /// Unpacks what apt-get downloads with these arguments.
    fn unpack(&self, arguments: &[&str], folder: &Path) -> Result<()> {
        let archives = self.state.join("archives");
        // What an interrupted download has left belongs to another folder.
        fs::remove_dir_all(&archives).with_context(|| format!("removing {}", archives.display()))?;
        let partial = archives.join("partial");
        fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
        exec(self.command("apt-get").current_dir(&archives).args(arguments))?;
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        for entry in fs::read_dir(&archives).with_context(|| format!("reading {}", archives.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                exec(Command::new("dpkg").arg("-x").arg(&path).arg(folder))?;
                fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        fs::write(folder.join(STAMP), "").with_context(|| format!("writing into {}", folder.display()))
    }

    /// apt as if nothing were installed.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, value) in [
            ("APT::Architecture", self.architecture.into()),
            ("APT::Architectures", self.architecture.into()),
            ("Dir::State", self.state.as_os_str().to_owned()),
            // An empty file: beside it apt makes its locks.
            ("Dir::State::status", self.state.join("status").into_os_string()),
            ("Dir::Cache", self.state.as_os_str().to_owned()),
            ("Dir::Cache::archives", self.state.join("archives").into_os_string()),
            // The user that apt downloads as may not write here.
            ("APT::Sandbox::User", "root".into()),
        ] {
            let mut option: std::ffi::OsString = format!("{name}=").into();
            option.push(value);
            command.arg("-o").arg(option);
        }
        command
    }
}

fn folder() -> PathBuf {
    ebpf::target_dir().join("debian")
}

fn is_complete(folder: &Path) -> bool {
    folder.join(STAMP).exists()
}
