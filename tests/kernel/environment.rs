//! Where relayd may not record, as in containers: each cause is told apart and answered with what to change.

use std::{fs, process::Command};

use relay_channel::machine;
use relay_tests::{babeltrace, fail, record, relayd, succeed, text};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Arguments that record for a moment, into this directory.
const RECORD: &str = "trace -q -e sched:sched_switch -d 200ms -o";

/// Leaves tracefs in its own place alone. Whoever looks into `/sys/kernel/debug/tracing` has the kernel mount it there too.
const ONE_TRACEFS: &str = "while read -r _ place kind _; do case $kind in debugfs | tracefs) \
                           test $place = /sys/kernel/tracing || umount --lazy $place 2> /dev/null || true;; esac; done < /proc/self/mounts";

/// A shell that runs a script in a mount namespace of its own. `$RELAYD` records into `$1`.
fn in_namespace(script: &str, folder: &tempfile::TempDir) -> Command {
    mounted();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &format!("{ONE_TRACEFS}; {script}"), "sh"]).arg(folder.path().join("trace"));
    command.env("RELAYD", relayd().get_program());
    command
}

/// Both file systems are there, whatever else is missing.
fn mounted() {
    machine::tracefs().unwrap();
    machine::bpffs().unwrap();
}

/// Checks what relayd says when a script has prepared its environment, and that it leaves nothing behind.
fn says(script: &str, expected: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let said = fail(&mut in_namespace(script, &folder), 1);
    for expected in expected {
        assert!(said.contains(expected), "{script}: {said}");
    }
    // One cause, said once.
    assert_eq!(said.matches(expected[0]).count(), 1, "{said}");
    assert!(said.matches("relayd cannot record here").count() <= 1, "{said}");
    assert!(!folder.path().join("trace").exists());
}

pub(crate) fn without_capabilities_the_error_says_so() {
    mounted();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    // Where nobody can execute it.
    let program = folder.path().join("relayd");
    fs::copy(relayd().get_program(), &program).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    command.arg(&program).args(RECORD.split(' ')).arg(folder.path().join("trace"));
    let said = fail(&mut command, 1);
    let tracefs = machine::tracefs().unwrap().join("events");
    let tracefs = tracefs.display();
    let expected = [
        format!("relayd: listing tracepoints: reading {tracefs}: Permission denied (os error 13)"),
        "relayd cannot record here: capabilities: CAP_BPF and CAP_PERFMON missing: run as root".to_owned(),
        format!(
            "relayd cannot record here: tracefs: {tracefs} cannot be read: run as root: Permission denied (os error 13)"
        ),
    ];
    assert!(said.starts_with(&(expected.join("\n") + "\n")), "{said}");
    let mut list = Command::new("setpriv");
    list.args(["--inh-caps=-all", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    let said = fail(list.arg(folder.path().join("relayd")).args(["list", "sched"]), 1);
    assert!(said.contains("Permission denied") && said.contains("missing: run as root"), "{said}");
    assert!(!folder.path().join("trace").exists());
}

pub(crate) fn a_container_without_capabilities_is_told_of_them() {
    let expected = ["capabilities: this container or service may not have CAP_BPF and CAP_PERFMON", "--cap-add"];
    let script = format!("exec setpriv --bounding-set=-all --inh-caps=-all $RELAYD {RECORD} $1");
    let folder = tempfile::tempdir().unwrap();
    let said = fail(&mut in_namespace(&script, &folder), 1);
    assert!(expected.iter().all(|expected| said.contains(expected)), "{said}");
}

pub(crate) fn root_of_a_user_namespace_is_told_so() {
    let script = format!("exec unshare --user --map-root-user $RELAYD {RECORD} $1");
    let folder = tempfile::tempdir().unwrap();
    let said = fail(&mut in_namespace(&script, &folder), 1);
    assert!(
        said.contains("capabilities: CAP_BPF and CAP_PERFMON of the host are needed, and this is a user namespace"),
        "{said}"
    );
}

/// Runs relayd where a seccomp filter refuses a system call.
fn filtered(call: i64, arguments: &[&str]) -> Command {
    let filter = SeccompFilter::new(
        [(call, vec![])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    // It holds for this thread and what it starts, and stays.
    seccompiler::apply_filter(&filter).unwrap();
    let mut command = relayd();
    command.args(arguments);
    command
}

pub(crate) fn a_seccomp_filter_is_named() {
    for (call, name) in [(libc::SYS_bpf, "bpf"), (libc::SYS_perf_event_open, "perf_event_open")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace").display().to_string();
        let arguments = [RECORD.split(' ').collect(), vec![path.as_str()]].concat();
        let said = std::thread::scope(|scope| {
            scope.spawn(|| fail(&mut filtered(call, &arguments), 1)).join().expect("relayd fails with 1")
        });
        let expected = format!("{name} is refused (Operation not permitted (os error 1)): a seccomp filter");
        assert!(said.contains(&format!("system calls: {expected}")) && said.contains("seccomp=unconfined"), "{said}");
        assert!(!folder.path().join("trace").exists());
        let said = std::thread::scope(|scope| {
            let check = || text(&filtered(call, &["check"]).output().unwrap().stdout);
            scope.spawn(check).join().expect("relayd runs")
        });
        assert!(said.contains("relayd trace cannot record here") && said.contains(&expected), "{said}");
    }
}

pub(crate) fn file_systems_that_are_missing_are_named() {
    let without =
        |place: &str| format!("umount --lazy {place}; exec setpriv --bounding-set=-sys_admin $RELAYD {RECORD} $1");
    says(&without("/sys/kernel/tracing"), &["tracefs is not mounted", "--volume /sys/kernel/tracing:"]);
    says(&without("/sys/fs/bpf"), &["bpf is not mounted", "--volume /sys/fs/bpf:/sys/fs/bpf"]);
}

pub(crate) fn a_read_only_bpf_file_system_is_named() {
    let script = format!("mount -o remount,ro,bind /sys/fs/bpf; exec $RELAYD {RECORD} $1");
    says(&script, &["bpffs: /sys/fs/bpf is mounted read-only", "remount,rw", "--volume /sys/fs/bpf:/sys/fs/bpf"]);
}

pub(crate) fn a_read_only_tracefs_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&mut in_namespace(
        &format!("mount -o remount,ro,bind /sys/kernel/tracing; exec $RELAYD {RECORD} $1"),
        &folder,
    ));
    assert!(!babeltrace(&folder.path().join("trace")).is_empty());
}

pub(crate) fn file_systems_that_are_not_mounted_are_mounted() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "umount /sys/fs/bpf; umount /sys/kernel/tracing; ! grep -qE ' (bpf|tracefs) ' /proc/self/mounts && exec $RELAYD {RECORD} $1"
    );
    succeed(&mut in_namespace(&script, &folder));
    assert!(!babeltrace(&folder.path().join("trace")).is_empty());
}

pub(crate) fn a_kernel_in_lockdown_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = relayd();
    command.args(RECORD.split(' ')).arg(folder.path().join("trace"));
    let said = fail(&mut command, 1);
    assert!(said.contains("lockdown: the kernel is locked down (confidentiality)"), "{said}");
}

pub(crate) fn what_stands_in_the_way_is_only_said_where_something_does() {
    let said = fail(relayd().args(["trace", "-e", "sched:sched_swich", "-o", "/nowhere"]), 1);
    assert!(said.contains("did you mean") && !said.contains("cannot record here"), "{said}");
    // Not even where something does, when it is not that.
    let folder = tempfile::tempdir().unwrap();
    let script = "exec setpriv --bounding-set=-all --inh-caps=-all $RELAYD trace -e sched:sched_swich -o $1";
    let said = fail(&mut in_namespace(script, &folder), 1);
    assert!(said.contains("did you mean") && !said.contains("cannot record here"), "{said}");
    assert!(record(&["-e", "sched:sched_switch", "-d", "100ms"]).total("recorded") > 0);
}
