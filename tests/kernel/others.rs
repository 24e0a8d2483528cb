//! What somebody else does to a trace while it is recorded: it is not replaced, it is followed, and what is missing is noticed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use relay_tests::{Ended, Running, fail, relayd, session, succeed, text, verify, wait_until_it_records};
use rustix::process::Signal;

/// A recorder of a trace in a folder, which has written something.
fn recorder(path: &Path, arguments: &[&str]) -> Running {
    let mut command = relayd();
    command
        .args(["trace", "-q", "-b", "4K", "-e", "raw_syscalls:*,sched:sched_switch", "-o"])
        .arg(path)
        .args(arguments);
    let mut recorder = Running::start(&mut command);
    wait_until_it_records(path);
    recorder
        .wait_until("records are in a file", |_| fs::metadata(path.join("cpu0")).is_ok_and(|file| file.len() > 4096));
    recorder
}

/// No session is left of a trace.
fn nothing_is_left(uuid: &str) {
    let said = text(&succeed(relayd().args(["status", "--json"])).stdout);
    assert!(!said.contains(uuid), "{said}");
}

fn uuid(path: &Path) -> String {
    session(path)["uuid"].as_str().unwrap().to_owned()
}

pub(crate) fn a_trace_that_is_recorded_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let first = recorder(&path, &[]);
    let uuid = uuid(&path);
    let said = fail(relayd().args(["trace", "--force", "-e", "sched:*", "-d", "100ms", "-o"]).arg(&path), 1);
    let process = format!("process {}", first.pid());
    assert!(said.contains("is being recorded") && said.contains(&process) && said.contains(&uuid), "{said}");
    let said = fail(relayd().arg("recover").arg(&path), 1);
    assert!(said.contains("its recorder lives"), "{said}");
    first.signal(Signal::INT);
    let ended = first.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    verify(&path);
    // Then it may be.
    succeed(relayd().args(["trace", "-q", "--force", "-e", "sched:*", "-d", "100ms", "-o"]).arg(&path));
    verify(&path);
}

pub(crate) fn a_directory_that_is_renamed_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("trace"), folder.path().join("moved"));
    let mut recorder = recorder(&path, &["--rotate-time", "200ms"]);
    fs::rename(&path, &moved).unwrap();
    let piece = |number: u32| folder.path().join(format!("moved-piece-{number:06}"));
    // One may have been under way.
    let number = || (1..100).filter(|number| piece(*number).join("cpu0").exists()).count();
    recorder.wait_until("pieces are made beside its new place", |_| number() >= 2);
    recorder.signal(Signal::INT);
    let ended = recorder.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!path.exists(), "the old place is used again");
    let mut traces: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    traces.sort();
    assert!(traces.contains(&moved), "{traces:?}");
    traces.iter().for_each(|trace| verify(trace));
}

/// Damages a trace that is being recorded; returns how its recorder has ended, and the session's UUID.
fn damaged(damage: impl Fn(&Path)) -> (Ended, tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let recorder = recorder(&path, &[]);
    let uuid = uuid(&path);
    damage(&path);
    let begin = Instant::now();
    let ended = recorder.end();
    println!("noticed and ended after {:?}", begin.elapsed());
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    (ended, folder, uuid)
}

pub(crate) fn what_is_removed_ends_the_recording() {
    let (ended, _folder, uuid) = damaged(|path| fs::remove_file(path.join("cpu0")).unwrap());
    let is_said = |said: &str| said.contains("cpu0") && said.contains("was removed by somebody else");
    assert!(is_said(&ended.stderr), "{}", ended.stderr);
    nothing_is_left(&uuid);
    let (ended, _folder, uuid) = damaged(|path| fs::remove_dir_all(path).unwrap());
    assert!(ended.stderr.contains("removed by somebody else"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("relayd recover"), "{}", ended.stderr);
    nothing_is_left(&uuid);
}

pub(crate) fn what_is_cut_off_ends_the_recording() {
    let cut = |path: &Path| fs::File::options().write(true).open(path.join("cpu0")).unwrap().set_len(100).unwrap();
    let (ended, folder, uuid) = damaged(cut);
    let is_said = |said: &str| said.contains("changed by somebody else") || said.contains("cut off by somebody else");
    assert!(is_said(&ended.stderr), "{}", ended.stderr);
    nothing_is_left(&uuid);
    fail(relayd().arg("verify").arg(folder.path().join("trace")), 1);
}

pub(crate) fn a_limit_of_files_ends_the_recording_as_a_full_disk_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    // In blocks of 1024 bytes, as bash has it; what it runs has the signal's own effect again.
    let relayd = relayd();
    let script = "ulimit -f 64; exec \"$0\" trace -q -b 4K -e raw_syscalls:sys_enter -o \"$1\" -- sh -c 'while :; do :; done < /dev/null'";
    let mut limited = std::process::Command::new("bash");
    limited.args(["-c", script]).arg(relayd.get_program()).arg(&path);
    let busy = relay_tests::channel::Numbers::start(&[0], std::time::Duration::from_micros(10));
    let said = fail(&mut limited, 1);
    busy.stop();
    assert!(said.contains("File too large"), "{said}");
    let uuid = uuid(&path);
    nothing_is_left(&uuid);
    assert!(session(&path)["error"].as_str().unwrap().contains("File too large"));
    assert!(fs::metadata(path.join("cpu0")).unwrap().len() <= 64 << 10);
}

pub(crate) fn following_ends_when_the_recorder_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let recorder = recorder(&path, &[]);
    let mut printing = Running::start(relayd().args(["print", "-f"]).arg(&path));
    printing.wait_until("something is shown", |printing| !printing.printed().is_empty());
    recorder.signal(Signal::KILL);
    let ended = printing.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("its recorder was killed; relayd recover"), "{}", ended.stderr);
    drop(recorder);
    succeed(relayd().args(["recover", "-q"]).arg(&path));
    verify(&path);
}
