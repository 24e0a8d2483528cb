//! What readers print and exports write, to the letter.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use insta::assert_snapshot;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::Value;

use crate::{MIXED, TRACES, copied, relayd_on, said, succeed};

/// Fewer events, for what is long.
const SOME: [&str; 2] = ["-e", "sched:sched_switch,syscall:openat"];

#[test]
fn what_print_shows() {
    for trace in TRACES {
        assert_snapshot!(format!("{trace}.text"), said(&mut relayd_on("print", trace)));
        assert_snapshot!(format!("{trace}.json"), said(relayd_on("print", trace).arg("--json")));
    }
    for trace in [MIXED, "overwrite", "stacks"] {
        assert_snapshot!(format!("{trace}.csv"), said(relayd_on("print", trace).arg("--csv")));
    }
    let wall = ["--time", "wall", "--fields", "next_comm,filename,ret"];
    assert_snapshot!("mixed.wall", said(relayd_on("print", MIXED).args(SOME).args(wall)));
    let relative = ["--time", "relative", "--csv"];
    assert_snapshot!("mixed.relative", said(relayd_on("print", MIXED).args(SOME).args(relative)));
}

#[test]
fn what_stat_counts() {
    for trace in TRACES {
        let verbose = said(relayd_on("stat", trace).arg("--verbose"));
        let json: Value = serde_json::from_str(&succeed(relayd_on("stat", trace).arg("--json"))).unwrap();
        assert_snapshot!(format!("{trace}.stat"), format!("{verbose}\n{json:#}"));
    }
    let by = ["-e", "syscall:openat", "--hist", "duration_ns", "--by", "comm"];
    assert_snapshot!("mixed.hist", said(relayd_on("stat", MIXED).args(by)));
}

#[test]
fn what_verify_says() {
    assert_snapshot!("verify", TRACES.map(|trace| said(&mut relayd_on("verify", trace))).join("\n"));
}

#[test]
fn what_is_said_of_damage() {
    let (folder, path) = copied(MIXED);
    // In the second packet of a CPU, the first with records: the length of the first. Another CPU's file goes on with something else.
    let mut bytes = fs::read(path.join("cpu0")).unwrap();
    bytes[80 + 80 + 10] ^= 0x41;
    fs::write(path.join("cpu0"), bytes).unwrap();
    File::options().append(true).open(path.join("cpu1")).unwrap().write_all(b"more").unwrap();
    let here = |command: &str, more: &[&str]| {
        let mut relayd = relayd_on(command, "trace");
        said(relayd.current_dir(folder.path()).args(more))
    };
    let print = here("print", &["-e", "sched:sched_process_*"]);
    let (verify, repair) = (here("verify", &[]), here("repair", &["repaired"]));
    let mut again = relayd_on("verify", "repaired");
    let again = said(again.current_dir(folder.path()));
    let session = fs::read(folder.path().join("repaired/.relayd/session.json")).unwrap();
    let session: Value = serde_json::from_slice(&session).unwrap();
    let all = [print, verify, repair, again, session["repaired"].to_string()];
    assert_snapshot!("damage", all.join("\n\n"));
}

#[test]
fn what_exports_write() {
    assert_snapshot!("mixed.chrome", said(relayd_on("export", MIXED).args(SOME).args(["--to", "json", "-o", "-"])));
    assert_snapshot!("stacks.folded", said(relayd_on("export", "stacks").args(["--to", "folded", "-o", "-"])));
    for (trace, some) in [(MIXED, &SOME[..]), ("lossy", &["--cpu", "0"])] {
        let output = relayd_on("export", trace).args(some).args(["--to", "perfetto", "-o", "-"]).output().unwrap();
        assert!(output.status.success());
        let mut shown = String::new();
        show_message(&output.stdout, 0, &mut shown).unwrap();
        assert_snapshot!(format!("{trace}.perfetto"), shown);
    }
}

#[test]
fn what_parquet_files_hold() {
    let folder = tempfile::tempdir().unwrap();
    for trace in [MIXED, "stacks"] {
        let output = folder.path().join(trace);
        succeed(relayd_on("export", trace).args(["--to", "parquet", "-o"]).arg(&output));
        let mut files: Vec<_> = fs::read_dir(output).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let files: Vec<String> = files.iter().map(|file| rows(file)).collect();
        assert_snapshot!(format!("{trace}.parquet"), files.join("\n"));
    }
}

/// The rows of a Parquet file, as Parquet's own library reads them.
fn rows(path: &Path) -> String {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(|row| format!("{}\n", row.unwrap()));
    format!("{}\n{}", path.file_name().unwrap().display(), rows.collect::<String>())
}

/// Shows a message of Protocol Buffers as `protoc --decode_raw` does: a line a field, by number. `None` when it is not one.
pub(crate) fn show_message(mut bytes: &[u8], depth: usize, shown: &mut String) -> Option<()> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let line = match key & 7 {
            0 => varint(&mut bytes)?.to_string(),
            1 => u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?).to_string(),
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                let content = take(&mut bytes, len)?;
                let mut inside = String::new();
                match std::str::from_utf8(content) {
                    Ok(text) if !text.contains(|c: char| c.is_control()) => format!("{text:?}"),
                    _ if show_message(content, depth + 1, &mut inside).is_some() => {
                        format!("{{\n{inside}{:1$}}}", "", depth)
                    }
                    _ => format!("{content:?}"),
                }
            }
            5 => u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?).to_string(),
            _ => return None,
        };
        let _ = writeln!(shown, "{:2$}{}: {line}", "", key >> 3, depth);
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let len = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
    let bits = take(bytes, len)?.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some(bits)
}

fn take<'b>(bytes: &mut &'b [u8], len: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}
