//! One instant on the three clocks that a trace is placed in time by.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// One instant on three clocks, in nanoseconds: enough to place a trace in wall time, and beside another's.
///
/// ```
/// use relay_trace::form::clock::Instant;
///
/// let (first, second) = (Instant::now(), Instant::now());
/// assert!(first.monotonic <= second.monotonic);
/// ```
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Instant {
    /// `CLOCK_MONOTONIC`, the clock of the records.
    pub monotonic: u64,
    /// `CLOCK_BOOTTIME`.
    pub boottime: u64,
    /// `CLOCK_REALTIME`, since 1970.
    pub realtime: u64,
}

impl Instant {
    /// Now. Of a few readings the tightest, so that a preemption in between does not shift the clocks.
    ///
    /// ```
    /// assert!(relay_trace::form::clock::Instant::now().realtime > 0);
    /// ```
    #[must_use]
    pub fn now() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
        };
        let mut best: Option<(u64, Self)> = None;
        for _ in 0..5 {
            let monotonic = read(ClockId::Monotonic);
            let (boottime, realtime) = (read(ClockId::Boottime), read(ClockId::Realtime));
            let width = read(ClockId::Monotonic) - monotonic;
            if best.is_none_or(|(least, _)| width < least) {
                best = Some((width, Self { monotonic: monotonic + width / 2, boottime, realtime }));
            }
        }
        best.map_or(Self { monotonic: 0, boottime: 0, realtime: 0 }, |(_, instant)| instant)
    }

    /// The instant at which the monotonic clock read this: one that is not long past, so that no clock has been set since.
    ///
    /// ```
    /// # use relay_trace::form::clock::Instant;
    /// let now = Instant::now();
    /// assert_eq!(now.back_to(now.monotonic - 5).realtime, now.realtime - 5);
    /// ```
    #[must_use]
    pub fn back_to(self, monotonic: u64) -> Self {
        let back = self.monotonic.saturating_sub(monotonic);
        let (boottime, realtime) = (self.boottime.saturating_sub(back), self.realtime.saturating_sub(back));
        Self { monotonic: self.monotonic - back, boottime, realtime }
    }
}
