//! What a container sees of the host, and what the host's numbers mean in it.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use relay_tests::{fail, record, relayd, succeed};
use serde_json::Value;

use crate::choices::Hierarchy;

/// Calls the kernel again and again, under a name that is found.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "printf relaybusy > /proc/self/comm; while :; do read x < /proc/self/stat; done"]);
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A command in a PID namespace of its own, as in a container.
fn in_pid_namespace(command: &Command) -> Command {
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--mount-proc"]).arg(command.get_program()).args(command.get_args());
    inside
}

pub(crate) fn processes_have_the_numbers_that_the_host_gives_them() {
    let busy = Busy::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut trace = relayd();
    let recorded = ["trace", "-q", "-e", "raw_syscalls:sys_enter", "--comm", "relaybusy", "-d", "300ms", "-o"];
    let output = succeed(&mut in_pid_namespace(trace.args(recorded).arg(&path)));
    let said = relay_tests::text(&output.stderr);
    assert!(said.contains("threads have names only where events tell them") && said.contains("--pid=host"), "{said}");
    let printed = relay_tests::text(&succeed(relayd().args(["print", "--json"]).arg(&path)).stdout);
    let mut records = 0;
    for line in printed.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["pid"].as_u64(), Some(u64::from(busy.0.id())), "{record}");
        // No name rather than that of whoever has this number inside.
        assert_eq!(record["comm"], "<...>", "{record}");
        records += 1;
    }
    assert!(records > 100, "{records} records");
}

pub(crate) fn numbers_that_mean_other_processes_are_refused() {
    for option in ["--pid", "--tid"] {
        let mut trace = relayd();
        trace.args(["trace", "-e", "sched:sched_switch", "-d", "100ms", option, "1", "-o", "/nowhere"]);
        let said = fail(&mut in_pid_namespace(&trace), 1);
        assert!(said.contains("start it with --pid=host"), "{said}");
    }
}

pub(crate) fn paths_that_mean_other_cgroups_are_refused() {
    let mut trace = relayd();
    let arguments = ["trace", "-e", "sched:sched_switch", "-d", "100ms", "--cgroup", "/", "-o", "/nowhere"];
    trace.args(arguments);
    let mut inside = Command::new("unshare");
    inside.arg("--cgroup").arg(trace.get_program()).args(trace.get_args());
    let said = fail(&mut inside, 1);
    assert!(said.contains("start it with --cgroupns=host"), "{said}");
}

pub(crate) fn a_container_that_comes_and_goes_is_named() {
    let hierarchy = Hierarchy::find();
    let name = format!("relayd-test-container-{}", std::process::id());
    let cgroup = hierarchy.path().join(&name);
    // Nothing tells when a process that has ended is no longer in its cgroup.
    let script = format!(
        "mkdir {0} && (echo $$ > {0}/cgroup.procs; exec sh -c 'echo $$ > {0}/cgroup.procs; exec /bin/true'); echo $$ > {1}/cgroup.procs; \
         timeout 30 sh -c 'until rmdir {0} 2> /dev/null; do :; done'",
        cgroup.display(),
        hierarchy.path().display()
    );
    let event = ["-e", "sched:sched_process_exec if filename ~ \"*/true\"", "--context", "cgroup", "--", "sh", "-c"];
    let trace = record(&[&event[..], &[script.as_str()]].concat());
    assert!(!cgroup.exists());
    let records = trace.print(&[]);
    let [only] = records.as_slice() else { panic!("{records:#?}") };
    assert_eq!(only["cgroup_path"], format!("/{name}"), "{only}");
    let printed = relay_tests::text(&succeed(&mut trace.relayd("print")).stdout);
    assert!(printed.contains(&format!(" cgroup:/{name}")), "{printed}");
    // Those that were there before are known too.
    let names = fs::read(trace.path.join(".relayd/cgroups.json")).unwrap();
    let names: Value = serde_json::from_slice(&names).unwrap();
    assert!(names.as_object().unwrap().values().any(|path| path == "/"), "{names}");
    let plain = record(&["-e", "sched:sched_switch", "-d", "100ms"]);
    assert!(!plain.path.join(".relayd/cgroups.json").exists());
}

pub(crate) fn the_smallest_rights_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    // As a container's engine leaves it that is told --cap-drop all --cap-add … and mounts both file systems: sysfs can only be read.
    let script = "mount -o remount,ro,bind /sys; mount -o remount,ro,bind /sys/kernel/tracing; \
                  exec setpriv --bounding-set=-all,+bpf,+perfmon --inh-caps=-all \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(relayd().get_program());
    command.args(["trace", "-e", "sched:sched_switch", "-d", "300ms", "--json", "-o"]).arg(folder.path().join("trace"));
    let output = succeed(&mut command);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["recorded"].as_u64().unwrap() > 0, "{summary}");
}
