//! What is asked of events, by whoever records and by whoever reads: their kinds and names, and the conditions on them.

pub mod expression;
pub mod spec;
pub mod subjects;
