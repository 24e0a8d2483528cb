//! Debian's packages for any architecture, beside what is installed: apt with lists of its own, which touches nothing of the system's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use relay_build::ebpf;

use crate::{CannotRun, exec};

/// What Debian's suites are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// In every folder that is complete.
const STAMP: &str = ".unpacked";
/// Beside the lists: when they were updated.
const UPDATED: &str = "updated";

/// apt for one of Debian's architectures, like `arm64`, and one of its suites.
pub(crate) struct Apt {
    architecture: &'static str,
    suite: Suite,
    state: PathBuf,
    /// Held as long as this is: others may be at work with the same lists and folders.
    _lock: File,
}

/// Which of Debian's suites packages are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Those that this machine installs from.
    Own,
    /// Another, by its name, from the mirror that this machine installs from.
    Other(&'static str),
}

impl Suite {
    /// What the names of folders end with.
    fn suffix(self) -> String {
        match self {
            Self::Own => String::new(),
            Self::Other(name) => format!("-{name}"),
        }
    }
}

impl Apt {
    pub(crate) fn new(architecture: &'static str, suite: Suite) -> Result<Self> {
        let state = folder().join(format!("apt-{architecture}{}", suite.suffix()));
        for name in ["lists/partial", "archives/partial"] {
            let path = state.join(name);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let lock = state.join("lock");
        let lock = File::create(&lock).with_context(|| format!("making {}", lock.display()))?;
        lock.lock().with_context(|| format!("locking {}", state.display()))?;
        let write = |name: &str, content: &str| {
            let path = state.join(name);
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
        };
        write("status", "")?;
        if let Suite::Other(name) = suite {
            write("suite.list", &format!("deb [signed-by={KEYRING}] {} {name} main\n", mirror()?))?;
        }
        Ok(Self { architecture, suite, state, _lock: lock })
    }

    /// The package at the end of a chain of dependencies, in its newest version, unpacked into a folder, which is returned with the package's
    /// name. The chain begins with a metapackage; what follows are the beginnings of names.
    pub(crate) fn unpack_newest(&self, metapackage: &str, chain: &[&str]) -> Result<(String, PathBuf)> {
        let follow = || chain.iter().try_fold(metapackage.to_owned(), |package, prefix| self.depends(&package, prefix));
        let package = match follow() {
            Some(package) if is_complete(&self.folder_of(&package)) && self.is_up_to_date() => package,
            // What was newest some time ago is no longer to be had.
            _ => {
                self.update()?;
                follow().with_context(|| {
                    let chain = chain.join("…, ");
                    format!("apt gives no {chain}… for {metapackage} on {} here", self.architecture)
                })?
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
        folder().join(format!("{packages}_{}{}", self.architecture, self.suite.suffix()))
    }

    /// What a package depends on whose name begins with `prefix`.
    fn depends(&self, package: &str, prefix: &str) -> Option<String> {
        let output = self.command("apt-cache").args(["depends", package]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        names.find(|name| name.starts_with(prefix)).map(str::to_owned)
    }

    fn update(&self) -> Result<()> {
        exec(self.command("apt-get").args(["update", "-q"])).context(CannotRun)?;
        let stamp = self.state.join(UPDATED);
        fs::write(&stamp, "").with_context(|| format!("writing {}", stamp.display()))
    }

    /// Whether the lists are of today.
    fn is_up_to_date(&self) -> bool {
        let updated = fs::metadata(self.state.join(UPDATED)).and_then(|stamp| stamp.modified());
        updated.ok().and_then(|updated| updated.elapsed().ok()).is_some_and(|age| age < Duration::from_secs(86_400))
    }

    /// Unpacks what apt-get downloads with these arguments.
    fn unpack(&self, arguments: &[&str], folder: &Path) -> Result<()> {
        let archives = self.state.join("archives");
        // What an interrupted download has left belongs to another folder.
        fs::remove_dir_all(&archives).with_context(|| format!("removing {}", archives.display()))?;
        let partial = archives.join("partial");
        fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
        exec(self.command("apt-get").current_dir(&archives).args(arguments)).context(CannotRun)?;
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
        if self.suite != Suite::Own {
            let mut list: std::ffi::OsString = "Dir::Etc::sourcelist=".into();
            list.push(self.state.join("suite.list"));
            command.args(["-o", "Dir::Etc::sourceparts=/dev/null", "-o"]).arg(list);
        }
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

/// The mirror that this machine installs Debian's packages from.
fn mirror() -> Result<String> {
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Component: main"]);
    let output = list.output().context("asking apt-get for its mirror")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mirror = text.lines().find(|line| !line.contains("security"));
    mirror.map(str::to_owned).context("apt has no mirror of Debian: run apt-get update once, on a Debian")
}

/// The packages whose names begin so and that were unpacked, in order.
pub(crate) fn unpacked(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(folder()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

fn folder() -> PathBuf {
    ebpf::cache_dir().join("debian")
}

fn is_complete(folder: &Path) -> bool {
    folder.join(STAMP).exists()
}
