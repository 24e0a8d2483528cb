//! What people and programs read of records: [`text`], [`json`] and [`csv`], with moments as they are written
//! ([`time`]); [`statistics`] counts.

pub mod csv;
pub mod json;
pub mod statistics;
pub mod text;
pub mod time;
