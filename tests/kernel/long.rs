//! The account at scale: as many records as RELAY_RECORDS says, in both modes, every one of them looked at.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use aya::sys::{Stats, enable_stats};
use bytes::BytesMut;
use relay_channel::{
    consumer::Consumer,
    machine,
    output::{Content, Output},
    readers::Readers,
};
use relay_common::{Geometry, Mode};
use relay_tests::{
    channel::{Clients, Storm, number},
    repeats, wait_until,
};

/// Records for a test run among others; `cargo xtask account` asks for more.
const RECORDS: u32 = 2_000_000;
/// How often a reader looks that does not wait.
const PAUSE: Duration = Duration::from_millis(5);

fn records() -> u64 {
    std::env::var("RELAY_RECORDS")
        .map_or_else(|_| repeats(RECORDS).into(), |records| records.parse().expect("RELAY_RECORDS is a number"))
}

/// What has been read: every record is looked at and forgotten.
#[derive(Clone, Default)]
struct Read(Arc<ReadCounts>);

#[derive(Default)]
struct ReadCounts {
    records: AtomicU64,
    /// Numbers that are not there, before or between those that are.
    missing: AtomicU64,
}

impl Read {
    fn output(&self) -> Box<dyn Output> {
        Box::new(Look { counts: self.clone(), next: 0, copy: BytesMut::new() })
    }
}

struct Look {
    counts: Read,
    next: u64,
    copy: BytesMut,
}

impl Output for Look {
    fn append(&mut self, content: &Content<'_>) -> io::Result<()> {
        self.copy.clear();
        content.copy_to(&mut self.copy)?;
        for record in self.copy.chunks(32) {
            let number = number(record);
            assert!(number >= self.next, "record {number} after {}", self.next);
            self.counts.0.missing.fetch_add(number - self.next, Relaxed);
            self.next = number + 1;
        }
        self.counts.0.records.fetch_add((self.copy.len() / 32) as u64, Relaxed);
        Ok(())
    }

    fn name(&self) -> String {
        "a look at every record".to_owned()
    }
}

/// Storms on every CPU until there are enough records; then what the kernel says must be what was read, overrun and lost.
fn run(mode: Mode) {
    let geometry = Geometry::new(256 << 10, 8).unwrap();
    let mut clients = Clients::load((geometry, mode), (Geometry::new(4096, 2).unwrap(), mode)).unwrap();
    let (read, start) = (Read::default(), Instant::now());
    let reader = start_reading(&clients, &read);
    let stats = enable_stats(Stats::RunTime).unwrap();
    let link = clients.attach("number", "sys_enter").unwrap();
    let storm = Storm::start(&machine::online_cpus().unwrap());
    let runs = || clients.runs("number").unwrap();
    while runs() < records() {
        let before = runs();
        wait_until("more records", || runs() > before);
    }
    drop((storm, link));
    let channel = &clients.numbered;
    channel.wait_for_running_programs().unwrap();
    let runs = clients.runs("number").unwrap();
    drop(stats);
    reader.finish(&clients);
    let buffers = channel.buffers();
    let recorded: u64 = buffers.iter().map(|buffer| buffer.reader().count().unwrap().recorded).sum();
    let lost: u64 = channel.possible().iter().map(|&cpu| channel.counters(cpu).unwrap().lost()).sum();
    let (taken, overrun) = (read.0.records.load(Relaxed), read.0.missing.load(Relaxed));
    println!(
        "{mode:?}: {runs} runs = {recorded} recorded + {lost} lost; {recorded} recorded = {taken} read + {overrun} overrun; {:.0} s",
        start.elapsed().as_secs_f64()
    );
    assert_eq!(runs, recorded + lost);
    assert_eq!(recorded, taken + overrun);
    assert!(runs >= records());
    assert!(mode == Mode::Overwrite || overrun == 0);
}

/// Who reads: relayd's readers, or in overwrite mode, where those wait for the end, one that looks every few milliseconds.
enum Reader {
    Readers(Readers),
    Looking(Arc<AtomicBool>, std::thread::JoinHandle<Vec<Consumer>>),
}

fn start_reading(clients: &Clients, read: &Read) -> Reader {
    let channel = Arc::clone(&clients.numbered);
    if channel.mode() == Mode::NoOverwrite {
        let read = read.clone();
        return Reader::Readers(Readers::start(channel, move |_| Ok(read.output())).unwrap());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (read, stopped) = (read.clone(), Arc::clone(&stop));
    let work = move || {
        let consumer = |buffer| Consumer::new(buffer, Mode::Overwrite, read.output());
        let mut consumers: Vec<Consumer> = channel.buffers().into_iter().map(consumer).collect();
        while !stopped.load(Relaxed) {
            for consumer in &mut consumers {
                consumer.pass(u64::MAX).unwrap();
            }
            std::thread::sleep(PAUSE);
        }
        consumers
    };
    Reader::Looking(stop, std::thread::spawn(work))
}

impl Reader {
    /// Takes what is left.
    fn finish(self, clients: &Clients) {
        let consumers = match self {
            Self::Readers(readers) => readers.stop().unwrap().into_iter().map(|stopped| stopped.consumer).collect(),
            Self::Looking(stop, thread) => {
                stop.store(true, Relaxed);
                thread.join().unwrap()
            }
        };
        for mut consumer in consumers {
            consumer.drain(&clients.numbered).unwrap();
        }
    }
}

pub(crate) fn every_run_is_recorded_or_lost() {
    run(Mode::NoOverwrite);
}

pub(crate) fn every_record_is_read_or_overrun() {
    run(Mode::Overwrite);
}
