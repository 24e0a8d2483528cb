//! Answers from records: how many there are ([`statistics`]), sums and percentiles by [`key`] ([`totals`], [`spread`]), and the time between
//! two of them ([`span`]).

pub mod key;
pub mod span;
pub mod spread;
pub mod statistics;
pub mod totals;
