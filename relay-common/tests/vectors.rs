//! Every golden vector through the protocol on plain memory.

#![allow(clippy::unwrap_used, reason = "a test")]

mod script;
mod sim;

use script::{Expect, Step, Vector};
use sim::Sim;

fn run(vector: &Vector) -> Expect {
    let mut sim = Sim::new(vector.geometry(), vector.mode());
    let mut accepted = String::new();
    for step in vector.steps() {
        match step {
            Step::Write(bytes) => accepted.push(if sim.write(&bytes).is_ok() { '1' } else { '0' }),
            Step::Flush => sim.flush(),
            Step::Drain(most) => sim.drain(most),
        }
    }
    let control = sim.control();
    let found = Expect {
        accepted,
        produced: sim.produced(),
        consumed: sim.consumed(),
        subbufs_processed: sim.subbufs_processed,
        max_backlog: sim.max_backlog,
        lost_full: control.lost_full,
        lost_too_big: control.lost_too_big,
        subbufs_overrun: sim.subbufs_overrun,
        ..Expect::default()
    };
    vector.with_file(found, &sim.file)
}

#[test]
fn the_golden_vectors_come_out_to_the_byte() {
    for vector in script::vectors() {
        assert_eq!(run(&vector), vector.expect, "{}", vector.name);
    }
}
