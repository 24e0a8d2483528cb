//! The load: system calls in a tight loop.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

use relay_tests::channel::run_on;

/// Makes one. A function of its own, for probes.
#[inline(never)]
fn measured_call() {
    let _ = rustix::process::getppid();
}

/// Makes so many calls on each CPU, on all at once; returns how many nanoseconds one took, on average.
pub(crate) fn make(cpus: &[u32], calls: u64) -> f64 {
    let all_are_there = Arc::new(Barrier::new(cpus.len()));
    let load = |&cpu: &u32| {
        let all_are_there = Arc::clone(&all_are_there);
        thread::spawn(move || {
            run_on(cpu);
            all_are_there.wait();
            let start = Instant::now();
            for _ in 0..calls {
                measured_call();
            }
            start.elapsed().as_nanos() as f64 / calls as f64
        })
    };
    let threads: Vec<_> = cpus.iter().map(load).collect();
    let times: Vec<f64> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
    times.iter().sum::<f64>() / times.len().max(1) as f64
}
