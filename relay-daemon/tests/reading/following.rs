//! Traces that are being recorded, followed: a recorded one is given out piece by piece, as a recorder does it.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;

use crate::{copied, number, print, relayd_on, said as said_by, text, values};

/// Of the trace whose CPU 0 has the most packets.
const TRACE: &str = "lossy";
/// Where a packet's header has its size, in bits.
const PACKET_SIZE: usize = 48;
/// Nobody waits longer.
const LONGEST: Duration = Duration::from_secs(10);

/// A trace that is being recorded.
struct Recorder {
    path: PathBuf,
    /// Held for as long as it is.
    lock: File,
    session: Value,
    pieces: u64,
    /// The packets of CPU 0 that are still to come.
    packets: Vec<Vec<u8>>,
    _folder: tempfile::TempDir,
}

impl Recorder {
    /// Begins with the first packet of CPU 0, and all of the others.
    fn start(trace: &str) -> Self {
        let (folder, path) = copied(trace);
        let mut packets = packets(&fs::read(path.join("cpu0")).unwrap());
        fs::write(path.join("cpu0"), packets.remove(0)).unwrap();
        let session: Value = serde_json::from_slice(&fs::read(path.join(".relayd/session.json")).unwrap()).unwrap();
        let mut begun = session.clone();
        begun["boot_id"] = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().into();
        begun["clock"]["end"] = Value::Null;
        begun["cpus"] = Value::Array(Vec::new());
        fs::write(path.join(".relayd/session.json"), begun.to_string()).unwrap();
        let lock = File::open(path.join(".relayd")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        Self { path, lock, session, pieces: 0, packets, _folder: folder }
    }

    fn piece(&self, number: u64) -> PathBuf {
        self.path.with_file_name(format!("trace-piece-{number:06}"))
    }

    /// Ends a piece, and goes on with the next packet in a new file.
    fn rotate(&mut self) {
        self.pieces += 1;
        let piece = self.piece(self.pieces);
        fs::create_dir(&piece).unwrap();
        fs::rename(self.path.join("cpu0"), piece.join("cpu0")).unwrap();
        fs::write(self.path.join("cpu0"), self.packets.remove(0)).unwrap();
    }

    /// Ends in order, with an account of what is in the last file.
    fn end(mut self) -> tempfile::TempDir {
        self.session["pieces"] = self.pieces.into();
        for cpu in self.session["cpus"].as_array_mut().unwrap() {
            cpu["bytes"] = 0.into();
        }
        fs::write(self.path.join(".relayd/session.json"), self.session.to_string()).unwrap();
        drop(self.lock);
        self._folder
    }
}

/// The packets of a file.
fn packets(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut packets, mut rest) = (Vec::new(), file);
    while !rest.is_empty() {
        let bits = u64::from_le_bytes(rest[PACKET_SIZE..PACKET_SIZE + 8].try_into().unwrap());
        let (packet, others) = rest.split_at(usize::try_from(bits / 8).unwrap());
        packets.push(packet.to_vec());
        rest = others;
    }
    packets
}

/// A `relayd print -f` that has opened the files.
fn follow(path: &Path) -> Child {
    let mut relayd = relayd_on("print", path);
    let child = relayd.args(["--json", "-f"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    let is_open = || {
        let files = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file == path.join("cpu0"))
    };
    while !is_open() {
        assert!(begin.elapsed() < LONGEST, "cpu0 was not opened");
        sleep(Duration::from_millis(1));
    }
    child
}

/// What it has printed and said at its end, and its status.
fn end_of(mut child: Child) -> (Vec<Value>, String, Option<i32>) {
    fn all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
        thread::spawn(move || {
            let mut read = Vec::new();
            from.read_to_end(&mut read).unwrap();
            text(&read)
        })
    }
    let (out, errors) = (all(child.stdout.take().unwrap()), all(child.stderr.take().unwrap()));
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if begin.elapsed() > LONGEST {
            child.kill().unwrap();
        }
        sleep(Duration::from_millis(5));
    };
    (values(&out.join().unwrap()), errors.join().unwrap(), status)
}

#[test]
fn a_trace_is_followed_from_piece_to_piece() {
    let mut recorder = Recorder::start(TRACE);
    assert!(recorder.packets.len() > 3, "{} packets are too few", recorder.packets.len());
    let child = follow(&recorder.path);
    // At once, so that several pieces have ended when the reader looks; then one by one.
    recorder.rotate();
    recorder.rotate();
    while !recorder.packets.is_empty() {
        sleep(Duration::from_millis(150));
        recorder.rotate();
    }
    let _folder = recorder.end();
    let (followed, said, status) = end_of(child);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    assert_eq!(followed, print(TRACE, &[]));
}

#[test]
fn a_piece_that_is_removed_before_it_was_read_is_told() {
    let mut recorder = Recorder::start(TRACE);
    let (before, child) = (recorder.packets.len(), follow(&recorder.path));
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    while !recorder.packets.is_empty() {
        recorder.rotate();
    }
    fs::remove_dir_all(recorder.piece(2)).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    let _folder = recorder.end();
    let (followed, said, status) = end_of(child);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("cpu0, byte 0: 1 packets before it could not be followed"), "{said}");
    let all = print(TRACE, &[]);
    assert!(before > 2 && followed.len() < all.len() && followed.len() > all.len() / 2, "{}", followed.len());
}

#[test]
fn a_thread_that_lives_is_named_before_the_recorder_names_it() {
    let recorder = Recorder::start("calls");
    let record = print("calls", &[]).into_iter().find(|line| line["tid"] == line["pid"]).unwrap();
    let task = |id: u32| [id.to_le_bytes(), id.to_le_bytes()].concat();
    let (theirs, ours) = (task(u32::try_from(number(&record, "tid")).unwrap()), task(std::process::id()));
    for file in ["cpu0", "cpu1"] {
        let mut bytes = fs::read(recorder.path.join(file)).unwrap();
        for at in 0..bytes.len() - theirs.len() {
            if bytes[at..].starts_with(&theirs) {
                bytes[at..at + ours.len()].copy_from_slice(&ours);
            }
        }
        fs::write(recorder.path.join(file), bytes).unwrap();
    }
    let child = follow(&recorder.path);
    let _folder = recorder.end();
    let (followed, said, _) = end_of(child);
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let of_ours: Vec<_> = followed.iter().filter(|line| line["tid"] == std::process::id()).collect();
    assert!(!of_ours.is_empty() && of_ours.iter().all(|line| line["comm"] == name.trim()), "{said}{of_ours:?}");
}

#[test]
fn before_the_end_is_before_now_while_a_trace_is_recorded() {
    let recorder = Recorder::start(TRACE);
    let mut relayd = relayd_on("print", &recorder.path);
    let said = said_by(relayd.args(["--since", "-1s"]));
    assert!(said.contains("the recording goes on") && !said.contains("end is not known"), "{said}");
    let Recorder { path, lock, .. } = &recorder;
    flock(lock, FlockOperation::Unlock).unwrap();
    let said = said_by(relayd_on("print", path).args(["--since", "-1s"]));
    assert!(said.contains("end is not known") && said.ends_with("status 2"), "{said}");
}
