//! The tracer's part in the kernel: [`object`] makes programs as this kernel wants them, of `instruction`s, with `settings` in them as numbers, [`hook`] and `preemption` know which of them may be reached
//! how, `attach` attaches them, `calls` brings many system calls to two hooks, and `task` knows where the kernel keeps what they read; [`choice`] says whose events are wanted. [`programs`] is what is
//! there afterwards. Nothing here knows what an event is.

pub(crate) mod attach;
pub(crate) mod calls;
pub mod choice;
pub mod hook;
mod instruction;
pub mod object;
pub(crate) mod preemption;
pub mod programs;
pub(crate) mod served;
mod settings;
pub(crate) mod task;
