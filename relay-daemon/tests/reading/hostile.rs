//! Every command that reads a trace, on traces with something wrong in the place of each of their files, and every output with something in its
//! way: nothing hangs, nothing outside of the trace is shown or changed, and memory stays small.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::{self, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{MIXED, copied, folder, relayd_on};

/// What a link leads to, and no output may have.
pub(crate) const SECRET: &str = "nobody is to read this";
/// No command takes longer on a trace that small.
const LONGEST: Duration = Duration::from_secs(5);
/// Nor more memory, in KiB.
pub(crate) const MOST_MEMORY: u64 = 200 << 10;

/// Every file that a trace can have, and its folders.
const PLACES: [&str; 10] = [
    "cpu0",
    "cpu7",
    "metadata",
    ".relayd",
    ".relayd/session.json",
    ".relayd/tasks",
    ".relayd/tasks.json",
    ".relayd/cgroups.json",
    ".relayd/kallsyms",
    ".relayd/build-ids.json",
];

/// What may be in the place of a file.
#[derive(Clone, Copy, Debug)]
enum Thing {
    /// To a file that only the reader may read.
    Link,
    /// To a file without an end.
    EndlessLink,
    Dangling,
    Fifo,
    Socket,
    Directory,
    /// A terabyte in which there is nothing.
    Sparse,
    Empty,
    Nothing,
}

const THINGS: [Thing; 9] = [
    Thing::Link,
    Thing::EndlessLink,
    Thing::Dangling,
    Thing::Fifo,
    Thing::Socket,
    Thing::Directory,
    Thing::Sparse,
    Thing::Empty,
    Thing::Nothing,
];

impl Thing {
    /// Puts it into a place, instead of what is there. What it returns has to live as long.
    fn put(self, place: &Path, secret: &Path) -> Option<UnixListener> {
        match fs::symlink_metadata(place) {
            Ok(there) if there.is_dir() => fs::remove_dir_all(place).unwrap(),
            Ok(_) => fs::remove_file(place).unwrap(),
            Err(_) => {}
        }
        match self {
            Self::Link => unix::fs::symlink(secret, place).unwrap(),
            Self::EndlessLink => unix::fs::symlink("/dev/zero", place).unwrap(),
            Self::Dangling => unix::fs::symlink("/nowhere/at/all", place).unwrap(),
            Self::Fifo => {
                rustix::fs::mkfifoat(rustix::fs::CWD, place, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
            }
            Self::Socket => return Some(UnixListener::bind(place).unwrap()),
            Self::Directory => fs::create_dir(place).unwrap(),
            Self::Sparse => File::create(place).unwrap().set_len(1 << 40).unwrap(),
            Self::Empty => drop(File::create(place).unwrap()),
            Self::Nothing => {}
        }
        None
    }
}

/// What a command has done: its status, what it has said, and the most memory that it had, in KiB.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) said: String,
    pub(crate) memory: u64,
}

/// Runs a command to its end, which must come in time.
pub(crate) fn run(command: &mut Command) -> Ended {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    thread::scope(|scope| {
        let mut read = Vec::new();
        let errors = scope.spawn(move || {
            let mut read = Vec::new();
            errors.read_to_end(&mut read).unwrap();
            read
        });
        let watched = scope.spawn(move || watch(child));
        out.read_to_end(&mut read).unwrap();
        read.extend(errors.join().unwrap());
        let (status, memory) = watched.join().unwrap();
        assert!(status.is_some(), "{command:?} was killed: it takes more than {LONGEST:?}, or died by a signal");
        Ended { status, said: String::from_utf8_lossy(&read).into_owned(), memory }
    })
}

fn watch(mut child: Child) -> (Option<i32>, u64) {
    let (begin, mut memory) = (Instant::now(), 0);
    let status = format!("/proc/{}/status", child.id());
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        // Until it has the name of its program it may have this process's memory (fs/exec.c, `exec_mmap`, wakes who waits for a vfork before).
        let text = if text.starts_with("Name:\trelayd\n") { text.as_str() } else { "" };
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        memory = memory.max(peak.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), memory);
        }
        if begin.elapsed() > LONGEST {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Every command that reads a trace, with where it writes, if it writes.
pub(crate) fn commands(trace: &Path, output: &Path) -> Vec<Command> {
    let on = |command: &str, arguments: &[&str]| {
        let mut relayd = relayd_on(command, trace);
        relayd.args(arguments);
        relayd
    };
    let to = |form: &str| {
        let mut relayd = on("export", &["--to", form, "--force", "-o"]);
        relayd.arg(output.join(form));
        relayd
    };
    let mut repair = on("repair", &[]);
    repair.arg(output.join("repaired"));
    vec![
        on("print", &[]),
        on("print", &["--json", "-f"]),
        on("print", &["--csv", "--since", "-1s"]),
        on("stat", &["--by", "comm"]),
        on("verify", &[]),
        on("symbolize", &[]),
        on("recover", &[]),
        to("perfetto"),
        to("json"),
        to("folded"),
        to("parquet"),
        repair,
    ]
}

/// Whether any file below a folder has the secret, followed nowhere.
pub(crate) fn leaked(folder: &Path) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            if let Some(found) = leaked(&path) {
                return Some(found);
            }
        } else if kind.is_file() && fs::read(&path).unwrap().windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
        {
            return Some(path);
        }
    }
    None
}

#[test]
fn nothing_in_the_place_of_a_file_is_followed_or_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let secret = root.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    for place in PLACES {
        for thing in THINGS {
            let (_folder, trace) = copied(MIXED);
            let _socket = thing.put(&trace.join(place), &secret);
            let output = tempfile::tempdir().unwrap();
            for mut command in commands(&trace, output.path()) {
                let ended = run(&mut command);
                let what = format!("{thing:?} in place of {place}: {command:?}");
                assert!(matches!(ended.status, Some(0..=2)), "{what}: status {:?}: {}", ended.status, ended.said);
                assert!(!ended.said.contains(SECRET), "{what}: {}", ended.said);
                assert!(ended.memory < MOST_MEMORY, "{what}: {} KiB", ended.memory);
            }
            assert_eq!(leaked(output.path()), None, "{thing:?} in place of {place}");
        }
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
}

#[test]
fn what_is_left_out_is_named() {
    let (_folder, trace) = copied(MIXED);
    let _ = Thing::Fifo.put(&trace.join("cpu0"), Path::new(""));
    let _ = Thing::EndlessLink.put(&trace.join(".relayd/tasks.json"), Path::new(""));
    let ended = run(&mut relayd_on("print", &trace));
    assert_eq!(ended.status, Some(1));
    assert!(ended.said.contains("cpu0 is left out: it is a FIFO, not a file"), "{}", ended.said);
    assert!(ended.said.contains("tasks.json: it is a link, not a file"), "{}", ended.said);
}

#[test]
fn outputs_replace_nothing_but_what_they_are_told_to() {
    let root = tempfile::tempdir().unwrap();
    let victim = root.path().join("victim");
    fs::write(&victim, SECRET).unwrap();
    let trace = folder().join(MIXED);
    let export = |form: &str, output: &Path| {
        let mut relayd = relayd_on("export", &trace);
        run(relayd.args(["--to", form, "--force", "-o"]).arg(output))
    };
    for thing in [Thing::Link, Thing::Dangling, Thing::Fifo, Thing::Socket, Thing::Directory] {
        for form in ["json", "parquet"] {
            let place = root.path().join("out");
            let _socket = thing.put(&place, &victim);
            let ended = export(form, &place);
            // An empty directory is what a directory of tables replaces.
            let may_replace = matches!((thing, form), (Thing::Directory, "parquet"));
            assert_eq!(ended.status, Some(i32::from(!may_replace)), "{thing:?}, {form}: {}", ended.said);
            Thing::Nothing.put(&place, &victim);
        }
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), SECRET);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "something is left behind");
    // Into the trace itself.
    let (_folder, copy) = copied(MIXED);
    let before = fs::read(copy.join("cpu1")).unwrap();
    let mut relayd = relayd_on("export", &copy);
    let ended = run(relayd.args(["--to", "json", "--force", "-o"]).arg(copy.join("cpu1")));
    assert!(ended.status == Some(1) && ended.said.contains("would be inside the trace"), "{}", ended.said);
    assert_eq!(fs::read(copy.join("cpu1")).unwrap(), before);
    // However either is written.
    let mut relayd = relayd_on("repair", ".");
    let ended = run(relayd.current_dir(&copy).arg(copy.join("repaired")));
    assert!(ended.status == Some(1) && ended.said.contains("would be inside the trace"), "{}", ended.said);
    assert!(!copy.join("repaired").exists());
}

#[test]
fn hostile_texts_are_shown_and_not_obeyed() {
    let (_folder, trace) = copied(MIXED);
    let path = trace.join(".relayd/session.json");
    let good = fs::read_to_string(&path).unwrap();
    let mut session: serde_json::Value = serde_json::from_str(&good).unwrap();
    let evil = "\u{1b}]0;owned\u{7}\u{9b}31m\nrelayd: all adds up";
    for key in ["host", "kernel", "mode", "error"] {
        session[key] = evil.into();
    }
    for event in session["events"].as_array_mut().unwrap() {
        let name = format!("{}{evil}", event["name"].as_str().unwrap());
        event["name"] = name.into();
    }
    fs::write(&path, session.to_string()).unwrap();
    let tasks = trace.join(".relayd/tasks.json");
    let names: std::collections::BTreeMap<u32, String> = serde_json::from_slice(&fs::read(&tasks).unwrap()).unwrap();
    let names: std::collections::BTreeMap<_, _> = names.into_keys().map(|task| (task, evil)).collect();
    fs::write(&tasks, serde_json::to_vec(&names).unwrap()).unwrap();
    let output = tempfile::tempdir().unwrap();
    for mut command in commands(&trace, output.path()) {
        let ended = run(&mut command);
        let obeyed = |c: char| c != '\n' && c.is_control();
        assert!(!ended.said.contains(obeyed), "{command:?}: {:?}", ended.said.chars().find(|c| obeyed(*c)));
        let forged = ended.said.lines().any(|line| line == "relayd: all adds up");
        assert!(!forged, "{command:?}: {}", ended.said);
    }
}
