//! Every tracepoint of the machine.

use std::{fs, process::Command};

use relay_channel::machine;
use relay_daemon::{host, probe::tracepoint::Catalogue};
use relay_tests::{
    Recording,
    machine::{count_loaded, links_of},
    repeats, succeed, text, wait_until,
};
use relay_trace::{
    form::{clock::Instant, metadata, session::SessionFile},
    read::print_format::PrintFormat,
};

pub(crate) fn babeltrace2_accepts_the_metadata_of_every_tracepoint() {
    let catalogue = Catalogue::read(&machine::tracefs().unwrap()).unwrap();
    let events = catalogue.select(&["*:*".to_owned()]).unwrap();
    assert!(events.len() > 500, "{} tracepoints", events.len());
    let session = serde_json::json!({
        "version": "0", "uuid": metadata::uuid_text(host::new_uuid().unwrap()), "host": "host \"quoted\" \\ ", "kernel": "6.1",
        "boot_id": host::boot_id().unwrap(), "command": [], "mode": "overwrite", "subbuf_size": 4096, "n_subbufs": 2,
        "clock": {"start": Instant::now(), "end": null}, "events": [], "cpus": [], "programs": [], "kprobes_missed": null
    });
    let session = SessionFile::parse(session.to_string().as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let described = (0..).zip(&events).map(|(id, event)| (id, event.name.as_str(), &event.format.fields[..]));
    fs::write(folder.path().join("metadata"), metadata::write(&session, described)).unwrap();
    // The details of a trace without streams: the classes of all events.
    let mut babeltrace = Command::new("babeltrace2");
    let output = succeed(babeltrace.args(["--component=sink.text.details"]).arg(folder.path()));
    assert_eq!(text(&output.stderr), "");
}

/// Where only a tenth of the work is wanted, these are another tenth of the tracepoints at each run: to detach one takes the kernel 75 ms.
pub(crate) fn every_tracepoint_that_can_be_attached_is_and_is_detached() {
    let catalogue = Catalogue::read(&machine::tracefs().unwrap()).unwrap();
    let step = (10 / repeats(10)) as usize;
    let first = std::process::id() as usize % step;
    let names: Vec<&str> = catalogue.names().iter().map(String::as_str).skip(first).step_by(step).collect();
    println!("every {step}. of {} tracepoints, from number {first} on", catalogue.names().len());
    let selected = if step == 1 { "*:*".to_owned() } else { names.join(",") };
    // Large buffers: among these events are some that happen at every page fault and every memory allocation.
    let recording = Recording::start(&["-e", &selected, "-b", "1M", "-n", "16", "--bpf-stats"]);
    let links = links_of(recording.relayd.pid());
    succeed(&mut Command::new("true"));
    let trace = recording.stop();
    let (attached, total) = (trace.session["events"].as_array().unwrap().len(), names.len());
    println!("{attached} of {total} tracepoints attached");
    assert!(attached * 100 >= total * 95, "only {attached} of {total} tracepoints could be attached");
    // System calls are attached to together.
    let own = trace.session["events"].as_array().unwrap().iter();
    let own = own.filter(|event| !event["name"].as_str().unwrap().starts_with("syscalls:")).count();
    assert!(links.len() >= own, "{} links", links.len());
    trace.adds_up();
    assert_eq!(trace.babeltrace().len() as u64, trace.total("recorded"), "{}", trace.summary);
    wait_until("no link stays behind", || count_loaded(&links) == 0);
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
