//! A 64-bit counter in memory that two sides share.
//!
//! A trait, because rustc's BPF target has no `core::sync::atomic`: each side supplies the instructions,
//! the protocol supplies the meaning. `docs/architecture.md` has the table of who orders what with whom.

/// What writers need. The kernel side implements this with BPF instructions.
///
/// Every read-modify-write is a full ordering point (SeqCst), except [`Word::count`].
///
/// ```
/// use relay_common::Word;
/// use std::sync::atomic::AtomicU64;
///
/// let word = AtomicU64::new(5);
/// assert!(word.exchange_if(5, 6));
/// assert_eq!(Word::fetch_add(&word, 1), 6);
/// assert_eq!(word.peek(), 7);
/// ```
pub trait Word {
    /// A plain load. May be stale: whoever decides by it re-reads, or lets an exchange confirm it.
    fn peek(&self) -> u64;
    /// Stores `new` if the word still holds `old`; says whether it did.
    #[must_use]
    fn exchange_if(&self, old: u64, new: u64) -> bool;
    /// Adds and returns the value before. Orders all earlier stores before it: this publishes a record.
    #[must_use = "in BPF, an add whose result is unused is relaxed on arm64"]
    fn fetch_add(&self, amount: u64) -> u64;
    /// Stores `new` and returns the value before.
    #[must_use = "in BPF, an exchange must fetch to be ordered"]
    fn swap(&self, new: u64) -> u64;
    /// Adds to a statistic: atomic, but ordered with nothing.
    fn count(&self, amount: u64);
}

/// What the reader needs on top. Only user space has these orders, so that the reader's code cannot be
/// built into an eBPF program.
///
/// ```
/// use relay_common::ReaderWord;
/// use std::sync::atomic::AtomicU64;
///
/// let word = AtomicU64::new(0);
/// word.publish(3);
/// assert_eq!(word.acquire(), 3);
/// ```
pub trait ReaderWord: Word {
    /// Loads; everything that the writer stored before publishing this value is visible after.
    fn acquire(&self) -> u64;
    /// Stores; everything read or written before is done when the other side sees this value.
    fn publish(&self, value: u64);
    /// Stores, then orders that store before every later load.
    fn announce(&self, value: u64);
    /// Orders every earlier load before every later one.
    fn fence_loads();
}

// The BPF target would fail to link these.
#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::sync::atomic::{AtomicU64, Ordering, fence};

    use super::{ReaderWord, Word};

    /// A SeqCst operation alone orders less than the kernel's do: by the language's rules, other accesses may pass it.
    fn fenced<T>(operation: impl FnOnce() -> T) -> T {
        fence(Ordering::SeqCst);
        let result = operation();
        fence(Ordering::SeqCst);
        result
    }

    impl Word for AtomicU64 {
        fn peek(&self) -> u64 {
            self.load(Ordering::Relaxed)
        }
        fn exchange_if(&self, old: u64, new: u64) -> bool {
            fenced(|| self.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok())
        }
        fn fetch_add(&self, amount: u64) -> u64 {
            fenced(|| self.fetch_add(amount, Ordering::SeqCst))
        }
        fn swap(&self, new: u64) -> u64 {
            fenced(|| self.swap(new, Ordering::SeqCst))
        }
        fn count(&self, amount: u64) {
            self.fetch_add(amount, Ordering::Relaxed);
        }
    }

    impl ReaderWord for AtomicU64 {
        fn acquire(&self) -> u64 {
            self.load(Ordering::Acquire)
        }
        fn publish(&self, value: u64) {
            self.store(value, Ordering::Release);
        }
        fn announce(&self, value: u64) {
            self.store(value, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
        fn fence_loads() {
            fence(Ordering::Acquire);
        }
    }
}
