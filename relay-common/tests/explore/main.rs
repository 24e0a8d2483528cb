//! Every interruption, at every access to shared memory, of short scripts of writes, flushes and reads, by writers that are
//! themselves interrupted, to depth three; and every preemption of tasks by one another, which need not end before the preempted
//! goes on: the real `Writer` and `Reader`, sequentially consistent. What weak ordering adds is `loom.rs`'s matter.
//!
//! `RELAY_EXPLORE` says how far: `quick` (for the mutants), `ci` or `full` (`cargo xtask explore`); else one interrupt less. With
//! `RELAY_EXPLORE_ONE` the first failure ends the process.

#![allow(clippy::unwrap_used, reason = "a test")]

mod actors;
mod book;
mod machine;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use actors::{
    Actor::{self, Count, Drain, Flush, Mark, Sleep, Write},
    layout,
};
use machine::Machine;
use relay_common::{Buffer as _, Committed, Mode, RECORDS_BEFORE_AT};

const BOTH: [Mode; 2] = [Mode::NoOverwrite, Mode::Overwrite];

/// A state that a channel can be in when everything was read: sub-buffer `number` is next, and every place that was used
/// has counted `records`, the last of them in its last lap.
#[derive(Clone, Copy, Debug, Default)]
struct Start {
    number: u64,
    records: u64,
}

/// A script, what may interrupt it, and where it starts.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    subbuf_size: u64,
    n_subbufs: u64,
    mode: Mode,
    start: Start,
    /// Not interrupted.
    before: &'static [Actor],
    script: &'static [Actor],
    /// What interrupts.
    actors: &'static [Actor],
    /// Interrupts in all: at the quick size, in CI and at full size.
    interrupts: [usize; 3],
    /// Other tasks than the one that the script is, and how often in all one is preempted by another. Who follows one that has ended
    /// is searched too, and does not count.
    tasks: &'static [&'static [Actor]],
    preemptions: [usize; 3],
    /// Whether stamps are clamped, and interrupts read a clock that is ahead.
    steps_back: bool,
    failing_wakes: u64,
    /// Interrupts only before this kind of access, and none within them.
    only: Option<&'static str>,
}

const SCENARIO: Scenario = Scenario {
    subbuf_size: 32,
    n_subbufs: 2,
    mode: Mode::NoOverwrite,
    start: Start { number: 0, records: 0 },
    before: &[],
    script: &[Write(7), Write(9)],
    actors: &[Write(5), Write(16), Flush],
    interrupts: [2, 3, 4],
    tasks: &[],
    preemptions: [0, 0, 0],
    steps_back: false,
    failing_wakes: 0,
    only: None,
};

impl Scenario {
    /// Explores the scenario for a client, and returns how many executions there are.
    fn explore<const HEADER: u64, const ALIGN: u64>(self) -> u64 {
        let run = actors::run::<HEADER, ALIGN>;
        let machine: &'static Machine = Box::leak(Box::new(Machine::new(&self, run)));
        let (interrupts, preemptions) = (how_far(self.interrupts), how_far(self.preemptions));
        let execute = || {
            machine.restart();
            let recorded = self.start.preset(machine);
            let layout = layout::<HEADER, ALIGN>();
            machine.book.borrow_mut().reset(machine, layout, self.start.number, recorded, self.failing_wakes);
            self.before.iter().for_each(|actor| run(machine, *actor));
            machine.run_tasks(interrupts, preemptions);
            book::settle(machine, run);
        };
        let mut executions = 0;
        loop {
            executions += 1;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(execute)) {
                eprintln!("execution {executions} of {self:?}, header {HEADER}, align {ALIGN}, ran:");
                machine.tracing.set(true);
                let _ = catch_unwind(AssertUnwindSafe(execute));
                if std::env::var_os("RELAY_EXPLORE_ONE").is_some() {
                    std::process::exit(101);
                }
                resume_unwind(panic);
            }
            if !machine.next() {
                return executions;
            }
        }
    }
}

impl Start {
    fn preset(self, machine: &Machine) -> u64 {
        let Machine { geometry, .. } = machine;
        let mut recorded = 0;
        for number in self.number.saturating_sub(geometry.n_subbufs())..self.number {
            let place = geometry.place(geometry.begin(number));
            let at = |records, lap| {
                let bytes = geometry.subbuf_size().wrapping_mul(lap);
                Committed::amount(records, 0).wrapping_add(bytes)
            };
            let lap = geometry.lap(number);
            machine.committed(place).preset(at(self.records, lap + 1));
            let before = Committed(at(self.records - 1, lap)).records();
            (place + RECORDS_BEFORE_AT..)
                .zip(before.to_ne_bytes())
                .for_each(|(place, byte)| machine.byte(place).set(byte));
            recorded += 1;
        }
        let control = machine.control();
        control.producer.reserved.preset(geometry.begin(self.number));
        control.producer.retired.preset(self.number);
        control.consumer.consumed.preset(self.number);
        recorded + self.number
    }
}

/// How far to explore.
fn how_far([quick, ci, full]: [usize; 3]) -> usize {
    match std::env::var("RELAY_EXPLORE").as_deref() {
        Ok("full") => full,
        Ok("ci") => ci,
        Ok("quick") => quick,
        _ => quick.saturating_sub(1),
    }
}

/// Explores scenarios, and says how many executions that were.
fn all(what: &str, scenarios: impl IntoIterator<Item = Scenario>, explore: &[fn(Scenario) -> u64]) {
    let start = std::time::Instant::now();
    let (mut executions, mut n) = (0, 0);
    for scenario in scenarios {
        for explore in explore {
            executions += explore(scenario);
            n += 1;
        }
    }
    println!("explore: {what}: {executions} executions of {n} scenarios, {:.1} s", start.elapsed().as_secs_f64());
}

const PLAIN: &[fn(Scenario) -> u64] = &[Scenario::explore::<0, 1>];

/// States to start from, by what was written before: nothing; a record; all but a few bytes; to the last byte; all
/// sub-buffers but one; everything; everything, a record lost, and all of it read.
const FILLINGS: [&[Actor]; 7] = [
    &[],
    &[Write(4)],
    &[Write(12)],
    &[Write(16)],
    &[Write(16), Write(12)],
    &[Write(16), Write(16), Write(16), Write(10)],
    &[Write(16), Write(16), Write(16), Write(16), Write(16), Drain(u64::MAX)],
];

#[test]
fn nested_writers() {
    let scenarios = [1, 2, 4].into_iter().flat_map(|n_subbufs| {
        BOTH.into_iter().flat_map(move |mode| {
            FILLINGS.into_iter().flat_map(move |before| {
                let two = Scenario { n_subbufs, mode, before, interrupts: [2, 2, 3], ..SCENARIO };
                [two, Scenario { script: &[Write(9)], interrupts: [2, 3, 4], ..two }]
            })
        })
    });
    all("nested writers", scenarios, PLAIN);
}

/// With a reader, which comes in whole at every instant.
#[test]
fn nested_writers_and_a_reader() {
    let actors = &[Write(6), Flush, Drain(u64::MAX)];
    let scenarios = [1, 2].into_iter().flat_map(|n_subbufs| {
        BOTH.into_iter().flat_map(move |mode| {
            FILLINGS[2..].iter().flat_map(move |before| {
                let two = Scenario { n_subbufs, mode, before, actors, interrupts: [2, 2, 3], ..SCENARIO };
                [two, Scenario { script: &[Write(9)], interrupts: [2, 3, 4], ..two }]
            })
        })
    });
    all("nested writers and a reader", scenarios, PLAIN);
}

/// Losses cannot be stale: what an interrupted writer saw is long past when it goes on.
#[test]
fn stale_looks() {
    let scenarios = [1, 2].into_iter().flat_map(|n_subbufs| {
        BOTH.into_iter().flat_map(move |mode| {
            [&[Write(16), Write(16)] as &[_], &[Write(16), Write(12)]].into_iter().map(move |before| Scenario {
                n_subbufs,
                mode,
                before,
                script: &[Write(9)],
                actors: &[Write(16), Drain(1)],
                interrupts: [3, 3, 4],
                ..SCENARIO
            })
        })
    });
    all("stale looks", scenarios, PLAIN);
}

/// The reader's pass, interrupted at each of its accesses: in overwrite mode writers come round into what it copies.
#[test]
fn an_interrupted_reader() {
    let scenarios = [1, 2, 4].into_iter().flat_map(|n_subbufs| {
        BOTH.into_iter().map(move |mode| Scenario {
            n_subbufs,
            mode,
            before: &[Write(16), Write(9)],
            script: &[Drain(u64::MAX), Drain(u64::MAX)],
            actors: &[Write(15), Write(4), Flush],
            interrupts: [2, 3, 3],
            ..SCENARIO
        })
    });
    all("an interrupted reader", scenarios, PLAIN);
}

/// An exact count, by a reader that is interrupted and that comes in at every instant of a writer.
#[test]
fn counts() {
    let scripts: [(&[_], &[_]); 2] =
        [(&[Count, Count], &[Write(9), Write(16), Flush]), (&[Write(9), Write(7)], &[Write(9), Flush, Count])];
    let scenarios = [1, 2, 4].into_iter().flat_map(|n_subbufs| {
        BOTH.into_iter().flat_map(move |mode| {
            [SCENARIO.start, Start { number: 5, records: 9 }].into_iter().flat_map(move |start| {
                scripts.into_iter().map(move |(script, actors)| Scenario {
                    n_subbufs,
                    mode,
                    start,
                    before: &[Write(16), Write(9)],
                    script,
                    actors,
                    interrupts: [2, 2, 3],
                    ..SCENARIO
                })
            })
        })
    });
    all("counts", scenarios, PLAIN);
}

/// The packed count: bytes wrap at 2^40, records at 2^24, and the places wrap one after another.
#[test]
fn wraps() {
    let laps = (1 << 40) / SCENARIO.subbuf_size;
    let scenarios = [1, 2, 4].into_iter().flat_map(|n_subbufs| {
        BOTH.into_iter().flat_map(move |mode| {
            [1, 2, n_subbufs + 1].into_iter().flat_map(move |short| {
                [7, (1 << 24) - 1, 1 << 24].into_iter().map(move |records| Scenario {
                    n_subbufs,
                    mode,
                    start: Start { number: n_subbufs * laps - short, records },
                    script: &[Write(9), Write(8), Write(8), Drain(u64::MAX), Count],
                    actors: &[Write(10), Flush],
                    interrupts: [1, 2, 3],
                    ..SCENARIO
                })
            })
        })
    });
    all("wraps", scenarios, PLAIN);
}

/// A client with a header, a clock and alignment: its words are written once a sub-buffer, and rise.
#[test]
fn clients() {
    let before: [&[_]; 3] = [&[], &[Write(9)], &[Write(16), Write(16), Write(30), Write(30)]];
    let scenarios = [1, 2, 4].into_iter().flat_map(|n_subbufs| {
        BOTH.into_iter().flat_map(move |mode| {
            before.into_iter().map(move |before| Scenario {
                subbuf_size: 64,
                n_subbufs,
                mode,
                before,
                script: &[Write(15), Write(12)],
                actors: &[Write(5), Write(32), Mark],
                interrupts: [2, 2, 3],
                ..SCENARIO
            })
        })
    });
    all("clients", scenarios, &[Scenario::explore::<16, 1>, Scenario::explore::<16, 4>, Scenario::explore::<16, 8>]);
}

/// The closing words tell losses, and those never fall: losses, room again, and closings in the midst of a write.
#[test]
fn told_losses() {
    let scenario = Scenario {
        subbuf_size: 64,
        before: &[Write(32), Write(32), Write(32)],
        script: &[Write(32)],
        actors: &[Write(32), Mark, Drain(u64::MAX)],
        interrupts: [3, 3, 4],
        ..SCENARIO
    };
    all("told losses", [scenario], &[Scenario::explore::<16, 1>]);
}

/// Marks: the header alone, among writers and a reader.
#[test]
fn marks() {
    let scenarios = [1, 2].into_iter().flat_map(|n_subbufs| {
        BOTH.into_iter().map(move |mode| Scenario {
            subbuf_size: 64,
            n_subbufs,
            mode,
            before: &[Write(20)],
            script: &[Mark, Write(9), Mark],
            actors: &[Write(30), Mark, Drain(u64::MAX)],
            interrupts: [2, 2, 3],
            ..SCENARIO
        })
    });
    all("marks", scenarios, &[Scenario::explore::<0, 1>, Scenario::explore::<16, 4>]);
}

/// A reader that sleeps is woken for what becomes ready, whoever completes it, and a wake-up that fails is asked for again.
#[test]
fn wake_ups() {
    let scripts: [(&[_], &[_]); 2] =
        [(&[Write(9), Write(9)], &[Write(9), Flush, Sleep]), (&[Sleep], &[Write(16), Write(9), Flush])];
    let scenarios = [1, 2].into_iter().flat_map(|n_subbufs| {
        BOTH.into_iter().flat_map(move |mode| {
            [0, 1].into_iter().flat_map(move |failing_wakes| {
                scripts.into_iter().map(move |(script, actors)| Scenario {
                    n_subbufs,
                    mode,
                    before: &[Write(12)],
                    script,
                    actors,
                    failing_wakes,
                    interrupts: [2, 2, 3],
                    ..SCENARIO
                })
            })
        })
    });
    all("wake-ups", scenarios, PLAIN);
}

/// A writer that is overtaken each time gives up, and counts that. Interrupted only before its exchanges, there often enough.
#[test]
fn tries() {
    let scenarios = BOTH.into_iter().map(|mode| Scenario {
        subbuf_size: 256,
        mode,
        script: &[Write(4), Write(4), Flush],
        actors: &[Write(4), Flush],
        only: Some("exchange"),
        interrupts: [9, 10, 12],
        ..SCENARIO
    });
    all("tries", scenarios, PLAIN);
}

/// No interrupts, and tasks that stop one another anywhere.
const TASKS: Scenario = Scenario { actors: &[], interrupts: [0, 0, 0], preemptions: [2, 3, 4], ..SCENARIO };

fn in_both_modes(n_subbufs: &'static [u64], scenario: Scenario) -> impl Iterator<Item = Scenario> + Clone {
    let with = move |n_subbufs: &u64, mode| Scenario { n_subbufs: *n_subbufs, mode, ..scenario };
    n_subbufs.iter().flat_map(move |n_subbufs| BOTH.into_iter().map(move |mode| with(n_subbufs, mode)))
}

#[test]
fn tasks() {
    let two = Scenario { tasks: &[&[Write(5), Write(16)]], ..TASKS };
    let three =
        Scenario { script: &[Write(9)], tasks: &[&[Write(16)], &[Write(5), Flush]], preemptions: [1, 2, 3], ..TASKS };
    let scenarios = in_both_modes(&[1, 2, 4], two).chain(in_both_modes(&[1, 2, 4], three));
    let scenarios =
        scenarios.flat_map(|scenario| FILLINGS.into_iter().map(move |before| Scenario { before, ..scenario }));
    all("tasks", scenarios, PLAIN);
}

/// The reader is a task too: it is stopped while a writer goes on, which is stopped while the reader does.
#[test]
fn tasks_and_a_reader() {
    let tasks: &[&[_]] = &[&[Write(16)], &[Drain(1), Drain(u64::MAX)]];
    let scenario = Scenario { script: &[Write(9), Flush], tasks, preemptions: [1, 3, 4], ..TASKS };
    let scenarios = in_both_modes(&[1, 2], scenario)
        .flat_map(|scenario| FILLINGS[3..5].iter().map(move |before| Scenario { before, ..scenario }));
    all("tasks and a reader", scenarios, PLAIN);
}

#[test]
fn tasks_and_counts() {
    let scenario = Scenario { mode: Mode::Overwrite, script: &[Write(9), Write(16)], tasks: &[&[Count]], ..TASKS };
    let scenarios = [1, 2, 4]
        .into_iter()
        .flat_map(|n_subbufs| FILLINGS[1..4].iter().map(move |before| Scenario { n_subbufs, before, ..scenario }));
    all("tasks and counts", scenarios, PLAIN);
}

#[test]
fn tasks_and_a_sleeper() {
    let scenario =
        Scenario { before: &[Write(12)], tasks: &[&[Write(9), Flush], &[Sleep]], preemptions: [1, 2, 3], ..TASKS };
    let scenarios = in_both_modes(&[1, 2], scenario)
        .flat_map(|scenario| [0, 1].into_iter().map(move |failing_wakes| Scenario { failing_wakes, ..scenario }));
    all("tasks and a sleeper", scenarios, PLAIN);
}

/// Tasks that are interrupted besides. What interrupts runs to its end.
#[test]
fn tasks_and_interrupts() {
    let scenario = Scenario {
        script: &[Write(9)],
        tasks: &[&[Write(7), Flush]],
        actors: &[Write(16), Drain(u64::MAX)],
        interrupts: [1, 1, 2],
        preemptions: [1, 2, 3],
        ..SCENARIO
    };
    let scenarios = in_both_modes(&[1, 2, 4], scenario)
        .flat_map(|scenario| FILLINGS[2..].iter().map(move |before| Scenario { before, ..scenario }));
    all("tasks and interrupts", scenarios, PLAIN);
}

/// A client's words, among tasks: a flush or a mark that another CPU makes is one of them.
#[test]
fn tasks_of_clients() {
    let before: [&[_]; 2] = [&[Write(9)], &[Write(16), Write(16), Write(30), Write(30)]];
    let scenario = Scenario {
        subbuf_size: 64,
        script: &[Write(15), Write(12)],
        tasks: &[&[Write(32)], &[Mark]],
        preemptions: [1, 2, 3],
        ..TASKS
    };
    let scenarios = in_both_modes(&[1, 2], scenario)
        .flat_map(move |scenario| before.into_iter().map(move |before| Scenario { before, ..scenario }));
    all("tasks of clients", scenarios, &[Scenario::explore::<16, 1>, Scenario::explore::<16, 8>]);
}

/// Stamps do not fall although what interrupts, as an NMI, reads a clock that is ahead.
#[test]
fn clocks_that_step_back() {
    let scenario = Scenario {
        subbuf_size: 64,
        script: &[Write(9), Write(8)],
        tasks: &[&[Write(7), Write(6)]],
        actors: &[Write(10)],
        steps_back: true,
        interrupts: [1, 1, 2],
        preemptions: [1, 2, 3],
        ..SCENARIO
    };
    all("clocks that step back", in_both_modes(&[2], scenario), &[Scenario::explore::<16, 1>]);
}
