//! `cargo xtask loom|explore|miri`: the protocol's proofs, at sizes that fit CI, and the mutants that they must catch.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use relay_build::ebpf;

use crate::{
    cargo, exec,
    mutants::{MUTANTS, Mutant},
    setup,
};

/// What a copy of relay-common takes to run its explorer: no dependency, and fast.
const MANIFEST: &str = r#"
[package]
name = "relay-common"
version = "0.0.0"
edition = "2024"
[workspace]
[profile.test]
opt-level = 2
debug = 0
"#;

/// The protocol under every order that weak memory allows, and its weakened twins.
pub(crate) fn loom() -> Result<()> {
    let mut loom = cargo();
    loom.args(["test", "--release", "--locked", "--package", "relay-common", "--test", "loom"]).args(["--target-dir"]);
    // A target directory of its own: the flag would have everything else rebuilt.
    loom.arg(ebpf::target_dir().join("loom")).env("RUSTFLAGS", "--cfg loom");
    exec(loom.args(["--", "--test-threads=1"]))
}

/// Every interruption of short scripts; then the same, quicker, of a protocol with one rule broken, for every rule.
pub(crate) fn explore(full: bool) -> Result<()> {
    let copy = copy_of_protocol()?;
    let size = if full { "full" } else { "ci" };
    exec(test(&copy, "explore").args(["--", "--nocapture", "--test-threads=1"]).env("RELAY_EXPLORE", size))?;
    mutants(&copy)
}

/// The host-side code, under an interpreter that knows undefined behaviour and weak memory.
pub(crate) fn miri() -> Result<()> {
    let toolchain = setup::miri()?;
    let mut miri = Command::new("rustup");
    miri.current_dir(ebpf::root()).args(["run", &toolchain, "cargo", "miri", "test", "--locked"]);
    miri.args(["--package", "relay-common", "--lib", "--test", "semantics", "--test", "model", "--target-dir"]);
    // proptest looks for its file of failures.
    exec(miri.arg(ebpf::target_dir().join("miri")).env("MIRIFLAGS", "-Zmiri-disable-isolation"))
}

/// A copy of relay-common that is built without any other crate, and can be mutated.
fn copy_of_protocol() -> Result<PathBuf> {
    let source = ebpf::root().join("relay-common");
    let copy = ebpf::target_dir().join("mutants/relay-common");
    for folder in ["src", "tests"] {
        let _ = fs::remove_dir_all(copy.join(folder));
    }
    for folder in ["src", "tests/explore"] {
        copy_folder(&source.join(folder), &copy.join(folder))?;
    }
    fs::copy(source.join("tests/exhaustive.rs"), copy.join("tests/exhaustive.rs"))?;
    fs::write(copy.join("Cargo.toml"), MANIFEST)?;
    Ok(copy)
}

fn mutants(copy: &Path) -> Result<()> {
    if let Some(caught) = ["explore", "exhaustive"].into_iter().find_map(|test| run(copy, test).transpose()) {
        bail!("without a mutation: {}", caught?);
    }
    let (start, mut survivors) = (Instant::now(), 0);
    for mutant in MUTANTS {
        let path = copy.join("src").join(mutant.file);
        let original = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        fs::write(&path, mutated(&original, mutant)?)?;
        let caught = run(copy, mutant.test).with_context(|| format!("the mutant of: {}", mutant.rule))?;
        fs::write(&path, original)?;
        survivors += usize::from(caught.is_none());
        println!("mutant: {}\n    {}", mutant.rule, caught.as_deref().unwrap_or("NOT CAUGHT"));
    }
    println!("{} mutants, {survivors} not caught, {:.0} s", MUTANTS.len(), start.elapsed().as_secs_f64());
    if survivors > 0 {
        bail!("{survivors} of {} mutants were not caught", MUTANTS.len());
    }
    Ok(())
}

fn mutated(original: &str, mutant: &Mutant) -> Result<String> {
    let mut text = original.to_owned();
    for (from, to) in mutant.edits {
        let found = text.matches(from).count();
        if found != 1 {
            bail!("the mutant of «{}» has its text {found} times in {}: {from}", mutant.rule, mutant.file);
        }
        text = text.replacen(from, to, 1);
    }
    Ok(text)
}

/// Runs a test target of the copy. Which assertion failed, and in which test, or nothing when all held.
fn run(copy: &Path, test: &str) -> Result<Option<String>> {
    let cargo = |arguments: &[&str]| {
        let mut cargo = self::test(copy, test);
        cargo.args(arguments).env("RELAY_EXPLORE_ONE", "1").env("RELAY_EXPLORE", "quick");
        cargo.output().with_context(|| format!("running {cargo:?}"))
    };
    let built = cargo(&["--no-run"])?;
    if !built.status.success() {
        bail!("it does not compile:\n{}", String::from_utf8_lossy(&built.stderr));
    }
    let output = cargo(&["--", "--nocapture", "--test-threads=1"])?;
    if output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    // thread 'name' (number) panicked at place:
    // message
    let mut lines = text.lines().skip_while(|line| !line.contains("panicked at"));
    let (Some(head), Some(message)) = (lines.next(), lines.next()) else { bail!("it failed without a word:\n{text}") };
    let name = head.split('\'').nth(1).unwrap_or("?");
    let message: String = message.trim().chars().take(100).collect();
    Ok(Some(format!("{test}::{name}: {message}")))
}

/// cargo that runs a test target of the copy.
fn test(copy: &Path, name: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(copy).args(["test", "--quiet", "--test", name, "--target-dir"]).arg(copy.join("target"));
    cargo.env("RUSTFLAGS", "-Awarnings");
    cargo
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path: PathBuf = entry?.path();
        let Some(name) = path.file_name() else { continue };
        fs::copy(&path, to.join(name)).with_context(|| format!("copying {}", path.display()))?;
    }
    Ok(())
}
