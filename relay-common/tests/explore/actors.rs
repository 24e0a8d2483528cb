//! Who uses the channel in the explorer: writers, flushes and marks, and the one reader.

use relay_common::{
    Buffer as _, Client, Closing, Mode, ProducerWords, Reader, ReaderWord as _, Subbuf, Writer,
    trace::{Clock, Packets},
};

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

/// The clock counts its readings. In an interrupt it may be a little ahead, as in an NMI.
#[derive(Debug)]
struct Ticks;

impl Clock for Ticks {
    fn now(&self) -> u64 {
        const AHEAD: u64 = 5;
        let machine = machine();
        let ahead = if machine.steps_back && machine.in_interrupt() { AHEAD } else { 0 };
        machine.act("read", "clock", || machine.book.borrow_mut().tick() + ahead)
    }
    fn steps_back(&self) -> bool {
        machine().steps_back
    }
}

/// The tracer's stamps.
const CLOCKED: Packets<Ticks> = Packets { clock: Ticks };

/// A client whose header tells what it was told.
#[derive(Debug)]
pub(crate) struct Probe<const HEADER: u64, const ALIGN: u64>;

impl<const HEADER: u64, const ALIGN: u64> Client<Machine> for Probe<HEADER, ALIGN> {
    const HEADER: u64 = HEADER;
    const ALIGN: u64 = ALIGN;
    fn stamp(&self, producer: &ProducerWords<Shared>) -> u64 {
        Client::<Machine>::stamp(&CLOCKED, producer)
    }
    fn stamped(&self, producer: &ProducerWords<Shared>, stamp: u64) {
        Client::<Machine>::stamped(&CLOCKED, producer, stamp);
    }
    fn subbuf_start(&self, machine: &Machine, place: u64, number: u64, stamp: u64) {
        machine.note(|| machine.book.borrow_mut().started(number));
        if HEADER != 0 {
            machine.store_u64(place, number << 32 | stamp);
        }
    }
    fn subbuf_end(&self, machine: &Machine, place: u64, closing: Closing) {
        machine.note(|| machine.book.borrow_mut().ended(machine.geometry.number(place)));
        if HEADER != 0 {
            machine.store_u64(place + 8, closing.stamp << 32 | closing.content << 16 | closing.lost);
        }
    }
    fn buf_full(&self, machine: &Machine) {
        machine.act("call", "buf_full", || machine.book.borrow_mut().tell_full());
    }
    fn buf_recovered(&self, machine: &Machine) {
        machine.act("call", "buf_recovered", || machine.book.borrow_mut().tell_recovered());
    }
}

/// Runs an actor on the machine, for a client.
pub(crate) fn run<const HEADER: u64, const ALIGN: u64>(machine: &'static Machine, actor: Actor) {
    let writer =
        Writer { buffer: machine, client: &Probe::<HEADER, ALIGN>, geometry: machine.geometry, mode: machine.mode };
    if actor.reads() {
        let reading = |is| machine.note(|| machine.reading.replace(is).into());
        assert_eq!(reading(true), 0, "there is one reader");
        read(machine, actor);
        reading(false);
        return;
    }
    let len = if let Actor::Write(len) = actor { Some(len) } else { None };
    machine.note(|| machine.book.borrow_mut().enter(machine, len));
    match actor {
        Actor::Write(len) => write(machine, &writer, len),
        Actor::Flush => writer.flush(),
        _ => writer.mark(),
    }
    machine.note(|| machine.book.borrow_mut().leave(machine));
}

fn write<C: Client<Machine>>(machine: &Machine, writer: &Writer<'_, Machine, C>, len: u64) {
    let reservation = match writer.reserve(len) {
        Ok(reservation) => reservation,
        Err(lost) => {
            machine.note(|| machine.book.borrow_mut().lost(machine, lost));
            return;
        }
    };
    let id = machine.note(|| machine.book.borrow_mut().granted(machine, &reservation));
    let bytes: [u8; 64] = std::array::from_fn(|i| book::byte(id, i as u64));
    let bytes = &bytes[..usize::try_from(len).unwrap()];
    // Nobody else may use these bytes: an interrupt at the first and in the middle stands for all.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for (at, half) in [(0, first), (first.len() as u64, second)] {
        if !half.is_empty() {
            machine.store_all("record", reservation.place + at, half);
        }
    }
    writer.commit(&reservation);
}

fn read(machine: &'static Machine, actor: Actor) {
    match actor {
        Actor::Count => {
            let count = Reader { buffer: machine, geometry: machine.geometry }.count();
            machine.note(|| machine.book.borrow().counted(machine, count));
        }
        Actor::Sleep => {
            while drain(machine, u64::MAX) > 0 {}
            let sleeping = |is| machine.note(|| machine.book.borrow_mut().sleep(is));
            sleeping(true);
            machine.control().consumer.waiting.announce(1);
            if drain(machine, u64::MAX) > 0 {
                sleeping(false);
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
    let before = machine.note(|| machine.book.borrow().consumed);
    let consume = |to| machine.note(|| machine.book.borrow_mut().consume(to));
    let pass = reader.pass(before, machine.mode).unwrap();
    if pass.overrun > 0 {
        consume(pass.first);
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
        consume(number + 1);
        if let Some((subbuf, copy)) = copied.filter(|_| !overwritten()) {
            machine.note(|| machine.book.borrow_mut().read(machine, &subbuf, &copy));
            taken += 1;
        }
        reader.release(number + 1);
    }
    taken
}

fn copy(machine: &Machine, subbuf: &Subbuf) -> Vec<u8> {
    let places = subbuf.place..subbuf.place + subbuf.len;
    let load = |place| machine.act("load", "record", || machine.byte(place).get().into());
    places.map(|place| u8::try_from(load(place)).unwrap()).collect()
}

/// Where a client's sub-buffers begin their records.
pub(crate) const fn layout<const HEADER: u64, const ALIGN: u64>() -> Layout {
    Layout { header: HEADER, align: ALIGN, first: (relay_common::HEADER + HEADER).next_multiple_of(ALIGN) }
}
