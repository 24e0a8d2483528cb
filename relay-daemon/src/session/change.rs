//! Changing the events of a session that is running, and saying so in its trace.
//!
//! What is added are programs of their own, with maps of their own, that write to the same channel: nothing that runs is changed.

use anyhow::Result;

use super::{
    PinnedSession, attach,
    description::change_event,
    loader::{Loader, Orders},
};
use crate::{
    kernel::programs::{Pinned, Programs},
    probe::{self, Event},
};
use relay_trace::form::{
    clock::Instant,
    session::{CHANGE, SessionEvent},
};

impl PinnedSession {
    /// Records more events from now on, and that there are more; returns how many. New programs write to the same channel.
    ///
    /// # Errors
    /// When an event cannot be attached to. Nothing of it stays then.
    pub fn add(&mut self, mut events: Vec<Event>) -> Result<usize> {
        let change = self.change()?;
        probe::number(&mut events, change.saturating_add(1).max(self.next_id()))?;
        let prefix = format!("{}-", self.description.programs.len());
        // What a process has left that was killed here.
        self.unpin(&prefix)?;
        let added = self.attach_more(&events, &prefix);
        let (programs, pinned, attached) = added.inspect_err(|_| {
            if let Err(error) = self.unpin(&prefix) {
                log::warn!("{error:#}");
            }
        })?;
        let now = Instant::now().monotonic;
        let count = attached.len();
        let attached = attached.into_iter().map(|event| SessionEvent { added: Some(now), ..event });
        self.description.session.events.extend(attached);
        self.description.programs.push(pinned);
        self.programs.push(programs);
        // Before the first record of theirs.
        self.save()?;
        self.programs.last().map_or(Ok(()), |programs| programs.start(true))?;
        self.note(change, count, 0)?;
        Ok(count)
    }

    fn attach_more(&self, events: &[Event], prefix: &str) -> Result<(Programs, Pinned, Vec<SessionEvent>)> {
        let orders = Orders {
            events,
            choice: &self.description.choice,
            context: self.description.context,
            named: true,
            shared: Some(self.folder.path()),
        };
        let (loader, _notices) = Loader::load(&self.channel, &orders)?;
        let (programs, attached) = attach(loader, &orders)?;
        let pinned = programs.pin(&self.folder, prefix)?;
        Ok((programs, pinned, attached))
    }

    /// The id of the event that says that the events have changed; from now on there is one.
    fn change(&mut self) -> Result<u16> {
        let found = self.description.session.events.iter().find(|event| event.name == CHANGE);
        if let Some(event) = found {
            return Ok(event.id);
        }
        let id = self.next_id();
        self.description.session.events.push(change_event(id));
        // Before the first record of it.
        self.save()?;
        Ok(id)
    }

    fn note(&self, change: u16, added: usize, removed: usize) -> Result<()> {
        let payload = u64::from(u32::try_from(added)?) | u64::from(u32::try_from(removed)?) << 32;
        self.programs.first().map_or(Ok(()), |programs| programs.note(change, payload))
    }

    fn next_id(&self) -> u16 {
        self.description.session.events.iter().map(|event| event.id).max().map_or(0, |id| id.saturating_add(1))
    }

    fn unpin(&self, prefix: &str) -> Result<()> {
        let names = self.folder.names()?;
        names.iter().filter(|name| name.starts_with(prefix)).try_for_each(|name| self.folder.unpin(name))
    }

    /// Records events no more, and that there are fewer.
    ///
    /// # Errors
    /// When one was attached together with others that are to stay.
    pub fn remove(&mut self, events: &[u16]) -> Result<()> {
        let change = self.change()?;
        self.unpin_links(Some(events))?;
        self.programs.iter_mut().try_for_each(|programs| programs.forget(events))?;
        let now = Instant::now().monotonic;
        for event in self.description.session.events.iter_mut().filter(|event| events.contains(&event.id)) {
            event.removed = Some(now);
        }
        self.save()?;
        self.note(change, 0, events.len())
    }
}
