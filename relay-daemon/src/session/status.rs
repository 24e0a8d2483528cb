//! How a session stands, for `relayd status`.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::Result;
use relay_common::{Buffer as _, MAX_RECORD, Mode, Word as _, trace::TIMESTAMP_BEGIN_AT};
use serde::Serialize;

use super::{PinnedSession, packets::header_word};
use crate::{host::Executed, kernel::programs::Fired};
use relay_channel::sys::MappedBuffer;
use relay_trace::form::{
    clock::Instant,
    session::{CpuAccount, Pairs},
};

/// How long rates are measured.
const SAMPLE: Duration = Duration::from_millis(200);
/// How often an instant is tried at which no writer is at work.
const TRIES: u32 = 1000;

/// How a session stands.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The events that it records.
    pub events: Vec<String>,
    /// Seconds since it was started.
    pub age: f64,
    /// Seconds of the past that all CPUs' buffers hold whole.
    pub span: f64,
    /// Records so far.
    pub recorded: u64,
    /// Records a second, now.
    pub rate: f64,
    /// Of the records so far, those that newer ones have overwritten.
    pub overrun: u64,
    /// Records lost so far, all causes.
    pub lost: u64,
    /// Bytes of its buffers.
    pub memory: u64,
    /// The record that has stopped it, if one has.
    pub stopped_by: Option<StoppingRecord>,
    /// Whether a record can stop it.
    pub armed: bool,
    /// What has become of entries that are kept for their returns, by event.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pairs: BTreeMap<String, Pairs>,
    /// Every CPU that has a buffer.
    pub cpus: Vec<CpuStatus>,
}

/// The record that has stopped a session.
#[derive(Debug, Serialize)]
pub struct StoppingRecord {
    /// Its event.
    pub event: String,
    /// The rest of it.
    #[serde(flatten)]
    pub fired: Fired,
}

/// How one CPU's buffer stands.
#[derive(Debug, Serialize)]
pub struct CpuStatus {
    /// What it has recorded, lost and left out so far.
    #[serde(flatten)]
    pub account: CpuAccount,
    /// Seconds of the past that the buffer holds whole.
    pub span: f64,
}

impl Status {
    /// Looks at a session, for a fifth of a second.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(name: &str, pinned: &PinnedSession) -> Result<Self> {
        let buffers = pinned.channel.buffers();
        let total = || buffers.iter().map(|buffer| recorded(buffer)).fold(0, u64::saturating_add);
        let (before, start) = (total(), std::time::Instant::now());
        thread::sleep(SAMPLE);
        let rate = total().saturating_sub(before) as f64 / start.elapsed().as_secs_f64();
        let description = &pinned.description;
        let started = description.session.clock.start.monotonic;
        let fired = pinned.fired()?;
        let now = Instant::now().monotonic;
        let end = fired.map_or(now, |fired| fired.end.min(now));
        let mut accounts = pinned.accounts()?;
        let mut cpus = Vec::new();
        for buffer in &buffers {
            let account = accounts.iter_mut().find(|account| account.cpu == buffer.cpu()).map(std::mem::take);
            let from = oldest(buffer)?.unwrap_or(started);
            cpus.push(CpuStatus {
                account: CpuAccount {
                    cpu: buffer.cpu(),
                    recorded: recorded(buffer),
                    overrun: buffer.control().producer.retired.peek(),
                    ..account.unwrap_or_default()
                },
                span: seconds(end.saturating_sub(from.max(started))),
            });
        }
        let mut known = description.session.events.clone();
        pinned.count_pairs(&mut known, &Executed::default())?;
        let geometry = pinned.channel.geometry();
        Ok(Self {
            name: name.to_owned(),
            events: description
                .session
                .events
                .iter()
                .filter(|event| event.is_recorded())
                .map(|event| event.name.clone())
                .collect(),
            age: seconds(now.saturating_sub(started)),
            span: cpus.iter().map(|cpu| cpu.span).reduce(f64::min).unwrap_or(0.0),
            recorded: cpus.iter().map(|cpu| cpu.account.recorded).fold(0, u64::saturating_add),
            rate,
            overrun: cpus.iter().map(|cpu| cpu.account.overrun).fold(0, u64::saturating_add),
            lost: cpus
                .iter()
                .map(|cpu| cpu.account.lost())
                .chain(accounts.iter().map(CpuAccount::lost))
                .fold(0, u64::saturating_add),
            memory: (geometry.buffer_size() + MAX_RECORD) * buffers.len() as u64,
            stopped_by: fired.map(|fired| StoppingRecord { event: pinned.event_name(fired.event).to_owned(), fired }),
            armed: pinned.is_armed(),
            pairs: known.into_iter().filter_map(|event| Some((event.name, event.pairs?))).collect(),
            cpus,
        })
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Records so far; while writers are at work without a pause, those that are counted of closed laps.
fn recorded(buffer: &MappedBuffer) -> u64 {
    let reader = buffer.reader();
    let count = (0..TRIES).find_map(|_| reader.count());
    count.map_or_else(|| buffer.control().producer.retired.peek(), |count| count.recorded)
}

/// When the oldest packet begins that the buffer still has; `None` while it has all that there were.
fn oldest(buffer: &MappedBuffer) -> Result<Option<u64>> {
    let reader = buffer.reader();
    for _ in 0..TRIES {
        let first = reader.pass(0, Mode::Overwrite)?.first;
        if first == 0 {
            return Ok(None);
        }
        let begin = header_word(buffer, first, TIMESTAMP_BEGIN_AT)?;
        if reader.survived(first) {
            return Ok(Some(begin));
        }
    }
    Ok(Some(Instant::now().monotonic))
}
