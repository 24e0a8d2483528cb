//! Shared memory that asks, before every access, whether an interrupt comes now, and which.
//!
//! A search is depth first over the answers: an execution is replayed from its start with the next list of answers, until
//! there is none. What runs in an interrupt is `actors.rs`' matter, what must hold is `book.rs`'.

use std::cell::{Cell, RefCell};

use relay_common::{Buffer, Consumer, Control, Geometry, Mode, Producer, ReaderWord, Word};

use crate::{actors::Actor, book::Book};

/// Interrupts within interrupts: softirq, hardirq, NMI.
const MAX_DEPTH: usize = 3;

thread_local! {
    static MACHINE: Cell<Option<&'static Machine>> = const { Cell::new(None) };
}

/// What the book must hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Other,
    Reserved,
    Decides,
}

/// A shared word.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    value: Cell<u64>,
    role: Role,
    name: &'static str,
}

impl Shared {
    fn new(name: &'static str, role: Role) -> Self {
        Self { value: Cell::new(0), role, name }
    }

    /// The value, without an interrupt before.
    pub(crate) fn now(&self) -> u64 {
        self.value.get()
    }

    /// Sets the value before an execution.
    pub(crate) fn preset(&self, value: u64) {
        self.value.set(value);
    }

    fn access(&self, what: &str) -> &'static Machine {
        let machine = machine();
        machine.access(what, self.name);
        machine
    }

    fn set(&self, machine: &Machine, value: u64) {
        let old = self.value.replace(value);
        match self.role {
            Role::Reserved => machine.book.borrow_mut().moved(machine, old, value),
            Role::Decides => machine.book.borrow_mut().observe(machine),
            Role::Other => {}
        }
    }
}

impl Word for Shared {
    fn peek(&self) -> u64 {
        self.access("peek");
        self.now()
    }
    fn exchange_if(&self, old: u64, new: u64) -> bool {
        let machine = self.access("exchange");
        let same = self.now() == old;
        if same {
            self.set(machine, new);
        }
        same
    }
    fn fetch_add(&self, amount: u64) -> u64 {
        let machine = self.access("add");
        let before = self.now();
        self.set(machine, before.wrapping_add(amount));
        before
    }
    fn swap(&self, new: u64) -> u64 {
        let machine = self.access("swap");
        let before = self.now();
        self.set(machine, new);
        before
    }
    fn count(&self, amount: u64) {
        let machine = self.access("count");
        self.set(machine, self.now().wrapping_add(amount));
    }
}

impl ReaderWord for Shared {
    fn acquire(&self) -> u64 {
        self.access("acquire");
        self.now()
    }
    fn publish(&self, value: u64) {
        let machine = self.access("publish");
        self.set(machine, value);
    }
    fn announce(&self, value: u64) {
        self.publish(value);
    }
    fn fence_loads() {}
}

/// One CPU's buffer, and the search over what happens to it.
#[derive(Debug)]
pub(crate) struct Machine {
    control: Control<Shared>,
    committed: Vec<Shared>,
    bytes: Vec<Cell<u8>>,
    pub(crate) geometry: Geometry,
    pub(crate) mode: Mode,
    pub(crate) book: RefCell<Book>,
    /// Runs an actor, with the client of this search.
    run: fn(&'static Machine, Actor),
    /// What may interrupt; the reader's part, which does not interrupt itself, from `writers` on.
    actors: &'static [Actor],
    writers: usize,
    /// Where alone, if anywhere, the script is interrupted, and nothing else is.
    only: Option<&'static str>,
    answers: RefCell<Vec<(usize, usize)>>,
    asked: Cell<usize>,
    depth: Cell<usize>,
    left: Cell<usize>,
    pub(crate) reading: Cell<bool>,
    pub(crate) tracing: Cell<bool>,
}

impl Machine {
    pub(crate) fn new(
        geometry: Geometry,
        mode: Mode,
        actors: &'static [Actor],
        only: Option<&'static str>,
        run: fn(&'static Machine, Actor),
    ) -> Self {
        let producer = Producer {
            reserved: Shared::new("reserved", Role::Reserved),
            retired: Shared::new("retired", Role::Other),
            full: Shared::new("full", Role::Other),
            lost_full: Shared::new("lost_full", Role::Other),
            lost_too_big: Shared::new("lost_too_big", Role::Other),
            lost_nested: Shared::new("lost_nested", Role::Other),
            ..Producer::default()
        };
        let consumer = Consumer {
            consumed: Shared::new("consumed", Role::Decides),
            waiting: Shared::new("waiting", Role::Other),
            ..Consumer::default()
        };
        Self {
            control: Control { producer, consumer },
            committed: (0..geometry.n_subbufs()).map(|_| Shared::new("committed", Role::Decides)).collect(),
            bytes: (0..geometry.buffer_size()).map(|_| Cell::default()).collect(),
            geometry,
            mode,
            book: RefCell::default(),
            run,
            actors,
            writers: actors.iter().position(|actor| actor.reads()).unwrap_or(actors.len()),
            only,
            answers: RefCell::default(),
            asked: Cell::new(0),
            depth: Cell::new(0),
            left: Cell::new(0),
            reading: Cell::new(false),
            tracing: Cell::new(false),
        }
    }

    /// Makes this the machine that the words of this thread belong to, with every word and byte as new.
    pub(crate) fn restart(&'static self) {
        MACHINE.set(Some(self));
        let Control { producer: p, consumer: c } = &self.control;
        let taken = c.taken.iter().flat_map(|taken| [&taken.output, &taken.records, &taken.subbufs]);
        for word in [&p.reserved, &p.retired, &p.lost_full, &p.lost_too_big, &p.lost_nested, &p.lost_no_buffer]
            .into_iter()
            .chain([&p.last_stamp, &p.full, &c.consumed, &c.waiting])
            .chain(taken)
            .chain(&self.committed)
        {
            word.preset(0);
        }
        for byte in &self.bytes {
            byte.set(0xEE);
        }
        self.reading.set(false);
        self.depth.set(0);
        self.left.set(0);
        self.asked.set(0);
    }

    /// From here on there are interrupts, `most` in all.
    pub(crate) fn interruptible(&self, most: usize) {
        self.left.set(most);
    }

    /// The next list of answers; false when there is none.
    pub(crate) fn next(&self) -> bool {
        let mut answers = self.answers.borrow_mut();
        answers.truncate(self.asked.get());
        while let Some((answer, of)) = answers.pop() {
            if answer + 1 < of {
                answers.push((answer + 1, of));
                return true;
            }
        }
        false
    }

    fn answer(&self, of: usize) -> usize {
        let mut answers = self.answers.borrow_mut();
        let at = self.asked.replace(self.asked.get() + 1);
        if let Some((answer, expected)) = answers.get(at) {
            assert_eq!(*expected, of, "an execution that is replayed takes the same course");
            return *answer;
        }
        answers.push((0, of));
        0
    }

    /// An instant at which an interrupt may come.
    pub(crate) fn access(&self, what: &str, of: &str) {
        self.trace(|| format!("{what} {of}"));
        let (depth, left) = (self.depth.get(), self.left.get());
        let elsewhere = self.only.is_some_and(|only| depth > 0 || only != what);
        if depth >= MAX_DEPTH || left == 0 || elsewhere {
            return;
        }
        let actors = if self.reading.get() { &self.actors[..self.writers] } else { self.actors };
        let answer = self.answer(actors.len() + 1);
        let Some(actor) = answer.checked_sub(1).and_then(|index| actors.get(index)) else { return };
        self.left.set(left - 1);
        self.depth.set(depth + 1);
        self.trace(|| format!("interrupt: {actor:?}"));
        (self.run)(machine(), *actor);
        self.trace(|| "return".to_owned());
        self.depth.set(depth);
    }

    /// A line for the reader of a failure.
    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.tracing.get() {
            eprintln!("{:indent$}{}", "", line(), indent = 4 * self.depth.get());
        }
    }

    /// Stores a byte of a record, of a header or of a gap, if whoever runs now owns the place.
    pub(crate) fn store(&self, place: u64, byte: u8) {
        assert!(self.book.borrow().owns(self, place), "a byte stored at {place}, which the writer does not own");
        self.byte(place).set(byte);
    }

    pub(crate) fn byte(&self, place: u64) -> &Cell<u8> {
        &self.bytes[usize::try_from(place).unwrap()]
    }
}

/// The machine of this thread.
pub(crate) fn machine() -> &'static Machine {
    MACHINE.get().unwrap()
}

impl Buffer for Machine {
    type Word = Shared;
    fn control(&self) -> &Control<Shared> {
        &self.control
    }
    fn committed(&self, place: u64) -> &Shared {
        &self.committed[usize::try_from(self.geometry.number(place)).unwrap()]
    }
    fn load_u32(&self, place: u64) -> u32 {
        self.access("load", "header");
        u32::from_ne_bytes(std::array::from_fn(|i| self.byte(place + i as u64).get()))
    }
    fn store_u32(&self, place: u64, value: u32) {
        self.access("store", "header");
        (place..).zip(value.to_ne_bytes()).for_each(|(place, byte)| self.store(place, byte));
    }
    fn store_u64(&self, place: u64, value: u64) {
        self.access("store", "client's header");
        (place..).zip(value.to_ne_bytes()).for_each(|(place, byte)| self.store(place, byte));
    }
    fn store_zero(&self, place: u64) {
        self.access("store", "gap");
        self.store(place, 0);
    }
    fn wake(&self) -> bool {
        self.access("wake", "");
        self.book.borrow_mut().wake()
    }
}
