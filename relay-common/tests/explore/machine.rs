//! Shared memory that asks, before every access, whether an interrupt comes now, and which, or whether another task goes on.
//!
//! A search is depth first over the answers: an execution is replayed from its start with the next list of answers, until
//! there is none. What runs in an interrupt is `actors.rs`' matter, what must hold is `book.rs`'.
//!
//! An interrupt is a call. A task that goes on after it was preempted is one too: it runs anew from its beginning, on top of
//! whoever runs now, and is given what it was given before, without effect, until it comes to where it had been (`replayed`).
//! All tasks end before such a call returns; whoever made it then has only to catch up, in the same way.

use std::cell::{Cell, RefCell};

use relay_common::{Buffer, ConsumerWords, Control, Geometry, Mode, ProducerWords, ReaderWord, Word};

use crate::{Scenario, actors::Actor, book::Book};

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

    fn act(&self, what: &str, does: impl FnOnce(&Machine) -> u64) -> u64 {
        let machine = machine();
        machine.act(what, self.name, || does(machine))
    }

    fn set(&self, machine: &Machine, value: u64) {
        let old = self.value.replace(value);
        match self.role {
            Role::Reserved if value == old => {}
            Role::Reserved => machine.book.borrow_mut().moved(machine, old, value),
            Role::Decides => machine.book.borrow_mut().observe(machine),
            Role::Other => {}
        }
    }
}

impl Word for Shared {
    fn peek(&self) -> u64 {
        self.act("peek", |_| self.now())
    }
    fn exchange_if(&self, old: u64, new: u64) -> bool {
        self.act("exchange", |machine| {
            let same = self.now() == old;
            if same {
                self.set(machine, new);
            }
            same.into()
        }) != 0
    }
    fn fetch_add(&self, amount: u64) -> u64 {
        self.act("add", |machine| {
            let before = self.now();
            self.set(machine, before.wrapping_add(amount));
            before
        })
    }
    fn swap(&self, new: u64) -> u64 {
        self.act("swap", |machine| {
            let before = self.now();
            self.set(machine, new);
            before
        })
    }
    fn count(&self, amount: u64) {
        self.act("count", |machine| {
            self.set(machine, self.now().wrapping_add(amount));
            0
        });
    }
}

impl ReaderWord for Shared {
    fn acquire(&self) -> u64 {
        self.act("acquire", |_| self.now())
    }
    fn publish(&self, value: u64) {
        self.act("publish", |machine| {
            self.set(machine, value);
            0
        });
    }
    fn announce(&self, value: u64) {
        self.publish(value);
    }
    fn fence_loads() {}
}

/// A task: what it does, and what it was given by now, in its own order.
#[derive(Debug)]
struct Task {
    script: &'static [Actor],
    given: RefCell<Vec<u64>>,
    ended: Cell<bool>,
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
    /// Whether interrupts read a clock that is ahead.
    pub(crate) steps_back: bool,
    answers: RefCell<Vec<(usize, usize)>>,
    asked: Cell<usize>,
    /// Interrupts, and preemptions, that may still come.
    left: Cell<usize>,
    preemptions: Cell<usize>,
    depth: Cell<usize>,
    tasks: Vec<Task>,
    /// Whether the tasks run, and there are several.
    switching: Cell<bool>,
    /// Who runs, and how much of what it was given it has got again.
    task: Cell<usize>,
    again: Cell<usize>,
    pub(crate) reading: Cell<bool>,
    pub(crate) tracing: Cell<bool>,
}

impl Machine {
    pub(crate) fn new(scenario: &Scenario, run: fn(&'static Machine, Actor)) -> Self {
        let geometry = Geometry::new(scenario.subbuf_size, scenario.n_subbufs).unwrap();
        let producer = ProducerWords {
            reserved: Shared::new("reserved", Role::Reserved),
            retired: Shared::new("retired", Role::Other),
            full: Shared::new("full", Role::Other),
            lost_full: Shared::new("lost_full", Role::Other),
            lost_too_big: Shared::new("lost_too_big", Role::Other),
            lost_nested: Shared::new("lost_nested", Role::Other),
            last_stamp: Shared::new("last_stamp", Role::Other),
            ..ProducerWords::default()
        };
        let consumer = ConsumerWords {
            consumed: Shared::new("consumed", Role::Decides),
            waiting: Shared::new("waiting", Role::Other),
            ..ConsumerWords::default()
        };
        let scripts = std::iter::once(scenario.script).chain(scenario.tasks.iter().copied());
        let actors = scenario.actors;
        Self {
            control: Control { producer, consumer },
            committed: (0..geometry.n_subbufs()).map(|_| Shared::new("committed", Role::Decides)).collect(),
            bytes: (0..geometry.buffer_size()).map(|_| Cell::default()).collect(),
            geometry,
            mode: scenario.mode,
            book: RefCell::default(),
            run,
            actors,
            writers: actors.iter().position(|actor| actor.reads()).unwrap_or(actors.len()),
            only: scenario.only,
            steps_back: scenario.steps_back,
            answers: RefCell::default(),
            asked: Cell::new(0),
            left: Cell::new(0),
            preemptions: Cell::new(0),
            depth: Cell::new(0),
            tasks: scripts.map(|script| Task { script, given: RefCell::default(), ended: Cell::new(false) }).collect(),
            switching: Cell::new(false),
            task: Cell::new(0),
            again: Cell::new(0),
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
        for count in [&self.depth, &self.left, &self.preemptions, &self.asked, &self.task, &self.again] {
            count.set(0);
        }
        for task in &self.tasks {
            task.given.borrow_mut().clear();
            task.ended.set(false);
        }
        self.switching.set(false);
    }

    /// Runs all tasks, the first of them first, with so many interrupts and preemptions at most.
    pub(crate) fn run_tasks(&self, interrupts: usize, preemptions: usize) {
        self.left.set(interrupts);
        self.preemptions.set(preemptions);
        self.switching.set(self.tasks.len() > 1);
        self.go_on(0);
        self.switching.set(false);
        self.left.set(0);
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

    /// One access: at this instant an interrupt may come, or another task go on. Returns what `does` returns, or what it
    /// returned when this task was here before.
    pub(crate) fn act(&self, what: &str, of: &str, does: impl FnOnce() -> u64) -> u64 {
        if let Some(value) = self.replayed() {
            return value;
        }
        self.ask(what, of);
        self.note(does)
    }

    /// The same for what is noted beside the channel: at no instant of its own.
    pub(crate) fn note(&self, does: impl FnOnce() -> u64) -> u64 {
        if let Some(value) = self.replayed() {
            return value;
        }
        let value = does();
        if self.switching.get() && self.depth.get() == 0 {
            self.tasks[self.task.get()].given.borrow_mut().push(value);
            self.again.set(self.again.get() + 1);
        }
        value
    }

    fn replayed(&self) -> Option<u64> {
        if !self.switching.get() || self.depth.get() > 0 {
            return None;
        }
        let again = self.again.get();
        let value = self.tasks[self.task.get()].given.borrow().get(again).copied()?;
        self.again.set(again + 1);
        Some(value)
    }

    fn ask(&self, what: &str, of: &str) {
        self.trace(|| format!("{what} {of}"));
        let (depth, left, preemptions) = (self.depth.get(), self.left.get(), self.preemptions.get());
        if left == 0 && preemptions == 0 {
            return;
        }
        if self.only.is_some_and(|only| depth > 0 || only != what) {
            return;
        }
        let actors = match self.reading.get() {
            _ if depth >= MAX_DEPTH || left == 0 => &[],
            true => &self.actors[..self.writers],
            false => self.actors,
        };
        let current = self.task.get();
        let may_switch = depth == 0 && preemptions > 0 && self.switching.get() && !self.tasks[current].ended.get();
        let others = if may_switch { self.unfinished().count() - 1 } else { 0 };
        if actors.len() + others == 0 {
            return;
        }
        let Some(answer) = self.answer(1 + actors.len() + others).checked_sub(1) else { return };
        if let Some(actor) = actors.get(answer) {
            self.left.set(left - 1);
            self.depth.set(depth + 1);
            self.trace(|| format!("interrupt: {actor:?}"));
            (self.run)(machine(), *actor);
            self.trace(|| "return".to_owned());
            self.depth.set(depth);
        } else if let Some(task) = self.unfinished().filter(|task| *task != current).nth(answer - actors.len()) {
            self.preemptions.set(preemptions - 1);
            self.go_on(task);
        }
    }

    fn unfinished(&self) -> impl Iterator<Item = usize> {
        (0..self.tasks.len()).filter(|task| !self.tasks[*task].ended.get())
    }

    /// A task goes on, and after it all others: when this returns, all have ended.
    fn go_on(&self, task: usize) {
        let (task_before, again_before) = (self.task.replace(task), self.again.replace(0));
        if self.switching.get() {
            self.trace(|| format!("task {task}:"));
        }
        self.tasks[task].script.iter().for_each(|actor| (self.run)(machine(), *actor));
        // The newest of a task's runs comes to its end first.
        if !self.tasks[task].ended.replace(true) {
            self.ask("the", "end");
            let left = self.unfinished().count();
            let chosen = if left > 1 { self.answer(left) } else { 0 };
            if let Some(next) = self.unfinished().nth(chosen) {
                self.go_on(next);
            }
        }
        self.task.set(task_before);
        self.again.set(again_before);
    }

    /// Who runs.
    pub(crate) fn task(&self) -> usize {
        self.task.get()
    }

    pub(crate) fn n_tasks(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn in_interrupt(&self) -> bool {
        self.depth.get() > 0
    }

    /// A line for the reader of a failure.
    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.tracing.get() {
            eprintln!("{:indent$}{}", "", line(), indent = 4 * (self.depth.get() + 2 * self.task.get()));
        }
    }

    /// Stores bytes of a record, of a header or of a gap, if whoever runs now owns the places.
    pub(crate) fn store_all(&self, of: &str, place: u64, bytes: &[u8]) {
        self.act("store", of, || {
            for (place, byte) in (place..).zip(bytes) {
                assert!(
                    self.book.borrow().owns(self, place),
                    "a byte stored at {place}, which the writer does not own"
                );
                self.byte(place).set(*byte);
            }
            0
        });
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
        let load = || u32::from_ne_bytes(std::array::from_fn(|i| self.byte(place + i as u64).get()));
        u32::try_from(self.act("load", "header", || load().into())).unwrap()
    }
    fn store_u32(&self, place: u64, value: u32) {
        self.store_all("header", place, &value.to_ne_bytes());
    }
    fn store_u64(&self, place: u64, value: u64) {
        self.store_all("client's header", place, &value.to_ne_bytes());
    }
    fn store_zero(&self, place: u64) {
        self.store_all("gap", place, &[0]);
    }
    fn wake(&self) -> bool {
        self.act("wake", "", || self.book.borrow_mut().wake().into()) != 0
    }
}
