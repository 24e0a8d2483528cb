//! Instructions that eBPF programs are compiled with, and for which user space puts others before the kernel sees them: what a kernel wants of
//! a program, or can do for it, is known only where it runs. Each stands as the load of a number that no program loads otherwise, and is as
//! long as what may take its place. Where nobody replaces them they do nothing.

/// Preemption goes off, for as long as the program runs: one instruction, the load of this number into `r0`.
pub const PROGRAM_BEGINS: i32 = 0x5E7A_0001;
/// It may come on again, last of all that the program does.
pub const PROGRAM_ENDS: i32 = 0x5E7A_0002;
/// Instructions of that: the load into `r0`, and jumps to the next instruction.
pub const PROGRAM_ENDS_LEN: usize = 7;
/// Preemption goes off while a record is written, in programs that it cannot be off in for as long as they run.
pub const RECORD_BEGINS: i32 = 0x5E7A_0003;
/// It may come on again.
pub const RECORD_ENDS: i32 = 0x5E7A_0004;
/// Not zero when programs of different CPUs share their workspaces: the load of this number into any register.
pub const SHARED: i32 = 0x5E7A_0005;
/// A tracepoint's fields are copied, so many words and what is left: the load of this number into `r0`, then jumps to the next instruction. `r1` points to the
/// context, `r2` to where the first field goes.
pub const FIELDS: i32 = 0x5E7A_0006;
/// Instructions of that: a load and a store for each of [`MAX_FIELDS`] / 8 words, and for 4, 2 and 1 bytes.
pub const FIELDS_LEN: usize = 1 + 2 * (MAX_FIELDS as usize / 8 + 3);
/// Bytes of these fields: the load of this number into any register.
pub const FIELDS_SIZE: i32 = 0x5E7A_0007;
/// Most bytes of fields that are copied so.
pub const MAX_FIELDS: u16 = 128;
