//! Works on the slices of traces in parallel and hands the results on in order. Only a few slices are under way at a time, so memory does
//! not grow with the traces.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use anyhow::{Result, anyhow};

use super::slices::Slice;

/// Slices that wait for each worker, and results that wait for each: enough that neither side waits for the other's every step.
const AHEAD: usize = 2;

/// Takes slices from `next` until there are none, has workers make something of each, and gives that to `consume` in the order of the slices.
/// Every worker is made in its own thread by `worker`.
///
/// # Errors
/// What `next` or `consume` says; the rest is then left alone.
pub fn run<T, W>(
    mut next: impl FnMut() -> Result<Option<Slice>> + Send,
    worker: impl Fn() -> W + Sync,
    mut consume: impl FnMut(T) -> Result<()>,
) -> Result<()>
where
    T: Send,
    W: FnMut(Slice) -> T,
{
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let mut inputs: Vec<SyncSender<Slice>> = Vec::new();
        let mut outputs: Vec<Receiver<T>> = Vec::new();
        for _ in 0..workers {
            let (input, slices) = sync_channel(AHEAD);
            let (results, output) = sync_channel(AHEAD);
            let worker = &worker;
            scope.spawn(move || {
                let mut work = worker();
                // Whoever wanted the result may have had enough.
                slices.iter().map(&mut work).try_for_each(|result| results.send(result))
            });
            inputs.push(input);
            outputs.push(output);
        }
        let slicer = scope.spawn(move || {
            for input in inputs.iter().cycle() {
                let Some(slice) = next()? else { break };
                if input.send(slice).is_err() {
                    break;
                }
            }
            anyhow::Ok(())
        });
        // Slices go round, so results come round; the first that does not come is after the last.
        let consumed = outputs.iter().cycle().map_while(|output| output.recv().ok()).try_for_each(&mut consume);
        drop(outputs);
        let sliced = slicer.join().unwrap_or_else(|_| Err(anyhow!("a thread that reads the trace has stopped")));
        consumed.and(sliced)
    })
}
