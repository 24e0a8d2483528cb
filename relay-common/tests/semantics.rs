//! What a relay channel promises, a test a promise. Where the kernel's relay promised something else, the test says so; the
//! reasons are in `docs/architecture.md`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod script;
mod sim;

use relay_common::{
    Buffer as _, Client, Closing, Corrupt, Count, Geometry, HEADER, Lost, Mode, ProducerWords, memory::Memory,
};
use script::pattern;
use sim::{Bytes, Sim};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Room for records in a sub-buffer of the channels made by [`small`].
const ROOM: u64 = 64 - HEADER;

/// Four sub-buffers of 64 bytes.
fn small(mode: Mode) -> Sim {
    Sim::new(Geometry::new(64, 4).unwrap(), mode)
}

/// Writes records of `len` bytes, the `i`-th with the vectors' `i`-th pattern; returns how many were stored.
fn write(sim: &Sim, records: std::ops::Range<usize>, len: usize) -> usize {
    records.filter(|i| sim.write(&pattern(*i, len)).is_ok()).count()
}

/// Records written, overwritten ones included.
fn recorded(sim: &Sim) -> Option<u64> {
    sim.reader().count().map(|count| count.recorded)
}

/// The bytes of such records.
fn bytes(records: impl IntoIterator<Item = usize>, len: usize) -> Vec<u8> {
    records.into_iter().flat_map(|i| pattern(i, len)).collect()
}

/// A record is whole in one sub-buffer, or absent.
#[test]
fn a_record_is_never_split_over_subbufs() {
    let mut sim = small(Mode::NoOverwrite);
    assert_eq!(write(&sim, 0..5, 30), 4);
    sim.flush();
    for number in 0..4 {
        let subbuf = sim.reader().subbuf(number).unwrap().unwrap();
        assert_eq!((subbuf.len, subbuf.records), (30, 1), "sub-buffer {number}");
    }
    sim.drain(u64::MAX);
    assert_eq!(sim.file, bytes(0..4, 30));
}

/// Padding is the u32 at the sub-buffer's start; content is what is between header and padding.
#[test]
fn the_padding_is_what_the_content_leaves() {
    let sim = small(Mode::NoOverwrite);
    write(&sim, 0..2, 20);
    sim.flush();
    assert_eq!(u64::from(sim.memory.load_u32(0)), ROOM - 40);
    assert_eq!(sim.reader().subbuf(0).unwrap().unwrap().len, 40);
}

/// Unlike in relay, a sub-buffer that is filled to the last byte is ready at once.
#[test]
fn an_exactly_filled_subbuf_is_ready_at_once() {
    let mut sim = small(Mode::NoOverwrite);
    assert_eq!(write(&sim, 0..2, 24), 2);
    assert_eq!(sim.produced(), 1);
    assert_eq!(sim.memory.load_u32(0), 0, "padding");
    sim.flush();
    assert_eq!(sim.produced(), 1, "a flush closes nothing more");
    assert_eq!(write(&sim, 2..3, 24), 1);
    sim.flush();
    sim.drain(u64::MAX);
    assert_eq!((sim.file.clone(), sim.subbufs_processed), (bytes(0..3, 24), 2));
}

/// Nothing is open and nothing produced before the first write.
#[test]
fn a_new_channel_has_nothing_to_read() {
    let mut sim = small(Mode::NoOverwrite);
    assert!(!sim.reader().is_open());
    sim.drain(u64::MAX);
    assert_eq!((sim.subbufs_processed, sim.file.len(), recorded(&sim)), (0, 0, Some(0)));
}

/// Sub-buffer `k` is at place `k mod n_subbufs`, many laps long.
#[test]
fn places_are_used_in_turn() {
    let mut sim = small(Mode::NoOverwrite);
    for lap in 0..10 {
        for i in 0..4 {
            assert_eq!(write(&sim, lap * 4 + i..lap * 4 + i + 1, 48), 1);
            let number = u64::try_from(lap * 4 + i).unwrap();
            assert_eq!(sim.reader().subbuf(number).unwrap().unwrap().place, (number % 4) * 64 + HEADER);
        }
        sim.drain(u64::MAX);
    }
    assert_eq!(sim.file, bytes(0..40, 48));
}

/// Only what no sub-buffer could hold is too big; unlike relay, that never closes the open one, and it is not «full».
#[test]
fn a_record_that_no_subbuf_could_hold_is_too_big_and_changes_nothing_else() {
    let sim = small(Mode::NoOverwrite);
    assert_eq!(sim.write(&[7; 5]), Ok(()));
    let before = sim.control().reserved;
    for len in [ROOM + 1, 64, 65, 1000] {
        assert_eq!(sim.write(&vec![0; usize::try_from(len).unwrap()]), Err(Lost::TooBig), "{len} bytes");
    }
    let control = sim.control();
    assert_eq!((control.reserved, control.lost_too_big, control.lost_full), (before, 4, 0));
    assert_eq!(sim.write(&vec![0; usize::try_from(ROOM).unwrap()]), Ok(()));
}

/// With no reader exactly `n_subbufs` are filled, every further write is counted once, and what is unread stays.
#[test]
fn without_a_reader_the_newest_are_lost_and_counted() {
    let mut sim = small(Mode::NoOverwrite);
    assert_eq!(write(&sim, 0..100, 20), 8);
    let control = sim.control();
    assert_eq!((sim.produced(), control.lost_full, control.lost_nested), (4, 92, 0));
    sim.flush();
    assert_eq!((sim.produced(), sim.control().lost_full), (4, 92), "a flush loses nothing");
    sim.drain(u64::MAX);
    assert_eq!(sim.file, bytes(0..8, 20));
    assert_eq!(sim.max_backlog, 4);
}

/// The write after a sub-buffer has been given back is stored.
#[test]
fn the_first_write_after_a_release_is_stored() {
    let mut sim = small(Mode::NoOverwrite);
    write(&sim, 0..20, 20);
    sim.drain(1);
    assert_eq!(write(&sim, 20..21, 20), 1);
    sim.flush();
    sim.drain(u64::MAX);
    assert_eq!(sim.file, bytes((0..8).chain([20]), 20));
}

/// In overwrite mode nothing is refused, and the newest sub-buffers are what is left.
#[test]
fn overwrite_keeps_the_newest_in_order() {
    let mut sim = small(Mode::Overwrite);
    assert_eq!(write(&sim, 0..50, 20), 50);
    sim.flush();
    sim.drain(u64::MAX);
    assert_eq!(sim.file, bytes(42..50, 20));
    assert_eq!(sim.subbufs_overrun, 21);
    assert_eq!(recorded(&sim), Some(50));
    assert_eq!(50 - sim.records_read, 42, "records overrun");
}

/// A copy that a writer overtook is known to be bad.
#[test]
fn a_subbuf_that_is_entered_again_does_not_survive() {
    let sim = small(Mode::Overwrite);
    write(&sim, 0..8, 20);
    sim.flush();
    assert!(sim.reader().survived(0));
    write(&sim, 8..9, 20);
    assert!(!sim.reader().survived(0), "sub-buffer 4 is at the place of sub-buffer 0");
    assert!(sim.reader().survived(1));
}

/// A write of no bytes changes nothing.
#[test]
fn a_write_of_no_bytes_changes_nothing() {
    let sim = small(Mode::NoOverwrite);
    assert_eq!(sim.write(&[]), Ok(()));
    assert_eq!((sim.control().reserved, sim.reader().is_open()), (0, false));
}

/// A reader that claims more than was produced is found out, and so is one that the writers ran over.
#[test]
fn positions_that_contradict_each_other_are_corrupt() {
    let sim = small(Mode::NoOverwrite);
    let consumed = &sim.memory.control().consumer.consumed;
    consumed.store(9, Relaxed);
    assert_eq!(sim.reader().pass(9, Mode::NoOverwrite), Err(Corrupt::Positions { produced: 0, consumed: 9 }));
    // The kernel side takes any value of `consumed` and stays inside the buffer.
    for scribbled in [u64::MAX, 1 << 63, (1 << 63) - 1, 12345] {
        consumed.store(scribbled, Relaxed);
        write(&sim, 0..100, 20);
    }
    consumed.store(0, Relaxed);
    assert!(matches!(sim.reader().pass(0, Mode::NoOverwrite), Err(Corrupt::Overwritten { .. })));
}

/// An impossible padding is reported, not used.
#[test]
fn an_impossible_padding_is_corrupt() {
    let mut sim = small(Mode::NoOverwrite);
    write(&sim, 0..1, 20);
    sim.flush();
    for padding in [49, 64, u32::MAX] {
        sim.memory.store(0, &padding.to_ne_bytes());
        assert_eq!(sim.try_drain(u64::MAX), Err(Corrupt::Padding { number: 0, padding }));
    }
    sim.memory.store(0, &28u32.to_ne_bytes());
    sim.drain(u64::MAX);
    assert_eq!(sim.file, bytes(0..1, 20));
}

/// Unlike in relay, a flush makes no empty sub-buffers.
#[test]
fn a_flush_closes_what_is_open_and_nothing_else() {
    let sim = small(Mode::NoOverwrite);
    sim.flush();
    assert_eq!(sim.produced(), 0);
    write(&sim, 0..1, 20);
    sim.flush();
    sim.flush();
    assert_eq!(sim.produced(), 1);
}

/// The file is the content of the sub-buffers; an empty one adds nothing to it, and counts.
#[test]
fn a_mark_is_an_empty_subbuf() {
    let mut sim = small(Mode::NoOverwrite);
    write(&sim, 0..1, 20);
    sim.writer().mark();
    write(&sim, 1..2, 20);
    sim.flush();
    sim.drain(u64::MAX);
    assert_eq!((sim.file.clone(), sim.subbufs_processed, sim.records_read), (bytes(0..2, 20), 3, 2));
    write(&sim, 0..100, 20);
    let (before, lost) = (sim.produced(), sim.control().lost_full);
    sim.writer().mark();
    assert_eq!((sim.produced(), sim.control().lost_full), (before, lost), "no room: no mark, and no loss");
}

/// The reader is woken by the commit that completes a sub-buffer, once for each time that it slept.
#[test]
fn whoever_completes_a_subbuf_wakes_a_reader_that_sleeps() {
    let sim = small(Mode::NoOverwrite);
    let wakes = || sim.memory.wakes();
    let waiting = &sim.memory.control().consumer.waiting;
    write(&sim, 0..2, 24);
    assert_eq!(wakes(), 0, "nobody sleeps");
    waiting.store(1, Relaxed);
    write(&sim, 2..3, 24);
    assert_eq!(wakes(), 0, "nothing is ready");
    write(&sim, 3..4, 24);
    assert_eq!((wakes(), waiting.load(Relaxed)), (1, 0));
    write(&sim, 4..6, 24);
    assert_eq!(wakes(), 1);
}

/// A writer that interrupts another stores its record whole, and the sub-buffer is ready when both have committed.
#[test]
fn a_nested_writer_stores_its_record_after_the_one_it_interrupts() {
    let mut sim = small(Mode::NoOverwrite);
    let outer = sim.reserve(20).unwrap();
    assert_eq!(sim.write(&pattern(1, 20)), Ok(()));
    assert_eq!(sim.write(&pattern(2, 20)), Ok(()), "it switches, and leaves the outer's sub-buffer open for it");
    sim.flush();
    assert_eq!(sim.produced(), 2);
    assert_eq!(sim.reader().subbuf(0), Ok(None), "the outer has not committed");
    assert_eq!(sim.reader().count(), None, "no exact number while a writer is at work");
    sim.memory.store(outer.place, &pattern(0, 20));
    sim.writer().commit(&outer);
    sim.drain(u64::MAX);
    assert_eq!(sim.file, bytes(0..3, 20));
    assert_eq!((sim.records_read, recorded(&sim)), (3, Some(3)));
}

/// A nested writer that comes round to the sub-buffer of the one that it interrupts loses, and harms nothing.
#[test]
fn a_nested_writer_does_not_lap_the_one_it_interrupts() {
    for mode in [Mode::Overwrite, Mode::NoOverwrite] {
        let mut sim = small(mode);
        let outer = sim.reserve(20).unwrap();
        let stored = write(&sim, 1..30, 40);
        assert_eq!(stored, 3, "{mode:?}");
        let control = sim.control();
        let lost = if mode == Mode::Overwrite { control.lost_nested } else { control.lost_full };
        assert_eq!(lost, 26, "{mode:?}: {control:?}");
        sim.memory.store(outer.place, &pattern(0, 20));
        sim.writer().commit(&outer);
        sim.flush();
        sim.drain(u64::MAX);
        assert_eq!(sim.file, [pattern(0, 20), bytes(1..4, 40)].concat(), "{mode:?}");
    }
}

/// The account: attempted = recorded + lost, and recorded = read + overrun, whatever happens.
#[test]
fn the_account_adds_up() {
    for (subbuf_size, n_subbufs) in [(32, 1), (32, 2), (64, 4), (128, 1), (256, 8)] {
        for mode in [Mode::Overwrite, Mode::NoOverwrite] {
            let mut sim = Sim::new(Geometry::new(subbuf_size, n_subbufs).unwrap(), mode);
            // A linear congruential generator: the same every time.
            let mut random = 12345_u64;
            let (mut attempted, mut stored) = (0, 0);
            for _ in 0..if cfg!(miri) { 40 } else { 20_000 } {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (what, len) = (random >> 60, usize::try_from(random >> 33 & 0x3f).unwrap() + 1);
                match what {
                    0 => sim.flush(),
                    1 => sim.drain(2),
                    2 => sim.writer().mark(),
                    _ => {
                        attempted += 1;
                        stored += u64::from(sim.write(&vec![1; len]).is_ok());
                    }
                }
                assert_eq!(recorded(&sim), Some(stored));
            }
            sim.flush();
            sim.drain(u64::MAX);
            let lost = sim.memory.control().producer.lost();
            assert_eq!(attempted, stored + lost, "{mode:?} {subbuf_size} {n_subbufs}");
            assert!(sim.records_read <= stored);
            if mode == Mode::NoOverwrite {
                assert_eq!(sim.records_read, stored);
            }
        }
    }
}

/// Alignment goes before a record, is zero, and never ends a sub-buffer.
#[test]
fn alignment_goes_before_a_record_and_is_zero() {
    let mut sim = Sim::with_client(Geometry::new(64, 2).unwrap(), Mode::NoOverwrite, Bytes::<4>);
    for _ in 0..2 {
        for record in [&[1u8; 5][..], &[2; 3], &[3; 1]] {
            sim.write(record).unwrap();
        }
        sim.flush();
    }
    sim.drain(u64::MAX);
    let once = [1, 1, 1, 1, 1, 0, 0, 0, 2, 2, 2, 0, 3];
    assert_eq!(sim.file, [once, once].concat());
}

/// A client whose header holds what it was told.
#[derive(Debug)]
struct Header(AtomicU64);

impl Client<Memory> for Header {
    const HEADER: u64 = 32;
    const ALIGN: u64 = 8;
    fn stamp(&self, _: &ProducerWords<AtomicU64>) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
    fn subbuf_start(&self, memory: &Memory, place: u64, number: u64, _: u64) {
        memory.store(place, &number.to_ne_bytes());
    }
    fn subbuf_end(&self, memory: &Memory, place: u64, closing: Closing) {
        memory.store(place + 8, &closing.stamp.to_ne_bytes());
        memory.store(place + 16, &closing.content.to_ne_bytes());
        memory.store(place + 24, &closing.lost.to_ne_bytes());
    }
}

/// The client's header is in the file, with the content's length and the losses known when the sub-buffer was closed.
#[test]
fn a_clients_header_opens_and_closes_with_its_subbuf() {
    let mut sim = Sim::with_client(Geometry::new(128, 2).unwrap(), Mode::NoOverwrite, Header(AtomicU64::new(100)));
    for _ in 0..10 {
        let _ = sim.write(&[9; 40]);
    }
    sim.drain(u64::MAX);
    sim.writer().mark();
    sim.drain(u64::MAX);
    let words: Vec<u64> = sim.file.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
    let nines = u64::from_ne_bytes([9; 8]);
    // Two full sub-buffers: 16 + 32 + 2 * 40 is exactly 128. Then six records are lost, then the mark tells of them.
    let expected = [[0, 101, 112, 0].as_slice(), &[nines; 10], &[1, 103, 112, 0], &[nines; 10], &[2, 111, 32, 6]];
    assert_eq!(words, expected.concat());
}

/// A client that notes when its buffer was full and when it recovered.
#[derive(Debug, Default)]
struct Notes(std::cell::RefCell<String>);

impl Client<Memory> for Notes {
    fn buf_full(&self, _: &Memory) {
        self.0.borrow_mut().push('F');
    }
    fn buf_recovered(&self, _: &Memory) {
        self.0.borrow_mut().push('R');
    }
}

/// One notice when the buffer becomes full, however many records are lost, and one when records are stored again.
#[test]
fn full_and_recovered_are_told_once_each() {
    let mut sim = Sim::with_client(Geometry::new(64, 2).unwrap(), Mode::NoOverwrite, Notes::default());
    for _ in 0..2 {
        for _ in 0..10 {
            let _ = sim.write(&[1; 20]);
        }
        sim.drain(u64::MAX);
    }
    assert_eq!(*sim.client.0.borrow(), "FRF");
    sim.write(&[1; 20]).unwrap();
    assert_eq!(*sim.client.0.borrow(), "FRFR");
    let mut sim = Sim::with_client(Geometry::new(64, 2).unwrap(), Mode::Overwrite, Notes::default());
    for _ in 0..10 {
        sim.write(&[1; 20]).unwrap();
    }
    sim.drain(u64::MAX);
    assert_eq!(*sim.client.0.borrow(), "", "in overwrite mode no buffer is ever full");
}

/// After a reset the channel is as new.
#[test]
fn a_reset_channel_is_as_new() {
    for mode in [Mode::NoOverwrite, Mode::Overwrite] {
        let mut sim = small(mode);
        write(&sim, 0..50, 20);
        sim.drain(2);
        sim.reader().reset();
        assert_eq!(sim.control().reserved, 0);
        assert_eq!(sim.memory.control().counters(sim.geometry), relay_common::Counters::default());
        assert_eq!(sim.reader().count(), Some(Count { produced: 0, recorded: 0, closed: 0 }));
        sim.file.clear();
        assert_eq!(write(&sim, 0..8, 20), 8);
        sim.flush();
        sim.drain(u64::MAX);
        assert_eq!(sim.file, bytes(0..8, 20));
        assert_eq!(recorded(&sim), Some(8));
    }
}

/// What is in closed sub-buffers is counted apart from what is in the open one.
#[test]
fn the_count_of_closed_subbufs_leaves_the_open_one_out() {
    let sim = small(Mode::Overwrite);
    assert_eq!(write(&sim, 0..13, 20), 13);
    assert_eq!(sim.reader().count(), Some(Count { produced: 6, recorded: 13, closed: 12 }));
    sim.flush();
    assert_eq!(sim.reader().count(), Some(Count { produced: 7, recorded: 13, closed: 13 }));
}

/// Full and empty are what relay says they are.
#[test]
fn full_is_when_all_wait_and_empty_when_none_does() {
    let mut sim = small(Mode::NoOverwrite);
    let state = |sim: &Sim| {
        let counters = sim.memory.control().counters(sim.geometry);
        (counters.is_empty(), counters.is_full(sim.geometry))
    };
    assert_eq!(state(&sim), (true, false));
    write(&sim, 0..3, 20);
    assert_eq!(state(&sim), (false, false));
    write(&sim, 3..20, 20);
    assert_eq!(state(&sim), (false, true));
    sim.drain(1);
    assert_eq!(state(&sim), (false, false));
    sim.drain(u64::MAX);
    assert_eq!(state(&sim), (true, false));
}

/// Nobody can give back more than was produced.
#[test]
fn consumed_never_passes_produced() {
    let sim = small(Mode::NoOverwrite);
    write(&sim, 0..5, 20);
    sim.reader().release(9);
    assert_eq!(sim.consumed(), 2);
}
