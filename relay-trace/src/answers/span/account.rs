//! What became of all ends.

/// What became of the ends of spans.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SpanAccount {
    /// Records that began one.
    pub starts: u64,
    /// Records that ended one.
    pub ends: u64,
    /// Spans.
    pub ended: u64,
    /// STARTs whose place another took.
    pub replaced: u64,
    /// STARTs that were left out while a span was open.
    pub ignored: u64,
    /// STARTs for which there was no room any more.
    pub given_up: u64,
    /// STARTs whose END was not recorded, as the next record shows.
    pub inferred: u64,
    /// Spans that had not ended with the trace.
    pub open: u64,
    /// For how long the oldest of them was open then, in nanoseconds.
    pub oldest_open: Option<u64>,
    /// ENDs without a START.
    pub never_began: u64,
    /// Of the spans, those in whose time records were lost: they are not counted among durations.
    pub crossed: u64,
}

impl SpanAccount {
    pub(super) fn add(&mut self, other: &Self) {
        let Self {
            starts,
            ends,
            ended,
            replaced,
            ignored,
            given_up,
            inferred,
            open,
            oldest_open,
            never_began,
            crossed,
        } = other;
        self.starts += starts;
        self.ends += ends;
        self.ended += ended;
        self.replaced += replaced;
        self.ignored += ignored;
        self.given_up += given_up;
        self.inferred += inferred;
        self.open += open;
        self.oldest_open = self.oldest_open.max(*oldest_open);
        self.never_began += never_began;
        self.crossed += crossed;
    }
}
