//! Every tracepoint of the machine.

use std::{fs, process::Command};

use aya::programs::loaded_links;
use relay_daemon::{
    machine::{self, Instant},
    reading::print_format::PrintFormat,
    tracer::{events::Catalogue, metadata, session::Session},
};
use relay_tests::{record, succeed, text};

pub(crate) fn babeltrace2_accepts_the_metadata_of_every_tracepoint() {
    let catalogue = Catalogue::read(&machine::tracefs().unwrap()).unwrap();
    let events = catalogue.select(&["*:*".to_owned()]).unwrap();
    assert!(events.len() > 500, "{} tracepoints", events.len());
    let session = serde_json::json!({
        "version": "0", "uuid": metadata::uuid_text(machine::new_uuid().unwrap()), "host": "host \"quoted\" \\ ", "kernel": "6.1",
        "boot_id": machine::boot_id().unwrap(), "command": [], "mode": "overwrite", "subbuf_size": 4096, "n_subbufs": 2,
        "clock": {"start": Instant::now(), "end": null}, "events": [], "cpus": [], "programs": [], "kprobes_missed": null
    });
    let session = Session::parse(session.to_string().as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let described = (0..).zip(&events).map(|(id, event)| (id, event.name.as_str(), &event.format.fields[..]));
    fs::write(folder.path().join("metadata"), metadata::write(&session, described)).unwrap();
    // The details of a trace without streams: the classes of all events.
    let mut babeltrace = Command::new("babeltrace2");
    let output = succeed(babeltrace.args(["--component=sink.text.details"]).arg(folder.path()));
    assert_eq!(text(&output.stderr), "");
}

pub(crate) fn every_tracepoint_that_can_be_attached_is_and_is_detached() {
    let links = || loaded_links().filter(Result::is_ok).count();
    let before = links();
    let catalogue = Catalogue::read(&machine::tracefs().unwrap()).unwrap();
    // Large buffers: among these events are some that happen at every page fault and every memory allocation.
    let trace = record(&["-e", "*:*", "-b", "1M", "-n", "16", "--bpf-stats", "--", "true"]);
    let attached = trace.session["events"].as_array().unwrap().len();
    let total = catalogue.names().len();
    println!("{attached} of {total} tracepoints attached");
    assert!(attached * 100 >= total * 95, "only {attached} of {total} tracepoints could be attached");
    assert_eq!(
        trace.runs(),
        trace.total("recorded") + trace.total("filtered") + trace.total("lost"),
        "{}",
        trace.summary
    );
    assert_eq!(trace.babeltrace().len() as u64, trace.total("recorded"), "{}", trace.summary);
    assert_eq!(links(), before, "links stay behind");
}

pub(crate) fn most_words_of_print_formats_are_known() {
    let catalogue = Catalogue::read(&machine::tracefs().unwrap()).unwrap();
    let (mut with_tables, mut known) = (0, 0);
    for event in catalogue.select(&["*:*".to_owned()]).unwrap() {
        if event.text.contains("__print_symbolic") || event.text.contains("__print_flags") {
            with_tables += 1;
            known += usize::from(PrintFormat::parse(&event.text, &event.format.fields).has_words());
        }
    }
    println!("{known} of {with_tables} tracepoints with tables of words");
    assert!(with_tables > 50 && known * 10 >= with_tables * 9, "only {known} of {with_tables}");
}
