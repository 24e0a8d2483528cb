//! Arithmetic for every input.
