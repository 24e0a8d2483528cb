//! A buffer on the heap: a channel of one CPU without a kernel, to try a client of the channel on, and for the tests.

extern crate alloc;

use alloc::{boxed::Box, vec::Vec};
use core::{
    array,
    sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

use crate::{
    geometry::Geometry,
    layout::{Buffer, Control},
};

/// What a byte that nobody has written holds: a test sees it if it comes out.
pub const UNWRITTEN: u8 = 0xEE;

/// One CPU's buffer and control row.
#[derive(Debug)]
pub struct Memory {
    control: Control<AtomicU64>,
    committed: Box<[AtomicU64]>,
    bytes: Box<[AtomicU8]>,
    geometry: Geometry,
    wakes: AtomicU64,
}

impl Memory {
    /// A new channel's memory.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self {
            control: Control::default(),
            committed: (0..geometry.n_subbufs()).map(|_| AtomicU64::new(0)).collect(),
            bytes: (0..geometry.buffer_size()).map(|_| AtomicU8::new(UNWRITTEN)).collect(),
            geometry,
            wakes: AtomicU64::new(0),
        }
    }

    /// Stores bytes from `place` on, as far as the buffer goes.
    pub fn store(&self, place: u64, bytes: &[u8]) {
        for (to, byte) in self.range(place, bytes.len() as u64).iter().zip(bytes) {
            to.store(*byte, Relaxed);
        }
    }

    /// The `len` bytes from `place` on, as far as the buffer goes.
    #[must_use]
    pub fn load(&self, place: u64, len: u64) -> Vec<u8> {
        self.range(place, len).iter().map(|byte| byte.load(Relaxed)).collect()
    }

    /// How often the reader was woken.
    #[must_use]
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Relaxed)
    }

    fn range(&self, place: u64, len: u64) -> &[AtomicU8] {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.bytes.len());
        &self.bytes[index(place)..index(place.saturating_add(len))]
    }
}

impl Buffer for Memory {
    type Word = AtomicU64;

    fn control(&self) -> &Control<AtomicU64> {
        &self.control
    }

    fn committed(&self, place: u64) -> &AtomicU64 {
        // Apart from the bytes: a word of its own needs no alignment of theirs.
        let number = self.geometry.number(self.geometry.place(place));
        &self.committed[usize::try_from(number).unwrap_or(0)]
    }

    fn load_u32(&self, place: u64) -> u32 {
        let bytes = self.range(place, 4);
        u32::from_ne_bytes(array::from_fn(|i| bytes.get(i).map_or(UNWRITTEN, |byte| byte.load(Relaxed))))
    }

    fn store_u32(&self, place: u64, value: u32) {
        self.store(place, &value.to_ne_bytes());
    }

    fn store_u64(&self, place: u64, value: u64) {
        self.store(place, &value.to_ne_bytes());
    }

    fn store_zero(&self, place: u64) {
        self.store(place, &[0]);
    }

    fn wake(&self) -> bool {
        self.wakes.fetch_add(1, Relaxed);
        true
    }
}
