//! What has happened, noted beside the channel, and what must hold of it.

use relay_common::{Buffer as _, Committed, Count, HEADER, Lost, Mode, Reader, Reservation, Subbuf};

use crate::{
    actors::{Actor, drain},
    machine::Machine,
};

/// As many tries as a writer has: so often others must have moved on before it may give up.
const TRIES: u64 = 8;
/// Most exchanges of one writer: it may close in each try but the last.
const MOVES: usize = 9;

/// What a client adds to a sub-buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    pub(crate) header: u64,
    pub(crate) align: u64,
    /// Where the first record begins.
    pub(crate) first: u64,
}

/// A record that was granted room.
#[derive(Clone, Copy, Debug)]
struct Record {
    position: u64,
    len: u64,
    stamp: u64,
    read: bool,
}

/// A writer, flush or mark that has not returned.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    /// Of the record, if it is a write.
    len: Option<u64>,
    /// Its successful exchanges of `reserved`.
    moves: [(u64, u64); MOVES],
    n_moves: usize,
    moves_before: u64,
    /// Whether, at some instant since it began, its record had to be lost for this cause.
    was_full: bool,
    was_nested: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    layout: Layout,
    /// Where the execution started: the sub-buffer, and records recorded by then.
    first_number: u64,
    recorded_before: u64,
    /// Of each task, with those that interrupt it.
    frames: Vec<Vec<Frame>>,
    moves: u64,
    records: Vec<Record>,
    attempted: u64,
    lost: [u64; 3],
    clock: u64,
    started: Vec<u64>,
    ended: Vec<u64>,
    full_told: u64,
    recovered_told: u64,
    /// The reader's own: sub-buffers that it is past.
    pub(crate) consumed: u64,
    sleeping: bool,
    /// Wake-ups that fail.
    failing_wakes: u64,
    records_read: u64,
    last_stamp: u64,
    last_lost: u64,
}

/// Byte `i` of record `id`.
pub(crate) fn byte(id: u64, i: u64) -> u8 {
    u8::try_from((id + 1 + 37 * i) % 251).unwrap()
}

/// What is noted returns a number, for tasks that are replayed: this one where there is nothing to tell.
const DONE: u64 = 0;

impl Book {
    /// A new book, for a channel that starts at sub-buffer `number`.
    pub(crate) fn reset(&mut self, machine: &Machine, layout: Layout, number: u64, recorded: u64, failing_wakes: u64) {
        let (mut records, mut frames) = (std::mem::take(&mut self.records), std::mem::take(&mut self.frames));
        records.clear();
        frames.resize_with(machine.n_tasks(), Vec::new);
        frames.iter_mut().for_each(Vec::clear);
        *self = Self { layout, first_number: number, consumed: number, recorded_before: recorded, ..Self::default() };
        (self.records, self.frames, self.failing_wakes) = (records, frames, failing_wakes);
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(crate) fn enter(&mut self, machine: &Machine, len: Option<u64>) -> u64 {
        self.frames[machine.task()].push(Frame { len, moves_before: self.moves, ..Frame::default() });
        self.attempted += u64::from(len.is_some());
        self.observe(machine);
        DONE
    }

    pub(crate) fn leave(&mut self, machine: &Machine) -> u64 {
        self.frames[machine.task()].pop();
        DONE
    }

    /// `reserved` was exchanged by whoever runs now.
    pub(crate) fn moved(&mut self, machine: &Machine, old: u64, new: u64) {
        assert!(new > old, "positions only rise");
        self.moves += 1;
        if let Some(frame) = self.frames[machine.task()].last_mut() {
            frame.moves[frame.n_moves] = (old, new);
            frame.n_moves += 1;
        }
        self.observe(machine);
    }

    /// Notes for every write that is at work whether its record would have to be lost now.
    pub(crate) fn observe(&mut self, machine: &Machine) {
        let Layout { align, .. } = self.layout;
        let (control, geometry) = (machine.control(), machine.geometry);
        let size = geometry.subbuf_size();
        let reserved = control.producer.reserved.now();
        let offset = reserved % size;
        let next = reserved.div_ceil(size);
        let waiting = next.wrapping_sub(control.consumer.consumed.now()).cast_signed();
        let full = machine.mode == Mode::NoOverwrite && waiting >= geometry.n_subbufs().cast_signed();
        let committed = Committed(machine.committed(next * size % geometry.buffer_size()).now());
        let laps = next / geometry.n_subbufs();
        // With one sub-buffer, the open one has to be closed first.
        let owned = committed.bytes() != (laps * size) % (1 << 40) && (geometry.n_subbufs() > 1 || offset == 0);
        for frame in self.frames.iter_mut().flatten() {
            let Some(len) = frame.len else { continue };
            let fits = offset != 0 && offset.next_multiple_of(align) + len <= size;
            frame.was_full |= full && !fits;
            frame.was_nested |= !full && !fits && owned;
        }
    }

    /// Whether whoever runs now may store at a place: in what it took, or in the header of what it closed.
    pub(crate) fn owns(&self, machine: &Machine, place: u64) -> bool {
        let Some(frame) = self.frames[machine.task()].last() else { return true };
        let geometry = machine.geometry;
        let within = |from: u64, len: u64| place.wrapping_sub(from) % geometry.buffer_size() < len;
        frame.moves[..frame.n_moves].iter().any(|(old, new)| {
            let last = geometry.begin(geometry.number(new - 1));
            let closed = geometry.begin(geometry.number(*old));
            within(*old, new - old)
                || (geometry.offset(*new) == 0 && within(last, HEADER + self.layout.header))
                || (new - closed >= geometry.subbuf_size() && within(closed, HEADER + self.layout.header))
        })
    }

    /// The write that runs now was granted room; returns its record's number.
    pub(crate) fn granted(&mut self, machine: &Machine, reservation: &Reservation) -> u64 {
        let frame = self.frames[machine.task()].last().unwrap();
        let (len, end) = (frame.len.unwrap(), frame.moves[frame.n_moves - 1].1);
        let position = end - len;
        let geometry = machine.geometry;
        assert_eq!(geometry.place(position), reservation.place, "the room is what was taken");
        assert!(
            geometry.offset(position) >= self.layout.first
                && geometry.offset(position).is_multiple_of(self.layout.align)
        );
        assert_eq!(geometry.number(position), geometry.number(end - 1), "a record is never split");
        self.records.push(Record { position, len, stamp: reservation.stamp, read: false });
        self.records.len() as u64 - 1
    }

    /// The write that runs now lost its record.
    pub(crate) fn lost(&mut self, machine: &Machine, lost: Lost) -> u64 {
        let frame = self.frames[machine.task()].last().unwrap();
        match lost {
            Lost::Full => assert!(frame.was_full, "lost as full, and there always was room"),
            Lost::Nested => assert!(
                frame.was_nested || self.moves - frame.moves_before >= TRIES,
                "lost as nested, and no other writer ever owned the sub-buffer"
            ),
            Lost::TooBig | Lost::NoBuffer => panic!("{lost:?}"),
        }
        self.lost[usize::from(lost == Lost::Nested)] += 1;
        DONE
    }

    pub(crate) fn tell_full(&mut self) -> u64 {
        self.full_told += 1;
        DONE
    }

    pub(crate) fn tell_recovered(&mut self) -> u64 {
        self.recovered_told += 1;
        DONE
    }

    pub(crate) fn started(&mut self, number: u64) -> u64 {
        let index = usize::try_from(number - self.first_number).unwrap();
        self.started.resize(self.started.len().max(index + 1), 0);
        self.started[index] += 1;
        DONE
    }

    pub(crate) fn ended(&mut self, index: u64) -> u64 {
        let index = usize::try_from(index).unwrap();
        self.ended.resize(self.ended.len().max(index + 1), 0);
        self.ended[index] += 1;
        DONE
    }

    pub(crate) fn sleep(&mut self, is: bool) -> u64 {
        self.sleeping = is;
        DONE
    }

    pub(crate) fn consume(&mut self, to: u64) -> u64 {
        self.consumed = to;
        DONE
    }

    pub(crate) fn wake(&mut self) -> bool {
        if self.failing_wakes > 0 {
            self.failing_wakes -= 1;
            return false;
        }
        self.sleeping = false;
        true
    }

    /// The reader counted.
    pub(crate) fn counted(&self, machine: &Machine, count: Option<Count>) -> u64 {
        let Some(count) = count else { return DONE };
        let recorded = self.recorded_before + self.records.len() as u64;
        let open = |record: &&Record| machine.geometry.number(record.position) >= count.produced;
        let closed = recorded - self.records.iter().filter(open).count() as u64;
        let produced = machine.geometry.number(machine.control().producer.reserved.now());
        assert_eq!(count, Count { produced, recorded, closed }, "an exact count");
        DONE
    }

    /// The reader took a sub-buffer whole.
    pub(crate) fn read(&mut self, machine: &Machine, subbuf: &Subbuf, copy: &[u8]) -> u64 {
        let number = subbuf.number;
        let begin = machine.geometry.begin(number);
        let Layout { header, align, first } = self.layout;
        let word = |at: usize| u64::from_ne_bytes(copy[at..at + 8].try_into().unwrap());
        let (opening, closing) = if header == 0 { (0, 0) } else { (word(0), word(8)) };
        let mut inside: Vec<usize> = (0..self.records.len())
            .filter(|id| machine.geometry.number(self.records[*id].position) == number)
            .collect();
        inside.sort_by_key(|id| self.records[*id].position);
        assert_eq!(u64::from(subbuf.records), inside.len() as u64, "records of sub-buffer {number}");
        let mut end = first;
        let mut stamp = opening & 0xffff_ffff;
        assert!(header == 0 || (opening >> 32 == number && stamp >= self.last_stamp), "the opening words");
        for id in inside {
            let record = &mut self.records[id];
            assert_eq!(record.position - begin, end.next_multiple_of(align), "record {id} follows the one before");
            let at = |position: u64| copy[usize::try_from(position - HEADER).unwrap()];
            assert!((end..record.position - begin).all(|gap| at(gap) == 0), "the gap before record {id}");
            for i in 0..record.len {
                assert_eq!(at(record.position - begin + i), byte(id as u64, i), "byte {i} of record {id}");
            }
            assert!(!record.read && record.stamp >= stamp, "record {id}: once, and stamps do not fall");
            (record.read, stamp, end) = (true, record.stamp, record.position - begin + record.len);
            self.records_read += 1;
        }
        assert_eq!(subbuf.len + HEADER, end, "the content ends where its last record does");
        if header != 0 {
            let lost = closing & 0xffff;
            assert_eq!(closing >> 16 & 0xffff, subbuf.len, "content in the closing words");
            assert!(closing >> 32 >= stamp && lost >= self.last_lost, "closing words fall: {closing:#x}");
            (self.last_stamp, self.last_lost) = (closing >> 32, lost);
        }
        DONE
    }
}

/// What must hold when all have returned. Interrupts are over.
pub(crate) fn settle(machine: &'static Machine, run: fn(&'static Machine, Actor)) {
    let reader = Reader { buffer: machine, geometry: machine.geometry };
    let pass = reader.pass(machine.book.borrow().consumed, machine.mode).unwrap();
    if machine.book.borrow().sleeping && pass.backlog > 0 && reader.subbuf(pass.first).unwrap().is_some() {
        let waiting = machine.control().consumer.waiting.now();
        let failed = machine.book.borrow().failing_wakes;
        assert!(waiting != 0 && failed == 0, "the reader sleeps, and was not woken for what is ready");
    }
    for _ in 0..2 {
        let count = reader.count();
        assert!(count.is_some(), "at rest there is an exact count");
        machine.book.borrow().counted(machine, count);
        run(machine, Actor::Flush);
    }
    drain(machine, u64::MAX);
    machine.book.borrow().close(machine);
}

impl Book {
    fn close(&self, machine: &Machine) {
        let (producer, geometry) = (&machine.control().producer, machine.geometry);
        let reserved = producer.reserved.now();
        assert_eq!(self.consumed * geometry.subbuf_size(), reserved, "all that was reserved was closed and read");
        let counted = [producer.lost_full.now(), producer.lost_nested.now(), producer.lost_too_big.now()];
        assert_eq!(counted, self.lost, "every loss is counted, by its cause");
        let lost: u64 = self.lost.iter().sum();
        assert_eq!(self.attempted, self.records.len() as u64 + lost, "attempted = recorded + lost");
        let kept = self.consumed.saturating_sub(geometry.n_subbufs());
        for (id, record) in self.records.iter().enumerate() {
            let may_be_overrun = machine.mode == Mode::Overwrite && geometry.number(record.position) < kept;
            assert!(record.read || may_be_overrun, "record {id} was not read");
        }
        let subbufs = usize::try_from(self.consumed - self.first_number).unwrap();
        assert!(self.started.len() == subbufs && self.started.iter().all(|n| *n == 1), "opened: {:?}", self.started);
        let mut ended = vec![0; self.ended.len()];
        for number in self.first_number..self.consumed {
            ended[usize::try_from(number % geometry.n_subbufs()).unwrap()] += 1;
        }
        assert_eq!(self.ended, ended, "each sub-buffer is closed once");
        assert!(self.full_told > 0 || self.lost[0] == 0, "full was told");
        assert_eq!(self.full_told, self.recovered_told + producer.full.now(), "full and recovered take turns");
    }
}
