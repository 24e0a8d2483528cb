//! A session in the kernel: channel and programs, pinned, so that it goes on whatever becomes of the process that made it, and a description
//! of it beside them.
//!
//! `relayd start` makes one and exits; `relayd trace` makes one and reads from it, and whoever comes after a recorder that was killed
//! finds it. The description is pinned last: a folder without one was left by a process that was killed while it made it.

mod change;
mod description;
mod folders;
mod loader;
pub(crate) mod packets;
pub mod status;
mod table;

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, thread};

use anyhow::{Context as _, Result, bail};
use relay_common::{Geometry, Mode, rows::Account};

use self::{
    description::describe,
    loader::{Loader, Orders},
    packets::OfTrace,
};
pub use self::{
    description::{Description, Until},
    folders::{Orphan, check_name, names, orphans, remove, sweep, trace_name},
    loader::Notices,
};
use crate::{
    host::{self, Executed},
    kernel::{
        choice::Choice,
        programs::{Fired, Programs},
    },
    probe::{self, Event},
};
use relay_channel::{
    channel::Channel,
    machine,
    pins::{self, OpenError, PinFolder},
};
use relay_trace::form::{
    format::Format,
    metadata,
    session::{CpuAccount, Pairs, SessionEvent, SessionFile},
};

/// How many wait for the kernel at once to have detached.
const DETACHING: usize = 64;

/// What to record.
#[derive(Debug)]
pub struct SessionOptions {
    /// The events.
    pub events: Vec<Event>,
    /// Whose events are recorded.
    pub choice: Choice,
    /// What stands before every payload: bits of `relay_common::recipe::context`.
    pub context: u32,
    /// How buffers are cut.
    pub geometry: Geometry,
    /// What to lose when the reader is behind.
    pub mode: Mode,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// A session whose programs are loaded and not attached yet.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Prepared {
    /// The channel that they will write to.
    pub channel: Arc<Channel>,
    uuid: [u8; 16],
    loader: Loader,
    folder: Arc<PinFolder>,
    options: SessionOptions,
    named: bool,
}

/// A session in the kernel.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct PinnedSession {
    /// Its channel.
    pub channel: Arc<Channel>,
    /// Its programs, in the order of the description's.
    pub programs: Vec<Programs>,
    /// What there is to know of it.
    pub description: Description,
    folder: Arc<PinFolder>,
}

impl Prepared {
    /// Makes the channel and loads the programs. Without a name it is the session of a trace that this process records.
    ///
    /// # Errors
    /// When the name is in use, memory does not suffice, or the kernel refuses something. Nothing stays behind then.
    pub fn load(name: Option<&str>, mut options: SessionOptions) -> Result<(Self, Option<Notices>)> {
        machine::raise_limits();
        sweep();
        let uuid = host::new_uuid()?;
        let folder = match name {
            Some(name) => {
                check_name(name)?;
                if pins::list()?.iter().any(|other| other == name) {
                    bail!(
                        "there is a session {name} already: relayd status {name} shows it, relayd stop {name} ends it"
                    );
                }
                PinFolder::create(name)?
            }
            None => PinFolder::create(&trace_name(&metadata::uuid_text(uuid)))?,
        };
        let folder = Arc::new(folder);
        let channel = Arc::new(Channel::create(options.geometry, options.mode, OfTrace { uuid })?);
        let named = name.is_some();
        probe::number(&mut options.events, 0)?;
        let (loader, notices) = Loader::load(&channel, &orders(&options, named))?;
        channel.pin(&folder)?;
        Ok((Self { channel, uuid, loader, folder, options, named }, notices))
    }

    /// Makes the kernel count how often programs run, as long as the session is open here.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count_runs(&mut self) -> Result<()> {
        self.loader.count_runs()
    }

    /// Attaches to the events and pins everything. Nothing is recorded before [`Programs::start`]. It all goes again when the session is
    /// dropped, until [`PinnedSession::keep`].
    ///
    /// # Errors
    /// When an event cannot be attached to.
    pub fn attach(self, after: u64, recorder: Option<(PathBuf, bool)>) -> Result<PinnedSession> {
        let Self { channel, uuid, loader, folder, options, named } = self;
        let (mut programs, attached) = attach(loader, &orders(&options, named))?;
        programs.arm(after)?;
        let pinned = programs.pin(&folder, "0-")?;
        let triggers = options.events.iter().filter(|event| event.is_trigger).map(|event| event.id);
        let until = Until { after, events: triggers.collect() };
        let SessionOptions { choice, context, command, .. } = options;
        let session = describe(uuid, command, &channel, context, attached)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let description = Description { version, session, choice, context, programs: vec![pinned], until, recorder };
        let made = PinnedSession { channel, programs: vec![programs], description, folder };
        made.save()?;
        Ok(made)
    }
}

impl PinnedSession {
    /// Opens a session.
    ///
    /// # Errors
    /// When there is none of that name, another process works with it, or it is not one of this boot and this version.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        let folder = PinFolder::open(name)?;
        Ok(Self::open_folder(folder, name)?)
    }

    /// Opens a session to look at it, whoever works with it.
    ///
    /// # Errors
    /// When there is none of that name, or it is not one of this boot and this version.
    pub fn look(name: &str) -> Result<Self, OpenError> {
        let folder = PinFolder::look(name)?;
        Ok(Self::open_folder(folder, name)?)
    }

    fn open_folder(folder: PinFolder, name: &str) -> Result<Self> {
        // As many files as it took to make it.
        machine::raise_limits();
        let description = Description::read(&folder, name)?;
        let folder = Arc::new(folder);
        let session = &description.session;
        let geometry = Geometry::new(session.subbuf_size, session.n_subbufs).context("the session's geometry")?;
        let mode = if session.mode == "overwrite" { Mode::Overwrite } else { Mode::NoOverwrite };
        let uuid = metadata::parse_uuid(&session.uuid).context("the session's UUID")?;
        let channel = Arc::new(Channel::open(&folder, geometry, mode, OfTrace { uuid })?);
        let programs = description.programs.iter().map(|pinned| Programs::open(&folder, pinned));
        Ok(Self { channel, programs: programs.collect::<Result<_>>()?, description, folder })
    }

    /// Writes the description, in place of the one that is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn save(&self) -> Result<()> {
        self.description.write(&self.folder)
    }

    /// Goes on recording after a record has stopped it, until the next one does.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rearm(&mut self) -> Result<()> {
        // Calls that were under way when it was stopped may have returned unseen: they are not pairs of what returns from now on.
        self.start()?;
        let after = self.description.until.after;
        self.programs.first_mut().map_or(Ok(()), |programs| programs.arm(after))
    }

    /// Whether a record can stop it.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        let Description { session, until, .. } = &self.description;
        session.events.iter().any(|event| event.is_recorded() && until.events.contains(&event.id))
    }

    /// Whether all is attached that was and has not been removed since.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_attached(&self) -> Result<bool> {
        let pins = self.description.programs.iter().map(|pinned| pinned.links(None)).collect::<Result<Vec<_>>>()?;
        Ok(pins.iter().flatten().all(|pin| self.folder.has(pin)))
    }

    /// The group that may read it.
    ///
    /// # Errors
    /// What the system says.
    pub fn group(&self) -> Result<u32> {
        let path = self.folder.path();
        Ok(fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.gid())
    }

    /// Whether it is still in the kernel, or was stopped meanwhile.
    #[must_use]
    pub fn is_there(&self) -> bool {
        Description::is_in(&self.folder)
    }

    fn unpin_links(&self, only: Option<&[u16]>) -> Result<()> {
        let pins = self.description.programs.iter().map(|pinned| pinned.links(only)).collect::<Result<Vec<_>>>()?;
        pins.iter().flatten().try_for_each(|pin| self.folder.unpin(pin))
    }

    /// Detaches from all events. The kernel waits for grace periods at each (measured: 75 ms), and this does not wait for the kernel.
    ///
    /// # Errors
    /// What the system says.
    pub fn detach(&mut self) -> Result<()> {
        // Descriptors first. Who closes the last one of a link waits for the grace periods; a pin that is the last reference is put by
        // a worker of the kernel's, and the workers wait side by side (kernel/bpf/syscall.c, `bpf_link_put` and `bpf_link_put_direct`).
        self.programs.iter_mut().for_each(Programs::detach);
        self.unpin_links(None)
    }

    /// Whether the kernel counts the runs of its programs.
    pub fn counts_runs(&self) -> bool {
        self.programs.iter().any(|programs| programs.stats.is_some())
    }

    /// Detaches from all events, and waits until the kernel has: from then on no program runs.
    ///
    /// # Errors
    /// What the system says.
    pub fn detach_and_wait(&mut self) -> Result<()> {
        self.unpin_links(None)?;
        let links: Vec<_> = self.programs.iter_mut().flat_map(|programs| programs.links.drain(..)).collect();
        let share = links.len().div_ceil(DETACHING);
        let mut links = links.into_iter();
        thread::scope(|scope| {
            loop {
                let share: Vec<_> = links.by_ref().take(share).collect();
                if share.is_empty() {
                    break;
                }
                scope.spawn(|| drop(share));
            }
        });
        Ok(())
    }

    /// From now on events are recorded; those of the recorder, if it has one, as it was told.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(&self) -> Result<()> {
        let record_self = self.description.recorder.as_ref().is_none_or(|(_, record_self)| *record_self);
        self.programs.iter().try_for_each(|programs| programs.start(record_self))
    }

    /// From now on nothing is recorded.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stop(&self) -> Result<()> {
        self.programs.iter().try_for_each(Programs::stop)
    }

    /// From now on it stays when this process ends.
    pub fn keep(&self) {
        self.folder.keep();
    }

    /// Takes everything out of the kernel.
    ///
    /// # Errors
    /// What the system says.
    pub fn close(self) -> Result<()> {
        // First, so that what a kill leaves here is not taken for a session.
        Description::remove(&self.folder)?;
        self.folder.remove()
    }

    /// What has ended the recording, if something has.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn fired(&self) -> Result<Option<Fired>> {
        self.programs.first().map_or(Ok(None), Programs::fired)
    }

    /// The name of an event.
    #[must_use]
    pub fn event_name(&self, id: u16) -> &str {
        let event = self.description.session.events.iter().find(|event| event.id == id);
        event.map_or("an event that is not known", |event| &event.name)
    }

    /// The trace's metadata.
    ///
    /// # Errors
    /// When the description of an event is not understood.
    pub fn metadata(&self) -> Result<String> {
        let session = &self.description.session;
        let formats = session.events.iter().map(|event| {
            Ok((event, Format::parse(&event.format).with_context(|| format!("the fields of {}", event.name))?))
        });
        let formats: Vec<(&SessionEvent, Format)> = formats.collect::<Result<_>>()?;
        let described = formats.iter().map(|(event, format)| (event.id, event.name.as_str(), &format.fields[..]));
        Ok(metadata::write(session, described))
    }

    /// Writes into a session what programs and kernel have counted: all but what is in the buffers.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn count(&self, session: &mut SessionFile, executed: &Executed) -> Result<()> {
        let mut missed = None;
        for programs in &self.programs {
            session.programs.extend(programs.report()?);
            session.helpers.extend(programs.report_helpers()?);
            missed = programs.missed()?.map_or(missed, |more| Some(missed.unwrap_or(0) + more));
        }
        session.kprobes_missed = missed;
        for event in &mut session.events {
            if let Some(hertz) = event.hertz() {
                let counts = self.programs.iter().map(|programs| programs.samples_missed(event.id, hertz));
                event.missed = Some(counts.sum::<Result<u64>>()?);
            }
        }
        for event in session.events.iter_mut().filter(|event| event.suppressed.is_some()) {
            let counts = self.programs.iter().map(|programs| programs.suppressed(event.id));
            event.suppressed = Some(counts.sum::<Result<u64>>()?);
        }
        self.count_pairs(&mut session.events, executed)
    }

    /// What has become of the entries of each event that has pairs.
    fn count_pairs(&self, events: &mut [SessionEvent], executed: &Executed) -> Result<()> {
        if events.iter().all(|event| event.pairs.is_none()) {
            return Ok(());
        }
        let waiting: Vec<_> = self.programs.iter().map(|programs| programs.waiting(executed)).collect::<Result<_>>()?;
        for (event, pairs) in events.iter_mut().filter_map(|event| Some((event.id, event.pairs.as_mut()?))) {
            *pairs = Pairs::default();
            for (programs, waiting) in self.programs.iter().zip(&waiting) {
                programs.count_pairs(event, waiting, pairs)?;
            }
            // Where the map was full, the kernel has dropped what was not used for longest (kernel/bpf/bpf_lru_list.c).
            pairs.no_room = pairs.entries.saturating_sub(pairs.returned).saturating_sub(pairs.unreturned());
        }
        Ok(())
    }

    /// What each possible CPU has lost and left out so far.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn accounts(&self) -> Result<Vec<CpuAccount>> {
        let mut accounts = Vec::new();
        let left_out: Vec<Vec<Account<u64>>> = self.programs.iter().map(Programs::accounts).collect::<Result<_>>()?;
        // A per-CPU map has a value for every possible CPU, in their order.
        for (index, &cpu) in self.channel.possible().iter().enumerate() {
            let counters = self.channel.counters(cpu).with_context(|| format!("cpu {cpu} has no control row"))?;
            let total =
                |of: fn(&Account<u64>) -> u64| left_out.iter().filter_map(|cpus| cpus.get(index)).map(of).sum::<u64>();
            accounts.push(CpuAccount {
                cpu,
                filtered: total(|left_out| left_out.own + left_out.outside + left_out.unwanted),
                filtered_outside: total(|left_out| left_out.outside),
                filtered_unwanted: total(|left_out| left_out.unwanted),
                suppressed: total(|left_out| left_out.suppressed),
                entries: total(|left_out| left_out.entries),
                unpaired: total(|left_out| left_out.unpaired),
                faults: total(|left_out| left_out.faults),
                returned: total(|left_out| left_out.returned),
                notes: total(|left_out| left_out.notes),
                other_calls: total(|left_out| left_out.other_calls),
                compat_calls: total(|left_out| left_out.compat_calls),
                lost_full: counters.lost_full,
                lost_too_big: counters.lost_too_big,
                lost_nested: counters.lost_nested,
                lost_no_buffer: counters.lost_no_buffer,
                ..CpuAccount::default()
            });
        }
        Ok(accounts)
    }
}

impl Drop for PinnedSession {
    /// Now, and not when the last reader of the channel has gone: this process may end before.
    fn drop(&mut self) {
        // As in `detach`.
        self.programs.iter_mut().for_each(Programs::detach);
        self.folder.remove_temporary();
    }
}

fn orders(options: &SessionOptions, named: bool) -> Orders<'_> {
    let SessionOptions { events, choice, context, .. } = options;
    Orders { events, choice, context: *context, named, shared: None }
}

/// Attaches, and says which events were.
fn attach(loader: Loader, orders: &Orders<'_>) -> Result<(Programs, Vec<SessionEvent>)> {
    let (programs, refused) = loader.attach(orders)?;
    let refusal = |event: &Event| refused.iter().find(|refused| refused.id == event.id);
    for (event, refused) in orders.events.iter().filter_map(|event| Some((event, refusal(event)?))) {
        log::info!("left out {}: {:#}", event.name, refused.error);
    }
    let count = orders.events.len();
    if !refused.is_empty() {
        log::warn!("{} of {count} events could not be attached (RUST_LOG=info names them)", refused.len());
    }
    let attached = orders.events.iter().filter(|event| refusal(event).is_none());
    let attached = attached.map(|event| SessionEvent {
        id: event.id,
        name: event.name.clone(),
        size: event.format.payload_size(),
        format: event.text.clone(),
        suppressed: event.limit.map(|_| 0),
        pairs: event.pair.as_ref().map(|_| Pairs::default()),
        missed: None,
        added: None,
        removed: None,
    });
    let attached = attached.collect();
    Ok((programs, attached))
}
