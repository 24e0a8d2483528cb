//! relayd's user-space half.
//!
//! Three layers, each ignorant of those below it in this list: [`channel`] makes the maps that the
//! kernel side writes to; [`consumer`] is librelay: it takes ready sub-buffers and writes `cpuN` files; [`tracer`]
//! attaches probes and says what the bytes mean. [`machine`] asks the machine what it has.

pub mod channel;
pub mod consumer;
pub mod machine;
pub mod sys;
pub mod tracer;
