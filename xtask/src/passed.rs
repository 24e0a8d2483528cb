//! What has passed before: a check whose result depends on files alone is not repeated on the same files.
//!
//! The record is kept with the user, beside the tools, so that a clean clone has it too. Its key is a hash of the files' contents, the compilers, and
//! the size of the check.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};
use relay_build::ebpf;

use crate::{debian, make_folder_of};

/// A check on a certain content.
#[derive(Debug)]
pub(crate) struct Key {
    /// Where it is written down that it has passed, at full size and at a tenth.
    full: PathBuf,
    tenth: PathBuf,
    is_full: bool,
    /// Whether it depends on the kernels that Debian has, too.
    has_kernel: bool,
}

/// A check that has passed before.
#[derive(Debug)]
pub(crate) struct Before {
    /// On which day.
    pub(crate) when: String,
    /// What it said of each test that passed.
    pub(crate) tests: Vec<String>,
}

impl Key {
    /// The key of a task whose result depends on these files and folders. `None` outside of a git checkout.
    ///
    /// # Errors
    /// When git fails.
    pub(crate) fn new(task: &str, is_full: bool, inputs: &[&str]) -> Result<Option<Self>> {
        let list = git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"], inputs, b"");
        let Ok(list) = list else { return Ok(None) };
        // What was removed and not committed is still listed.
        let is_there = |name: &&str| ebpf::root().join(name).is_file();
        let names: Vec<&str> = list.split('\0').filter(|name| !name.is_empty()).filter(is_there).collect();
        let hashes = git(&["hash-object", "--stdin-paths"], &[], names.join("\n").as_bytes())?;
        let files: String = names.iter().zip(hashes.lines()).map(|(name, hash)| format!("{hash} {name}\n")).collect();
        let whole = format!("{task}\n{}\n{files}", compilers());
        let hash = git(&["hash-object", "--stdin"], &[], whole.as_bytes())?;
        let place = |size: &str| ebpf::cache_dir().join("passed").join(format!("{}-{size}", hash.trim()));
        Ok(Some(Self { full: place("full"), tenth: place("tenth"), is_full, has_kernel: task.starts_with("vm ") }))
    }

    /// Whether it has passed before, at this size or at full size.
    pub(crate) fn look_up(&self) -> Option<Before> {
        let mut content = fs::read_to_string(&self.full);
        if content.is_err() && !self.is_full {
            content = fs::read_to_string(&self.tenth);
        }
        let content = content.ok()?;
        let mut lines = content.lines().map(str::to_owned);
        let (when, kernels) = (lines.next()?, lines.next()?);
        (kernels == self.kernels()).then(|| Before { when, tests: lines.collect() })
    }

    fn kernels(&self) -> String {
        if self.has_kernel { debian::unpacked("linux-").join(" ") } else { String::new() }
    }

    /// Writes down that it has passed, and which tests.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_down(&self, tests: impl Iterator<Item = String>) -> Result<()> {
        let path = if self.is_full { &self.full } else { &self.tenth };
        let day = Command::new("date").arg("+%F").output().context("running date")?;
        let mut content = String::from_utf8_lossy(&day.stdout).into_owned() + &self.kernels() + "\n";
        content.extend(tests.map(|test| test + "\n"));
        make_folder_of(path)?;
        fs::write(path, content).with_context(|| format!("writing {}", path.display()))
    }
}

/// What compiles everything.
fn compilers() -> String {
    let versions = ["stable", ebpf::NIGHTLY, "nightly"].map(|name| {
        let version = Command::new("rustup").args(["run", name, "rustc", "-vV"]).output();
        version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    });
    versions.concat()
}

fn git(arguments: &[&str], paths: &[&str], input: &[u8]) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(ebpf::root()).args(arguments).args(paths);
    let mut child =
        git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("running git")?;
    let mut stdin = child.stdin.take().context("git's input")?;
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    });
    let output = output.with_context(|| format!("running {git:?}"))?;
    if !output.status.success() {
        bail!("{git:?} failed: {}", output.status);
    }
    String::from_utf8(output.stdout).context("git names a file that is not text")
}
