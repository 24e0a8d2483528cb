//! Ends a trace in which nothing is recorded any more: takes what is left in the buffers, sees to it that every loss is told, and writes the
//! account.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::{Context as _, Result, bail};
use relay_common::{Buffer as _, Mode, trace::EVENTS_DISCARDED_AT};

use super::{addresses::Addresses, tasks::Tasks};
use crate::session::{PinnedSession, packets::header_word};
use relay_channel::{channel::Channel, consumer::Consumer, sys::MappedBuffer};
use relay_trace::form::{
    clock::Instant,
    directory::TraceDirectory,
    session::{CpuAccount, SessionFile},
};

/// Somebody else has removed the trace while it was recorded.
#[derive(Debug, thiserror::Error)]
#[error("{0}; nothing of it is left")]
pub struct Removed(String);

/// Drains those consumers that can go on, and returns what was in the way.
pub(crate) fn drain_all(consumers: &mut [(Consumer, bool)], channel: &Channel) -> Vec<String> {
    let mut errors = Vec::new();
    for (consumer, can_go_on) in consumers {
        let drained = if *can_go_on { drain(consumer, channel) } else { channel.flush(consumer.buffer().cpu()) };
        errors.extend(drained.err().map(|error| format!("{error:#}")));
        // What else the end writes may need the room that is set aside.
        consumer.finish();
    }
    errors
}

/// Ends a trace whose consumers are drained.
pub(crate) fn end_trace(
    mut pinned: PinnedSession,
    directory: TraceDirectory,
    mut session: SessionFile,
    (mut addresses, mut tasks): (Addresses, Tasks),
    consumers: Vec<(Consumer, bool)>,
    end: Instant,
    mut errors: Vec<String>,
) -> Result<SessionFile> {
    let channel = Arc::clone(&pinned.channel);
    session.clock.end = Some(end);
    // Before the links are gone: they know what they have missed.
    pinned.count(&mut session, tasks.executed())?;
    if pinned.counts_runs() {
        // The kernel counts until a program is detached.
        pinned.detach_and_wait()?;
    } else {
        pinned.detach()?;
    }
    channel.wait_for_running_programs()?;
    let missed = session.kprobes_missed;
    session.programs.clear();
    session.helpers.clear();
    pinned.count(&mut session, tasks.executed())?;
    session.kprobes_missed = missed;
    session.cpus = pinned.accounts()?;
    for account in &mut session.cpus {
        if let Some((consumer, _)) = consumers.iter().find(|(consumer, _)| consumer.buffer().cpu() == account.cpu)
            && let Err(error) = account_of(consumer, account)
        {
            errors.push(format!("{error:#}"));
        }
        if let Some(before) = session.before.iter().find(|before| before.cpu == account.cpu) {
            *account = account.since(before);
        }
    }
    session.error = (!errors.is_empty()).then(|| errors.join("; "));
    let written = directory.release_reserve().and_then(|()| session.write(&directory.private()));
    // Looked at afterwards: whoever removes it may be at it.
    if directory.is_removed() {
        // Nobody could recover it.
        pinned.close()?;
        if errors.is_empty() {
            errors.push("the trace's directory was removed by somebody else".to_owned());
        }
        return Err(Removed(errors.join("; ")).into());
    }
    written?;
    save_names(&mut addresses, &mut tasks, &directory.private(), |_| false);
    pinned.close()?;
    Ok(session)
}

/// Keeps what names need, last: they are worth less than an account. `make_room` is told why something could not be written, and says whether to try
/// again.
pub(crate) fn save_names(
    addresses: &mut Addresses,
    tasks: &mut Tasks,
    private: &Path,
    make_room: impl Fn(&anyhow::Error) -> bool,
) {
    let try_again = |write: &mut dyn FnMut() -> Result<()>| {
        loop {
            match write() {
                Err(error) if make_room(&error) => {}
                other => return other,
            }
        }
    };
    if let Err(error) = try_again(&mut || addresses.save(private)) {
        log::error!("stacks may have fewer names: {error:#}");
    }
    if let Err(error) = try_again(&mut || tasks.save(private)) {
        log::error!("threads may have no names: {error:#}");
    }
}

/// Takes all that is left on a CPU where no program runs any more, and sees to it that the last packet tells all that was lost.
fn drain(consumer: &mut Consumer, channel: &Channel) -> Result<()> {
    consumer.drain(channel)?;
    let buffer = Arc::clone(consumer.buffer());
    if buffer.control().producer.lost() != told(&buffer)? {
        channel.mark(buffer.cpu())?;
        while consumer.pass(u64::MAX)? > 0 {}
    }
    Ok(())
}

/// The losses that the last packet of a CPU tells.
pub(crate) fn told(buffer: &MappedBuffer) -> Result<u64> {
    buffer.reader().produced().checked_sub(1).map_or(Ok(0), |last| told_by(buffer, last))
}

/// The losses that a closed packet tells.
pub(crate) fn told_by(buffer: &MappedBuffer, number: u64) -> Result<u64> {
    let told = header_word(buffer, number, EVENTS_DISCARDED_AT)?;
    if !buffer.reader().survived(number) {
        bail!("cpu {}: its last packet was overwritten while it was looked at", buffer.cpu());
    }
    Ok(told)
}

/// Adds what a CPU at rest has recorded, and what of that is in its file.
fn account_of(consumer: &Consumer, account: &mut CpuAccount) -> Result<()> {
    let cpu = account.cpu;
    let reader = consumer.buffer().reader();
    let count = reader.count().with_context(|| format!("the buffer of cpu {cpu} is not at rest"))?;
    let statistics = consumer.statistics();
    let taken = statistics.records.load(Relaxed);
    // Ready, and not taken: only when the file could not be written. Memory that was scribbled on may have been overwritten in
    // any mode.
    let left = reader.pass(consumer.consumed(), Mode::Overwrite)?;
    let left = (left.first..left.first + left.backlog).map(|number| reader.subbuf(number));
    account.unwritten =
        left.map(|subbuf| Ok(subbuf?.map_or(0, |subbuf| u64::from(subbuf.records)))).sum::<Result<u64>>()?;
    account.recorded = count.recorded;
    account.overrun = count
        .recorded
        .checked_sub(taken.saturating_add(account.unwritten))
        .with_context(|| format!("cpu {cpu}: {} records recorded, but {taken} taken", count.recorded))?;
    account.bytes = statistics.bytes.load(Relaxed);
    account.subbufs_processed = statistics.subbufs_processed.load(Relaxed);
    account.max_backlog = statistics.max_backlog.load(Relaxed);
    Ok(())
}
