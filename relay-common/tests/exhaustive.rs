//! Arithmetic and single decisions for every input at small widths, against specifications that are written another way:
//! with division where the protocol shifts and masks. What interrupts do to a decision is `explore`'s matter.

#![allow(clippy::unwrap_used, reason = "a test")]

use relay_common::{
    Buffer as _, Client, Committed, Geometry, HEADER, Lost, MAX_BUFFER_SIZE, MAX_SUBBUF_SIZE, Mode, Reader,
    ReaderWord as _, Word as _, Writer,
    memory::{Memory, UNWRITTEN},
};

const POWERS: [u64; 64] = {
    let mut powers = [1; 64];
    let mut i = 1;
    while i < 64 {
        powers[i] = 2 * powers[i - 1];
        i += 1;
    }
    powers
};

/// A geometry is two powers of two within the limits, and nothing else is one.
#[test]
fn geometries() {
    let around = |value: u64| [value.wrapping_sub(1), value, value.wrapping_add(1)];
    let interesting: Vec<u64> = (0..300).chain(POWERS.into_iter().flat_map(around)).chain([u64::MAX]).collect();
    for size in &interesting {
        for n in &interesting {
            let fits = u128::from(*size) * u128::from(*n) <= u128::from(MAX_BUFFER_SIZE);
            let powers = POWERS.contains(size) && POWERS.contains(n);
            let expected = powers && (32..=MAX_SUBBUF_SIZE).contains(size) && fits;
            let made = Geometry::new(*size, *n);
            assert_eq!(made.is_ok(), expected, "{size} x {n}: {made:?}");
            if let Ok(geometry) = made {
                assert_eq!((geometry.subbuf_size(), geometry.n_subbufs()), (*size, *n));
                assert_eq!(geometry.buffer_size(), size * n);
                assert_eq!(Geometry::from_words(geometry.words()), geometry);
            }
        }
    }
}

/// Where a position is: every one of some laps, at the start, at the byte wrap of the packed count, and far out.
#[test]
fn positions() {
    for size in [32, 64, 128] {
        for n in [1, 2, 4, 8] {
            let geometry = Geometry::new(size, n).unwrap();
            for start in [0, n * ((1 << 40) - 2 * size), (1 << 62) + 32 * size * n] {
                for position in start..start + 4 * size * n {
                    let number = position / size;
                    assert_eq!(geometry.number(position), number);
                    assert_eq!(geometry.offset(position), position % size);
                    assert_eq!(geometry.begin(number), position - position % size);
                    assert_eq!(geometry.place(position), position % (size * n));
                    assert_eq!(geometry.lap(number), number / n);
                }
            }
        }
    }
}

/// The packed count at every value around its wraps.
#[test]
fn packed_counts() {
    for size in [32, 64] {
        let geometry = Geometry::new(size, 2).unwrap();
        let wrap = (1 << 40) / size;
        for lap in (0..3).chain(wrap - 3..wrap + 3).chain(5 * wrap - 2..5 * wrap + 2) {
            for before in (0..3).chain((1 << 24) - 6..(1 << 24) + 3) {
                let count = |records: u64, used: u64| {
                    let exact =
                        (u128::from(before + records) << 40) + u128::from(size) * u128::from(lap) + u128::from(used);
                    Committed(u64::try_from(exact % (1 << 64)).unwrap())
                };
                let records_before = count(0, 0).records();
                for used in 0..=size {
                    for records in 0..=used.min(6) {
                        let value = count(records, used);
                        assert_eq!(
                            u64::from(value.records_of(geometry, lap, records_before)),
                            records,
                            "{records} records and {used} bytes of lap {lap}, {before} records before"
                        );
                        assert_eq!(value.is_complete(geometry, lap), used == 0);
                        assert_eq!(value.is_complete(geometry, lap + 1), used == size);
                        assert!((0..=size).all(|other| value.holds(geometry, lap, other) == (other == used)));
                    }
                }
            }
        }
    }
}

/// Client header and alignment only.
#[derive(Debug)]
struct Shape<const HEADER: u64, const ALIGN: u64>;

impl<const HEADER: u64, const ALIGN: u64> Client<Memory> for Shape<HEADER, ALIGN> {
    const HEADER: u64 = HEADER;
    const ALIGN: u64 = ALIGN;
}

/// A state of the channel, and a record to reserve room for.
#[derive(Clone, Copy, Debug)]
struct Case {
    geometry: Geometry,
    mode: Mode,
    /// The open sub-buffer, or the next if `offset` is 0.
    number: u64,
    offset: u64,
    /// How far the sub-buffer that is opened next is ahead of the reader, modulo 2^64.
    distance: u64,
    /// Whether an interrupted writer still owns the place that is entered next.
    owned: bool,
    len: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    granted: Result<u64, Lost>,
    reserved: u64,
    /// Padding, if the open sub-buffer is closed.
    closed: Option<u64>,
}

/// What must come of a case, by what a relay channel promises.
fn specified(case: &Case, first: u64, align: u64) -> Outcome {
    let size = case.geometry.subbuf_size();
    let begin = case.number * size;
    let reserved = begin + case.offset;
    if first + case.len > size {
        return Outcome { granted: Err(Lost::TooBig), reserved, closed: None };
    }
    let mut at = case.offset;
    while !at.is_multiple_of(align) {
        at += 1;
    }
    if case.offset > 0 && at + case.len <= size {
        return Outcome { granted: Ok(begin + at), reserved: begin + at + case.len, closed: None };
    }
    let (next, closed) = if case.offset == 0 { (begin, None) } else { (begin + size, Some(size - case.offset)) };
    let n = case.geometry.n_subbufs();
    let behind = case.distance <= i64::MAX.unsigned_abs() && case.distance >= n;
    if case.mode == Mode::NoOverwrite && behind {
        return Outcome { granted: Err(Lost::Full), reserved: next, closed };
    }
    if case.owned {
        // With one sub-buffer it is closed first, and for good.
        let (reserved, closed) = if n == 1 { (next, closed) } else { (reserved, None) };
        return Outcome { granted: Err(Lost::Nested), reserved, closed };
    }
    Outcome { granted: Ok(next + first), reserved: next + first + case.len, closed }
}

/// Puts the channel into a case's state.
fn set(memory: &Memory, case: &Case) {
    let Case { geometry, number, offset, .. } = *case;
    Reader { buffer: memory, geometry }.reset();
    let size = geometry.subbuf_size();
    let next = if offset == 0 { number } else { number + 1 };
    for k in number.saturating_sub(geometry.n_subbufs())..=next {
        // Later sub-buffers of a place overrule earlier ones.
        let used = if k < number { size } else { u64::from(k == number) * offset };
        let laps = geometry.lap(k) * size;
        let place = geometry.place(geometry.begin(k));
        let open = k == number && offset != 0;
        if k < number || open {
            memory.committed(place).publish(Committed::amount(geometry.lap(k), laps + used));
        }
    }
    if case.owned {
        // Whoever owns it has bytes yet to commit.
        let word = memory.committed(geometry.place(geometry.begin(next)));
        word.publish(word.peek().wrapping_sub(1));
    }
    memory.control().producer.reserved.publish(geometry.begin(number) + offset);
    memory.control().consumer.consumed.publish(next.wrapping_sub(case.distance));
}

fn decide<const H: u64, const ALIGN: u64>(memory: &Memory, case: &Case) {
    let Case { geometry, mode, .. } = *case;
    let size = geometry.subbuf_size();
    let first = (HEADER + H).next_multiple_of(ALIGN);
    let expected = specified(case, first, ALIGN);
    set(memory, case);
    let open = geometry.place(geometry.begin(case.number));
    memory.store(open, &[UNWRITTEN; 4]);
    for gap in [case.offset, HEADER + H, size + HEADER + H] {
        memory.store(geometry.place(open + gap), &[UNWRITTEN; 16]);
    }
    let held = Committed(memory.committed(open).peek()).bytes();

    let writer = Writer { buffer: memory, client: &Shape::<H, ALIGN>, geometry, mode };
    let reservation = writer.reserve(case.len);

    let producer = &memory.control().producer;
    let reserved = producer.reserved.peek();
    let granted = reservation.as_ref().map(|_| reserved - case.len).map_err(|lost| *lost);
    let padding = u64::from(memory.load_u32(open));
    let unclosed = u64::from(u32::from_ne_bytes([UNWRITTEN; 4]));
    let closed = (case.offset > 0 && padding != unclosed).then_some(padding);
    assert_eq!(Outcome { granted, reserved, closed }, expected, "{case:?}");
    let lost = [producer.lost_full.peek(), producer.lost_nested.peek(), producer.lost_too_big.peek()];
    let counts = [Lost::Full, Lost::Nested, Lost::TooBig].map(|lost| u64::from(expected.granted == Err(lost)));
    assert_eq!(lost, counts, "{case:?}");
    let held_now = Committed(memory.committed(open).peek()).bytes();
    assert_eq!(held_now, held + closed.unwrap_or(0), "the padding is committed: {case:?}");
    let Ok(reservation) = reservation else { return };
    assert_eq!(reservation.place, geometry.place(reserved - case.len), "{case:?}");
    assert!(reservation.place % size % ALIGN == 0 && reservation.place % size >= first, "{case:?}");
    let in_open = expected.closed.is_none() && case.offset > 0;
    let gap_from = if in_open { open + case.offset } else { reservation.place - first + HEADER + H };
    let gap = memory.load(gap_from, reservation.place - gap_from);
    assert!(gap.iter().all(|byte| *byte == 0), "alignment gaps are zero: {case:?}");
    writer.commit(&reservation);
    let place = geometry.place(geometry.begin(geometry.number(reserved - 1)));
    let lap = geometry.lap(geometry.number(reserved - 1));
    let bytes = Committed(memory.committed(place).peek()).bytes();
    let used = (reserved - 1) % size + 1;
    assert_eq!(
        bytes + u64::from(case.owned && used > case.offset && geometry.n_subbufs() == 1),
        lap * size + used,
        "{case:?}"
    );
    if used == size {
        assert_eq!(memory.load_u32(place), 0, "filled: closed without padding: {case:?}");
    }
}

/// Every decision of a shape.
fn decisions<const H: u64, const ALIGN: u64>(size: u64) {
    let first = (HEADER + H).next_multiple_of(ALIGN);
    for n in [1, 2, 4] {
        let geometry = Geometry::new(size, n).unwrap();
        let memory = Memory::new(geometry);
        // An open sub-buffer holds a record at least; in the first lap, in one of the next, and before the byte wrap.
        let offsets: Vec<u64> = [0].into_iter().chain(first + 1..size).collect();
        let distances = (0..=n + 2).chain([u64::MAX, u64::MAX - n, 1 << 63, (1 << 63) - 1]);
        for distance in distances {
            for offset in offsets.iter().copied() {
                for len in 1..=size + 2 {
                    for (mode, number, owned) in [
                        (Mode::NoOverwrite, 0, false),
                        (Mode::NoOverwrite, 2 * n + 1, false),
                        (Mode::NoOverwrite, 3 * n - 1, true),
                        (Mode::Overwrite, n, false),
                        (Mode::Overwrite, 2 * n, true),
                    ] {
                        let owned = owned && (n > 1 || len + offset.max(first) > size);
                        decide::<H, ALIGN>(&memory, &Case { geometry, mode, number, offset, distance, owned, len });
                    }
                }
            }
        }
    }
}

/// Every offset, length, distance of the reader and state of the next place, for each shape of a client.
#[test]
fn reserve_decisions() {
    decisions::<0, 1>(32);
    decisions::<0, 2>(32);
    decisions::<0, 8>(32);
    decisions::<8, 4>(64);
    decisions::<16, 1>(64);
    decisions::<17, 16>(64);
}
