//! Values of an event: how they are named and fetched ([`arguments`], [`path`], [`registers`]), and where they lie in the record ([`layout`]).

pub mod arguments;
pub mod layout;
pub mod path;
pub mod registers;
