//! Who uses the channel in the explorer: writers, flushes and marks, and the one reader.

use relay_common::{Buffer as _, Client, Closing, Mode, Producer, Reader, ReaderWord as _, Subbuf, Writer};

use crate::{
    book::{self, Layout},
    machine::{Machine, Shared, machine},
};

/// Something that happens from beginning to end, apart from what interrupts it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Actor {
    /// One record of so many bytes.
    Write(u64),
    Flush,
    Mark,
    /// The reader takes what is ready, at most so many sub-buffers.
    Drain(u64),
    /// The reader takes what is ready, says that it sleeps, and looks again.
    Sleep,
    /// The reader counts the records.
    Count,
}

impl Actor {
    /// Whether this is the reader, of which there is one.
    pub(crate) const fn reads(self) -> bool {
        matches!(self, Self::Drain(_) | Self::Sleep | Self::Count)
    }
}

/// A client whose header tells what it was told. Its clock counts its readings.
#[derive(Debug)]
pub(crate) struct Probe<const HEADER: u64, const ALIGN: u64>;

impl<const HEADER: u64, const ALIGN: u64> Client<Machine> for Probe<HEADER, ALIGN> {
    const HEADER: u64 = HEADER;
    const ALIGN: u64 = ALIGN;
    fn stamp(&self, _: &Producer<Shared>) -> u64 {
        let machine = machine();
        machine.access("read", "clock");
        machine.book.borrow_mut().tick()
    }
    fn subbuf_start(&self, machine: &Machine, place: u64, number: u64, stamp: u64) {
        machine.book.borrow_mut().started(number);
        if HEADER != 0 {
            machine.store_u64(place, number << 32 | stamp);
        }
    }
    fn subbuf_end(&self, machine: &Machine, place: u64, closing: Closing) {
        machine.book.borrow_mut().ended(machine.geometry.number(place));
        if HEADER != 0 {
            machine.store_u64(place + 8, closing.stamp << 32 | closing.content << 16 | closing.lost);
        }
    }
    fn buf_full(&self, machine: &Machine) {
        machine.access("call", "buf_full");
        machine.book.borrow_mut().full_told += 1;
    }
    fn buf_recovered(&self, machine: &Machine) {
        machine.access("call", "buf_recovered");
        machine.book.borrow_mut().recovered_told += 1;
    }
}

/// Runs an actor on the machine, for a client.
pub(crate) fn run<const HEADER: u64, const ALIGN: u64>(machine: &'static Machine, actor: Actor) {
    let writer =
        Writer { buffer: machine, client: &Probe::<HEADER, ALIGN>, geometry: machine.geometry, mode: machine.mode };
    if actor.reads() {
        machine.reading.set(true);
        read(machine, actor);
        machine.reading.set(false);
        return;
    }
    let len = if let Actor::Write(len) = actor { Some(len) } else { None };
    machine.book.borrow_mut().enter(machine, len);
    match actor {
        Actor::Write(len) => write(machine, &writer, len),
        Actor::Flush => writer.flush(),
        _ => writer.mark(),
    }
    machine.book.borrow_mut().leave();
}

fn write<C: Client<Machine>>(machine: &Machine, writer: &Writer<'_, Machine, C>, len: u64) {
    let reservation = match writer.reserve(len) {
        Ok(reservation) => reservation,
        Err(lost) => return machine.book.borrow_mut().lost(lost),
    };
    let id = machine.book.borrow_mut().granted(machine, &reservation);
    for i in 0..len {
        // Nobody else may use these bytes: an interrupt at the first and in the middle stands for all.
        if i == 0 || i == len / 2 {
            machine.access("store", "record");
        }
        machine.store(reservation.place + i, book::byte(id, i));
    }
    writer.commit(&reservation);
}

fn read(machine: &'static Machine, actor: Actor) {
    match actor {
        Actor::Count => {
            let count = Reader { buffer: machine, geometry: machine.geometry }.count();
            machine.book.borrow().counted(machine, count);
        }
        Actor::Sleep => {
            while drain(machine, u64::MAX) > 0 {}
            machine.book.borrow_mut().sleeping = true;
            machine.control().consumer.waiting.announce(1);
            if drain(machine, u64::MAX) > 0 {
                machine.book.borrow_mut().sleeping = false;
            }
        }
        Actor::Drain(most) => {
            drain(machine, most);
        }
        _ => {}
    }
}

/// One pass of the reader; returns how many sub-buffers it took whole.
pub(crate) fn drain(machine: &'static Machine, most: u64) -> u64 {
    let reader = Reader { buffer: machine, geometry: machine.geometry };
    let before = machine.book.borrow().consumed;
    let pass = reader.pass(before, machine.mode).unwrap();
    if pass.overrun > 0 {
        machine.book.borrow_mut().consumed = pass.first;
        reader.release(pass.first);
    }
    let mut taken = 0;
    for number in pass.first..pass.first + pass.backlog.min(most) {
        let overwritten = || machine.mode == Mode::Overwrite && !reader.survived(number);
        let subbuf = reader.subbuf(number).unwrap();
        // Not complete because it was entered again: those after it may be ready, and nobody wakes for them any more.
        if subbuf.is_none() && !overwritten() {
            break;
        }
        let copied = subbuf.map(|subbuf| (subbuf, copy(machine, &subbuf)));
        machine.book.borrow_mut().consumed = number + 1;
        if let Some((subbuf, copy)) = copied.filter(|_| !overwritten()) {
            machine.book.borrow_mut().read(machine, &subbuf, &copy);
            taken += 1;
        }
        reader.release(number + 1);
    }
    taken
}

fn copy(machine: &Machine, subbuf: &Subbuf) -> Vec<u8> {
    let places = subbuf.place..subbuf.place + subbuf.len;
    places
        .map(|place| {
            machine.access("load", "record");
            machine.byte(place).get()
        })
        .collect()
}

/// Where a client's sub-buffers begin their records.
pub(crate) const fn layout<const HEADER: u64, const ALIGN: u64>() -> Layout {
    Layout { header: HEADER, align: ALIGN, first: (relay_common::HEADER + HEADER).next_multiple_of(ALIGN) }
}
