//! Shared memory whose every order that weak memory allows is tried by loom; and the same with one order weakened.

use std::{cell::RefCell, rc::Rc};

use loom::{
    cell::Cell,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{self, Acquire, Relaxed, Release, SeqCst},
        fence,
    },
};
use relay_common::{Buffer, ConsumerWords, Control, Geometry, ProducerWords, ReaderWord, Taken, Word};

/// Nothing is weakened.
pub(crate) const SOUND: u8 = 0;
/// The commit's add is ordered with nothing, as a BPF add whose result is not used is on arm64.
pub(crate) const ADD: u8 = 1;
/// The exchange of `reserved` is ordered with nothing.
pub(crate) const EXCHANGE: u8 = 2;
/// The swap of `waiting`, and the add before it, are acquire and release, and no full barriers.
pub(crate) const SWAP: u8 = 3;
/// The reader's loads are plain.
pub(crate) const ACQUIRE: u8 = 4;
/// The reader's stores are plain.
pub(crate) const PUBLISH: u8 = 5;
/// There is no fence between a copy and the look whether it is good.
pub(crate) const FENCE: u8 = 6;
/// The reader says that it sleeps, and looks again at once.
pub(crate) const ANNOUNCE: u8 = 7;
/// A count reads `retired` with `reserved`, before the places.
pub(crate) const RETIRED_FIRST: u8 = 8;
/// What `AtomicU64`'s operations promise by C++'s rules to other words: acquire and release, without fences.
pub(crate) const ATOMICS: u8 = 9;
/// Whoever closes from another CPU looks with a plain load.
pub(crate) const LOOK: u8 = 10;

/// The writers of one CPU: the first is stopped at one of its accesses, for another. That one runs to its end, as an interrupt
/// does; or it is stopped too, like a task, and the first goes on, then it.
///
/// They are one thread, and a writer that goes on is a call: it runs anew from its beginning and is given what it was given before,
/// without effect, until it comes to where it had been.
#[derive(Default)]
pub(crate) struct Writers {
    stop_first: std::cell::Cell<usize>,
    stop_other: std::cell::Cell<usize>,
    first: RefCell<Option<Box<dyn FnOnce()>>>,
    other: RefCell<Option<Box<dyn FnOnce()>>>,
    other_runs: std::cell::Cell<bool>,
    others_accesses: std::cell::Cell<usize>,
    /// What the first was given by now, and how much of it it has got again.
    given: RefCell<Vec<u64>>,
    again: std::cell::Cell<usize>,
}

/// Never.
pub(crate) const NEVER: usize = usize::MAX;

impl Writers {
    /// Runs the first writer, for which another is to come.
    pub(crate) fn run(
        &self,
        (first, other): (usize, usize),
        script: impl Fn() + Clone + 'static,
        other_script: impl FnOnce() + 'static,
    ) {
        self.stop_first.set(first);
        self.stop_other.set(other);
        *self.first.borrow_mut() = Some(Box::new(script.clone()));
        *self.other.borrow_mut() = Some(Box::new(other_script));
        self.given.borrow_mut().clear();
        self.again.set(0);
        script();
        self.stop_first.set(NEVER);
    }

    /// One access, or what is noted beside it.
    pub(crate) fn act(&self, does: impl FnOnce() -> u64) -> u64 {
        if self.other_runs.get() {
            if self.others_accesses.replace(self.others_accesses.get() + 1) == self.stop_other.get()
                && let Some(first) = self.first.take()
            {
                self.other_runs.set(false);
                let again = self.again.replace(0);
                first();
                self.again.set(again);
                self.other_runs.set(true);
            }
            return does();
        }
        if let Some(value) = self.replayed() {
            return value;
        }
        if self.given.borrow().len() == self.stop_first.get()
            && let Some(other) = self.other.take()
        {
            self.other_runs.set(true);
            other();
            self.other_runs.set(false);
            // The first may have gone on meanwhile.
            if let Some(value) = self.replayed() {
                return value;
            }
        }
        let value = does();
        self.given.borrow_mut().push(value);
        self.again.set(self.again.get() + 1);
        value
    }

    fn replayed(&self) -> Option<u64> {
        let value = self.given.borrow().get(self.again.get()).copied()?;
        self.again.set(self.again.get() + 1);
        Some(value)
    }

    /// Whether the first does what it has done before.
    fn catches_up(&self) -> bool {
        !self.other_runs.get() && self.again.get() < self.given.borrow().len()
    }
}

/// A word of the protocol. Writers use its `Word` half, the reader the other.
pub(crate) struct Shared<const WEAK: u8> {
    value: AtomicU64,
    /// What the writers' CPU stored last, if only it stores here: it always sees that. Not asked from loom, whose reduction
    /// takes a load by the thread that stores next for the only one that the store can race with (`last_access` in 0.7.3).
    own: Option<std::cell::Cell<u64>>,
    writers: Rc<Writers>,
    /// For a twin: the value of another word, as it was when this one was read.
    early: Rc<std::cell::Cell<Option<u64>>>,
}

impl<const WEAK: u8> Shared<WEAK> {
    fn stored(&self, change: impl FnOnce(u64) -> u64) {
        if let Some(own) = &self.own {
            own.set(change(own.get()));
        }
    }

    /// A read-modify-write that is a full barrier, or is weakened.
    fn modify(&self, weak: &[u8], operation: impl FnOnce(&AtomicU64, Ordering) -> u64) -> u64 {
        self.writers.act(|| {
            if weak.contains(&WEAK) {
                return operation(&self.value, Relaxed);
            }
            if WEAK == SWAP || WEAK == ATOMICS {
                return operation(&self.value, SeqCst);
            }
            // What the trait promises, and what the kernel's atomics are. loom takes SeqCst for acquire and release.
            fence(SeqCst);
            let result = operation(&self.value, SeqCst);
            fence(SeqCst);
            result
        })
    }
}

impl<const WEAK: u8> Word for Shared<WEAK> {
    fn peek(&self) -> u64 {
        self.writers.act(|| self.own.as_ref().map_or_else(|| self.value.load(Relaxed), |own| own.get()))
    }
    fn exchange_if(&self, old: u64, new: u64) -> bool {
        if WEAK == LOOK && old == new {
            return true;
        }
        let exchange = |value: &AtomicU64, order| {
            let exchanged = value.compare_exchange(old, new, order, Relaxed).is_ok();
            self.stored(|now| if exchanged { new } else { now });
            exchanged.into()
        };
        self.modify(&[EXCHANGE], exchange) != 0
    }
    fn fetch_add(&self, amount: u64) -> u64 {
        self.modify(&[ADD], |value, order| {
            self.stored(|now| now.wrapping_add(amount));
            value.fetch_add(amount, order)
        })
    }
    fn swap(&self, new: u64) -> u64 {
        self.modify(&[], |value, order| value.swap(new, order))
    }
    fn count(&self, amount: u64) {
        self.writers.act(|| {
            self.stored(|now| now.wrapping_add(amount));
            self.value.fetch_add(amount, Relaxed)
        });
    }
}

impl<const WEAK: u8> ReaderWord for Shared<WEAK> {
    fn acquire(&self) -> u64 {
        if WEAK == RETIRED_FIRST
            && let Some(early) = self.early.get()
        {
            return early;
        }
        self.value.load(if WEAK == ACQUIRE { Relaxed } else { Acquire })
    }
    fn publish(&self, value: u64) {
        self.value.store(value, if WEAK == PUBLISH { Relaxed } else { Release });
    }
    fn announce(&self, value: u64) {
        self.value.store(value, SeqCst);
        if WEAK != ANNOUNCE {
            fence(SeqCst);
        }
    }
    fn fence_loads() {
        if WEAK != FENCE {
            fence(Acquire);
        }
    }
}

/// Four bytes. Where nobody may ever race, loom fails the model that does.
enum Bytes {
    Exclusive(Cell<u32>),
    Racing(AtomicU32),
}

/// One CPU's buffer. Bytes are used four at a time.
pub(crate) struct Ram<const WEAK: u8> {
    control: Control<Shared<WEAK>>,
    committed: Vec<Shared<WEAK>>,
    bytes: Vec<Bytes>,
    pub(crate) geometry: Geometry,
    pub(crate) writers: Rc<Writers>,
    pub(crate) woken: std::cell::Cell<bool>,
}

impl<const WEAK: u8> Ram<WEAK> {
    /// With several CPUs that write, or with one that has its words to itself.
    pub(crate) fn new(geometry: Geometry, racing: bool, several: bool) -> Self {
        let writers = Rc::<Writers>::default();
        writers.stop_first.set(NEVER);
        let make = |own| Shared { value: AtomicU64::new(0), own, writers: Rc::clone(&writers), early: Rc::default() };
        let (word, readers) = (|| make((!several).then(|| std::cell::Cell::new(0))), || make(None));
        let taken = || Taken { output: readers(), records: readers(), subbufs: readers() };
        let bytes = |_| if racing { Bytes::Racing(AtomicU32::new(0)) } else { Bytes::Exclusive(Cell::new(0)) };
        Self {
            control: Control {
                producer: ProducerWords {
                    reserved: word(),
                    retired: word(),
                    lost_full: word(),
                    lost_too_big: word(),
                    lost_nested: word(),
                    lost_no_buffer: word(),
                    last_stamp: word(),
                    full: word(),
                },
                consumer: ConsumerWords { consumed: readers(), waiting: readers(), taken: [taken(), taken()] },
            },
            committed: (0..geometry.n_subbufs()).map(|_| word()).collect(),
            bytes: (0..geometry.buffer_size() / 4).map(bytes).collect(),
            geometry,
            writers,
            woken: std::cell::Cell::new(false),
        }
    }

    /// For the twin that reads `retired` too early.
    pub(crate) fn read_retired_now(&self) {
        let retired = &self.control.producer.retired;
        retired.early.set(Some(retired.value.load(Acquire)));
    }

    pub(crate) fn load(&self, place: u64) -> u32 {
        match &self.bytes[usize::try_from(place / 4).unwrap()] {
            Bytes::Exclusive(cell) => cell.get(),
            Bytes::Racing(atomic) => atomic.load(Relaxed),
        }
    }

    pub(crate) fn store(&self, place: u64, value: u32) {
        if self.writers.catches_up() {
            return;
        }
        match &self.bytes[usize::try_from(place / 4).unwrap()] {
            Bytes::Exclusive(cell) => cell.set(value),
            Bytes::Racing(atomic) => atomic.store(value, Relaxed),
        }
    }
}

impl<const WEAK: u8> Buffer for Ram<WEAK> {
    type Word = Shared<WEAK>;
    fn control(&self) -> &Control<Self::Word> {
        &self.control
    }
    fn committed(&self, place: u64) -> &Self::Word {
        &self.committed[usize::try_from(self.geometry.number(place)).unwrap()]
    }
    fn load_u32(&self, place: u64) -> u32 {
        self.load(place)
    }
    fn store_u32(&self, place: u64, value: u32) {
        self.store(place, value);
    }
    fn store_u64(&self, place: u64, value: u64) {
        self.store_u32(place, u32::try_from(value).unwrap());
    }
    fn store_zero(&self, _: u64) {}
    fn wake(&self) -> bool {
        self.woken.set(true);
        true
    }
}
