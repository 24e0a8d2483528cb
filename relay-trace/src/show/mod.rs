//! What people and programs read of records: [`text`], [`json`] and [`csv`], with moments as they are written
//! ([`time`]), and texts so that nothing in them is obeyed ([`escape`]).

pub mod csv;
pub mod escape;
pub mod json;
pub mod stack;
pub mod text;
pub mod time;
