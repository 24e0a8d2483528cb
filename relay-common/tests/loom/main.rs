//! The protocol under every order that weak memory allows: the writers of one CPU, one of them interrupting or preempting another,
//! and the reader on another CPU; and a flush of that CPU's buffer from elsewhere. Each model has twins with one order weakened,
//! which must fail.
//!
//! Writers of one CPU are one thread: they see their own stores in program order, and whoever goes on is a call. Where that
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
use ram::{ACQUIRE, ADD, ANNOUNCE, ATOMICS, EXCHANGE, FENCE, LOOK, NEVER, PUBLISH, RETIRED_FIRST, Ram, SOUND, SWAP};
use relay_common::{Buffer, Client, Closing, Geometry, Lost, Mode, Plain, Reader, ReaderWord as _, Writer};

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
        let ram = Ram::new(Geometry::new(32, n_subbufs).unwrap(), mode == Mode::Overwrite, false);
        let (granted, read, consumed) = (RefCell::default(), RefCell::default(), std::cell::Cell::new(0));
        Rc::new(Self { ram, mode, granted, read, consumed })
    }

    fn writer(&self) -> Writer<'_, Ram<WEAK>, Plain> {
        Writer { buffer: &self.ram, client: &Plain, geometry: self.ram.geometry, mode: self.mode }
    }

    fn reader(&self) -> Reader<'_, Ram<WEAK>> {
        Reader { buffer: &self.ram, geometry: self.ram.geometry }
    }

    /// The same, with one sub-buffer that two CPUs write.
    fn of_several() -> Rc<Self> {
        let ram = Ram::new(Geometry::new(32, 1).unwrap(), false, true);
        let (granted, read, consumed) = (RefCell::default(), RefCell::default(), std::cell::Cell::new(0));
        Rc::new(Self { ram, mode: Mode::NoOverwrite, granted, read, consumed })
    }

    /// Writes a record of `len` bytes, all of them its identity.
    fn write(&self, identity: u32, len: u64) {
        let Ok(reservation) = self.writer().reserve(len) else { return };
        self.ram.writers.act(|| {
            self.granted.borrow_mut().push((identity, len));
            0
        });
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
        self.writer().flush();
        while self.drain() {}
        let all = self.granted.borrow().len() as u64;
        if self.mode == Mode::NoOverwrite {
            assert_eq!(self.read.borrow().len() as u64, all, "a record is missing");
        }
        assert_eq!(self.reader().count().unwrap().recorded, all, "a wrong count at rest");
    }
}

/// The first writer's accesses at which it is stopped; at the last, it is not.
const ACCESSES: std::ops::Range<usize> = 0..32;

/// Interrupts, which end: everywhere, or at every so many accesses.
fn interrupts(step: usize) -> impl Iterator<Item = (usize, usize)> {
    ACCESSES.step_by(step).map(|at| (at, NEVER))
}

/// Tasks: the other writer is stopped, too, and goes on after the first.
fn tasks(step: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..24).step_by(step).flat_map(|at| (1..12).step_by(2).map(move |other| (at, other)))
}

impl<const WEAK: u8> Channel<WEAK> {
    /// A thread of this CPU's writers.
    fn start(self: &Rc<Self>, stops: (usize, usize), first: fn(&Self), other: fn(&Self)) -> thread::JoinHandle<()> {
        let channel = Rc::clone(self);
        thread::spawn(move || {
            let (one, another) = (Rc::clone(&channel), Rc::clone(&channel));
            channel.ram.writers.run(stops, move || first(&one), move || other(&another));
        })
    }
}

/// Sub-buffers are handed over, read in place, given back and used again. Bytes are never raced for.
fn hand_over<const WEAK: u8>(n_subbufs: u64, stops: impl Iterator<Item = (usize, usize)>, other: fn(&Channel<WEAK>)) {
    for stops in stops {
        model(move || {
            let channel = Channel::<WEAK>::new(n_subbufs, Mode::NoOverwrite);
            let first = |channel: &Channel<WEAK>| {
                channel.write(2, 12);
                channel.write(3, 16);
            };
            let thread = channel.start(stops, first, other);
            channel.drain();
            channel.drain();
            thread.join().unwrap();
            channel.settle();
        });
    }
}

/// A copy is taken while writers come round, and found good or thrown away.
fn overwrite<const WEAK: u8>(n_subbufs: u64, stops: impl Iterator<Item = (usize, usize)>) {
    for stops in stops {
        model(move || {
            let channel = Channel::<WEAK>::new(n_subbufs, Mode::Overwrite);
            for i in 0..u32::try_from(n_subbufs).unwrap() {
                channel.write(10 + i, 8);
                channel.writer().flush();
            }
            let thread = channel.start(stops, |channel| channel.write(3, 8), |channel| channel.write(2, 4));
            channel.take(1);
            thread.join().unwrap();
            channel.settle();
        });
    }
}

/// A reader that sleeps is woken for what is complete.
fn wake_up<const WEAK: u8>(stops: impl Iterator<Item = (usize, usize)>) {
    for stops in stops {
        model(move || {
            let channel = Channel::<WEAK>::new(2, Mode::NoOverwrite);
            let first = |channel: &Channel<WEAK>| {
                channel.write(1, 12);
                channel.write(2, 8);
            };
            let thread = channel.start(stops, first, |channel| channel.writer().flush());
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
fn count<const WEAK: u8>(n_subbufs: u64, before: u32, stops: impl Iterator<Item = (usize, usize)>) {
    for stops in stops {
        model(move || {
            let channel = Channel::<WEAK>::new(n_subbufs, Mode::Overwrite);
            (0..before).for_each(|i| channel.write(i, 8));
            let first = |channel: &Channel<WEAK>| (10..12).for_each(|i| channel.write(i, 8));
            let thread = channel.start(stops, first, |channel| channel.write(100, 8));
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

/// A client whose closing words tell what was lost.
struct Told;

impl<B: Buffer> Client<B> for Told {
    const HEADER: u64 = 8;
    fn subbuf_end(&self, buffer: &B, place: u64, closing: Closing) {
        buffer.store_u64(place, closing.lost);
    }
}

fn told<const WEAK: u8>(ram: &Ram<WEAK>) -> Writer<'_, Ram<WEAK>, Told> {
    Writer { buffer: ram, client: &Told, geometry: ram.geometry, mode: Mode::NoOverwrite }
}

/// A CPU's buffer is flushed from another while it writes, as one that was offline and comes back does. Losses that are told never fall.
fn elsewhere<const WEAK: u8>() {
    model(|| {
        let ram = Rc::new(Ram::<WEAK>::new(Geometry::new(32, 4).unwrap(), false, true));
        let (here, there) = (Rc::clone(&ram), Rc::clone(&ram));
        let writing = thread::spawn(move || {
            let writer = told(&here);
            assert_eq!(writer.reserve(32).err(), Some(Lost::TooBig));
            for (identity, len) in [(1, 8), (2, 4)] {
                let reservation = writer.reserve(len).unwrap();
                here.store(reservation.place, identity);
                writer.commit(&reservation);
            }
        });
        let flushing = thread::spawn(move || told(&there).flush());
        writing.join().unwrap();
        flushing.join().unwrap();
        told(&ram).flush();
        let reader = Reader { buffer: &*ram, geometry: ram.geometry };
        assert_eq!((reader.produced(), reader.count().unwrap().recorded), (2, 2), "closed once each");
        let (mut lost, mut records) = (0, 0);
        for number in 0..2 {
            let subbuf = reader.subbuf(number).unwrap().unwrap();
            let told = ram.load(subbuf.place);
            assert!(told >= lost, "losses that are told fall: {told} after {lost}");
            (lost, records) = (told, records + subbuf.records);
        }
        assert_eq!((lost, records), (1, 2));
    });
}

/// The same with one sub-buffer, which the reader gives back.
fn elsewhere_and_read<const WEAK: u8>() {
    model(|| {
        let channel = Channel::<WEAK>::of_several();
        let (here, there) = (Rc::clone(&channel), Rc::clone(&channel));
        let writing = thread::spawn(move || {
            here.write(1, 8);
            here.write(2, 12);
        });
        let flushing = thread::spawn(move || there.writer().flush());
        channel.drain();
        writing.join().unwrap();
        flushing.join().unwrap();
        channel.settle();
    });
}

#[test]
fn subbufs_are_handed_over_and_given_back() {
    all("hand over", || {
        for n_subbufs in [1, 2] {
            hand_over::<SOUND>(n_subbufs, interrupts(1), |channel| channel.write(1, 8));
            hand_over::<SOUND>(n_subbufs, interrupts(1), |channel| channel.writer().flush());
        }
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_commit_without_order_is_too_weak() {
    hand_over::<ADD>(1, interrupts(1), |channel| channel.write(1, 8));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_count_that_is_loaded_without_order_is_too_weak() {
    hand_over::<ACQUIRE>(1, interrupts(1), |channel| channel.write(1, 8));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_release_without_order_is_too_weak() {
    hand_over::<PUBLISH>(1, interrupts(1), |channel| channel.write(1, 8));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn an_exchange_without_order_is_too_weak_for_a_place_that_was_given_back() {
    hand_over::<EXCHANGE>(1, interrupts(1), |channel| channel.write(1, 8));
}

#[test]
fn a_copy_that_survived_is_whole() {
    all("overwrite", || {
        overwrite::<SOUND>(1, interrupts(1));
        overwrite::<SOUND>(2, interrupts(4));
    });
}

#[test]
#[should_panic(expected = "a ")]
fn no_fence_after_the_copy_is_too_weak() {
    overwrite::<FENCE>(1, interrupts(1));
}

#[test]
#[should_panic(expected = "a ")]
fn an_exchange_without_order_is_too_weak_for_a_copy() {
    overwrite::<EXCHANGE>(1, interrupts(1));
}

#[test]
fn no_wake_up_is_lost() {
    all("wake-up", || wake_up::<SOUND>(interrupts(1)));
}

#[test]
#[should_panic(expected = "asleep")]
fn an_announcement_without_fence_is_too_weak() {
    wake_up::<ANNOUNCE>(interrupts(1));
}

#[test]
#[should_panic(expected = "asleep")]
fn a_swap_that_is_no_full_barrier_is_too_weak() {
    wake_up::<SWAP>(interrupts(1));
}

#[test]
fn a_count_is_exact() {
    all("count", || {
        count::<SOUND>(1, 1, interrupts(1));
        count::<SOUND>(2, 4, interrupts(1));
    });
}

#[test]
#[should_panic(expected = "not exact")]
fn a_count_that_reads_retired_before_the_places_is_wrong() {
    count::<RETIRED_FIRST>(1, 1, interrupts(1));
}

#[test]
#[should_panic(expected = "not exact")]
fn a_count_without_fence_before_the_second_look_is_wrong() {
    count::<FENCE>(1, 1, interrupts(1));
}

#[test]
#[should_panic(expected = "not exact")]
fn a_count_without_acquire_is_wrong() {
    count::<ACQUIRE>(1, 1, interrupts(1));
}

/// Why `Word` asks for full ordering points: a sequentially consistent exchange orders no other word's plain load before it,
/// and no plain store after it. Processors do more: x86 always, arm64 with its atomic instructions.
#[test]
#[should_panic(expected = "Causality violation")]
fn sequentially_consistent_operations_without_fences_are_too_weak_for_a_place_that_was_given_back() {
    hand_over::<ATOMICS>(1, interrupts(1), |channel| channel.write(1, 8));
}

#[test]
#[should_panic(expected = "a ")]
fn sequentially_consistent_operations_without_fences_are_too_weak_for_a_copy() {
    overwrite::<ATOMICS>(1, interrupts(1));
}

#[test]
fn tasks_that_stop_one_another_hand_over_too() {
    all("hand over, tasks", || {
        for n_subbufs in [1, 2] {
            hand_over::<SOUND>(n_subbufs, tasks(3), |channel| channel.write(1, 8));
        }
    });
    all("overwrite, tasks", || overwrite::<SOUND>(1, tasks(3)));
    all("wake-up, tasks", || wake_up::<SOUND>(tasks(3)));
    all("count, tasks", || count::<SOUND>(1, 1, tasks(3)));
}

#[test]
fn a_flush_from_another_cpu_tells_no_fewer_losses() {
    all("flush elsewhere", || {
        elsewhere::<SOUND>();
        elsewhere_and_read::<SOUND>();
    });
}

#[test]
#[should_panic(expected = "losses that are told fall")]
fn a_flush_that_looks_without_order_is_too_weak() {
    elsewhere::<LOOK>();
}
