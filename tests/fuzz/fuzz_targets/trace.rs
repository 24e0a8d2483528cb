//! A trace whose files hold anything: what is sound is shown, the rest is named, and a repaired trace is sound.
#![no_main]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libfuzzer_sys::fuzz_target;
use relay_trace::{
    read::{
        choice::Choice,
        repair,
        slices::{Slicer, Window},
        trace::Trace,
        verify,
    },
    show::{
        json::JsonWriter,
        text::{Style, TextWriter, TimeForm},
        time::{WallClock, zone},
    },
};

/// The session that the corpus is of.
const SESSION: &[u8] = include_bytes!("../session.json");

/// A directory in memory where there is one, made once.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let folder = parent.join(format!("relay-fuzz-{}", std::process::id()));
        fs::create_dir_all(folder.join("trace/.relayd")).expect("a folder");
        fs::write(folder.join("trace/.relayd/session.json"), SESSION).expect("a session");
        folder
    })
}

fuzz_target!(|bytes: &[u8]| {
    let (path, repaired) = (folder().join("trace"), folder().join("repaired"));
    // The first byte says where the second CPU's file begins.
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let (first, second) = bytes.split_at(bytes.len() * usize::from(*cut) / 256);
    fs::write(path.join("cpu0"), second).expect("a file");
    fs::write(path.join("cpu1"), first).expect("a file");
    let traces = [Trace::open(&path, &mut |_, _| ()).expect("the session is sound")];
    let choice = Choice::new(&traces, &[], &[]).expect("everything");
    let wall = WallClock::new(&traces, zone().expect("a time zone"));
    let style = Style { time: TimeForm::Monotonic, wall, colours: false, fields: Vec::new() };
    let mut slicer = Slicer::new(&traces, |_| true, Window::default()).expect("the files are there");
    let (mut text, mut json) = (TextWriter::new(&traces, &style), JsonWriter::new(&traces, &style));
    let mut records = 0;
    while let Some(slice) = slicer.next(u64::MAX).expect("the files can be read") {
        choice.show(&slice, &traces, |item, names| {
            let (mut line, mut object) = (Vec::new(), Vec::new());
            text.write(&item, names, &mut line);
            json.write(&item, names, &mut object);
            assert!(line.ends_with(b"\n") && object.ends_with(b"}\n"));
            records += u64::from(object.windows(8).any(|part| part == b"\"event\":"));
        });
    }
    let saved = repair::repair(&traces[0], &repaired, |_| ()).expect("there is room");
    assert_eq!(saved.records, records);
    let trace = Trace::open(&repaired, &mut |_, _| ()).expect("a trace");
    let report = verify::verify(&trace, |_| ()).expect("the files can be read");
    let walked: u64 = report.cpus.values().map(|cpu| cpu.records).sum();
    assert_eq!(walked, records);
    fs::remove_dir_all(&repaired).expect("it was made");
});
