//! Every command that reads a trace, on archives: what is in one is shown as if it was a directory, and one that lies harms nobody.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use relay_trace::form::archive;
use serde_json::Value;
use tar::{EntryType, Header};

use crate::{
    MIXED, TRACES, copied, fail, folder,
    hostile::{MOST_MEMORY, SECRET, commands, leaked, run},
    relayd_on, said, session, succeed, text,
};

/// The directory that is in archives.
const TOP: &str = "trace-piece-000001";

/// The members of an archive, as their bytes are in it.
type Members = Vec<Vec<u8>>;

/// A member that says of itself what it likes.
fn member(name: &str, kind: EntryType, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_size(size);
    if kind.is_symlink() || kind.is_hard_link() {
        header.set_link_name("/etc/shadow").unwrap();
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    member(name, EntryType::Regular, data.len() as u64, data)
}

/// The files of a trace, by name below its directory.
fn files(trace: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (folder, before) in [(trace.to_path_buf(), ""), (trace.join(".relayd"), ".relayd/")] {
        for path in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if path.is_file() {
                let name = path.file_name().unwrap().to_str().unwrap();
                files.insert(format!("{before}{name}"), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The members of a recorded trace, but those of some names.
fn members_but(left_out: &[&str]) -> Members {
    let files = files(&folder().join(MIXED)).into_iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
    files.map(|(name, data)| file(&format!("{TOP}/{name}"), &data)).collect()
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn packed(members: &Members) -> Vec<u8> {
    compressed(&[members.concat(), vec![0; 1024]].concat())
}

/// A frame of so many zeros, which takes four bytes for each 128 KiB (RFC 8878, 3.1.1.2: a block of one byte, repeated).
fn zeros(bytes: u64) -> Vec<u8> {
    const BLOCK: u64 = 128 << 10;
    // Without a checksum; a window as large as a block.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    let blocks = bytes / BLOCK;
    for block in 1..=blocks {
        let header = u64::from(block == blocks) | 1 << 1 | BLOCK << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// Puts bytes into a place of their own.
fn archive_of(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("archive.tar.zst");
    fs::write(&path, bytes).unwrap();
    (root, path)
}

/// Runs every command on an archive: none takes long or much memory, and none makes anything but its output. What `print` and `verify` say.
fn survive(what: &str, path: &Path) -> [String; 2] {
    let beside = || fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    let before: Vec<_> = beside().collect();
    let output = tempfile::tempdir().unwrap();
    let mut said = BTreeMap::new();
    for mut command in commands(path, output.path()) {
        let ended = run(&mut command);
        let what = format!("{what}: {command:?}");
        assert!(matches!(ended.status, Some(0..=2)), "{what}: status {:?}: {}", ended.status, ended.said);
        assert!(!ended.said.contains(SECRET), "{what}: {}", ended.said);
        assert!(ended.memory < MOST_MEMORY, "{what}: {} KiB", ended.memory);
        let name = command.get_args().next().unwrap().to_str().unwrap().to_owned();
        said.entry(name).or_insert_with(|| format!("{}status {}", ended.said, ended.status.unwrap()));
    }
    assert_eq!(leaked(output.path()), None, "{what}");
    assert!(beside().eq(before), "{what}");
    ["print", "verify"].map(|command| said.remove(command).unwrap())
}

#[test]
fn an_archive_is_read_as_its_directory_is() {
    for trace in TRACES {
        let (root, directory) = copied(trace);
        // By relayd, and in any other order.
        let by_relayd = root.path().join("by-relayd");
        archive::write(&directory, File::create(&by_relayd).unwrap()).unwrap();
        let mut members: Members =
            files(&directory).iter().map(|(name, data)| file(&format!("./{name}"), data)).collect();
        members.reverse();
        let reversed = root.path().join("reversed");
        fs::write(&reversed, packed(&members)).unwrap();
        for archive in [by_relayd, reversed] {
            // Under the same name, so that what is said is the same.
            let other = tempfile::tempdir().unwrap();
            fs::rename(&archive, other.path().join("trace")).unwrap();
            let [of_directory, of_archive] = [root.path(), other.path()].map(|place| {
                let output = tempfile::tempdir_in(place).unwrap();
                let commands = commands(Path::new("trace"), Path::new("out")).into_iter();
                let all = commands.filter(|command| !command.get_args().any(|word| word == "recover" || word == "-f"));
                fs::rename(output.path(), place.join("out")).unwrap();
                let said: Vec<String> = all.map(|mut command| said(command.current_dir(place))).collect();
                let mut made = files(&place.join("out"));
                made.extend(files(&place.join("out/repaired")));
                let tables = files(&place.join("out/parquet"));
                assert!(said[0].len() > 1000 && made.len() > 5 && !tables.is_empty(), "{trace}: {said:?}");
                fs::remove_dir_all(place.join("out")).unwrap();
                (said, made, tables)
            });
            assert_eq!(of_directory, of_archive, "{trace}");
        }
    }
}

#[test]
fn what_works_on_directories_alone_says_so() {
    let (_root, path) = archive_of(&packed(&members_but(&[])));
    let said = fail(relayd_on("print", &path).arg("-f"));
    assert!(said.contains("print it without -f"), "{said}");
    let said = fail(&mut relayd_on("recover", &path));
    assert!(said.contains("relayd repair"), "{said}");
    // One that a recorder has left which was killed.
    let mut members = files(&folder().join(MIXED));
    let mut session = session(MIXED);
    session["clock"]["end"] = Value::Null;
    session["cpus"] = Value::Array(Vec::new());
    members.insert(".relayd/session.json".to_owned(), session.to_string().into_bytes());
    let members = members.iter().map(|(name, data)| file(&format!("{TOP}/{name}"), data)).collect();
    let (_root_of_killed, killed) = archive_of(&packed(&members));
    let said = text(&relayd_on("print", &killed).output().unwrap().stderr);
    assert!(said.contains(&format!("relayd repair {} OUT", killed.display())), "{said}");
    // The archive is nothing to write to either.
    let before = fs::read(&path).unwrap();
    let said = fail(relayd_on("export", &path).args(["--to", "json", "--force", "-o"]).arg(&path));
    assert!(said.contains("would be inside the trace"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn members_that_lie_are_left_out_and_named() {
    let whole = said(&mut relayd_on("print", folder().join(MIXED)));
    let of_cpu = |cpu: &str| whole.lines().filter(|line| line.contains(cpu)).count();
    let (of_cpu0, of_cpu1) = (of_cpu(" [000] "), of_cpu(" [001] "));
    assert!(of_cpu0 > 0 && of_cpu1 > 0);
    // In place of CPU 0's file.
    for (kind, named) in [
        (EntryType::Symlink, "cpu0 is left out: it is a link, not a file"),
        (EntryType::Link, "cpu0 is left out: it is a link, not a file"),
        (EntryType::Char, "cpu0 is left out: it is a device, not a file"),
        (EntryType::Block, "cpu0 is left out: it is a device, not a file"),
        (EntryType::Fifo, "cpu0 is left out: it is a FIFO, not a file"),
        (EntryType::Directory, "cpu0 is left out: it is a directory, not a file"),
        (EntryType::GNUSparse, "cpu0 is left out: it is a file with holes, not a file"),
        (EntryType::new(b'~'), "cpu0 is left out: it is something else, not a file"),
    ] {
        let mut members = members_but(&["cpu0"]);
        members.insert(3, member(&format!("{TOP}/cpu0"), kind, 0, &[]));
        let (_root, path) = archive_of(&packed(&members));
        let [printed, verified] = survive(named, &path);
        assert!(printed.contains(named) && printed.ends_with("status 1"), "{kind:?}: {printed}");
        assert!(printed.matches(" [001] ").count() == of_cpu1 && !printed.contains(" [000] "), "{kind:?}: {printed}");
        assert!(verified.contains(named) && verified.contains("cpu0: it is missing"), "{kind:?}: {verified}");
    }
    // Beside the files of the trace, which are all shown.
    let cpu0 = files(&folder().join(MIXED))["cpu0"].clone();
    let long = member("././@LongLink", EntryType::GNULongName, 50 << 20, &vec![b'a'; 50 << 20]);
    for (lie, named) in [
        (file("/etc/cron.d/relayd", b"evil"), "(/etc/cron.d/relayd) is left out: it would be outside of the trace"),
        (file(&format!("{TOP}/../../evil"), b"evil"), "evil) is left out: it would be outside of the trace"),
        (file("../evil", b"evil"), "(../evil) is left out: it would be outside of the trace"),
        (file(&format!("{TOP}/cpu0"), b"evil"), "cpu0 is left out: it is there twice, and the first one is read"),
        (file(&format!("{TOP}/.relayd/session.json"), b"{}"), "session.json is left out: it is there twice"),
        (file("other/cpu7", &cpu0), "cpu7 is left out: it is in other and not where the others are"),
        (member(&format!("{TOP}/.relayd"), EntryType::Symlink, 0, &[]), ""),
        ([long, file("x", b"evil")].concat(), ""),
        (file(&format!("{TOP}/notes"), b"mine"), ""),
        (file(&format!("{TOP}/.relayd/reserve"), b"mine"), ""),
        (file(&format!("{TOP}/cpu00"), &cpu0), ""),
        (file(&format!("{TOP}/deeper/cpu7"), &cpu0), ""),
        (file("cpu7", &cpu0), ""),
        (member(&format!("{TOP}/evil"), EntryType::Symlink, 0, &[]), ""),
        (member("", EntryType::Directory, 0, &[]), ""),
    ] {
        let mut members = members_but(&[]);
        members.push(lie);
        let (_root, path) = archive_of(&packed(&members));
        let [printed, verified] = survive(named, &path);
        assert_eq!(printed.matches(" [000] ").count(), of_cpu0, "{named}: {printed}");
        assert_eq!(printed.matches(" [001] ").count(), of_cpu1, "{named}: {printed}");
        assert!(printed.contains(named) && verified.contains(named), "{named}: {printed}");
        assert!(printed.ends_with(if named.is_empty() { "status 0" } else { "status 1" }), "{named}: {printed}");
    }
}

#[test]
fn what_an_archive_claims_costs_nothing() {
    let huge = |name: &str, size: u64| member(&format!("{TOP}/{name}"), EntryType::Regular, size, b"a little");
    let cases: [(&str, Members, &str); 6] = [
        ("a terabyte that is not there", vec![huge("cpu7", 1 << 40)], "it is cut off or damaged"),
        ("a terabyte of something else", vec![huge("notes", 1 << 40)], "it is cut off or damaged"),
        ("more bytes than can be counted", vec![huge("cpu7", u64::MAX)], "it is cut off or damaged"),
        ("no checksum", vec![vec![b'x'; 512]], "it is cut off or damaged"),
        ("twenty thousand lies", vec![file("/x", b""); 20_000], "19980 flaws more are not named"),
        ("twenty thousand links", vec![member(&format!("{TOP}/cpu7"), EntryType::Symlink, 0, b""); 20_000], "a link"),
    ];
    for (what, lies, named) in cases {
        let mut members = members_but(&[]);
        members.extend(lies);
        let (_root, path) = archive_of(&packed(&members));
        let [printed, verified] = survive(what, &path);
        assert!(verified.contains(named), "{what}: {verified}");
        assert!(printed.contains(" [000] ") && printed.ends_with("status 1"), "{what}: {printed}");
    }
    // Bombs: in a file of the trace, in one that it has not, in a name, after the end.
    let beginning = compressed(&members_but(&[]).concat());
    let terabyte = zeros(1 << 38);
    let bomb = |member: Vec<u8>| [&beginning[..], &compressed(&member), &terabyte].concat();
    for (what, bytes) in [
        ("a bomb", bomb(member(&format!("{TOP}/cpu7"), EntryType::Regular, 1 << 40, b""))),
        ("a bomb beside", bomb(member(&format!("{TOP}/notes"), EntryType::Regular, 1 << 40, b""))),
        ("a bomb as a name", bomb(member("././@LongLink", EntryType::GNULongName, 1 << 40, b""))),
        ("a bomb as attributes", bomb(member("pax", EntryType::XHeader, 1 << 40, b""))),
        ("a bomb after the end", bomb(vec![0; 1024])),
    ] {
        let (_root, path) = archive_of(&bytes);
        let [printed, verified] = survive(what, &path);
        assert!(verified.contains("it grows more than 4000 times, as no trace does"), "{what}: {verified}");
        assert!(printed.contains(" [000] ") && printed.ends_with("status 1"), "{what}: {printed}");
    }
    // A decoder that would need more memory than it may have.
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&members_but(&[]).concat()).unwrap();
    let (_root, path) = archive_of(&encoder.finish().unwrap());
    let [printed, _] = survive("a window of 128 MiB", &path);
    assert!(printed.contains("too much memory") && printed.ends_with("status 1"), "{printed}");
    // A terabyte in which there is nothing but an archive and frames to be skipped, each of 4 GiB (RFC 8878, 3.1.2).
    let whole = packed(&members_but(&[]));
    let (_root, path) = archive_of(&whole);
    let file = File::options().write(true).open(&path).unwrap();
    for frame in 0..256 {
        let at = whole.len() as u64 + frame * ((1 << 32) + 7);
        file.write_all_at(b"\x50\x2a\x4d\x18\xff\xff\xff\xff", at).unwrap();
    }
    let [printed, _] = survive("holes", &path);
    assert!(printed.contains("nothing is in it from byte") && printed.contains(" [000] "), "{printed}");
}

#[test]
fn what_is_no_archive_is_named() {
    let not = |what: &str, bytes: &[u8], named: &str| {
        let (_root, path) = archive_of(bytes);
        let [printed, verified] = survive(what, &path);
        assert!(printed.contains(named) && printed.ends_with("status 1"), "{what}: {printed}");
        assert!(verified.contains(named) && verified.ends_with("status 1"), "{what}: {verified}");
    };
    not("nothing", b"", "is not a trace of relayd: give the directory");
    not("three bytes", b"\x28\xb5\x2f", "is not a trace of relayd: give the directory");
    not("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "is not a trace of relayd: give the directory");
    not("tar alone", &members_but(&[]).concat(), "is not a trace of relayd: give the directory");
    not("the magic number alone", b"\x28\xb5\x2f\xfd", "it has no .relayd/session.json; ");
    not("no tar", &compressed(SECRET.repeat(100).as_bytes()), "it has no .relayd/session.json; ");
    not("an empty archive", &packed(&Vec::new()), "it has no .relayd/session.json");
    not("no session", &packed(&members_but(&[".relayd/session.json"])), "it has no .relayd/session.json");
    let whole = packed(&members_but(&[]));
    not("garbage after it", &[&whole[..], b"garbage"].concat(), "what follows its end cannot be read");
    not("another one after it", &[&whole[..], &whole[..]].concat(), "something follows its end");
    not("no end", &compressed(&members_but(&[]).concat()), "it is cut off: it has no end");
    // What else can be at a path.
    let root = tempfile::tempdir().unwrap();
    let fifo = root.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    for path in [&fifo, Path::new("/dev/zero")] {
        let [printed, _] = survive("no file", path);
        assert!(printed.contains("is not a trace of relayd"), "{printed}");
    }
}

#[test]
fn what_is_whole_of_a_cut_archive_is_shown() {
    // A little archive is one block, of which nothing can be read before all is there: so each member is a frame.
    let mut members = members_but(&[]);
    members.push(vec![0; 1024]);
    let whole: Vec<u8> = members.iter().flat_map(|member| compressed(member)).collect();
    let (_root, path) = archive_of(&whole);
    let mut shown = Vec::new();
    for len in (0..whole.len()).step_by(whole.len() / 60).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..len]).unwrap();
        let ended = run(&mut relayd_on("print", &path));
        assert_eq!(ended.status, Some(1), "{len}: {}", ended.said);
        assert!(ended.memory < MOST_MEMORY, "{len}: {} KiB", ended.memory);
        let named = ["is not a trace of relayd", "it is cut off", "what follows its end cannot be read"];
        assert!(named.iter().any(|named| ended.said.contains(named)), "{len}: {}", ended.said);
        shown.push(ended.said.matches(" [00").count());
    }
    assert!(shown.is_sorted() && shown[0] == 0, "{shown:?}");
    // What is whole can be saved too, and what is not is named.
    fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let repaired = path.with_file_name("repaired");
    let saved = run(relayd_on("repair", &path).arg(&repaired));
    assert!(saved.status == Some(0) && saved.said.contains("it is cut off"), "{}", saved.said);
    succeed(&mut relayd_on("verify", &repaired));
    let all = said(&mut relayd_on("print", folder().join(MIXED))).matches(" [00").count();
    assert!(shown.contains(&all) && shown.iter().any(|some| (1..all).contains(some)), "{shown:?} of {all}");
}

#[test]
fn nothing_is_left_behind() {
    let mut members = members_but(&[]);
    // Noise that does not shrink, so that it takes a while.
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..30 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        })
        .collect();
    members.push(file(&format!("{TOP}/cpu7"), &noise));
    let (_root, path) = archive_of(&packed(&members));
    let place = tempfile::tempdir().unwrap();
    let print = || {
        let mut print = relayd_on("print", &path);
        print.env("TMPDIR", place.path()).stdout(Stdio::null()).stderr(Stdio::null());
        print
    };
    let is_empty = || fs::read_dir(place.path()).unwrap().next().is_none();
    for after in (0..20).map(Duration::from_millis) {
        let mut child = print().spawn().unwrap();
        thread::sleep(after);
        assert!(is_empty(), "after {after:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_empty(), "killed after {after:?}");
    }
    print().status().unwrap();
    assert!(is_empty());
    // Where there is no place for it.
    let said = fail(relayd_on("print", &path).env("TMPDIR", place.path().join("nowhere")));
    assert!(said.contains("nowhere: TMPDIR names another place"), "{said}");
}
