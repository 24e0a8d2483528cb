//! `cargo xtask`: builds, runs, tests and lints the project, and installs what that takes.
#![forbid(unsafe_code)]

mod bench;
mod checks;
mod container;
mod debian;
mod dist;
mod fuzz;
mod mutants;
mod passed;
mod proofs;
mod root;
mod setup;
mod suite;
mod targets;
mod tests;
mod vm;

use std::{
    error::Error,
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use relay_build::ebpf;

/// Work on relayd.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the eBPF object, installing the toolchain for it if need be.
    BuildEbpf,
    /// Build everything and run relayd as root: `cargo xtask run -- trace -e sched:sched_switch -d 2s`.
    Run {
        /// relayd's arguments.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Install everything that building and testing take. Every other task does that for what it takes.
    Setup,
    /// Run every test: unit tests, the running kernel, a container, other kernels in QEMU. Says first how long that takes.
    Test {
        /// Only those here whose names contain this.
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Of these, those that need no root and no eBPF programs.
    UnitTest,
    /// Of these, those that need the running kernel, and root.
    Kernel {
        /// Only tests whose names contain this.
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Check the account of a billion records in each mode, on the running kernel, against the kernel's own count.
    Account {
        /// So many records instead.
        #[arg(long, default_value_t = 1_000_000_000)]
        records: u64,
    },
    /// Run tests on other kernels, in QEMU: those that need nothing but a kernel, or those named.
    Vm {
        /// Only this kernel: 6.1, 6.12, 6.12-full, 7.2 or arm64.
        #[arg(long)]
        kernel: Option<String>,
        /// Tests whose names contain one of these.
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Run tests in a privileged container, by podman or docker, or by the namespaces that they are made of: those that a container may
    /// change something for, or those named.
    Container {
        /// Tests whose names contain one of these.
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Make what is given to users: a static relayd, manual pages, completions, and a Debian package, in target/dist.
    Dist {
        /// For this architecture: x86_64 or aarch64 [default: this machine's].
        #[arg(long)]
        architecture: Option<String>,
    },
    /// Look for unfit licences and sources among the dependencies, installing cargo-deny if need be.
    Licences,
    /// Look for known vulnerabilities among the dependencies, installing cargo-deny if need be.
    Advisories,
    /// Check that a second build does nothing.
    Rebuild,
    /// Explore every interruption of the protocol, and require that each of its rules is needed.
    Explore {
        /// One more interrupt than in CI: minutes to hours.
        #[arg(long)]
        full: bool,
    },
    /// Check the protocol under weak memory ordering.
    Loom,
    /// Run the protocol's tests under miri, installing it if need be.
    Miri,
    /// Measure what it costs to record, beside others, in one run: prints a table and writes target/bench.json.
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        #[command(subcommand)]
        what: Option<Bench>,
        /// What, how much and how often: `cargo xtask bench -- --help` tells.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Feed what reads files with damaged ones, installing cargo-fuzz if need be.
    Fuzz {
        /// Seconds for each target; less with RELAY_TESTS=tenth.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only this target: condition, directory, format, session or trace.
        target: Option<String>,
    },
    /// Check formatting, clippy on both targets, and the documentation.
    Lint,
    /// Make the library's documentation; warnings are errors.
    Doc,
    /// Everything that must pass before a change lands. Says first what, and how long that takes.
    Ci {
        /// Everything at full size: every kill, snapshot and record, every test in every guest. Hours.
        #[arg(long)]
        full: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// How many instructions a record costs, counted in QEMU: to compare builds, without noise.
    Icount {
        /// On this kernel: 6.1, 6.12, 6.12-full or 7.2.
        #[arg(long, default_value = "6.12")]
        kernel: String,
        /// And by this relayd, of another build.
        #[arg(long)]
        beside: Option<PathBuf>,
    },
    /// How long it takes to print a trace, beside babeltrace2 and perf script.
    Read {
        /// About so many records.
        #[arg(long, default_value_t = 10_000_000)]
        records: u64,
        /// How often each prints; medians are shown.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
}

fn main() -> ExitCode {
    // Before dependencies say it in their ways.
    if cfg!(target_endian = "big") {
        eprintln!("xtask: {}", ebpf::BIG_ENDIAN);
        return ExitCode::FAILURE;
    }
    let result = match Cli::parse().task {
        Task::BuildEbpf => build_ebpf().map(|()| ExitCode::SUCCESS),
        Task::Run { arguments } => run(&arguments),
        Task::Setup => setup::everything().map(|()| ExitCode::SUCCESS),
        Task::Test { filter } if filter.is_empty() => checks::run(true, false),
        Task::Test { filter } => tests::named(&filter).map(|()| ExitCode::SUCCESS),
        Task::Account { records } => tests::account(records).map(|()| ExitCode::SUCCESS),
        Task::Vm { kernel, filter } => vm::run(kernel.as_deref(), &filter).map(|()| ExitCode::SUCCESS),
        Task::Container { filter } => container::run(&filter).map(|()| ExitCode::SUCCESS),
        Task::Dist { architecture } => dist::run(architecture.as_deref()).map(|()| ExitCode::SUCCESS),
        Task::Kernel { filter } => tests::kernel(&filter).map(|()| ExitCode::SUCCESS),
        Task::UnitTest => tests::unit(&[]).map(|()| ExitCode::SUCCESS),
        Task::Licences => deny(&["bans", "licenses", "sources"]).map(|()| ExitCode::SUCCESS),
        Task::Advisories => advisories().map(|()| ExitCode::SUCCESS),
        Task::Rebuild => rebuild().map(|()| ExitCode::SUCCESS),
        Task::Explore { full } => proofs::explore(full || tests::is_full()).map(|()| ExitCode::SUCCESS),
        Task::Loom => proofs::loom().map(|()| ExitCode::SUCCESS),
        Task::Miri => proofs::miri().map(|()| ExitCode::SUCCESS),
        Task::Bench { what: None, arguments } => bench::record(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Bench { what: Some(Bench::Icount { kernel, beside }), .. } => {
            vm::count_instructions(&kernel, beside.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Task::Bench { what: Some(Bench::Read { records, rounds }), .. } => {
            bench::read(records, rounds).map(|()| ExitCode::SUCCESS)
        }
        Task::Fuzz { seconds, target } => fuzz::run(seconds, target.as_deref()).map(|()| ExitCode::SUCCESS),
        Task::Doc => setup::ebpf_toolchain().and_then(|()| document()).map(|()| ExitCode::SUCCESS),
        Task::Lint => lint().map(|()| ExitCode::SUCCESS),
        Task::Ci { full } => checks::run(false, full),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        if error.downcast_ref::<CannotRun>().is_some() {
            ExitCode::from(checks::COULD_NOT_RUN)
        } else {
            ExitCode::FAILURE
        }
    })
}

/// Why a task has failed that could not even run: this machine lacks what it takes, and cannot get it.
#[derive(Debug)]
struct CannotRun;

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this cannot run here")
    }
}

impl Error for CannotRun {}

fn build_ebpf() -> Result<()> {
    setup::ebpf_toolchain()?;
    let object = ebpf::build("relay-ebpf", "tracer")?;
    let path = ebpf::target_dir().join("tracer.bpf.o");
    fs::write(&path, &object).with_context(|| format!("writing {}", path.display()))?;
    println!("{} ({} bytes)", path.display(), object.len());
    Ok(())
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    setup::ebpf_toolchain()?;
    exec(cargo().args(["build", "--release", "--package", "relay-daemon"]))?;
    let mut relayd = as_root(&ebpf::target_dir().join("release/relayd"))?;
    let status = relayd.args(arguments).status().with_context(|| format!("running {relayd:?}"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn lint() -> Result<()> {
    setup::ebpf_toolchain()?;
    setup::ebpf_clippy()?;
    exec(cargo().args(["fmt", "--all", "--check"]))?;
    exec(cargo().args(["clippy", "--all-targets", "--locked", "--", "-Dwarnings"]))?;
    exec(cargo().args(["clippy", "--all-targets", "--locked", "--package", "relay-tests", "--", "-Dwarnings"]))?;
    // Those who build the readers without features, and the fuzzers, which are a workspace of their own.
    exec(cargo().args(["clippy", "--all-targets", "--locked", "--package", "relay-trace", "--", "-Dwarnings"]))?;
    let mut fuzzers = cargo();
    fuzzers.args(["clippy", "--locked", "--manifest-path", "tests/fuzz/Cargo.toml"]);
    exec(fuzzers.arg("--target-dir").arg(ebpf::target_dir()).args(["--", "-Dwarnings"]))?;
    ebpf::clippy(&["relay-ebpf", "relay-tests-ebpf", "example-klog", "example-kleak-ebpf"])?;
    document()
}

fn document() -> Result<()> {
    let documented = ["relay-build", "relay-channel", "relay-common", "relay-daemon", "relay-ebpf", "relay-trace"];
    let documented = documented.iter().flat_map(|package| ["--package", package]);
    exec(
        cargo()
            .args(["doc", "--no-deps", "--locked", "--features", "relay-trace/parquet"])
            .args(documented)
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )
}

/// Runs some of cargo-deny's checks on all manifests.
fn deny(checks: &[&str]) -> Result<()> {
    let deny = setup::cargo_deny()?;
    for manifest in ["Cargo.toml", "tests/fuzz/Cargo.toml"] {
        let options = ["--locked", "--config", "deny.toml", "--manifest-path", manifest];
        exec(Command::new(&deny).current_dir(ebpf::root()).args(options).arg("check").args(checks))?;
    }
    Ok(())
}

fn advisories() -> Result<()> {
    let fetched = exec(Command::new(setup::cargo_deny()?).current_dir(ebpf::root()).args(["fetch", "db"]));
    fetched.context(CannotRun).context("fetching the database of known vulnerabilities")?;
    deny(&["advisories"])
}

/// Builds twice: a build script that cargo takes for changed each time would have everybody wait for the eBPF programs.
fn rebuild() -> Result<()> {
    setup::ebpf_toolchain()?;
    let build = || tests::Programs::command(None);
    exec(&mut build())?;
    let second = build().args(["--verbose"]).output().context("running cargo")?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let is_work = |line: &&str| ["Compiling", "Dirty"].iter().any(|word| line.trim_start().starts_with(word));
    let again: Vec<_> = said.lines().filter(is_work).collect();
    if !second.status.success() {
        bail!("the second build has failed: {said}");
    }
    if !again.is_empty() {
        bail!("a second build does it all again: {}", again.join("; "));
    }
    Ok(())
}

/// Cargo, at the workspace's root.
fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(ebpf::root());
    cargo
}

/// A command that runs `program` as root.
fn as_root(program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if find("sudo").is_none() {
        bail!("{} must run as root, and there is no sudo: run this as root", program.display());
    }
    let mut command = Command::new("sudo");
    command.arg("-E").arg(program);
    Ok(command)
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Where a program is, if it is installed.
fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Copies a file into a folder that is made if it is not there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    make_folder_of(to)?;
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
}

/// Runs a command, having said which.
fn exec(command: &mut Command) -> Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.join(std::ffi::OsStr::new(" ")).to_string_lossy().into_owned();
    eprintln!("xtask: {line}");
    let status = command.status().with_context(|| format!("running {line}"))?;
    if !status.success() {
        bail!("{line} failed: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests_of_workflows {
    use std::{collections::BTreeSet, fs};

    use super::{Cli, Parser as _, checks::CHECKS, ebpf};

    #[test]
    fn the_picture_of_the_crates_is_true() {
        let document = include_str!("../../docs/architecture.md");
        let (_, rows) = document.split_once("| crate | depends on |\n|---|---|\n").expect("the table of crates");
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        let mut seen = 0;
        for row in rows.lines().take_while(|line| line.starts_with('|')) {
            let (name, drawn) = row.trim_matches('|').split_once('|').expect("two cells");
            let folder = name.trim().trim_matches('`');
            let manifest = ebpf::root().join(folder).join("Cargo.toml");
            let manifest = fs::read_to_string(&manifest).unwrap_or_else(|error| panic!("{folder}: {error}"));
            let dependencies = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
            let ours: BTreeSet<_> = dependencies
                .take_while(|line| !line.starts_with('['))
                .filter_map(|line| line.split([' ', '.', '=']).next())
                .filter(|name| name.starts_with("relay-"))
                .map(str::to_owned)
                .collect();
            assert_eq!(names(drawn), ours, "{folder}: docs/architecture.md, and what its manifest says");
            seen += 1;
        }
        let crates = fs::read_dir(ebpf::root()).expect("the repository").filter_map(Result::ok);
        let ours = crates.filter(|entry| entry.file_name().to_string_lossy().starts_with("relay-")).count();
        assert_eq!(seen, ours + 1, "docs/architecture.md has a row for each crate, and for kleak");
    }

    #[test]
    fn every_check_is_a_job_and_a_task() {
        let workflow = include_str!("../../.github/workflows/ci.yml");
        let matrix = |name: &str| -> Vec<String> {
            let (_, list) = workflow.split_once(&format!("{name}: [")).expect("a matrix");
            let (list, _) = list.split_once(']').expect("its end");
            list.split(',').map(|entry| entry.trim().trim_matches('"').to_owned()).collect()
        };
        let vm = matrix("kernel").into_iter().map(|kernel| format!("vm --kernel {kernel}"));
        let mut jobs: Vec<String> = matrix("task").into_iter().chain(vm).collect();
        let mut checks: Vec<String> = CHECKS.iter().map(|check| check.task.to_owned()).collect();
        jobs.sort();
        checks.sort();
        assert_eq!(jobs, checks, "the public workflow runs what `cargo xtask ci` runs");
        for task in checks {
            let arguments = std::iter::once("xtask").chain(task.split(' '));
            assert!(Cli::try_parse_from(arguments).is_ok(), "there is no task {task}");
        }
    }
}
