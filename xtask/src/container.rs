//! `cargo xtask container`: the tests in a privileged container: by podman or docker where they can start one, else by the namespaces that
//! both are made of. What is in it is made of Debian's packages, so that no registry is needed.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Result;
use relay_build::ebpf;

use crate::{
    as_root,
    debian::{Apt, Suite},
    dist, exec, find, root,
    tests::{self, Programs},
};

/// What is in the container beside relayd and the tests.
const PACKAGES: [&str; 7] = ["babeltrace2", "bash", "coreutils", "dash", "grep", "mount", "util-linux"];
/// The tests that a container may change something for, by the beginning of their names.
const TESTS: [&str; 5] = ["container::", "environment::", "choices::", "trace::", "flight::a_session_records"];
const ENGINES: [&str; 2] = ["podman", "docker"];
const IMAGE: &str = "relayd-tests";

/// Runs the tests whose names contain one of `filter`, or those of [`TESTS`].
pub(crate) fn run(filter: &[String]) -> Result<()> {
    let programs = programs()?;
    run_in(&make_root(&packages()?, &programs)?, filter)
}

fn run_in(root: &Path, filter: &[String]) -> Result<()> {
    let filter: Vec<&str> =
        if filter.is_empty() { TESTS.to_vec() } else { filter.iter().map(String::as_str).collect() };
    let run = |name: &str| format!("{{ {}; }} || failures=1\n", tests::in_shell(name));
    let script = format!(
        "export PATH=/usr/sbin:/usr/bin:/sbin:/bin RELAYD=/usr/bin/relayd RUST_BACKTRACE=0 {}\nfailures=0\n{}exit $failures",
        tests::assignment(),
        filter.into_iter().map(run).collect::<String>()
    );
    let Some(engine) = engine(root)? else {
        let namespaces = ["--mount", "--uts", "--ipc", "--fork", "sh", "-ec", ENTER, "sh"];
        return exec(as_root(Path::new("unshare"))?.args(namespaces).arg(root).arg(script));
    };
    // The numbers of processes and the paths of cgroups are the host's, as tests expect them.
    let options = ["run", "--rm", "--privileged", "--pid=host", "--cgroupns=host", IMAGE, "sh", "-c"];
    let result = exec(as_root(&engine)?.args(options).arg(script));
    result.and(remove_image(&engine))
}

/// Goes into a root file system of its own, as a privileged container's, and runs a script. Not by chroot, from where no user namespace can be made.
const ENTER: &str = "
    mount --make-rprivate /
    mount --bind \"$1\" \"$1\"
    cd \"$1\"
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount --rbind /dev dev
    mount -t tmpfs tmpfs tmp
    mkdir -p .old
    PATH=$PATH:/usr/sbin:/sbin pivot_root . .old
    umount --lazy /.old
    exec /bin/sh -c \"$2\"";

/// relayd as users are given it, and the tests.
fn programs() -> Result<[(PathBuf, &'static str); 2]> {
    Ok([(dist::program()?, "relayd"), (Programs::build(None)?.kernel, "kernel")])
}

fn packages() -> Result<PathBuf> {
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    Apt::new(architecture, Suite::Own)?.unpack_with_dependencies(&PACKAGES)
}

fn make_root(packages: &Path, programs: &[(PathBuf, &str)]) -> Result<PathBuf> {
    let root = ebpf::target_dir().join("container");
    root::make(&root, programs, |root| root::fill_with(packages, root))?;
    Ok(root)
}

/// podman or docker with an image of `root`, if there is one that starts containers here.
fn engine(root: &Path) -> Result<Option<PathBuf>> {
    for engine in ENGINES.iter().filter_map(|name| find(name)) {
        let import = "tar -C \"$1\" -cf \"$1.tar\" . && \"$2\" import \"$1.tar\" \"$3\"; result=$?; rm -f \"$1.tar\"; exit $result";
        let import = exec(
            as_root(Path::new("sh"))?
                .args(["-c", import, "sh"])
                .arg(root)
                .arg(&engine)
                .arg(IMAGE)
                .stdout(Stdio::null()),
        );
        let works = import.and_then(|()| exec(as_root(&engine)?.args(["run", "--rm", IMAGE, "true"])));
        match works {
            Ok(()) => return Ok(Some(engine)),
            Err(error) => {
                eprintln!("xtask: {} starts no container here: {error:#}", engine.display());
                // There is none when that was what failed.
                let _ = remove_image(&engine);
            }
        }
    }
    Ok(None)
}

fn remove_image(engine: &Path) -> Result<()> {
    exec(as_root(engine)?.args(["rmi", IMAGE]).stdout(Stdio::null()).stderr(Stdio::null()))
}
