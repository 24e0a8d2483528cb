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
use relay_common::{Buffer, Consumer, Control, Geometry, Producer, ReaderWord, Taken, Word};

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

/// A writer that interrupts the writers' thread at one of its accesses.
#[derive(Default)]
pub(crate) struct Interrupt {
    accesses: std::cell::Cell<usize>,
    at: std::cell::Cell<usize>,
    nested: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Interrupt {
    pub(crate) fn set(&self, at: usize, nested: impl FnOnce() + 'static) {
        self.at.set(at);
        *self.nested.borrow_mut() = Some(Box::new(nested));
    }

    fn access(&self) {
        let n = self.accesses.replace(self.accesses.get() + 1);
        if n == self.at.get() {
            let nested = self.nested.borrow_mut().take();
            if let Some(nested) = nested {
                nested();
            }
        }
    }
}

/// A word of the protocol. Writers use its `Word` half, the reader the other.
pub(crate) struct Shared<const WEAK: u8> {
    value: AtomicU64,
    /// What the writers' CPU stored last, if only it stores here: it always sees that. Not asked from loom, whose reduction
    /// takes a load by the thread that stores next for the only one that the store can race with (`last_access` in 0.7.3).
    own: Option<std::cell::Cell<u64>>,
    interrupt: Rc<Interrupt>,
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
    fn modify<T>(&self, weak: &[u8], operation: impl FnOnce(&AtomicU64, Ordering) -> T) -> T {
        self.interrupt.access();
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
    }
}

impl<const WEAK: u8> Word for Shared<WEAK> {
    fn peek(&self) -> u64 {
        self.interrupt.access();
        self.own.as_ref().map_or_else(|| self.value.load(Relaxed), |own| own.get())
    }
    fn exchange_if(&self, old: u64, new: u64) -> bool {
        let exchanged =
            self.modify(&[EXCHANGE], |value, order| value.compare_exchange(old, new, order, Relaxed).is_ok());
        self.stored(|now| if exchanged { new } else { now });
        exchanged
    }
    fn fetch_add(&self, amount: u64) -> u64 {
        let before = self.modify(&[ADD], |value, order| value.fetch_add(amount, order));
        self.stored(|now| now.wrapping_add(amount));
        before
    }
    fn swap(&self, new: u64) -> u64 {
        self.modify(&[], |value, order| value.swap(new, order))
    }
    fn count(&self, amount: u64) {
        self.interrupt.access();
        self.stored(|now| now.wrapping_add(amount));
        self.value.fetch_add(amount, Relaxed);
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
    pub(crate) interrupt: Rc<Interrupt>,
    pub(crate) woken: std::cell::Cell<bool>,
}

impl<const WEAK: u8> Ram<WEAK> {
    pub(crate) fn new(geometry: Geometry, racing: bool) -> Self {
        let interrupt = Rc::<Interrupt>::default();
        interrupt.at.set(usize::MAX);
        let make =
            |own| Shared { value: AtomicU64::new(0), own, interrupt: Rc::clone(&interrupt), early: Rc::default() };
        let (word, readers) = (|| make(Some(std::cell::Cell::new(0))), || make(None));
        let taken = || Taken { output: readers(), records: readers(), subbufs: readers() };
        let bytes = |_| if racing { Bytes::Racing(AtomicU32::new(0)) } else { Bytes::Exclusive(Cell::new(0)) };
        Self {
            control: Control {
                producer: Producer {
                    reserved: word(),
                    retired: word(),
                    lost_full: word(),
                    lost_too_big: word(),
                    lost_nested: word(),
                    lost_no_buffer: word(),
                    last_stamp: word(),
                    full: word(),
                },
                consumer: Consumer { consumed: readers(), waiting: readers(), taken: [taken(), taken()] },
            },
            committed: (0..geometry.n_subbufs()).map(|_| word()).collect(),
            bytes: (0..geometry.buffer_size() / 4).map(bytes).collect(),
            geometry,
            interrupt,
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
    fn store_u64(&self, _: u64, _: u64) {}
    fn store_zero(&self, _: u64) {}
    fn wake(&self) -> bool {
        self.woken.set(true);
        true
    }
}
