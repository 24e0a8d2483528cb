//! What readers make of traces that are damaged, cut off, or none.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use crate::{MIXED, copied, fail, print, records, relayd_on, session, succeed, text, total, values};

#[test]
fn verify_finds_what_was_changed() {
    let (_folder, copy) = copied(MIXED);
    succeed(&mut relayd_on("verify", &copy));
    let account = copy.join(".relayd/session.json");
    let good = fs::read_to_string(&account).unwrap();
    let cpu0 = session(MIXED)["cpus"][0]["recorded"].as_u64().unwrap();
    let elsewhere = total(MIXED, &["recorded"]) - cpu0;
    let recorded = format!("\"recorded\": {cpu0}");
    assert!(good.contains(&recorded));
    fs::write(&account, good.replacen(&recorded, &format!("\"recorded\": {}", cpu0 + 1), 1)).unwrap();
    let said = fail(&mut relayd_on("verify", &copy));
    assert!(said.contains("records and the account says"), "{said}");
    assert!(said.contains("the programs ran"), "{said}");
    fs::write(&account, &good).unwrap();

    let path = copy.join("cpu0");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    // The packet's magic number, UUID, sizes, number and CPU; the first record's time, event and length.
    for offset in [0, 10, 40, 50, 56, 72, 80 + 80 + 7, 80 + 80 + 8, 80 + 80 + 10] {
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x41], offset).unwrap();
        let said = fail(&mut relayd_on("verify", &copy));
        assert!(said.contains("cpu0, byte "), "{offset}: {said}");
        let print = relayd_on("print", &copy).output().unwrap();
        // The packet's number is only missed by verify.
        if offset != 56 {
            assert_eq!(print.status.code(), Some(1), "{offset}");
            assert!(text(&print.stderr).contains("cpu0, byte "), "{offset}");
        }
        let shown = text(&print.stdout).lines().count() as u64;
        assert!(shown >= elsewhere, "{offset}: {shown} lines, and {elsewhere} records of other CPUs are sound");
        file.write_all_at(&byte, offset).unwrap();
    }
    succeed(&mut relayd_on("verify", &copy));
    fs::remove_file(&path).unwrap();
    let said = fail(&mut relayd_on("verify", &copy));
    assert!(said.contains("cpu0: it is missing"), "{said}");
}

#[test]
fn what_is_readable_is_read_and_the_rest_is_named() {
    let all = print(MIXED, &[]);
    let (_folder, copy) = copied(MIXED);
    let damaged = |file: &str, content: Option<&str>, expected: &str| {
        let path = copy.join(file);
        let good = fs::read(&path).unwrap();
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let print = relayd_on("print", &copy).arg("--json").output().unwrap();
        let said = text(&print.stderr);
        assert!(print.status.code() == Some(1) && said.contains(expected) && said.contains(file), "{file}: {said}");
        fs::write(&path, good).unwrap();
        text(&print.stdout).lines().count()
    };
    let of_cpu0 = all.iter().filter(|line| line["cpu"] == 0).count();
    assert!(of_cpu0 > 0);
    assert_eq!(damaged("cpu0", None, "bytes are missing"), all.len() - of_cpu0);
    assert_eq!(damaged("cpu0", Some(""), "byte 0: "), all.len() - of_cpu0);
    assert_eq!(damaged("cpu0", Some("no packet at all"), "byte 0: "), all.len() - of_cpu0);
    assert_eq!(damaged(".relayd/tasks.json", Some("{"), "EOF while parsing"), all.len());
    let session = fs::read_to_string(copy.join(".relayd/session.json")).unwrap();
    let switches = all.iter().filter(|line| line["event"] == "sched:sched_switch").count();
    let session = session.replacen("field:char prev_comm[16];", "field:char prev_comm[16", 1);
    assert_eq!(damaged(".relayd/session.json", Some(&session), "sched:sched_switch"), all.len() - switches);
}

#[test]
fn a_wrong_length_costs_no_other_packet() {
    let all = print(MIXED, &[]);
    let (_folder, copy) = copied(MIXED);
    let file = File::options().write(true).open(copy.join("cpu0")).unwrap();
    // Of the first packet, which has no records: into the next one, and past the file's end.
    for bytes in [1080u64, 16 << 20] {
        for offset in [40, 48] {
            file.write_all_at(&(bytes * 8).to_le_bytes(), offset).unwrap();
        }
        let print = relayd_on("print", &copy).arg("--json").output().unwrap();
        let said = text(&print.stderr);
        assert!(print.status.code() == Some(1) && said.contains("cpu0, byte 80: "), "{said}");
        assert_eq!(text(&print.stdout).lines().count(), all.len(), "{bytes}");
    }
}

#[test]
fn every_whole_record_is_saved_wherever_the_file_was_cut() {
    let (folder, copy) = copied(MIXED);
    let path = copy.join("cpu0");
    let whole = fs::read(&path).unwrap();
    let all = print(MIXED, &["--cpu", "0"]);
    let output = folder.path().join("repaired");
    let mut saved_before = 0;
    for part in 0..24 {
        // Near and far from packets' and records' ends.
        let cut = whole.len() * part / 24 + part * 7 % 13;
        fs::write(&path, &whole[..cut]).unwrap();
        succeed(relayd_on("repair", &copy).arg(&output));
        succeed(&mut relayd_on("verify", &output));
        let saved = values(&succeed(relayd_on("print", &output).args(["--json", "--cpu", "0"])));
        assert_eq!(records(&saved), records(&all)[..records(&saved).len()], "cut at {cut}");
        // No more is missing than what the cut has touched: a record, or a packet's header.
        assert!(saved.len() >= saved_before);
        saved_before = saved.len();
        let bytes = fs::read(output.join("cpu0")).unwrap().len();
        assert!(bytes + LONGEST > cut, "cut at {cut}, {bytes} bytes saved");
        fs::remove_dir_all(&output).unwrap();
    }
    assert!(saved_before > records(&all).len() * 8 / 10);
}

/// No record of the trace has more bytes.
const LONGEST: usize = 300;

#[test]
fn what_is_no_trace_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let commands: [&[&str]; 5] =
        [&["print"], &["stat"], &["verify"], &["repair"], &["export", "--to", "json", "-o", "-"]];
    let refused = |path: &Path, expected: &str| {
        for command in commands {
            let output = path.with_extension("out");
            let more = if command == ["repair"] { vec![output.as_path()] } else { Vec::new() };
            let said = fail(relayd_on(command[0], path).args(more).args(&command[1..]));
            assert!(said.contains(expected) && said.contains(path.to_str().unwrap()), "{command:?}: {said}");
        }
    };
    refused(&path.join("nowhere"), "opening the trace");
    refused(path, "is not a trace of relayd");
    let file = path.join("file");
    fs::write(&file, "x").unwrap();
    refused(&file, "is not a trace of relayd");
    let empty = path.join("empty");
    fs::create_dir_all(empty.join(".relayd")).unwrap();
    refused(&empty, "session.json");
    for (session, expected) in [
        ("", "damaged"),
        ("{}", "damaged"),
        ("[1, 2", "damaged"),
        (r#"{"format": 2, "version": "9.9"}"#, "use a newer one"),
    ] {
        fs::write(empty.join(".relayd/session.json"), session).unwrap();
        refused(&empty, expected);
    }
}
