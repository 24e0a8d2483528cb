//! What there is to know of a session, as JSON in a map that is pinned beside its maps and programs: the BPF file system has no files.

use std::{os::fd::AsFd as _, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, IterableMap as _, Map, MapData};
use aya_obj::generated::bpf_map_type;
use relay_common::Mode;
use serde::{Deserialize, Serialize};

use crate::{
    host,
    kernel::{choice::Choice, programs::Pinned},
};
use relay_channel::{
    channel::Channel,
    pins::PinFolder,
    sys::{MapCreate, create_map},
};
use relay_trace::form::{
    clock::Instant,
    metadata,
    session::{self, CHANGE, SessionClock, SessionEvent, SessionFile},
};

/// What the description is pinned as.
const DESCRIPTION: &str = "session";
/// Bytes of an element of its map.
const BLOCK: usize = 4096;
/// The session's own event, as the kernel would describe it.
const CHANGE_FORMAT: &str = "name: change
ID: 0
format:
\tfield:unsigned int added;\toffset:8;\tsize:4;\tsigned:0;
\tfield:unsigned int removed;\toffset:12;\tsize:4;\tsigned:0;

print fmt: \"added=%u removed=%u\", REC->added, REC->removed
";

/// What there is to know of a session, for whoever opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// Of relayd: another version's channel may look different.
    pub version: String,
    /// What `session.json` will hold, without an account.
    pub session: SessionFile,
    /// Whose events are recorded.
    pub choice: Choice,
    /// What stands before every payload: bits of `relay_common::recipe::context`.
    pub context: u32,
    /// The programs: those that were there at the start, and those of events that were added.
    pub programs: Vec<Pinned>,
    /// What ends the recording.
    pub until: Until,
    /// Where the trace is that is being written, and whether the recorder's own events are in it.
    pub recorder: Option<(PathBuf, bool)>,
}

/// What ends a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Until {
    /// The ids of the events of which the first record does; none when nothing is to.
    pub events: Vec<u16>,
    /// How long recording goes on after that record, in nanoseconds.
    pub after: u64,
}

impl Description {
    /// Whether a folder has one.
    pub(crate) fn is_in(folder: &PinFolder) -> bool {
        folder.has(DESCRIPTION)
    }

    /// Takes the description away.
    pub(crate) fn remove(folder: &PinFolder) -> Result<()> {
        folder.unpin(DESCRIPTION)
    }

    /// Pins the description, in place of the one that is there.
    pub(crate) fn write(&self, folder: &PinFolder) -> Result<()> {
        let text = serde_json::to_vec(self).context("writing the session's description as JSON")?;
        let blocks: Vec<&[u8]> = text.chunks(BLOCK).collect();
        // The text ends with its last brace; what follows in the last block is zeros.
        let map = create_map(MapCreate {
            map_type: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
            key_size: 4,
            value_size: u32::try_from(BLOCK)?,
            max_entries: u32::try_from(blocks.len())?,
            map_name: *b"relay_session\0\0\0",
            ..MapCreate::default()
        });
        let map = map.context("making a map for the session's description")?;
        let map = Map::Array(MapData::from_fd(map)?);
        let mut map: Array<MapData, [u8; BLOCK]> = map.try_into()?;
        for (index, block) in (0..).zip(blocks) {
            let mut padded = [0; BLOCK];
            padded[..block.len()].copy_from_slice(block);
            map.set(index, padded, 0).context("writing the session's description")?;
        }
        folder.replace(DESCRIPTION, map.map().fd().as_fd())
    }

    /// Reads the description in a folder.
    pub(crate) fn read(folder: &PinFolder, name: &str) -> Result<Self> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Head {
            version: String,
            session: Boot,
        }
        #[derive(Deserialize)]
        struct Boot {
            boot_id: String,
        }
        let remove = format!("relayd stop {name} removes it");
        if !folder.has(DESCRIPTION) {
            bail!("{} is not complete: relayd was killed while it made it; {remove}", folder.path().display());
        }
        let map = Map::Array(MapData::from_fd(folder.get(DESCRIPTION)?)?);
        let map: Array<MapData, [u8; BLOCK]> = map
            .try_into()
            .with_context(|| format!("{} is not a description of a session; {remove}", folder.path().display()))?;
        let blocks: Vec<[u8; BLOCK]> =
            map.iter().collect::<Result<_, _>>().context("reading the session's description")?;
        let text = blocks.concat();
        let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let text = &text[..end];
        let damaged = || format!("the description of the session {name} is damaged; {remove}");
        let head: Head = serde_json::from_slice(text).with_context(damaged)?;
        if head.session.boot_id != host::boot_id().context("reading the boot id")? {
            bail!("the session {name} is of another boot, and so are the times in it; {remove}");
        }
        let ours = env!("CARGO_PKG_VERSION");
        if head.version != ours {
            bail!("relayd {} has made the session {name}, and this is {ours}; {remove}", head.version);
        }
        serde_json::from_slice(text).with_context(damaged)
    }
}

/// The session of a channel that programs begin to write to.
pub(crate) fn describe(
    uuid: [u8; 16],
    command: Vec<String>,
    channel: &Channel,
    context: u32,
    events: Vec<SessionEvent>,
) -> Result<SessionFile> {
    let (host, kernel) = host::host_and_kernel();
    Ok(SessionFile {
        format: session::FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uuid: metadata::uuid_text(uuid),
        host,
        kernel,
        machine: std::env::consts::ARCH.to_owned(),
        boot_id: host::boot_id().context("reading the boot id")?,
        command,
        mode: match channel.mode() {
            Mode::NoOverwrite => "no-overwrite".to_owned(),
            Mode::Overwrite => "overwrite".to_owned(),
        },
        subbuf_size: channel.geometry().subbuf_size(),
        n_subbufs: channel.geometry().n_subbufs(),
        context: metadata::context_fields(context).into_iter().map(str::to_owned).collect(),
        clock: SessionClock { start: Instant::now(), end: None },
        events,
        cpus: Vec::new(),
        programs: Vec::new(),
        helpers: Vec::new(),
        kprobes_missed: None,
        pieces: 0,
        pieces_removed: 0,
        records_removed: 0,
        before: Vec::new(),
        error: None,
        repaired: None,
    })
}

/// The session's own event.
pub(crate) fn change_event(id: u16) -> SessionEvent {
    SessionEvent {
        id,
        name: CHANGE.to_owned(),
        size: size_of::<u64>(),
        format: CHANGE_FORMAT.to_owned(),
        suppressed: None,
        pairs: None,
        missed: None,
        added: None,
        removed: None,
    }
}
