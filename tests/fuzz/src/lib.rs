//! What fuzz targets of whole traces share: a folder in memory, and everything that is done with a trace.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use relay_trace::{
    read::{
        filter::Filter,
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

/// The session that the corpora are of.
pub const SESSION: &[u8] = include_bytes!("../session.json");

/// A folder of this process, in memory where there is one, made once.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let folder = parent.join(format!("relay-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    })
}

/// Shows all records as text and JSON, each a line, to `seen`; returns how many there were.
pub fn show(traces: &[Trace], seen: impl Fn(&[u8])) -> u64 {
    let filter = Filter::new(traces, &[], &[]).expect("everything");
    let wall = WallClock::new(traces, zone().expect("a time zone"));
    let style = Style { time: TimeForm::Monotonic, wall, colours: false, fields: Vec::new() };
    let mut slicer = Slicer::new(traces, |_| true, Window::default()).expect("the files are there");
    let (mut text, mut json) = (TextWriter::new(traces, &style), JsonWriter::new(traces, &style));
    let mut records = 0;
    while let Some(slice) = slicer.next(u64::MAX).expect("the files can be read") {
        filter.show(&slice, traces, |item, names| {
            let (mut line, mut object) = (Vec::new(), Vec::new());
            text.write(&item, names, &mut line);
            json.write(&item, names, &mut object);
            assert!(line.ends_with(b"\n") && object.ends_with(b"}\n"));
            seen(&line);
            seen(&object);
            records += u64::from(object.windows(8).any(|part| part == b"\"event\":"));
        });
    }
    records
}

/// Repairs a trace that has so many records into `repaired`, which is sound then.
pub fn check_repair(trace: &Trace, repaired: &Path, records: u64) {
    let saved = repair::repair(trace, repaired, |_| ()).expect("there is room");
    assert_eq!(saved.records, records);
    let trace = Trace::open(repaired, &mut |_, _| ()).expect("a trace");
    let report = verify::verify(&trace, |_| ()).expect("the files can be read");
    let walked: u64 = report.cpus.values().map(|cpu| cpu.records).sum();
    assert_eq!(walked, records);
}
