//! A trace in an archive, `.tar.zst`: how a piece is compressed, and how it is read as it is.
//!
//! Readers want all CPUs at once, by time, and any place in their files; in an archive one CPU follows the other. So an archive is unpacked, in one
//! pass, into files without names: nothing that it says becomes a path, and nothing is left however the process ends.
//!
//! An archive may say anything. Of its members the known names alone are taken, regular files alone, each once. How much is unpacked is bounded by
//! how much went in, and by the room on the disk, whatever the archive claims.

use std::{
    collections::BTreeMap,
    env, fs,
    fs::File,
    io::{self, BufReader, Read, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{CWD, OFlags, SeekFrom, seek, statvfs},
    io::Errno,
};
use tar::{EntryType, Header};

use super::{
    directory::{self, METADATA, NAMES, PRIVATE},
    folder::{Folder, open_file},
    session::{self, SessionFile},
};

/// The default of zstd itself.
const LEVEL: i32 = 3;
/// What a compressed file begins with.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The most memory that unpacking may take, as a power of two of bytes: what every decoder should have (RFC 8878, 3.1.1.1.2).
const MOST_WINDOW: u32 = 23;
/// So many bytes may come of one: three times what comes of records of 8 KiB, which are the longest, that differ in nothing but their times.
const MOST_GROWTH: u64 = 4000;
/// So many bytes may come of any archive.
const LEAST: u64 = 64 << 20;
/// The longest name, in bytes: that of a path.
const LONGEST_NAME: u64 = 4096;
/// Flaws that are named one by one.
const NAMED: usize = 20;
/// Bytes that are unpacked at a time.
const CHUNK: usize = 64 << 10;

/// A trace that is open to be read.
#[derive(Debug)]
pub struct Opened {
    /// Its files.
    pub folder: Folder,
    /// Those of `.relayd`.
    pub private: Folder,
    /// What an archive has that a trace has not, or lacks.
    pub flaws: Vec<String>,
}

/// Told how many bytes of an archive are unpacked, of how many.
pub type Unpacked<'p> = dyn FnMut(u64, u64) + 'p;

/// Opens a trace to be read, in a directory or in an archive.
///
/// # Errors
/// When it is none, or cannot be opened; when an archive has no session, or there is no room to unpack it.
pub fn open(path: &Path, progress: &mut Unpacked<'_>) -> Result<Opened> {
    if is_archive(path) {
        return unpack(path, progress);
    }
    let (folder, private) = directory::open(path)?;
    Ok(Opened { folder, private, flaws: Vec::new() })
}

/// Whether a path is that of a file, which can be no trace unless it is an archive.
#[must_use]
pub fn is_archive(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| there.is_file())
}

/// The session of a trace in an archive, in which it comes first. Nothing else is unpacked.
///
/// # Errors
/// When the archive cannot be read, or has none.
pub fn session(path: &Path) -> Result<SessionFile> {
    let opening = || format!("opening {}", path.display());
    let mut file = open_file(CWD, path, OFlags::NOFOLLOW).with_context(opening)?.with_context(opening)?;
    let len = file.metadata().with_context(opening)?.len();
    let data = end_of_data(&file, len).with_context(opening)?;
    file.rewind().with_context(opening)?;
    let nobody = &mut |_, _| {};
    let mut archive = tar::Archive::new(Bounded::new(file, data, nobody).with_context(opening)?);
    for member in archive.entries().with_context(opening)? {
        let member = member.with_context(opening)?;
        if member.header().entry_type() == EntryType::Regular
            && member.path().is_ok_and(|name| name.ends_with(Path::new(PRIVATE).join(session::FILE)))
        {
            let mut text = Vec::new();
            member.take(session::LONGEST).read_to_end(&mut text).with_context(opening)?;
            return SessionFile::parse(&text);
        }
    }
    bail!("{} has no {}", path.display(), session::FILE)
}

/// Writes a trace's directory into an archive. What describes the trace comes first: without it, the rest of an archive that is cut off means nothing.
///
/// # Errors
/// When a file of the trace cannot be read, or the archive not be written.
pub fn write(trace: &Path, output: File) -> Result<File> {
    let (folder, private) = directory::open(trace)?;
    let mut encoder = zstd::Encoder::new(output, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut archive = tar::Builder::new(encoder);
    let top = Path::new(trace.file_name().unwrap_or_default());
    archive.append_dir(top, trace)?;
    archive.append_dir(top.join(PRIVATE), private.path())?;
    let mut append = |folder: &Folder, name: &str, place: PathBuf| -> Result<()> {
        let file = folder.file(name).with_context(|| format!("reading {}", folder.path().join(name).display()))?;
        let Some(file) = file else { return Ok(()) };
        let there = file.metadata()?;
        let mut header = Header::new_gnu();
        header.set_metadata(&there);
        // As long as the header says, also if somebody cuts the file meanwhile.
        Ok(archive.append_data(&mut header, place, file.chain(io::repeat(0)).take(there.len()))?)
    };
    for name in [session::FILE].iter().chain(&NAMES) {
        append(&private, name, top.join(PRIVATE).join(name))?;
    }
    append(&folder, METADATA, top.join(METADATA))?;
    for name in folder.names()?.iter().filter(|name| directory::cpu_of(name).is_some()) {
        append(&folder, name, top.join(name))?;
    }
    Ok(archive.into_inner()?.finish()?)
}

fn unpack(path: &Path, progress: &mut Unpacked<'_>) -> Result<Opened> {
    let shown = path.display();
    let opening = || format!("opening the trace {shown}");
    let mut file = open_file(CWD, path, OFlags::empty()).with_context(opening)?.with_context(opening)?;
    let mut magic = [0; MAGIC.len()];
    if file.read_exact(&mut magic).is_err() || magic != MAGIC {
        bail!(
            "{shown} is not a trace of relayd: give the directory that relayd trace has made, or a piece that it has compressed (.tar.zst)"
        );
    }
    let mut unpacker = Unpacker::new(path)?;
    let len = file.metadata().with_context(opening)?.len();
    let data = end_of_data(&file, len).with_context(opening)?;
    if data < len {
        unpacker.note(&format!("nothing is in it from byte {data} on: it is damaged"));
    }
    file.rewind().with_context(opening)?;
    let mut archive = tar::Archive::new(Bounded::new(file, data, progress).with_context(opening)?);
    let mut ends_early = false;
    // Raw: nothing that is in a member is taken for what another one is.
    for member in archive.entries().with_context(opening)?.raw(true) {
        match member {
            Ok(mut member) => unpacker.take(&mut member)?,
            // What it says shows what is there, which may be anything.
            Err(_) => ends_early = true,
        }
    }
    let rest = archive.into_inner();
    let flaw = if ends_early { Some(rest.why_it_ends()) } else { rest.flaw_after_the_end() };
    if let Some(flaw) = flaw {
        unpacker.note(&flaw);
    }
    unpacker.finish()
}

/// Where the first hole is in a file of so many bytes: in data there is none, and what is not there costs no time.
fn end_of_data(file: &File, len: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Hole(0)) {
        Ok(hole) => Ok(hole.min(len)),
        // A file system that does not tell.
        Err(Errno::INVAL) => Ok(len),
        Err(error) => Err(error.into()),
    }
}

/// What comes of a compressed file, as long as that is not more than any trace makes.
struct Bounded<'p> {
    decoder: zstd::Decoder<'static, BufReader<io::Take<File>>>,
    /// Bytes of the file.
    len: u64,
    /// Bytes that have come of it.
    given: u64,
    ended: bool,
    /// Why no more comes.
    failure: Option<(io::ErrorKind, String)>,
    progress: &'p mut dyn FnMut(u64, u64),
}

impl<'p> Bounded<'p> {
    fn new(file: File, len: u64, progress: &'p mut Unpacked<'_>) -> io::Result<Self> {
        let mut decoder = zstd::Decoder::new(file.take(len))?;
        decoder.window_log_max(MOST_WINDOW)?;
        Ok(Self { decoder, len, given: 0, ended: false, failure: None, progress })
    }

    fn read_within_bounds(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = loop {
            match self.decoder.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        let input = self.decoder.get_ref();
        let taken = self.len - input.get_ref().limit() - input.buffer().len() as u64;
        self.given += read as u64;
        self.ended = read == 0 && !bytes.is_empty();
        (self.progress)(taken, self.len);
        if self.given > taken.saturating_mul(MOST_GROWTH).max(LEAST) {
            return Err(io::Error::other(format!("it grows more than {MOST_GROWTH} times, as no trace does")));
        }
        Ok(read)
    }

    /// What is wrong where there is no next member.
    fn why_it_ends(&self) -> String {
        let why = self.failure.as_ref().map_or("a member is damaged, or ends early", |(_, why)| why);
        format!("it is cut off or damaged: {why}; what comes before is read")
    }

    /// What is wrong with what follows the last member.
    fn flaw_after_the_end(mut self) -> Option<String> {
        if self.ended {
            return Some("it is cut off: it has no end".to_owned());
        }
        let mut bytes = vec![0; CHUNK];
        loop {
            match self.read(&mut bytes) {
                Ok(0) => return None,
                // Tape blocks are filled up.
                Ok(read) if bytes[..read].iter().all(|byte| *byte == 0) => {}
                Ok(_) => return Some("something follows its end, which is not read".to_owned()),
                Err(error) => return Some(format!("what follows its end cannot be read: {error}")),
            }
        }
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_none() {
            match self.read_within_bounds(bytes) {
                Err(error) => self.failure = Some((error.kind(), error.to_string())),
                read => return read,
            }
        }
        // A decoder that has failed is not asked again.
        let (kind, why) = self.failure.clone().unwrap_or((io::ErrorKind::Other, String::new()));
        Err(io::Error::new(kind, why))
    }
}

/// Takes what a trace has out of an archive.
struct Unpacker<'p> {
    path: &'p Path,
    /// The directory that all members are in.
    top: Option<Vec<u8>>,
    /// The name of the next member, when it is too long for its header.
    long_name: Option<Vec<u8>>,
    /// By name below that directory.
    files: BTreeMap<String, Arc<File>>,
    /// Where files without names are made.
    place: PathBuf,
    /// How many bytes may be written there yet.
    room: u64,
    buffer: Vec<u8>,
    flaws: Vec<String>,
    unnamed: usize,
}

impl<'p> Unpacker<'p> {
    fn new(path: &'p Path) -> Result<Self> {
        let place = temporary_place();
        let no_room = || format!("unpacking {} in {}: TMPDIR names another place", path.display(), place.display());
        let disk = statvfs(&place).with_context(no_room)?;
        Ok(Self {
            path,
            top: None,
            long_name: None,
            files: BTreeMap::new(),
            place,
            // A tenth stays free for others.
            room: disk.f_bavail.saturating_mul(disk.f_frsize) / 10 * 9,
            buffer: vec![0; CHUNK],
            flaws: Vec::new(),
            unnamed: 0,
        })
    }

    /// Names what is wrong with the archive.
    fn note(&mut self, flaw: &str) {
        self.add(format!("{}: {flaw}", self.path.display()));
    }

    /// Names what is wrong with a member.
    fn leave_out(&mut self, name: &str, why: &str) {
        self.add(format!("{} is left out: {why}", self.path.join(name).display()));
    }

    fn add(&mut self, flaw: String) {
        if self.flaws.len() < NAMED {
            self.flaws.push(flaw);
        } else {
            self.unnamed += 1;
        }
    }

    /// Takes a member, if it is a file of the trace.
    fn take(&mut self, member: &mut tar::Entry<'_, impl Read>) -> Result<()> {
        let kind = member.header().entry_type();
        if kind == EntryType::GNULongName {
            let mut name = Vec::new();
            // One that is cut off, or longer, is that of no file of a trace.
            let _ = member.take(LONGEST_NAME).read_to_end(&mut name);
            name.truncate(memchr::memchr(0, &name).unwrap_or(name.len()));
            self.long_name = Some(name);
            return Ok(());
        }
        let name = self.long_name.take().unwrap_or_else(|| member.header().path_bytes().into_owned());
        let Some(name) = self.known(&name) else { return Ok(()) };
        if self.files.contains_key(&name) {
            self.leave_out(&name, "it is there twice, and the first one is read");
        } else if kind != EntryType::Regular {
            self.leave_out(&name, &format!("it is {}, not a file", name_of(kind)));
        } else {
            let file = self.unpack(member).with_context(|| format!("unpacking {}", self.path.join(&name).display()))?;
            self.files.insert(name, Arc::new(file));
        }
        Ok(())
    }

    /// The name of a file of the trace, below its directory; `None` for any other member.
    fn known(&mut self, name: &[u8]) -> Option<String> {
        if name.first() == Some(&b'/') || name.split(|byte| *byte == b'/').any(|part| part == b"..") {
            self.leave_out(&format!("({})", String::from_utf8_lossy(name)), "it would be outside of the trace");
            return None;
        }
        let (top, rest) = name.split_at(memchr::memchr(b'/', name)?);
        let known = str::from_utf8(&rest[1..]).ok().filter(|name| directory::is_known(name))?;
        if self.top.get_or_insert_with(|| top.to_vec()) == top {
            return Some(known.to_owned());
        }
        self.leave_out(known, &format!("it is in {} and not where the others are", String::from_utf8_lossy(top)));
        None
    }

    /// Makes a file of a member's bytes, or of those that can be read: the next member is not there then, and that is named.
    fn unpack(&mut self, member: &mut impl Read) -> Result<File> {
        let no_room = || format!("writing to {}: TMPDIR names another place", self.place.display());
        let mut file = tempfile::tempfile_in(&self.place).with_context(no_room)?;
        while let Ok(read) = member.read(&mut self.buffer)
            && read > 0
        {
            let Some(left) = self.room.checked_sub(read as u64) else {
                bail!(
                    "there is no room for it in {}, where a tenth of what was free stays so: TMPDIR names another place",
                    self.place.display()
                );
            };
            self.room = left;
            file.write_all(&self.buffer[..read]).with_context(no_room)?;
        }
        Ok(file)
    }

    fn finish(mut self) -> Result<Opened> {
        if self.unnamed > 0 {
            self.flaws.push(format!("{}: {} flaws more are not named", self.path.display(), self.unnamed));
        }
        let in_private = |name: &str| Some(name.strip_prefix(PRIVATE)?.strip_prefix('/')?.to_owned());
        let (mut folder, mut private) = (BTreeMap::new(), BTreeMap::new());
        for (name, file) in self.files {
            match in_private(&name) {
                Some(name) => private.insert(name, file),
                None => folder.insert(name, file),
            };
        }
        if !private.contains_key(session::FILE) {
            let why: String = self.flaws.iter().map(|flaw| format!("; {flaw}")).collect();
            bail!("{} is not a trace of relayd: it has no {PRIVATE}/{}{why}", self.path.display(), session::FILE);
        }
        Ok(Opened {
            folder: Folder::unpacked(self.path.to_path_buf(), folder),
            private: Folder::unpacked(self.path.join(PRIVATE), private),
            flaws: self.flaws,
        })
    }
}

/// Where files without names are made: on a disk, as a rule, which `/tmp` often is not.
fn temporary_place() -> PathBuf {
    let chosen = env::var_os("TMPDIR").filter(|place| !place.is_empty());
    let found = || ["/var/tmp", "/tmp"].into_iter().find(|place| tempfile::tempfile_in(place).is_ok());
    chosen.unwrap_or_else(|| found().unwrap_or("/tmp").into()).into()
}

fn name_of(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink | EntryType::Link => "a link",
        EntryType::Directory => "a directory",
        EntryType::Fifo => "a FIFO",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::GNUSparse => "a file with holes",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const CONTENTS: [(&str, &str); 5] = [
        ("cpu0", "zero"),
        ("cpu10", "ten"),
        ("metadata", "CTF"),
        (".relayd/session.json", "{}"),
        (".relayd/kallsyms", ""),
    ];

    /// An archive of a trace whose directory has a name, unpacked again.
    fn archived(name: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let trace = root.path().join(name);
        fs::create_dir_all(trace.join(PRIVATE)).unwrap();
        for (name, content) in CONTENTS {
            fs::write(trace.join(name), content).unwrap();
        }
        fs::write(trace.join("notes"), "mine").unwrap();
        let path = root.path().join("archive");
        write(&trace, File::create(&path).unwrap()).unwrap();
        (root, path)
    }

    fn open_bytes(bytes: &[u8]) -> Result<Opened> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("archive");
        fs::write(&path, bytes).unwrap();
        open(&path, &mut |done, all| assert!(done <= all && all <= bytes.len() as u64))
    }

    fn contents(opened: &Opened) -> Vec<(String, String)> {
        let of = |folder: &Folder, before: &str| -> Vec<(String, String)> {
            let read = |name: &String| String::from_utf8(folder.read(name, 1 << 20).unwrap().unwrap()).unwrap();
            folder.names().unwrap().iter().map(|name| (format!("{before}{name}"), read(name))).collect()
        };
        [of(&opened.folder, ""), of(&opened.private, ".relayd/")].concat()
    }

    #[test]
    fn what_is_written_is_read_and_what_describes_it_comes_first() {
        // The second is too long for a member's header.
        for name in ["piece", &"a long name ".repeat(20)] {
            let (_root, path) = archived(name);
            let opened = open(&path, &mut |_, _| ()).unwrap();
            assert_eq!(opened.flaws, [""; 0]);
            let mut found = contents(&opened);
            found.sort();
            let mut expected = CONTENTS.map(|(name, content)| (name.to_owned(), content.to_owned()));
            expected.sort();
            assert_eq!(found, expected);
            assert!(opened.private.is_locked().is_err() && opened.folder.folder(PRIVATE).is_err());
            let mut members = tar::Archive::new(zstd::Decoder::new(File::open(&path).unwrap()).unwrap());
            let names: Vec<String> = members
                .entries()
                .unwrap()
                .map(|member| member.unwrap().path().unwrap().strip_prefix(name).unwrap().display().to_string())
                .collect();
            let order = ["", ".relayd", ".relayd/session.json", ".relayd/kallsyms", "metadata", "cpu0", "cpu10"];
            assert_eq!(names, order);
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_anywhere_says_so() {
        let (_root, path) = archived("piece");
        let whole = fs::read(&path).unwrap();
        assert!(open_bytes(&whole).unwrap().flaws.is_empty());
        for len in 0..whole.len() {
            if let Ok(opened) = open_bytes(&whole[..len]) {
                assert!(opened.flaws.len() == 1, "{len}: {:?}", opened.flaws);
            }
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            if let Ok(opened) = open_bytes(&damaged) {
                // Bits of the frame's header that say how it may be unpacked, and not what.
                assert!(!opened.flaws.is_empty() || contents(&opened).len() == CONTENTS.len(), "{at}");
            }
        }
    }

    #[test]
    fn no_more_is_unpacked_than_there_is_room_for() {
        let mut unpacker = Unpacker::new(Path::new("archive")).unwrap();
        assert!(unpacker.room > 0);
        unpacker.room = 2 * CHUNK as u64;
        let file = unpacker.unpack(&mut io::repeat(1).take(CHUNK as u64 + 1)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), CHUNK as u64 + 1);
        let error = unpacker.unpack(&mut io::repeat(1).take(CHUNK as u64)).unwrap_err().to_string();
        assert!(error.contains("TMPDIR"), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_in_a_member_makes_it_another(changes in vec((0_usize..8 << 10, any::<u8>()), 1..20)) {
            let (_root, path) = archived("piece");
            let mut members = zstd::decode_all(File::open(&path).unwrap()).unwrap();
            for (at, byte) in changes {
                let at = at % members.len();
                members[at] = byte;
                // As whoever changes a header would have it.
                let header = at / 512 * 512;
                if let Ok(bytes) = <[u8; 512]>::try_from(&members[header..header + 512]) && bytes[257..].starts_with(b"ustar") {
                    let mut changed = Header::new_old();
                    changed.as_mut_bytes().copy_from_slice(&bytes);
                    changed.set_cksum();
                    members[header..header + 512].copy_from_slice(changed.as_bytes());
                }
            }
            if let Ok(opened) = open_bytes(&zstd::encode_all(&members[..], 1).unwrap()) {
                for (folder, before) in [(&opened.folder, ""), (&opened.private, ".relayd/")] {
                    let is_known = folder.names().unwrap().iter().all(|name| directory::is_known(&format!("{before}{name}")));
                    prop_assert!(is_known);
                }
            }
        }
    }
}
