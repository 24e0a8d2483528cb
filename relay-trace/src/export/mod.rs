//! Writes traces in the forms that other programs open: [`perfetto`], Chrome's JSON ([`chrome`]), Parquet (`parquet`, where that feature is on); and
//! stacks, folded ([`folded`]), as a flame graph ([`flamegraph`]), or for speedscope ([`speedscope`]).
//!
//! Spans go along: as bars, as files of their own, or as what stacks are weighed by.
//!
//! Each streams: what it holds does not grow with the traces, except by what is unique in them (threads, stacks).

pub mod chrome;
pub mod flamegraph;
pub mod folded;
mod lanes;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod perfetto;
mod proto;
mod running;
pub mod speedscope;
pub mod stacks;

use anyhow::Result;

use super::{
    answers::span::{AsRecord, Extractor, Fold, SpanAccount, Spans},
    read::{
        filter::Filter,
        pipeline,
        slices::{Slice, Slicer},
        stream::Damage,
        trace::Trace,
    },
};

/// What came of an export.
#[derive(Debug, Default)]
pub struct Exported {
    /// What could not be read.
    pub damages: Vec<Damage>,
    /// What the form has no place for: what it is, in the plural, and how many.
    pub left_out: Vec<(&'static str, u64)>,
    /// What became of the ends of spans, by name.
    pub spans: Vec<(String, SpanAccount)>,
}

/// What is exported, and whom to tell how far it is.
#[expect(missing_debug_implementations, reason = "a function has none")]
pub struct Job<'t> {
    /// The traces.
    pub traces: &'t [Trace],
    /// Cuts them into slices.
    pub slicer: Slicer<'t>,
    /// Which records are wanted.
    pub filter: &'t Filter,
    /// Which spans are wanted besides, kept as records.
    pub spans: Option<&'t Spans<'t>>,
    /// Told how many bytes are done.
    pub progress: &'t mut dyn FnMut(u64),
}

/// What comes of slices, in order.
enum Piece<'p, T> {
    /// What a worker has made of a slice.
    Part(T),
    /// A span that has ended in it.
    Span(&'p AsRecord<'p>),
}

impl Job<'_> {
    /// Has workers make something of each slice, and `consume` take it in order, and after it the spans that end in the slice.
    fn run<T: Send, W>(
        self,
        worker: impl Fn() -> W + Sync,
        mut consume: impl FnMut(Piece<'_, T>) -> Result<()>,
    ) -> Result<Exported>
    where
        W: FnMut(&Slice) -> T,
    {
        let mut done = Exported::default();
        let Self { mut slicer, spans, filter, progress, .. } = self;
        let mut fold = spans.map(Fold::new);
        pipeline::run(
            move || slicer.next(u64::MAX),
            || {
                let (mut work, mut extractor) = (worker(), spans.map(Extractor::new));
                move |mut slice: Slice| {
                    let told = extractor.as_mut().map(|extractor| extractor.take(&slice, |_, _| 0));
                    (work(&slice), told, std::mem::take(&mut slice.damages), slice.done)
                }
            },
            |(part, told, mut found, bytes)| {
                done.damages.append(&mut found);
                progress(bytes);
                consume(Piece::Part(part))?;
                let (Some(spans), Some(fold), Some(told)) = (spans, &mut fold, told) else { return Ok(()) };
                fold.take(told, |span, _| {
                    let of = |record: &AsRecord<'_>| match filter.has_process(record.seen.record.pid) {
                        true => consume(Piece::Span(record)),
                        false => Ok(()),
                    };
                    span.as_record(spans, of).unwrap_or(Ok(()))
                })
            },
        )?;
        if let (Some(spans), Some(fold)) = (spans, fold) {
            done.spans = spans.definitions().map(|definition| definition.name.clone()).zip(fold.finish()).collect();
        }
        Ok(done)
    }
}
