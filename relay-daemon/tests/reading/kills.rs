//! Commands that are killed at any moment while they make something: what was there is there, or what is new, and never a half.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{MIXED, copied, print, relayd_on, repeats, succeed, text};

/// Kills at moments from the beginning to about the end.
const KILLS: u32 = 50;

/// What is in a folder that no command was to leave there.
fn left_in(folder: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".relayd-")).collect()
}

/// Runs a command that makes something in a folder and sends it a signal, again and again: after a longer and longer part of the time that it takes,
/// and of that in which it makes something. Returns how often it was ended by that, and not by itself. `check` looks at what is there after
/// each, and is told whether the command came to its end.
fn kill(command: impl Fn() -> Command, folder: &Path, signal: Signal, mut check: impl FnMut(bool)) -> u32 {
    let names = || fs::read_dir(folder).unwrap().count();
    let begin = Instant::now();
    succeed(&mut command());
    let whole = begin.elapsed();
    check(true);
    let (kills, mut killed) = (repeats(KILLS), 0);
    for round in 0..kills {
        let before = names();
        let mut child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut span = whole;
        if round % 2 == 1 {
            while names() == before && child.try_wait().unwrap().is_none() {}
            span = whole / 10;
        }
        thread::sleep(span * round / kills);
        if child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        let done = child.wait().unwrap().success();
        killed += u32::from(!done);
        check(done);
    }
    killed
}

/// An export to one place, of a trace that is given so often that it takes a while.
fn export(form: &str, place: &Path) -> Command {
    let mut relayd = relayd_on("export", MIXED);
    relayd.args([MIXED; 39]).args(["--to", form, "--force", "-o"]).arg(place);
    relayd
}

/// The bytes of a file, or of all files in a directory.
fn content(place: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    if place.is_file() {
        return vec![(place.to_path_buf(), fs::read(place).unwrap())];
    }
    let mut files: Vec<_> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(&file).unwrap())).collect()
}

#[test]
fn an_export_is_what_was_there_or_what_is_new() {
    for form in ["json", "parquet"] {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("out");
        succeed(&mut export(form, &place));
        let new = content(&place);
        let make_old = || {
            if place.is_dir() {
                fs::remove_dir_all(&place).unwrap();
                fs::create_dir(&place).unwrap();
                fs::write(place.join("old.parquet"), "old").unwrap();
            } else {
                fs::write(&place, "old").unwrap();
            }
            content(&place)
        };
        let old = make_old();
        let killed = kill(
            || export(form, &place),
            root.path(),
            Signal::KILL,
            |done| {
                let there = content(&place);
                assert!(there == new || (there == old && !done), "{form}: {} files", there.len());
                make_old();
            },
        );
        assert!(killed > 0, "each was quicker than its signal");
        // What is left behind is said.
        let output = export(form, &place).output().unwrap();
        assert!(output.status.success());
        for left in left_in(root.path()) {
            let named = format!("{} was left by a relayd that was killed", left.display());
            assert!(text(&output.stderr).contains(&named), "{}", text(&output.stderr));
        }
    }
}

#[test]
fn what_is_interrupted_leaves_nothing() {
    for form in ["perfetto", "parquet"] {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("out");
        let begun = || {
            let begin = Instant::now();
            while left_in(root.path()).is_empty() && begin.elapsed() < Duration::from_secs(5) {
                thread::yield_now();
            }
        };
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let mut child = export(form, &place).stderr(Stdio::piped()).spawn().unwrap();
            begun();
            kill_process(Pid::from_child(&child), signal).unwrap();
            let status = child.wait().unwrap();
            assert!(status.success() || status.code() == Some(128 + signal.as_raw()), "{signal:?}: {status}");
            assert_eq!(left_in(root.path()), Vec::<PathBuf>::new(), "{form}, {signal:?}");
        }
        kill(
            || export(form, &place),
            root.path(),
            Signal::INT,
            |_| assert_eq!(left_in(root.path()), Vec::<PathBuf>::new()),
        );
    }
}

#[test]
fn a_repaired_trace_is_whole_or_not_there() {
    let (root, damaged) = copied(MIXED);
    // Large, so that it takes a while: names of threads are copied.
    let tasks = damaged.join(".relayd/tasks.json");
    let names: std::collections::BTreeMap<u32, String> =
        (1..300_000).map(|tid| (tid, format!("thread {tid}"))).collect();
    fs::write(&tasks, serde_json::to_vec(&names).unwrap()).unwrap();
    let whole = print(MIXED, &[]).len();
    let output = root.path().join("repaired");
    let repair = || {
        let mut relayd = relayd_on("repair", &damaged);
        relayd.arg(&output);
        relayd
    };
    let killed = kill(repair, root.path(), Signal::KILL, |done| {
        assert!(output.exists() || !done);
        if output.exists() {
            succeed(&mut relayd_on("verify", &output));
            assert_eq!(fs::read(output.join(".relayd/tasks.json")).unwrap(), fs::read(&tasks).unwrap());
            assert_eq!(print(&output, &[]).len(), whole);
            fs::remove_dir_all(&output).unwrap();
        }
    });
    assert!(killed > 0, "each was quicker than its signal");
}
