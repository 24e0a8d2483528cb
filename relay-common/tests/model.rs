//! Random scripts against a model that is told in other words: a queue of sub-buffers, each a list of records. One writer at
//! a time; what interrupts do is `explore`'s matter.

#![allow(clippy::unwrap_used, reason = "a test")]

mod script;
mod sim;

use std::collections::VecDeque;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use relay_common::{Buffer as _, Client, Count, Geometry, HEADER, Lost, Mode, Word as _, memory::Memory};
use sim::{Bytes, Sim};

#[derive(Clone, Copy, Debug)]
enum Op {
    Write(usize),
    Flush,
    Mark,
    Drain(u64),
    Reset,
}

/// What a channel is, without positions, laps or packed counts.
#[derive(Debug)]
struct Model {
    size: usize,
    align: usize,
    n: usize,
    mode: Mode,
    /// Content and records of the sub-buffers that are closed and unread, oldest first.
    closed: VecDeque<(Vec<u8>, u64)>,
    open: Option<(Vec<u8>, u64)>,
    produced: u64,
    recorded: u64,
    recorded_closed: u64,
    lost: [u64; 2],
    overrun_subbufs: u64,
    records_read: u64,
    file: Vec<u8>,
}

impl Model {
    fn new(size: usize, n: usize, align: usize, mode: Mode) -> Self {
        let (closed, open, file, lost) = (VecDeque::new(), None, Vec::new(), [0; 2]);
        let (produced, recorded, recorded_closed, overrun_subbufs, records_read) = (0, 0, 0, 0, 0);
        Self {
            size,
            align,
            n,
            mode,
            closed,
            open,
            produced,
            recorded,
            recorded_closed,
            lost,
            overrun_subbufs,
            records_read,
            file,
        }
    }

    /// Bytes before the first record of the content.
    fn lead(&self) -> usize {
        let header = usize::try_from(HEADER).unwrap();
        header.next_multiple_of(self.align) - header
    }

    /// Where in a content the next record begins.
    fn next(&self, content: &[u8]) -> usize {
        let header = usize::try_from(HEADER).unwrap();
        (header + content.len()).next_multiple_of(self.align) - header
    }

    fn room(&self) -> usize {
        self.size - usize::try_from(HEADER).unwrap()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        if self.lead() + bytes.len() > self.room() {
            self.lost[1] += 1;
            return Err(Lost::TooBig);
        }
        if self.open.as_ref().is_some_and(|(content, _)| self.next(content) + bytes.len() > self.room()) {
            self.close();
        }
        if self.open.is_none() && !self.open_next() {
            self.lost[0] += 1;
            return Err(Lost::Full);
        }
        let at = self.next(&self.open.as_ref().unwrap().0);
        let (content, records) = self.open.as_mut().unwrap();
        content.resize(at, 0);
        content.extend(bytes);
        *records += 1;
        self.recorded += 1;
        if content.len() == self.size - usize::try_from(HEADER).unwrap() {
            self.close();
        }
        Ok(())
    }

    fn open_next(&mut self) -> bool {
        if self.closed.len() == self.n {
            if self.mode == Mode::NoOverwrite {
                return false;
            }
            self.closed.pop_front();
            self.overrun_subbufs += 1;
        }
        self.open = Some((vec![0; self.lead()], 0));
        true
    }

    fn close(&mut self) {
        if let Some((content, records)) = self.open.take() {
            self.recorded_closed += records;
            self.produced += 1;
            self.closed.push_back((content, records));
        }
    }

    fn mark(&mut self) {
        self.close();
        if self.open_next() {
            self.close();
        }
    }

    fn drain(&mut self, most: u64) {
        for _ in 0..most.min(self.closed.len() as u64) {
            let (content, records) = self.closed.pop_front().unwrap();
            self.file.extend(content);
            self.records_read += records;
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (1usize..70).prop_map(Op::Write),
        20 => (1usize..20).prop_map(Op::Write),
        4 => Just(Op::Flush),
        2 => Just(Op::Mark),
        6 => (1u64..4).prop_map(Op::Drain),
        1 => Just(Op::Drain(u64::MAX)),
        1 => Just(Op::Reset),
    ]
}

fn check<C: Client<Memory>>(
    client: C,
    size: usize,
    n: usize,
    overwrite: bool,
    ops: &[Op],
) -> Result<(), proptest::test_runner::TestCaseError> {
    let mode = if overwrite { Mode::Overwrite } else { Mode::NoOverwrite };
    let align = usize::try_from(C::ALIGN).unwrap();
    let mut model = Model::new(size, n, align, mode);
    let mut sim = Sim::with_client(Geometry::new(size as u64, n as u64).unwrap(), mode, client);
    for (i, op) in ops.iter().enumerate() {
        match *op {
            Op::Write(len) => {
                let bytes = script::pattern(i, len);
                prop_assert_eq!(sim.write(&bytes), model.write(&bytes), "write {}", i);
            }
            Op::Flush => {
                sim.flush();
                model.close();
            }
            Op::Mark => {
                sim.writer().mark();
                model.mark();
            }
            Op::Drain(most) => {
                sim.drain(most);
                model.drain(most);
            }
            Op::Reset => {
                sim.reader().reset();
                (sim.file, sim.records_read, sim.subbufs_overrun) = (Vec::new(), 0, 0);
                model = Model::new(size, n, align, mode);
            }
        }
        let Model { produced, recorded, recorded_closed: closed, .. } = model;
        prop_assert_eq!(sim.reader().count(), Some(Count { produced, recorded, closed }), "after op {}", i);
        prop_assert_eq!(sim.reader().is_open(), model.open.is_some(), "after op {}", i);
        let producer = &sim.memory.control().producer;
        prop_assert_eq!([producer.lost_full.peek(), producer.lost_too_big.peek()], model.lost, "after op {}", i);
        prop_assert_eq!(producer.lost_nested.peek(), 0);
    }
    sim.flush();
    sim.drain(u64::MAX);
    model.close();
    model.drain(u64::MAX);
    prop_assert_eq!(&sim.file, &model.file);
    prop_assert_eq!((sim.records_read, sim.subbufs_overrun), (model.records_read, model.overrun_subbufs));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 1000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// What is accepted, every counter and every byte of the file is what the model says.
    #[test]
    fn a_channel_is_a_queue_of_subbufs(
        size in prop_oneof![Just(32usize), Just(64), Just(128)],
        n in prop_oneof![Just(1usize), Just(2), Just(4), Just(8)],
        align in 0..5,
        overwrite in any::<bool>(),
        ops in proptest::collection::vec(op(), 1..if cfg!(miri) { 40 } else { 200 }),
    ) {
        match align {
            0 => check(Bytes::<1>, size, n, overwrite, &ops)?,
            1 => check(Bytes::<2>, size, n, overwrite, &ops)?,
            2 => check(Bytes::<4>, size, n, overwrite, &ops)?,
            3 => check(Bytes::<16>, size, n, overwrite, &ops)?,
            _ => check(Bytes::<32>, size, n, overwrite, &ops)?,
        }
    }
}
