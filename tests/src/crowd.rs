//! Threads that preempt one another on one CPU.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use relay_channel::sys::run_ahead_of_tasks;

use crate::channel::run_on;

/// How long the thread that runs before the others sleeps each time.
const PAUSE: Duration = Duration::from_micros(500);

/// Runs `work` in so many threads with this name, all on one CPU. One that runs before them there calls `tick` every half millisecond, until that is
/// false, which `work` is told, or until all `work` is done.
///
/// # Panics
/// When threads cannot be started, or not run so.
pub fn crowd(
    cpu: u32,
    threads: usize,
    name: &str,
    work: impl Fn(&AtomicBool) + Sync,
    mut tick: impl FnMut() -> bool + Send,
) {
    let (is_done, ready) = (AtomicBool::new(false), Barrier::new(threads + 1));
    thread::scope(|scope| {
        let worker = || {
            run_on(cpu);
            ready.wait();
            work(&is_done);
        };
        let start = |_| thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, worker).expect("a thread");
        let workers: Vec<_> = (0..threads).map(start).collect();
        scope.spawn(|| {
            run_on(cpu);
            run_ahead_of_tasks().expect("the right to run before others");
            ready.wait();
            while !is_done.load(Relaxed) {
                thread::sleep(PAUSE);
                if !tick() {
                    is_done.store(true, Relaxed);
                }
            }
        });
        workers.into_iter().for_each(|worker| worker.join().expect("its work"));
        is_done.store(true, Relaxed);
    });
}
