//! Traces in pieces: each whole, nothing lost and nothing twice between them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use relay_channel::machine;
use relay_tests::{
    babeltrace,
    channel::{Numbers, numbers_condition},
    fail, relayd, repeats, session, session_file, succeed, text, total,
    trace::numbers,
    verify, wait_until_it_records,
};

use crate::cli::SmallDisk;

/// Of the load, after a hundred calls: some megabytes a second are recorded.
const PAUSE: Duration = Duration::from_millis(1);

fn record(path: &Path, arguments: &[&str]) -> Command {
    let event = format!("raw_syscalls:sys_enter if {}", numbers_condition());
    let mut command = relayd();
    command.args(["trace", "-q", "--bpf-stats", "-e", &event]).args(arguments).arg("-o").arg(path);
    command
}

/// The pieces of a trace, the oldest first, and what is newest.
fn pieces(path: &Path) -> Vec<PathBuf> {
    let name = format!("{}-piece-", path.file_name().unwrap().to_str().unwrap());
    let siblings = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mut pieces: Vec<PathBuf> = siblings
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&name) && path.is_dir())
        .collect();
    pieces.sort();
    pieces.push(path.to_path_buf());
    pieces
}

/// Every piece adds up by itself, and together they have every number once.
fn check(pieces: &[PathBuf]) -> u64 {
    let mut last = std::collections::BTreeMap::new();
    let mut records = 0;
    for piece in pieces {
        verify(piece);
        let session = session(piece);
        assert_eq!(total(&session, "lost_full") + total(&session, "lost_nested"), 0, "{session}");
        for (tid, numbers) in numbers(piece) {
            assert!(
                numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                "a gap, or a number twice, in {}",
                piece.display()
            );
            if let Some(last) = last.insert(tid, numbers[numbers.len() - 1]) {
                assert_eq!(last + 1, numbers[0], "before {}", piece.display());
            }
            records += numbers.len() as u64;
        }
        assert!(babeltrace(piece).len() as u64 >= total(&session, "recorded"), "{}", piece.display());
    }
    records
}

pub(crate) fn pieces_are_whole_traces_and_lose_nothing_between_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let load = Numbers::start(&machine::online_cpus().unwrap(), PAUSE);
    succeed(&mut record(&path, &["--rotate-size", "1M", "-d", "3s"]));
    let by_size = pieces(&path);
    assert!(by_size.len() > 5, "{by_size:?}");
    assert!(check(&by_size) > 10_000);
    for piece in &by_size[..by_size.len() - 1] {
        let bytes = total(&session(piece), "bytes");
        assert!((1 << 20..20 << 20).contains(&bytes), "{} has {bytes} bytes", piece.display());
    }
    // Alone, none shows what the others have as missing.
    for piece in &by_size {
        let shown = text(&succeed(relayd().arg("print").arg(piece)).stdout);
        let missing = shown.lines().find(|line| line.contains(" OVERRUN ") || line.contains(" LOST "));
        assert_eq!(missing, None, "{}", piece.display());
    }
    // All together, for whoever reads them so.
    let together = succeed(Command::new("babeltrace2").args(&by_size));
    let apart: u64 = by_size.iter().map(|piece| total(&session(piece), "recorded")).sum();
    assert_eq!(text(&together.stdout).lines().count() as u64, apart);
    let other = folder.path().join("other");
    // As a shell completes it: with a slash.
    succeed(&mut record(&other.join(""), &["--rotate-time", "500ms", "--keep", "2", "-d", "2800ms"]));
    let by_time = pieces(&other);
    assert_eq!(by_time.len(), 3, "{by_time:?}");
    assert!(!by_time[0].ends_with("other-piece-000001"), "{by_time:?}");
    check(&by_time);
    load.stop();
}

/// Of a recording that removes its oldest pieces: those that are there are whole, and all are accounted for.
fn check_removed(path: &Path) -> u64 {
    check(&pieces(path));
    removed_and_there(path)
}

/// How many pieces were removed; those and what is there are all that was recorded.
fn removed_and_there(path: &Path) -> u64 {
    let (all, session) = (pieces(path), session(path));
    let (ended, removed) = (session["pieces"].as_u64().unwrap(), session["pieces_removed"].as_u64().unwrap_or(0));
    assert_eq!(all.len() as u64 - 1 + removed, ended, "{session}");
    let recorded = |account: &serde_json::Value| account["recorded"].as_u64().unwrap();
    let before: u64 = session["before"].as_array().unwrap().iter().map(recorded).sum();
    let there: u64 = all.iter().map(|piece| total(&self::session(piece), "recorded")).sum();
    let gone = session["records_removed"].as_u64().unwrap_or(0);
    assert_eq!(before + total(&session, "recorded"), there + gone, "{session}");
    removed
}

/// A disk that is full before the first piece has ended, and again and again.
pub(crate) fn a_disk_that_fills_faster_than_pieces_end_ends_no_recording() {
    let disk = SmallDisk::new("6M");
    let path = disk.0.path().join("trace");
    let load = Numbers::start(&machine::online_cpus().unwrap(), Duration::ZERO);
    succeed(&mut record(&path, &["--rotate-size", "512K", "--min-free", "25%", "-d", "4s"]));
    load.stop();
    assert!(removed_and_there(&path) > 0);
    pieces(&path).iter().for_each(|piece| verify(piece));
    assert!(total(&session(&path), "unwritten") == 0, "what was recorded is not there");
}

fn bytes_of(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    files.filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

pub(crate) fn the_oldest_pieces_give_way_to_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let load = Numbers::start(&machine::online_cpus().unwrap(), PAUSE);
    let kept = folder.path().join("kept");
    succeed(&mut record(&kept, &["--rotate-size", "512K", "--keep-size", "2M", "-d", "3s"]));
    assert!(check_removed(&kept) > 0);
    let bytes: u64 = pieces(&kept).iter().rev().skip(1).map(|piece| bytes_of(piece)).sum();
    assert!(bytes <= 2 << 20, "{bytes}");
    // Of a disk three quarters are to stay free.
    let disk = SmallDisk::new("16M");
    let free = disk.0.path().join("free");
    succeed(&mut record(&free, &["--rotate-size", "512K", "--min-free", "75%", "-d", "4s"]));
    load.stop();
    assert!(check_removed(&free) > 0);
}

/// Whatever the rule is by which old pieces go: when the disk is full, one goes and the write is made.
pub(crate) fn a_full_disk_ends_no_recording_that_has_old_pieces() {
    let disk = SmallDisk::new("6M");
    let path = disk.0.path().join("trace");
    let load = Numbers::start(&machine::online_cpus().unwrap(), PAUSE);
    succeed(&mut record(&path, &["--rotate-size", "512K", "--keep", "1000000", "-d", "5s"]));
    assert!(check_removed(&path) > 0);
    pieces(&path).iter().for_each(|piece| fs::remove_dir_all(piece).unwrap());
    // Where none is to go, recording stops.
    let said = fail(&mut record(&path, &["--rotate-size", "512K", "-d", "20s"]), 1);
    load.stop();
    assert!(said.contains("No space left"), "{said}");
    assert!(pieces(&path).len() > 4, "one was removed");
}

pub(crate) fn pieces_share_the_kernels_symbols() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let load = Numbers::start(&machine::online_cpus().unwrap(), PAUSE);
    succeed(&mut record(&path, &["--context", "kstack", "--rotate-time", "200ms", "-d", "3s"]));
    load.stop();
    let pieces = pieces(&path);
    let files = pieces.iter().map(|piece| fs::metadata(piece.join(".relayd/kallsyms")).unwrap());
    let inodes: std::collections::BTreeSet<u64> =
        files.map(|file| std::os::unix::fs::MetadataExt::ino(&file)).collect();
    // A module, or a program of somebody else's, may have come meanwhile.
    assert!(pieces.len() > 2 && inodes.len() <= 2, "{} pieces with {inodes:?}", pieces.len());
    // Each is whole by itself, also elsewhere.
    let copy = folder.path().join("copy");
    succeed(Command::new("cp").arg("-a").args([&pieces[1], &copy]));
    pieces.iter().for_each(|piece| fs::remove_dir_all(piece).unwrap());
    verify(&copy);
    let shown = succeed(relayd().arg("print").arg(&copy));
    assert!(text(&shown.stdout).contains("=> "), "no stack has names");
}

/// Writers take the only sub-buffer again as soon as it is given back: what its packet has told of losses is gone then.
pub(crate) fn pieces_are_whole_with_one_sub_buffer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let load = Numbers::start(&machine::online_cpus().unwrap(), Duration::from_micros(300));
    let output = succeed(&mut record(&path, &["-b", "4K", "-n", "1", "--rotate-time", "100ms", "-d", "2s"]));
    load.stop();
    assert!(!text(&output.stderr).contains(" is not in "), "{}", text(&output.stderr));
    let pieces = pieces(&path);
    assert!(pieces.len() > 10, "{pieces:?}");
    let lost: u64 = pieces.iter().map(|piece| total(&session(piece), "lost_full")).sum();
    assert!(lost > 0, "the buffers were large enough");
    for piece in &pieces {
        succeed(relayd().arg("verify").arg(piece));
    }
}

pub(crate) fn a_compressed_piece_is_the_piece() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let (plain, load) = (folder.path().join("plain"), Numbers::start(&machine::online_cpus().unwrap(), PAUSE));
    succeed(&mut record(&path, &["--rotate-time", "400ms", "--compress", "zstd", "-d", "1500ms"]));
    succeed(&mut record(&plain, &["--rotate-time", "400ms", "-d", "600ms"]));
    load.stop();
    assert_eq!(pieces(&path).len(), 1, "none is left as a directory");
    let archives: Vec<PathBuf> = (1..).map(|number| archive(&path, number)).take_while(|path| path.exists()).collect();
    let said = |path: &Path| {
        let said = |command: &[&str]| text(&succeed(relayd().args(command).arg(path)).stdout);
        let all = said(&["print", "--json"]) + &said(&["stat", "-v"]) + &said(&["verify"]);
        all.replace(path.to_str().unwrap(), "PIECE")
    };
    let as_they_are: Vec<String> = archives.iter().map(|archive| said(archive)).collect();
    archives.iter().for_each(|archive| unpack(archive));
    let unpacked = pieces(&path);
    assert!(unpacked.len() > 3, "{unpacked:?}");
    check(&unpacked);
    assert_eq!(files(&unpacked[0]), files(&piece(&plain, 1)), "an archive has not what a piece has");
    for (archive, piece) in as_they_are.iter().zip(&unpacked) {
        assert!(*archive == said(piece), "{} says something else than its archive", piece.display());
    }
}

/// What is in a directory and in those below it, sorted.
fn files(folder: &Path) -> Vec<String> {
    let found = text(&succeed(Command::new("find").arg(folder).args(["-type", "f", "-printf", "%P\n"])).stdout);
    let mut files: Vec<_> = found.lines().map(str::to_owned).collect();
    files.sort_unstable();
    files
}

/// A piece's directory.
fn piece(trace: &Path, number: u64) -> PathBuf {
    trace.with_file_name(format!("{}-piece-{number:06}", trace.file_name().unwrap().to_str().unwrap()))
}

/// What it is compressed to.
fn archive(trace: &Path, number: u64) -> PathBuf {
    piece(trace, number).with_extension("tar.zst")
}

/// Where it lies, by somebody else's program.
fn unpack(archive: &Path) {
    succeed(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(archive.parent().unwrap()));
}

/// At moments that are spread over the time in which the first pieces are compressed; until one has hit it.
pub(crate) fn a_recorder_that_is_killed_while_it_compresses_leaves_whole_pieces() {
    let (mut busy, mut round, rounds) = (0, 0, repeats(50));
    while round < rounds || busy == 0 {
        assert!(round < 200, "none of {round} recorders was killed while it compressed");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let load = Numbers::start(&machine::online_cpus().unwrap(), PAUSE);
        let arguments = ["-b", "256K", "-n", "16", "--rotate-time", "100ms", "--compress", "zstd"];
        let mut recorder = record(&path, &arguments).stderr(Stdio::null()).spawn().unwrap();
        wait_until_it_records(&path);
        // From the first piece's end to the third's.
        sleep(Duration::from_millis(100) + Duration::from_millis(200) * (round % rounds) / rounds);
        recorder.kill().unwrap();
        recorder.wait().unwrap();
        load.stop();
        let names: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        busy += u32::from(names.iter().any(|path| path.extension().is_some_and(|end| end == "partial")));
        succeed(relayd().args(["recover", "-q"]).arg(&path));
        let mut all = Vec::new();
        for number in 1..=session(&path)["pieces"].as_u64().unwrap_or(0) {
            let (archive, piece) = (archive(&path, number), piece(&path, number));
            assert!(archive.exists() || piece.exists(), "there is nothing of piece {number}: {names:?}");
            // Either is whole.
            if piece.exists() {
                verify(&piece);
            }
            if archive.exists() {
                verify(&archive);
                let _ = fs::remove_dir_all(&piece);
                unpack(&archive);
            }
            all.push(piece);
        }
        all.push(path);
        check(&all);
        round += 1;
    }
    println!("{busy} of {round} recorders were killed while they compressed");
}

/// At moments that are spread over the time in which files are moved; until one has hit it.
pub(crate) fn a_recorder_that_is_killed_between_pieces_loses_nothing() {
    let (mut moved, mut round, rounds) = (0, 0, repeats(40));
    while round < rounds || moved == 0 {
        assert!(round < 200, "none of {round} recorders was killed while files were moved");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let load = Numbers::start(&machine::online_cpus().unwrap(), Duration::from_millis(1));
        let arguments = ["-b", "256K", "-n", "16", "--rotate-time", "100ms"];
        let mut recorder = record(&path, &arguments).stderr(Stdio::null()).spawn().unwrap();
        let second = folder.path().join("trace-piece-000002");
        // Without a pause, which would be longer than the files take.
        let start = Instant::now();
        while !second.exists() {
            assert!(start.elapsed() < Duration::from_secs(30), "no second piece");
        }
        // The first file of a piece is moved within a few milliseconds of its making.
        let moment = Duration::from_millis(6) * (round % rounds) / rounds;
        sleep(moment);
        recorder.kill().unwrap();
        recorder.wait().unwrap();
        // A piece that was killed before there was a session in it has no file either.
        let has_session = |piece: &&PathBuf| session_file(piece).exists();
        let is_unfinished = |piece: &PathBuf| session(piece)["cpus"].as_array().unwrap().is_empty();
        moved += u32::from(pieces(&path).iter().rev().skip(1).filter(has_session).any(is_unfinished));
        if round % 2 == 0 {
            succeed(
                relayd().args(["trace", "-q", "--resume", "-d", "300ms", "--rotate-time", "100ms", "-o"]).arg(&path),
            );
        } else {
            succeed(relayd().args(["recover", "-q"]).arg(path.join("")));
        }
        load.stop();
        check(&pieces(&path));
        round += 1;
    }
    println!("{moved} of {round} recorders were killed while files were moved");
}

pub(crate) fn what_stands_where_a_piece_would_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let arguments = ["--rotate-time", "100ms", "-d", "350ms"];
    succeed(&mut record(&path, &arguments));
    let before = pieces(&path).len();
    fs::remove_dir_all(&path).unwrap();
    // Those of an earlier trace.
    let said = fail(&mut record(&path, &arguments), 1);
    assert!(said.contains("trace-piece-000001") && said.contains("--force") && !path.exists(), "{said}");
    assert_eq!(pieces(&path).len(), before);
    let mut recorder = record(&path, &["--force", "--rotate-time", "1h"]).spawn().unwrap();
    wait_until_it_records(&path);
    assert_eq!(pieces(&path).len(), 1);
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    let recover = || relayd().args(["recover", "-q"]).arg(&path).output().unwrap();
    let next = folder.path().join("trace-piece-000001");
    // One of another trace, that somebody has put there.
    fs::create_dir_all(next.join(".relayd")).unwrap();
    let other = fs::read_to_string(session_file(&path)).unwrap();
    let uuid = session(&path)["uuid"].as_str().unwrap().to_owned();
    fs::write(session_file(&next), other.replace(&uuid, &uuid.replace(|c: char| c != '-', "0"))).unwrap();
    let said = text(&recover().stderr);
    assert!(said.contains("is of another trace; move it"), "{said}");
    // One that the recorder had begun when it was killed.
    fs::remove_file(session_file(&next)).unwrap();
    assert!(recover().status.success());
    assert!(!next.exists());
    check(&pieces(&path));
}

pub(crate) fn what_makes_no_pieces_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let refused = |arguments: &[&str], code, expected: &str| {
        let said = fail(&mut record(&path, arguments), code);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!path.exists());
    };
    refused(&["--rotate-size", "1M", "--overwrite"], 2, "cannot be used with");
    refused(&["--keep", "3"], 2, "--rotate-size");
    refused(&["--compress", "zstd"], 2, "--rotate-size");
    refused(&["--rotate-time", "0"], 2, "at least 100ms");
    refused(&["--rotate-time", "5s", "--compress", "gzip"], 2, "zstd");
}
