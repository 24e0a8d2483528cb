//! `cargo xtask fuzz`: the targets of tests/fuzz, from the corpora that are kept there.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};
use relay_build::ebpf;

use crate::{exec, setup, tests};

const TARGETS: [&str; 5] = ["condition", "directory", "format", "session", "trace"];
/// No input takes more memory, in MiB.
const MEMORY: &str = "512";
/// Nor more time, in seconds.
const TIME: &str = "10";

/// Runs the targets, or one of them, each for some seconds.
pub(crate) fn run(seconds: u32, target: Option<&str>) -> Result<()> {
    if let Some(target) = target
        && !TARGETS.contains(&target)
    {
        bail!("there is no fuzz target '{target}'; there are {}", TARGETS.join(", "));
    }
    let seconds = if tests::is_tenth() { seconds.div_ceil(10) } else { seconds };
    let (program, toolchain) = setup::cargo_fuzz()?;
    let folder = ebpf::root().join("tests/fuzz");
    for target in TARGETS.into_iter().filter(|name| target.is_none_or(|target| target == *name)) {
        // What is found goes into the first; the kept corpus is changed by hand.
        let found = ebpf::target_dir().join("fuzz/corpus").join(target);
        fs::create_dir_all(&found).with_context(|| format!("making {}", found.display()))?;
        let mut fuzz = Command::new("rustup");
        fuzz.current_dir(ebpf::root()).env("RELAYD_SKIP_EBPF", "1");
        fuzz.args(["run", &toolchain])
            .arg(&program)
            .args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"])
            .arg(&folder);
        fuzz.arg("--target-dir").arg(ebpf::target_dir().join("fuzz")).arg(target);
        fuzz.arg(&found).arg(folder.join("corpus").join(target)).arg("--");
        fuzz.args([
            &format!("-max_total_time={seconds}"),
            &format!("-rss_limit_mb={MEMORY}"),
            &format!("-timeout={TIME}"),
        ]);
        exec(fuzz.args(["-print_final_stats=1", "-verbosity=0"]))?;
    }
    Ok(())
}
