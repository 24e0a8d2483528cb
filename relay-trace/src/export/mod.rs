//! Writes traces in the forms that other programs open: [`perfetto`], Chrome's JSON ([`chrome`]), Parquet (`parquet`, where that feature is on), folded stacks ([`folded`]).
//!
//! Each streams: what it holds does not grow with the traces, except by what is unique in them (threads, stacks).

pub mod chrome;
pub mod folded;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod perfetto;
mod proto;
mod running;

use anyhow::Result;

use super::read::{
    choice::Choice,
    pipeline,
    slices::{Slice, Slicer},
    stream::Damage,
    trace::Trace,
};

/// What came of an export.
#[derive(Debug, Default)]
pub struct Exported {
    /// What could not be read.
    pub damages: Vec<Damage>,
    /// What the form has no place for: what it is, in the plural, and how many.
    pub left_out: Vec<(&'static str, u64)>,
}

/// What is exported, and whom to tell how far it is.
#[expect(missing_debug_implementations, reason = "a function has none")]
pub struct Job<'t> {
    /// The traces.
    pub traces: &'t [Trace],
    /// Cuts them into slices.
    pub slicer: Slicer<'t>,
    /// Which records are wanted.
    pub choice: &'t Choice,
    /// Told how many bytes are done.
    pub progress: &'t mut dyn FnMut(u64),
}

impl Job<'_> {
    /// Has workers make something of each slice, and `consume` take it in order. Returns what could not be read.
    fn run<T: Send, W>(
        self,
        worker: impl Fn() -> W + Sync,
        mut consume: impl FnMut(T) -> Result<()>,
    ) -> Result<Vec<Damage>>
    where
        W: FnMut(&Slice) -> T,
    {
        let mut damages = Vec::new();
        let mut slicer = self.slicer;
        pipeline::run(
            move || slicer.next(u64::MAX),
            || {
                let mut work = worker();
                move |mut slice: Slice| (work(&slice), std::mem::take(&mut slice.damages), slice.done)
            },
            |(part, mut found, done)| {
                damages.append(&mut found);
                (self.progress)(done);
                consume(part)
            },
        )?;
        Ok(damages)
    }
}
