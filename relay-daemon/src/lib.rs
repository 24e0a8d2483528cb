//! The tracer: a client of the channel that records kernel events as CTF.
//!
//! From what the user asks for to a trace: [`probe`] finds what is meant, with [`btf`] (the kernel's types), [`binary`] (programs and libraries)
//! and [`values`] (how values are fetched, and where they lie in the record). [`kernel`] is what runs at events, [`session`] brings it into the
//! kernel and keeps it there, [`record`] writes the trace. [`environment`] says whether this process may record here, [`host`] what
//! this kernel is.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("relayd knows the registers of x86-64 and arm64, and of no other machine");

pub mod binary;
pub mod btf;
pub mod environment;
pub mod host;
pub mod kernel;
pub mod probe;
pub mod record;
pub mod session;
#[doc(hidden)]
pub mod sys;
pub mod values;

/// What `relayd klog` runs when it is given nothing else, `examples/klog`: a line for every process that starts or ends.
pub static EXAMPLE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/klog"));
