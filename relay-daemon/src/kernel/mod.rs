//! What of the tracer is in the kernel. [`loader`] brings it there, with [`object`] (programs as this kernel wants them), [`hook`] and `preemption`
//! (which of them may be reached how), `calls` (many system calls through two hooks) and `attach`; [`choice`] says whose events are wanted.
//! [`programs`] is what is there afterwards.

mod attach;
mod calls;
pub mod choice;
pub mod hook;
pub mod loader;
pub mod object;
pub(crate) mod preemption;
pub mod programs;
