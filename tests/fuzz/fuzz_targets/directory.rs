//! Directories that hold anything in the place of anything: no file outside is shown, copied or changed, and nothing is waited for. An archive of one
//! is read as the directory is, and so are any bytes in its place.
#![no_main]

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{FileExt as _, symlink},
    path::Path,
};

use libfuzzer_sys::fuzz_target;
use relay_fuzz::{SESSION, check_repair, folder, show};
use relay_trace::{form::archive, read::trace::Trace};

/// Where something is made, below the directory.
const PLACES: [&str; 14] = [
    ".relayd/session.json",
    ".relayd/tasks",
    ".relayd/tasks.json",
    ".relayd/cgroups.json",
    ".relayd/kallsyms",
    ".relayd/printk_formats",
    ".relayd/build-ids.json",
    ".relayd/functions.json",
    ".relayd/other",
    "metadata",
    "cpu0",
    "cpu1",
    "cpu4294967295",
    "other",
];
/// In a file that belongs to somebody else.
const SECRET: &[u8] = b"the text of somebody else's file";
/// Bytes that a file without content has.
const SPARSE: u64 = 1 << 40;

/// Takes the next thing to make from the bytes: its place, its kind, and as many bytes as two more say.
fn next<'b>(bytes: &mut &'b [u8]) -> Option<(&'static str, u8, &'b [u8])> {
    let ([place, kind, low, high], rest) = bytes.split_first_chunk()?;
    let (content, rest) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
    *bytes = rest;
    Some((PLACES[usize::from(*place) % PLACES.len()], *kind, content))
}

fn make(path: &Path, kind: u8, content: &[u8], secret: &Path) -> std::io::Result<()> {
    match kind % 8 {
        0..=3 => fs::write(path, content),
        4 => symlink(secret, path),
        5 => fs::create_dir(path),
        6 => rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).map_err(Into::into),
        _ => {
            let file = File::create(path)?;
            file.set_len(SPARSE)?;
            file.write_all_at(content, SPARSE - u64::try_from(content.len()).unwrap_or(0))
        }
    }
}

fn has_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|part| part == SECRET)
}

fn check(path: &Path) {
    let Ok(trace) = Trace::open(path, &mut |_, _| ()) else { return };
    let traces = [trace];
    let records = show(&traces, |shown| assert!(!has_secret(shown)));
    let repaired = folder().join("repaired");
    check_repair(&traces[0], &repaired, records);
    for name in PLACES {
        let copied = fs::read(repaired.join(name)).unwrap_or_default();
        assert!(!has_secret(&copied), "{name}");
    }
    fs::remove_dir_all(&repaired).expect("it was made");
}

fuzz_target!(|bytes: &[u8]| {
    let (path, packed, secret) = (folder().join("made"), folder().join("made.tar.zst"), folder().join("secret"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(path.join(".relayd")).expect("a folder");
    fs::write(&secret, SECRET).expect("a file");
    fs::write(path.join(".relayd/session.json"), SESSION).expect("a session");
    let mut rest = bytes;
    let mut is_sparse = false;
    while let Some((place, kind, content)) = next(&mut rest) {
        let place = path.join(place);
        // What is made last is there, and nothing is written through a link.
        let _ = fs::remove_file(&place).or_else(|_| fs::remove_dir(&place));
        is_sparse |= kind % 8 == 7;
        let _ = make(&place, kind, content, &secret);
    }
    check(&path);
    // An archive has all bytes of a sparse file.
    if !is_sparse {
        let file = File::create(&packed).expect("a file");
        if let Ok(file) = archive::write(&path, file) {
            drop(file);
            check(&packed);
        }
    }
    File::create(&packed).and_then(|mut file| file.write_all(bytes)).expect("a file");
    check(&packed);
    assert_eq!(fs::read(&secret).expect("it was made"), SECRET);
});
