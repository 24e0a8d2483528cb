//! eBPF objects as this kernel wants them, and programs that are run on request.

use std::{borrow::Cow, fs, os::fd::BorrowedFd, sync::OnceLock, thread, time::Duration};

use anyhow::{Result, bail};
use memchr::memmem;
use relay_common::REQUEST_HAS_RUN;

use crate::sys::run_program;

/// The kernel's description of its own types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
/// A jump to the next instruction. The kernel takes it out (kernel/bpf/verifier.c, `opt_remove_nops`).
pub const NOTHING: u8 = 0x05;

/// An object as this kernel wants it: where no private stacks are to be had, without the tail calls that keep programs from getting one
/// (`relay_ebpf::sys::refuse_private_stack`). With them programs that call functions of their own would be refused where nothing is compiled
/// (kernel/bpf/verifier.c, `fixup_call_args`), and on arm64 before Linux 6.0.
///
/// ```
/// assert!(relay_channel::bpf::fitted(b"no object").starts_with(b"no"));
/// ```
#[must_use]
pub fn fitted(object: &[u8]) -> Cow<'_, [u8]> {
    // r0 = 0; if r0 == 0 goto +1; call 12
    const REFUSAL: [u64; 3] = [0xb7, 0x0001_0015, 0x000c_0000_0085];
    let refusal = REFUSAL.map(u64::to_le_bytes);
    if has_private_stacks() {
        return Cow::Borrowed(object);
    }
    let mut fitted = object.to_vec();
    for at in memmem::find_iter(object, refusal.as_flattened()) {
        for instruction in fitted[at..at + refusal.as_flattened().len()].as_chunks_mut().0 {
            *instruction = u64::from(NOTHING).to_le_bytes();
        }
    }
    Cow::Owned(fitted)
}

/// Whether the kernel may give programs private stacks. Its version does not say, since distributions take over what is newer; but a member of
/// `struct bpf_prog_aux` has that in its name since the kernel has them. What is not known is taken for yes: then only the JIT must be on.
fn has_private_stacks() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        is_compiled() && fs::read(KERNEL_BTF).map_or(true, |btf| memmem::find(&btf, b"priv_stack").is_some())
    })
}

/// Runs a program that does what it is asked, on a CPU, or right here when there is none or it is offline. The kernel does not run it where another process
/// was preempted inside it; that ends soon.
///
/// # Errors
/// Fails when the kernel refuses, or has not run the program for a second.
pub fn request(program: BorrowedFd<'_>, arguments: [u64; 2], cpu: Option<u32>) -> Result<()> {
    const TRIES: u32 = 1000;
    const PAUSE: Duration = Duration::from_millis(1);
    for _ in 0..TRIES {
        let answer = match run_program(program, arguments, cpu)? {
            Some(answer) => Some(answer),
            None => run_program(program, arguments, None)?,
        };
        if answer == Some(REQUEST_HAS_RUN.unsigned_abs()) {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    bail!("the kernel has not run the program for a second: another process is inside it and does not go on")
}

/// Whether programs are compiled. Where that cannot be read, as in a container, they are taken to be.
pub fn is_compiled() -> bool {
    !fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|jit| jit.trim() == "0")
}
