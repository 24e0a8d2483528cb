//! How time is divided: into buckets, and these into stretches.

use anyhow::Result;

use crate::read::{
    packet::{HEADER, Header, Records},
    slices::Window,
    stream::{Step, Stream},
    trace::Trace,
};

/// Cells that all CPUs have together, about.
const CELLS: u64 = 1_200_000;
/// Bytes of records in a stretch, about.
const STRETCH: u64 = 256 << 10;
/// Bytes of a trace all of whose records are kept one by one, about: of what is larger the levels are coarser, to leave room for records.
const ALL: u64 = 64 << 20;
/// Buckets are not shorter, in nanoseconds.
const SHORTEST: u64 = 2000;

/// When the first record of a file was made, and its packet, behind which the stream is then.
fn first_record(stream: &mut Stream) -> Result<Option<(Header, u64)>> {
    loop {
        match stream.take_next()? {
            Step::End => return Ok(None),
            Step::Damage(_) => {}
            Step::Packet(packet) => {
                let bytes = packet.bytes();
                if let Some(Ok(record)) = Records::new(bytes, HEADER.min(bytes.len())).next() {
                    return Ok(Some((packet.header, record.timestamp)));
                }
            }
        }
    }
}

/// The time of the page. Times in it are nanoseconds from `start`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// The common clock at the page's beginning.
    pub(super) start: u64,
    /// Nanoseconds to its end.
    pub(super) span: u64,
    pub(super) cpus: usize,
    /// Buckets of the finest level: a power of two.
    pub(super) buckets: usize,
    /// Nanoseconds of one.
    pub(super) width: u64,
    /// Stretches: a power of two, at most as many as buckets.
    pub(super) stretches: usize,
}

impl Grid {
    /// From the first record in the window to the end of the last packet that reaches into it.
    pub(super) fn new(trace: &Trace, window: Window) -> Result<Self> {
        let (mut first, mut last, mut bytes, mut cpus) = (u64::MAX, 0, 0, 0);
        for mut stream in trace.streams(false)? {
            cpus = cpus.max(stream.cpu() as usize + 1);
            if let Some((header, time)) = first_record(&mut stream)? {
                first = first.min(trace.common(time).max(window.since));
                (last, bytes) = (last.max(trace.common(header.end)), bytes + header.len);
            }
            while let Some(header) = stream.peek()? {
                let (begin, end) = (trace.common(header.begin), trace.common(header.end));
                if end >= window.since && begin <= window.until {
                    (last, bytes) = (last.max(end), bytes + header.len);
                }
                stream.skip(&header);
            }
        }
        let clock = trace.session.clock;
        if first > last {
            first = trace.common(clock.start.monotonic);
            last = trace.common(clock.end.unwrap_or(clock.start).monotonic);
        }
        let (start, end) = (first.max(window.since), last.min(window.until));
        cpus = cpus.max(
            trace.session.cpus.iter().filter(|cpu| cpu.recorded > 0).map(|cpu| cpu.cpu as usize + 1).max().unwrap_or(1),
        );
        Ok(Self::divided(start, end.saturating_sub(start).saturating_add(1).max(1000), cpus, bytes))
    }

    fn divided(start: u64, span: u64, cpus: usize, bytes: u64) -> Self {
        let most = if bytes > ALL { 4096 } else { 1 << 18 };
        let mut buckets: u64 = 1024;
        while buckets * 4 <= most && buckets * 4 * cpus as u64 <= CELLS && buckets * 4 <= span / SHORTEST {
            buckets *= 4;
        }
        let mut stretches = 1;
        while bytes / stretches > STRETCH && stretches < buckets {
            stretches *= 2;
        }
        let whole = |number: u64| usize::try_from(number).unwrap_or(1);
        Self { start, span, cpus, buckets: whole(buckets), width: span.div_ceil(buckets), stretches: whole(stretches) }
    }

    /// A time of the common clock as one of the page.
    pub(super) fn time(&self, time: u64) -> u64 {
        time.saturating_sub(self.start).min(self.span - 1)
    }

    /// The bucket of a time, of a level with so many.
    pub(super) fn bucket(&self, time: u64, buckets: usize) -> usize {
        usize::try_from(time / self.width_of(buckets)).unwrap_or(0).min(buckets - 1)
    }

    /// Nanoseconds of a bucket of a level.
    pub(super) fn width_of(&self, buckets: usize) -> u64 {
        self.width * (self.buckets / buckets) as u64
    }

    /// The levels of detail, the finest first, each with a quarter of the buckets.
    pub(super) fn levels(&self) -> Vec<usize> {
        let mut levels = vec![self.buckets];
        while let Some(last) = levels.last().filter(|last| **last > 1024) {
            levels.push(last / 4);
        }
        levels
    }
}
