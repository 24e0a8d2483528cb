//! The instructions of eBPF programs that the tracer makes, or looks for in what the compiler made (include/uapi/linux/bpf.h).

use aya_obj::generated::{
    BPF_ADD, BPF_ALU64, BPF_B, BPF_CALL, BPF_DW, BPF_EXIT, BPF_H, BPF_IMM, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MEM,
    BPF_MOV, BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL, BPF_STX, BPF_W, BPF_X, bpf_insn,
};
use relay_channel::bpf::NOTHING;

/// The byte that says which instruction it is.
pub(super) const fn code(bits: u32) -> u8 {
    bits.to_le_bytes()[0]
}

/// `register = number`.
pub(super) const MOVE: u8 = code(BPF_ALU64 | BPF_MOV | BPF_K);
/// `register = number of 64 bits`: two instructions.
pub(super) const WIDE: u8 = code(BPF_LD | BPF_IMM | BPF_DW);
/// `register = register`.
pub(super) const COPY: u8 = code(BPF_ALU64 | BPF_MOV | BPF_X);
/// `register += number`.
pub(super) const ADD: u8 = code(BPF_ALU64 | BPF_ADD | BPF_K);
/// A call.
pub(super) const CALL: u8 = code(BPF_JMP | BPF_CALL);
/// The end of the program, or of a function.
pub(super) const EXIT: u8 = code(BPF_JMP | BPF_EXIT);
/// The register that points to the stack.
pub(super) const STACK: u8 = 10;
/// A call's source register, which says what it calls: a function of the program, or one of the kernel.
pub(super) const OWN_FUNCTION: u8 = code(BPF_PSEUDO_CALL);
pub(super) const KERNEL_FUNCTION: u8 = code(BPF_PSEUDO_KFUNC_CALL);

pub(super) fn instruction(code: u8, to: u8, from: u8, number: i32) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(to, from), off: 0, imm: number }
}

/// `r0 = *(width *)(r1 + at)`: 1, 2, 4 or 8 bytes.
pub(super) fn load_from_context(width: i16, at: i16) -> bpf_insn {
    bpf_insn { off: at, ..instruction(code(BPF_LDX | BPF_MEM | size(width)), 0, 1, 0) }
}

/// `*(width *)(r2 + at) = r0`.
pub(super) fn store_in_record(width: i16, at: i16) -> bpf_insn {
    bpf_insn { off: at, ..instruction(code(BPF_STX | BPF_MEM | size(width)), 2, 0, 0) }
}

/// A load's or a store's width, as its code says it: 1, 2, 4 or 8 bytes.
pub(super) const fn size(width: i16) -> u32 {
    match width {
        8 => BPF_DW,
        4 => BPF_W,
        2 => BPF_H,
        _ => BPF_B,
    }
}

pub(super) fn call(function: i32) -> bpf_insn {
    instruction(CALL, 0, KERNEL_FUNCTION, function)
}

pub(super) fn nothing() -> bpf_insn {
    instruction(NOTHING, 0, 0, 0)
}
