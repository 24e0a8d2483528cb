//! The protocol under every order that weak memory allows: the writers of one CPU, one of them interrupting another, and
//! the reader on another CPU. Each model has twins with one order weakened, which must fail.
//!
//! Writers of one CPU are one thread: they see their own stores in program order, and an interrupt is a call. Where it
//! comes is tried from outside, access by access. All that they can do to one another is `explore`'s matter.

#![cfg(loom)]
#![allow(clippy::unwrap_used, missing_debug_implementations, reason = "a test")]

mod ram;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use loom::thread;
use ram::{ACQUIRE, ADD, ANNOUNCE, ATOMICS, EXCHANGE, FENCE, PUBLISH, RETIRED_FIRST, Ram, SOUND, SWAP};
use relay_common::{Buffer as _, Geometry, Mode, Plain, Reader, ReaderWord as _, Writer};

/// Switches between threads that no one had to make.
const PREEMPTIONS: usize = 3;

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        EXECUTIONS.fetch_add(1, Relaxed);
        run();
    });
}

/// Runs models that must hold, and says how many executions they have.
fn all(what: &str, run: impl FnOnce()) {
    let before = EXECUTIONS.load(Relaxed);
    run();
    println!("loom: {what}: {} executions", EXECUTIONS.load(Relaxed) - before);
}

/// A channel, and what happened.
struct Channel<const WEAK: u8> {
    ram: Ram<WEAK>,
    mode: Mode,
    /// Records granted: identity and length.
    granted: RefCell<Vec<(u32, u64)>>,
    /// Records that the reader got.
    read: RefCell<Vec<u32>>,
    consumed: std::cell::Cell<u64>,
}

impl<const WEAK: u8> Channel<WEAK> {
    fn new(n_subbufs: u64, mode: Mode) -> Rc<Self> {
        let ram = Ram::new(Geometry::new(32, n_subbufs).unwrap(), mode == Mode::Overwrite);
        let (granted, read, consumed) = (RefCell::default(), RefCell::default(), std::cell::Cell::new(0));
        Rc::new(Self { ram, mode, granted, read, consumed })
    }

    fn writer(&self) -> Writer<'_, Ram<WEAK>, Plain> {
        Writer { buffer: &self.ram, client: &Plain, geometry: self.ram.geometry, mode: self.mode }
    }

    fn reader(&self) -> Reader<'_, Ram<WEAK>> {
        Reader { buffer: &self.ram, geometry: self.ram.geometry }
    }

    /// Writes a record of `len` bytes, all of them its identity.
    fn write(&self, identity: u32, len: u64) {
        let Ok(reservation) = self.writer().reserve(len) else { return };
        self.granted.borrow_mut().push((identity, len));
        for place in (reservation.place..reservation.place + len).step_by(4) {
            self.ram.store(place, identity);
        }
        self.writer().commit(&reservation);
    }

    /// One pass of the reader; says whether it took anything.
    fn drain(&self) -> bool {
        self.take(u64::MAX)
    }

    /// The same, for so many sub-buffers at most.
    fn take(&self, most: u64) -> bool {
        let reader = self.reader();
        let before = self.consumed.get();
        let pass = reader.pass(before, self.mode).unwrap();
        for number in pass.first..pass.first + pass.backlog.min(most) {
            let Some(subbuf) = reader.subbuf(number).unwrap() else { break };
            let words: Vec<u32> =
                (subbuf.place..subbuf.place + subbuf.len).step_by(4).map(|place| self.ram.load(place)).collect();
            self.consumed.set(number + 1);
            if self.mode == Mode::NoOverwrite || reader.survived(number) {
                self.check(u64::from(subbuf.records), &words);
            }
            reader.release(number + 1);
        }
        self.consumed.get() != before
    }

    /// A sub-buffer that is handed out holds whole records that were granted, each once.
    fn check(&self, records: u64, words: &[u32]) {
        let granted = self.granted.borrow();
        let (mut at, mut n) = (0, 0);
        while at < words.len() {
            let (identity, len) = *granted.iter().find(|(identity, _)| *identity == words[at]).expect("a stale record");
            let end = at + usize::try_from(len / 4).unwrap();
            assert!(
                words.get(at..end).is_some_and(|words| words.iter().all(|word| *word == identity)),
                "a torn record"
            );
            assert!(!self.read.borrow().contains(&identity), "a record that comes twice");
            self.read.borrow_mut().push(identity);
            (at, n) = (end, n + 1);
        }
        assert_eq!(n, records, "a stale number of records");
    }

    /// When all threads have ended: nothing is missing.
    fn settle(&self) {
        self.ram.interrupt.set(usize::MAX, || ());
        self.writer().flush();
        while self.drain() {}
        let all = self.granted.borrow().len() as u64;
        if self.mode == Mode::NoOverwrite {
            assert_eq!(self.read.borrow().len() as u64, all, "a record is missing");
        }
        assert_eq!(self.reader().count().unwrap().recorded, all, "a wrong count at rest");
    }
}

/// The writers' accesses at which one is interrupted; at the last, none is.
const ACCESSES: std::ops::Range<usize> = 0..32;

/// Sub-buffers are handed over, read in place, given back and used again. Bytes are never raced for.
fn hand_over<const WEAK: u8>(n_subbufs: u64, nested: fn(&Channel<WEAK>)) {
    for at in ACCESSES {
        model(move || {
            let channel = Channel::<WEAK>::new(n_subbufs, Mode::NoOverwrite);
            let interrupting = Rc::clone(&channel);
            channel.ram.interrupt.set(at, move || nested(&interrupting));
            let writers = Rc::clone(&channel);
            let thread = thread::spawn(move || {
                writers.write(2, 12);
                writers.write(3, 16);
            });
            channel.drain();
            channel.drain();
            thread.join().unwrap();
            channel.settle();
        });
    }
}

/// A copy is taken while writers come round, and found good or thrown away.
fn overwrite<const WEAK: u8>(n_subbufs: u64) {
    for at in ACCESSES.step_by(if n_subbufs == 1 { 1 } else { 4 }) {
        model(move || {
            let channel = Channel::<WEAK>::new(n_subbufs, Mode::Overwrite);
            for i in 0..u32::try_from(n_subbufs).unwrap() {
                channel.write(10 + i, 8);
                channel.writer().flush();
            }
            let interrupting = Rc::clone(&channel);
            channel.ram.interrupt.set(at, move || interrupting.write(2, 4));
            let writers = Rc::clone(&channel);
            let thread = thread::spawn(move || writers.write(3, 8));
            channel.take(1);
            thread.join().unwrap();
            channel.settle();
        });
    }
}

/// A reader that sleeps is woken for what is complete.
fn wake_up<const WEAK: u8>() {
    for at in ACCESSES {
        model(move || {
            let channel = Channel::<WEAK>::new(2, Mode::NoOverwrite);
            let interrupting = Rc::clone(&channel);
            channel.ram.interrupt.set(at, move || interrupting.writer().flush());
            let writers = Rc::clone(&channel);
            let thread = thread::spawn(move || {
                writers.write(1, 12);
                writers.write(2, 8);
            });
            channel.ram.control().consumer.waiting.announce(1);
            // Look again after saying so.
            let sleeps = !channel.drain();
            thread.join().unwrap();
            let ready = channel.reader().subbuf(channel.consumed.get()).unwrap().is_some();
            assert!(!sleeps || !ready || channel.ram.woken.get(), "asleep, and not woken for what is ready");
            channel.settle();
        });
    }
}

/// A count that is said to be exact is, whatever writers do meanwhile. Records come two to a sub-buffer.
fn count<const WEAK: u8>(n_subbufs: u64, before: u32) {
    for at in ACCESSES {
        model(move || {
            let channel = Channel::<WEAK>::new(n_subbufs, Mode::Overwrite);
            (0..before).for_each(|i| channel.write(i, 8));
            let interrupting = Rc::clone(&channel);
            channel.ram.interrupt.set(at, move || interrupting.write(100, 8));
            let writers = Rc::clone(&channel);
            let thread = thread::spawn(move || (10..12).for_each(|i| writers.write(i, 8)));
            if WEAK == RETIRED_FIRST {
                channel.ram.read_retired_now();
            }
            if let Some(count) = channel.reader().count() {
                assert_eq!((count.produced, count.closed), (count.recorded / 2, count.recorded / 2 * 2), "not exact");
            }
            thread.join().unwrap();
        });
    }
}

#[test]
fn subbufs_are_handed_over_and_given_back() {
    all("hand over", || {
        for n_subbufs in [1, 2] {
            hand_over::<SOUND>(n_subbufs, |channel| channel.write(1, 8));
            hand_over::<SOUND>(n_subbufs, |channel| channel.writer().flush());
        }
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_commit_without_order_is_too_weak() {
    hand_over::<ADD>(1, |channel| channel.write(1, 8));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_count_that_is_loaded_without_order_is_too_weak() {
    hand_over::<ACQUIRE>(1, |channel| channel.write(1, 8));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_release_without_order_is_too_weak() {
    hand_over::<PUBLISH>(1, |channel| channel.write(1, 8));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn an_exchange_without_order_is_too_weak_for_a_place_that_was_given_back() {
    hand_over::<EXCHANGE>(1, |channel| channel.write(1, 8));
}

#[test]
fn a_copy_that_survived_is_whole() {
    all("overwrite", || {
        overwrite::<SOUND>(1);
        overwrite::<SOUND>(2);
    });
}

#[test]
#[should_panic(expected = "a ")]
fn no_fence_after_the_copy_is_too_weak() {
    overwrite::<FENCE>(1);
}

#[test]
#[should_panic(expected = "a ")]
fn an_exchange_without_order_is_too_weak_for_a_copy() {
    overwrite::<EXCHANGE>(1);
}

#[test]
fn no_wake_up_is_lost() {
    all("wake-up", wake_up::<SOUND>);
}

#[test]
#[should_panic(expected = "asleep")]
fn an_announcement_without_fence_is_too_weak() {
    wake_up::<ANNOUNCE>();
}

#[test]
#[should_panic(expected = "asleep")]
fn a_swap_that_is_no_full_barrier_is_too_weak() {
    wake_up::<SWAP>();
}

#[test]
fn a_count_is_exact() {
    all("count", || {
        count::<SOUND>(1, 1);
        count::<SOUND>(2, 4);
    });
}

#[test]
#[should_panic(expected = "not exact")]
fn a_count_that_reads_retired_before_the_places_is_wrong() {
    count::<RETIRED_FIRST>(1, 1);
}

#[test]
#[should_panic(expected = "not exact")]
fn a_count_without_fence_before_the_second_look_is_wrong() {
    count::<FENCE>(1, 1);
}

#[test]
#[should_panic(expected = "not exact")]
fn a_count_without_acquire_is_wrong() {
    count::<ACQUIRE>(1, 1);
}

/// Why `Word` asks for full ordering points: a sequentially consistent exchange orders no other word's plain load before it,
/// and no plain store after it. Processors do more: x86 always, arm64 with its atomic instructions.
#[test]
#[should_panic(expected = "Causality violation")]
fn sequentially_consistent_operations_without_fences_are_too_weak_for_a_place_that_was_given_back() {
    hand_over::<ATOMICS>(1, |channel| channel.write(1, 8));
}

#[test]
#[should_panic(expected = "a ")]
fn sequentially_consistent_operations_without_fences_are_too_weak_for_a_copy() {
    overwrite::<ATOMICS>(1);
}
