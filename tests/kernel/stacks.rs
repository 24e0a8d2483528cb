//! Stacks: what perf shows of the same calls, and names from the trace alone.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use relay_tests::{Trace, fail, record, relayd, succeed, text, wait_until};

/// Calls getppid three functions deep, then exits. Not optimized, so that each function has a frame; without libc, which has none.
const PROGRAM: &str = r#"
static long innermost(void) { long r; __asm__ volatile("syscall" : "=a"(r) : "a"(110L) : "rcx", "r11", "memory"); return r; }
static long middle(void) { return innermost(); }
static long outer(void) { return middle(); }
int main(void) { return outer() == 0; }
"#;
const CALLS: [&str; 4] = ["innermost", "middle", "outer", "main"];
const EVENT: &str = "syscalls:sys_enter_getppid";
const EXIT: &str = "sched:sched_process_exit";

fn build(folder: &Path) -> String {
    let (source, program) = (folder.join("deep.c"), folder.join("deep"));
    fs::write(&source, PROGRAM).unwrap();
    succeed(Command::new("cc").args(["-O0", "-o"]).args([&program, &source]));
    program.display().to_string()
}

/// babeltrace2's text of a trace, with names.
fn named(trace: &Trace, root: &str) -> String {
    let mut symbolize = relayd();
    symbolize.arg("symbolize").arg(&trace.path).args(["--root", root]);
    let mut symbolize = symbolize.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = trace.babeltrace().join("\n");
    symbolize.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = symbolize.wait_with_output().unwrap();
    assert!(output.status.success());
    text(&output.stdout)
}

/// The functions of both stacks in a line, innermost first, the kernel's before the process's.
fn functions(line: &str) -> Vec<&str> {
    line.split([' ', ',']).filter_map(|word| Some(word.split_once("+0x")?.0)).collect()
}

/// The functions that perf shows at the event of a program.
fn functions_by_perf(folder: &Path, event: &str, program: &str) -> Vec<String> {
    let data = folder.join("perf.data").display().to_string();
    succeed(Command::new("perf").args(["record", "-q", "-g", "-e", event, "-o", &data, program]));
    let script = text(&succeed(Command::new("perf").args(["script", "-F", "ip,sym", "-i", &data])).stdout);
    script.lines().filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned())).collect()
}

pub(crate) fn perf_saw_the_same_stacks() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path());
    // perf takes no kernel stack at a system call, and both begin in a function of their own elsewhere.
    for (event, first, last) in [(EVENT, "innermost", "main"), (EXIT, "do_exit", "entry_SYSCALL_64_after_hwframe")] {
        let theirs = functions_by_perf(folder.path(), event, &program);
        let trace = record(&["--context", "kstack,ustack", "-e", event, "--comm", "deep", "--", &program]);
        let line = named(&trace, "/");
        let ours: Vec<_> = functions(&line).into_iter().map(str::to_owned).collect();
        let common = |stack: &[String]| {
            let find = |name| stack.iter().position(|function| function == name).unwrap_or_else(|| panic!("{stack:?}"));
            stack[find(first)..=find(last)].to_vec()
        };
        assert_eq!(common(&ours), common(&theirs), "{line}");
    }
}

/// How many frames the kernel gives at most, until this is dropped. It is not to be set while anybody takes stacks, nor a moment after.
struct MostFrames(String);

impl MostFrames {
    const PLACE: &str = "/proc/sys/kernel/perf_event_max_stack";

    fn set(number: &str) -> Self {
        let before = fs::read_to_string(Self::PLACE).unwrap();
        wait_until("the most frames are set", || fs::write(Self::PLACE, number).is_ok());
        Self(before)
    }
}

impl Drop for MostFrames {
    fn drop(&mut self) {
        wait_until("the most frames are set back", || fs::write(Self::PLACE, &self.0).is_ok());
    }
}

/// However many frames the kernel would give: the process's would then lie over the kernel's.
pub(crate) fn a_stack_has_as_many_frames_as_there_is_room_for() {
    const DEEP: &str = r#"
        #include <unistd.h>
        #include <sys/syscall.h>
        static int deep(int n) { return n == 0 ? (int)syscall(SYS_getppid) != 0 : deep(n - 1) + (n > 1000); }
        int main(void) { return deep(300) != 1; }
    "#;
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("deep.c"), folder.path().join("deep"));
    fs::write(&source, DEEP).unwrap();
    succeed(Command::new("cc").args(["-O0", "-fno-omit-frame-pointer", "-o"]).args([&program, &source]));
    let _most = MostFrames::set("512");
    let program = program.display().to_string();
    let trace = record(&["--context", "kstack,ustack", "--follow", "-e", EVENT, "--", &program]);
    let lines = trace.print(&[]);
    let stacks: Vec<_> = lines.iter().filter_map(|line| line["ustack"].as_array()).collect();
    assert!(stacks.iter().any(|stack| stack.len() == 127), "{:?}", stacks.iter().map(|s| s.len()).collect::<Vec<_>>());
    // A reader is told that there may have been more.
    for line in &lines {
        let is_full = line["ustack"].as_array().is_some_and(|stack| stack.len() == 127);
        assert_eq!(line["ustack_cut"].as_bool(), is_full.then_some(true), "{line}");
    }
    assert!(
        text(&succeed(&mut trace.relayd("print")).stdout).contains("=> ... (no more than 127 frames are recorded)")
    );
}

pub(crate) fn a_program_that_is_gone_is_known_by_its_build_id() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path());
    let notes = text(&succeed(Command::new("readelf").args(["-n", &program])).stdout);
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap().to_owned();
    let trace = record(&["--context", "ustack", "-e", EVENT, "--", &program]);
    assert_eq!(&functions(&named(&trace, "/"))[..4], CALLS);
    // So is what was running before: this test.
    let known = fs::read_to_string(trace.path.join(".relayd/build-ids.json")).unwrap();
    let this = std::env::current_exe().unwrap();
    assert!(known.contains(&*this.to_string_lossy()), "{known}");
    // Its file is kept elsewhere, where another machine's would be.
    let root = folder.path().join("root");
    let copy = root.join(program.strip_prefix('/').unwrap());
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::rename(&program, &copy).unwrap();
    let line = named(&trace, "/");
    assert_eq!(line.matches(&format!("({program}, build id {id})")).count(), 4, "{line}");
    assert_eq!(&functions(&named(&trace, root.to_str().unwrap()))[..4], CALLS);
    // A file of that name with other contents is another.
    fs::copy("/bin/true", &program).unwrap();
    assert_eq!(named(&trace, "/"), line);
}

/// Long enough that it is looked at while it runs.
const LASTING: &str = r#"
#include <unistd.h>
static long _ZN5inner4mostEv(void) { long r; __asm__ volatile("syscall" : "=a"(r) : "a"(110L) : "rcx", "r11", "memory"); return r; }
static long outer(void) { return _ZN5inner4mostEv(); }
const char *of_case = CASE;
int main(void) { int failed = outer() == 0; sleep(3); return failed; }
"#;

/// Whoever reads the trace finds nothing at the path, or something else.
pub(crate) fn functions_of_a_file_that_is_not_at_its_path_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (source, inner) = (folder.path().join("lasting.c"), folder.path().join("inner"));
    fs::write(&source, LASTING).unwrap();
    fs::create_dir(&inner).unwrap();
    let (lasting, deep) = (folder.path().join("lasting"), inner.join("deep"));
    let (lasting, deep, inner) = (lasting.display(), deep.display(), inner.display());
    for (case, script) in [
        (
            "seen by its own processes alone",
            format!("unshare -m sh -c 'mount -t tmpfs none {inner} && cp {lasting} {deep} && {deep}'"),
        ),
        ("removed", format!("cp {lasting} {deep}; {deep} & sleep 1.5; rm {deep}; wait")),
        (
            "replaced",
            format!("cp {lasting} {deep}; {deep} & sleep 1.5; cp /bin/true {deep}.new; mv {deep}.new {deep}; wait"),
        ),
    ] {
        // Its own, so that nothing is known of one that ran before.
        let case_of = format!("-DCASE=\"{case}\"");
        succeed(Command::new("cc").args(["-O0", "-o", &lasting.to_string(), &case_of]).arg(&source));
        let trace = record(&["--context", "ustack", "-e", EVENT, "--comm", "deep", "--", "sh", "-c", &script]);
        let line = named(&trace, "/");
        assert!(functions(&line).starts_with(&["inner::most()", "outer", "main"]), "{case}: {line}");
        assert_eq!(line.matches(&format!("({deep})")).count(), 3, "{case}: {line}");
        // Its pieces and repaired copies have them, too.
        let copy = folder.path().join(format!("copy-{}", case.len()));
        succeed(relayd().arg("repair").arg(&trace.path).arg(&copy));
        let copied = fs::read(copy.join(".relayd/functions.json")).unwrap();
        assert_eq!(copied, fs::read(trace.path.join(".relayd/functions.json")).unwrap(), "{case}");
    }
}

pub(crate) fn what_cannot_be_symbolized_is_said() {
    let error = fail(relayd().args(["symbolize", "/usr"]), 1);
    assert!(error.contains("/usr is not a trace of relayd"), "{error}");
    let trace = record(&["-e", EVENT, "--", "true"]);
    let error = fail(relayd().arg("symbolize").arg(&trace.path), 1);
    assert!(error.contains("--context kstack,ustack"), "{error}");
}
