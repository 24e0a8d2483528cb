//! A trace whose files hold anything: what is sound is shown, the rest is named, and a repaired trace is sound.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use relay_fuzz::{SESSION, check_repair, folder, show};
use relay_trace::read::trace::Trace;

fuzz_target!(|bytes: &[u8]| {
    let (path, repaired) = (folder().join("trace"), folder().join("repaired"));
    fs::create_dir_all(path.join(".relayd")).expect("a folder");
    fs::write(path.join(".relayd/session.json"), SESSION).expect("a session");
    // The first byte says where the second CPU's file begins.
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let (first, second) = bytes.split_at(bytes.len() * usize::from(*cut) / 256);
    fs::write(path.join("cpu0"), second).expect("a file");
    fs::write(path.join("cpu1"), first).expect("a file");
    let traces = [Trace::open(&path, &mut |_, _| ()).expect("the session is sound")];
    let records = show(&traces, |_| ());
    check_repair(&traces[0], &repaired, records);
    fs::remove_dir_all(&repaired).expect("it was made");
});
