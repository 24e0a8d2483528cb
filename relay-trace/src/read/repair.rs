//! Makes a sound trace of a damaged one: every whole record, with an account that says what is missing.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use relay_common::trace::{CONTENT_SIZE_AT, PACKET_SIZE_AT};

use super::{
    packet::{HEADER, Records},
    slices::{Slice, Slicer, Window},
    stream::Damage,
    trace::Trace,
};
use crate::form::{
    directory::{self, TraceDirectory},
    metadata,
    new::NewDirectory,
    session::{CpuAccount, Repaired, SessionFile},
};

/// The most bytes that a file can have in which names are found.
const LONGEST: u64 = 64 << 20;

/// What was saved, and what was not.
#[derive(Debug, Default)]
pub struct Saved {
    /// Records.
    pub records: u64,
    /// Bytes of the files that could not be read.
    pub left_out: u64,
    /// Where.
    pub damages: Vec<Damage>,
}

/// What was saved of one CPU's file.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    records: u64,
    bytes: u64,
    packets: u64,
    discarded: u64,
    end: u64,
}

/// Copies every whole record of a trace into a new directory, which is there when it is whole. `progress` is told how many bytes are done.
///
/// # Errors
/// When a file cannot be read or written; nothing stays behind then.
pub fn repair(trace: &Trace, output: &Path, mut progress: impl FnMut(u64)) -> Result<Saved> {
    let new = NewDirectory::create(output, None)?;
    let mut directory = TraceDirectory::create(new.path(), false)?;
    let mut saved = Saved::default();
    let mut parts = BTreeMap::new();
    let mut done = 0;
    for cpu in trace.cpus()? {
        let path = new.path().join(directory::cpu_file(cpu));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path);
        let mut file = BufWriter::new(file.with_context(|| format!("making {}", path.display()))?);
        let part = copy(trace, cpu, &mut file, &mut saved, |bytes| progress(done + bytes))
            .and_then(|part| Ok((part, file.flush()?)))
            .with_context(|| format!("saving {}", path.display()))?;
        done += trace.stream(cpu)?.len();
        saved.records += part.0.records;
        parts.insert(cpu, part.0);
    }
    let session = account(trace, &parts, saved.left_out);
    let described = trace.schema.events().map(|event| (event.id, event.name.as_str(), &event.fields[..]));
    directory.write_metadata(&metadata::write(&session, described))?;
    for name in directory::NAMES {
        copy_file(trace, name, &directory.private().join(name))?;
    }
    session.write(&directory.private())?;
    directory.keep();
    new.put()?;
    Ok(saved)
}

/// Copies the sound records of a file.
fn copy(
    trace: &Trace,
    cpu: u32,
    file: &mut BufWriter<File>,
    saved: &mut Saved,
    mut progress: impl FnMut(u64),
) -> Result<Part> {
    let traces = std::slice::from_ref(trace);
    let mut slicer = Slicer::new(traces, |other| other == cpu, Window::default())?;
    let mut part = Part::default();
    while let Some(mut slice) = slicer.next(u64::MAX)? {
        copy_slice(&slice, file, &mut part)?;
        saved.left_out += slice.damages.iter().map(|damage| damage.skipped).sum::<u64>();
        saved.damages.append(&mut slice.damages);
        progress(slice.done);
    }
    Ok(part)
}

/// Copies the packets of a slice. Alone, a CPU's packets are whole in their slices.
fn copy_slice(slice: &Slice, file: &mut BufWriter<File>, part: &mut Part) -> Result<()> {
    let mut pieces = slice.pieces().peekable();
    for packet in &slice.packets {
        let packet = &packet.packet;
        let mut bytes = packet.bytes().get(..HEADER).unwrap_or_default().to_vec();
        while let Some((_, _, piece)) = pieces.next_if(|(_, offset, _)| *offset == packet.offset) {
            part.records += Records::new(piece, 0).count() as u64;
            // What was left out before it took whole steps of the alignment.
            bytes.extend_from_slice(piece);
        }
        let bits = (bytes.len() as u64 * 8).to_le_bytes();
        for at in [CONTENT_SIZE_AT, PACKET_SIZE_AT] {
            let at = usize::try_from(at)?;
            bytes[at..at + 8].copy_from_slice(&bits);
        }
        file.write_all(&bytes)?;
        part.bytes += bytes.len() as u64;
        part.packets += 1;
        part.discarded = packet.header.discarded;
        part.end = packet.header.end;
    }
    Ok(())
}

/// The session of what was saved. What the account had and the files have not is unwritten; without an account, what is in the files was
/// recorded, and what the packets tell was lost, for reasons that are not known.
fn account(trace: &Trace, parts: &BTreeMap<u32, Part>, left_out: u64) -> SessionFile {
    let mut session = trace.session.clone();
    let had_account = trace.is_finished();
    if session.clock.end.is_none() {
        let start = session.clock.start;
        let last = parts.values().map(|part| part.end).max().unwrap_or(0).max(start.monotonic);
        let mut end = start;
        let passed = last - start.monotonic;
        end.monotonic = last;
        end.boottime = end.boottime.saturating_add(passed);
        end.realtime = end.realtime.saturating_add(passed);
        session.clock.end = Some(end);
    }
    for (&cpu, part) in parts {
        let found = session.cpus.iter().position(|account| account.cpu == cpu);
        let index = found.unwrap_or_else(|| {
            session.cpus.push(CpuAccount { cpu, ..CpuAccount::default() });
            session.cpus.len() - 1
        });
        let account = &mut session.cpus[index];
        account.bytes = part.bytes;
        account.subbufs_processed = part.packets;
        if had_account && found.is_some() {
            account.unwritten = account.recorded.saturating_sub(account.overrun).saturating_sub(part.records);
        } else {
            account.recorded = part.records;
            account.lost_full = part.discarded;
        }
    }
    // Files that are gone altogether.
    for account in session.cpus.iter_mut().filter(|account| !parts.contains_key(&account.cpu)) {
        account.unwritten = account.recorded.saturating_sub(account.overrun);
        account.bytes = 0;
    }
    session.cpus.sort_by_key(|account| account.cpu);
    session.repaired = Some(Repaired { bytes_left_out: left_out, had_account });
    session
}

/// Copies a file that names are found in, as it is. What is damaged about it is among the trace's flaws.
fn copy_file(trace: &Trace, name: &str, to: &Path) -> Result<()> {
    // What is longer is not read either.
    let Ok(Some(bytes)) = trace.private().read(name, LONGEST) else { return Ok(()) };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(to);
    let mut file = file.with_context(|| format!("making {}", to.display()))?;
    file.write_all(&bytes).with_context(|| format!("writing {}", to.display()))?;
    Ok(())
}
