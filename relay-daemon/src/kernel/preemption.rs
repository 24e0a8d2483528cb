//! Keeps programs from being preempted, where their hook lets them be and the kernel can switch that off.
//!
//! A task that is preempted inside a program has a workspace, or a part of a sub-buffer, or closes the program for its CPU, until it runs again. What
//! the kernel can do is asked of it, by its BTF and by a small program; the answers are put into the programs' placeholders
//! (`relay_common::placeholder`).

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    sync::OnceLock,
};

use aya_obj::generated::{BPF_LDX, BPF_ST, BPF_STX, bpf_insn, bpf_prog_type};
use relay_common::placeholder;

use super::instruction::{ADD, CALL, COPY, EXIT, MOVE, OWN_FUNCTION, STACK, call, code, instruction, nothing};
use crate::{
    btf::Btf,
    sys::{self, ProgramLoad},
};
use relay_channel::bpf::{KERNEL_BTF, is_compiled};

/// Most bytes of a program's stack (include/linux/filter.h, `MAX_BPF_STACK`).
const MAX_STACK: i32 = 512;

/// What the kernel does, and can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    /// A task can be preempted in the kernel.
    preempts: bool,
    /// What switches that off in a program.
    switch: Option<Switch>,
    /// The tracepoints `syscalls:*` run programs with preemption on (kernel/trace/bpf_trace.c, `trace_call_bpf_faultable`).
    pub(crate) faultable_syscalls: bool,
}

/// Functions of the kernel that programs can call, by their BTF ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    off: i32,
    on: i32,
    /// Interrupts off and on again.
    interrupts: Option<(i32, i32)>,
    /// Preemption can be off for as long as a program runs: global functions may be called meanwhile.
    whole: bool,
}

/// What a program's placeholders become.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Places {
    /// Its hook lets it be preempted.
    pub(crate) preemptible: bool,
    /// Its hook does not run it while it runs on the CPU: a task that is preempted inside closes it for all others.
    pub(crate) guarded: bool,
    /// The workspaces are shared by all CPUs.
    pub(crate) shared: bool,
}

/// What this kernel does and can do; it is asked once.
pub(crate) fn abilities() -> &'static Abilities {
    static ABILITIES: OnceLock<Abilities> = OnceLock::new();
    ABILITIES.get_or_init(|| {
        let abilities = Abilities::find();
        log::debug!("preemption of programs: {abilities:?}");
        abilities
    })
}

/// Whether a task may be preempted in the programs of trampolines, so that all others on its CPU are kept out of them until it runs again: between the
/// kernel's count and the program's first instruction nothing of ours can prevent it (kernel/bpf/trampoline.c, `__bpf_prog_enter_recur`).
pub(crate) fn closes_trampolines() -> bool {
    // The kernel is taken to do what it can if debugfs is not mounted.
    let modes = fs::read_to_string("/sys/kernel/debug/sched/preempt");
    abilities().preempts && modes.map_or(true, |modes| preempts_in(&modes))
}

/// The kernel lists all modes, and the one in force in parentheses.
fn preempts_in(modes: &str) -> bool {
    !["(none)", "(voluntary)"].iter().any(|mode| modes.contains(mode))
}

impl Abilities {
    fn find() -> Self {
        const NAMES: [&str; 5] = [
            "bpf_preempt_disable",
            "bpf_preempt_enable",
            "bpf_local_irq_save",
            "bpf_local_irq_restore",
            "trace_call_bpf_faultable",
        ];
        let version = fs::read_to_string("/proc/sys/kernel/version");
        let preempts = !version.is_ok_and(|version| !version.contains("PREEMPT"));
        let btf = fs::read(KERNEL_BTF).ok().and_then(|bytes| Btf::parse(bytes, None).ok());
        let Some(btf) = btf.filter(|_| preempts) else {
            return Self { preempts, switch: None, faultable_syscalls: true };
        };
        let mut ids = [None; NAMES.len()];
        for (name, id) in btf.functions() {
            if let Some(index) = NAMES.iter().position(|wanted| *wanted == name) {
                ids[index] = i32::try_from(id).ok();
            }
        }
        let [off, on, save, restore, faultable] = ids;
        // Only what is compiled can call functions of the kernel.
        let switch = off.zip(on).filter(|_| is_compiled()).map(|(off, on)| Switch {
            off,
            on,
            interrupts: save.zip(restore),
            whole: takes_global_functions(off, on)
                .inspect_err(|error| log::debug!("a program that is not preempted calls no global function: {error}"))
                .is_ok(),
        });
        Self { preempts, switch, faultable_syscalls: faultable.is_some() }
    }

    /// Whether a program may be preempted from which nothing can keep it as long as it runs.
    pub(crate) fn leaves_preempted(&self) -> bool {
        self.preempts && !self.switch.is_some_and(|switch| switch.whole)
    }

    /// Fills in the placeholders of a program.
    pub(crate) fn fill(&self, instructions: &mut [bpf_insn], places: Places) {
        let switch = self.switch.filter(|_| places.preemptible);
        let (whole, record) = (switch.filter(|switch| switch.whole), switch.filter(|switch| !switch.whole));
        let call = |id: Option<i32>| id.map_or(nothing(), call);
        let slot = lowest_slot(instructions);
        log::debug!("{places:?}, {slot:?} bytes from the end of the stack");
        for at in 0..instructions.len() {
            let instruction = instructions[at];
            if instruction.code != MOVE {
                continue;
            }
            match instruction.imm {
                placeholder::PROGRAM_BEGINS => instructions[at] = call(whole.map(|switch| switch.off)),
                placeholder::PROGRAM_ENDS => {
                    if let Some(place) = instructions.get_mut(at..at + placeholder::PROGRAM_ENDS_LEN) {
                        place.fill(nothing());
                        let end = whole.map(|switch| end(switch, slot.filter(|_| places.guarded))).unwrap_or_default();
                        place[..end.len()].copy_from_slice(&end);
                    }
                }
                placeholder::RECORD_BEGINS => instructions[at] = call(record.map(|switch| switch.off)),
                placeholder::RECORD_ENDS => instructions[at] = call(record.map(|switch| switch.on)),
                placeholder::SHARED => instructions[at].imm = places.shared.into(),
                _ => {}
            }
        }
    }
}

/// What lets a program be preempted again, at its end.
///
/// Where the hook has a guard, a task must not be preempted right here: inside the program still, it would keep all others out until it runs again. With
/// interrupts off the kernel does not look whether it is to be (kernel/sched/core.c, `preempt_schedule`), nor does it when they come on again; it
/// does when the guard has been released.
fn end(switch: Switch, slot: Option<i16>) -> Vec<bpf_insn> {
    let (Some((save, restore)), Some(slot)) = (switch.interrupts, slot) else { return vec![call(switch.on)] };
    // r1 = r10; r1 += slot
    let flags = [instruction(COPY, 1, STACK, 0), instruction(ADD, 1, 0, slot.into())];
    let [first, second] = flags;
    vec![first, second, call(save), call(switch.on), first, second, call(restore)]
}

/// 8 bytes of stack below all that the program uses itself; `None` where there are none, or that cannot be told.
fn lowest_slot(instructions: &[bpf_insn]) -> Option<i16> {
    const LOAD: u8 = code(BPF_LDX);
    const STORES: [u8; 2] = [code(BPF_ST), code(BPF_STX)];
    // Functions that it calls lie behind it.
    let calls = instructions.iter().enumerate().filter(|(_, this)| this.code == CALL && this.src_reg() == OWN_FUNCTION);
    let end = calls.filter_map(|(at, this)| at.checked_add_signed(isize::try_from(this.imm).ok()? + 1)).min();
    let program = &instructions[..end.unwrap_or(instructions.len())];
    let mut lowest = 0;
    for (at, this) in program.iter().enumerate() {
        let class = this.code & 7;
        if class == LOAD && this.src_reg() == STACK || STORES.contains(&class) && this.dst_reg() == STACK {
            lowest = lowest.min(i32::from(this.off));
        } else if this.code == COPY && this.src_reg() == STACK {
            // The compiler adds the offset right after.
            let next = program.get(at + 1).filter(|next| next.code == ADD && next.dst_reg() == this.dst_reg())?;
            lowest = lowest.min(next.imm);
        }
    }
    let slot = (lowest - 8) & !7;
    i16::try_from(slot).ok().filter(|_| slot >= -MAX_STACK)
}

/// Loads a program that calls a global function of its own while preemption is off. Before Linux 6.15 the kernel takes none (kernel/bpf/verifier.c,
/// `check_func_call`).
fn takes_global_functions(off: i32, on: i32) -> io::Result<OwnedFd> {
    let [zero, exit] = [instruction(MOVE, 0, 0, 0), instruction(EXIT, 0, 0, 0)];
    let instructions = [call(off), instruction(CALL, 0, OWN_FUNCTION, 3), call(on), zero, exit, zero, exit];
    let functions: Vec<u8> = [0u32, 3, 5, 4].iter().flat_map(|word| word.to_le_bytes()).collect();
    let btf = sys::load_btf(&two_functions())?;
    sys::load_program(&ProgramLoad {
        kind: bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT,
        attach: None,
        name: "relayd_asks",
        instructions: &instructions,
        btf: btf.as_fd(),
        functions: (&functions, 8),
        target: None,
    })
}

/// BTF of two global functions, types 3 and 4, that take nothing and return a number.
fn two_functions() -> Vec<u8> {
    const NAMES: &[u8; 18] = b"\0int\0first\0second\0";
    const FUNCTION: u32 = 12 << 24;
    const FUNCTION_TYPE: u32 = 13 << 24;
    const INT: u32 = 1 << 24;
    const GLOBAL: u32 = 1;
    const SIGNED_32_BITS: u32 = 1 << 24 | 32;
    #[rustfmt::skip]
    const TYPES: [u32; 13] = [
        1, INT, 4, SIGNED_32_BITS,
        0, FUNCTION_TYPE, 1,
        5, FUNCTION | GLOBAL, 2,
        11, FUNCTION | GLOBAL, 2,
    ];
    // Magic number and version; bytes of this header; where types and names begin, and their bytes.
    const HEADER: [u32; 6] = [0x0001_eb9f, 24, 0, 52, 52, 18];
    let words = HEADER.iter().chain(&TYPES).flat_map(|word| word.to_le_bytes());
    words.chain(NAMES.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_force_is_in_parentheses() {
        assert!(preempts_in("none voluntary (full)\n") && preempts_in("full (lazy)\n"));
        assert!(!preempts_in("none (voluntary) full\n") && !preempts_in("(none) voluntary full lazy\n"));
    }
}
