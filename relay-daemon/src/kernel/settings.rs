//! Settings as numbers in the instructions: what a program loads from the object's constants, which nobody changes any more, needs no load.
//!
//! A setting is an address, and a load through it. Where the load overwrites the address, the number takes the place of both.

use std::collections::HashSet;

use aya_obj::generated::{BPF_CALL, BPF_EXIT, BPF_JMP, BPF_JMP32, BPF_LDX, BPF_MEM, BPF_PSEUDO_MAP_VALUE, bpf_insn};

use super::instruction::{WIDE, code, nothing, size};

/// The object's constants, as the kernel has them.
#[derive(Debug)]
pub(super) struct Constants {
    /// The map that they are in, as instructions name it.
    pub(super) map: i32,
    pub(super) bytes: Vec<u8>,
}

impl Constants {
    /// Puts numbers in the place of loads.
    pub(super) fn fill(&self, instructions: &mut [bpf_insn]) {
        let targets = targets(instructions);
        for at in 2..instructions.len() {
            let [address, rest, load] = [instructions[at - 2], instructions[at - 1], instructions[at]];
            let overwrites = load.src_reg() == address.dst_reg() && load.dst_reg() == address.dst_reg();
            if address.code != WIDE
                || u32::from(address.src_reg()) != BPF_PSEUDO_MAP_VALUE
                || address.imm != self.map
                || !overwrites
                || targets.contains(&at)
            {
                continue;
            }
            let Some(number) = self.number(load, rest.imm) else { continue };
            instructions[at - 2].set_src_reg(0);
            [instructions[at - 2].imm, instructions[at - 1].imm] = number.map(i32::from_le_bytes);
            instructions[at] = nothing();
        }
    }

    /// The number that a load reads through an address so many bytes into them, in two halves; `None` when it is not a load, or reads what is not there.
    fn number(&self, load: bpf_insn, at: i32) -> Option<[[u8; 4]; 2]> {
        let len = [1, 2, 4, 8].into_iter().find(|width| load.code == code(BPF_LDX | BPF_MEM | size(*width)))?;
        let begin = usize::try_from(at.checked_add(load.off.into())?).ok()?;
        let bytes = self.bytes.get(begin..begin.checked_add(usize::try_from(len).ok()?)?)?;
        let mut number = [[0; 4]; 2];
        number.as_flattened_mut()[..bytes.len()].copy_from_slice(bytes);
        Some(number)
    }
}

/// The places that jumps and calls lead to.
fn targets(instructions: &[bpf_insn]) -> HashSet<usize> {
    const JUMPS: [u8; 2] = [code(BPF_JMP), code(BPF_JMP32)];
    const ALWAYS_FAR: u8 = code(BPF_JMP32);
    let jumps = instructions.iter().enumerate().filter_map(|(at, jump)| {
        if !JUMPS.contains(&(jump.code & 7)) || jump.code == code(BPF_JMP | BPF_EXIT) {
            return None;
        }
        let by = if [ALWAYS_FAR, code(BPF_JMP | BPF_CALL)].contains(&jump.code) { jump.imm } else { jump.off.into() };
        at.checked_add_signed(isize::try_from(by).ok()?)?.checked_add(1)
    });
    jumps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
        bpf_insn { off, ..super::super::instruction::instruction(code, to, from, imm) }
    }

    fn shape(instruction: bpf_insn) -> (u8, u8, u8, i16, i32) {
        (instruction.code, instruction.dst_reg(), instruction.src_reg(), instruction.off, instruction.imm)
    }

    /// `r1 = the constants of map 7, plus 4; rTO = *(u32 *)(r1 + 4)`, and what becomes of it.
    fn filled(map: i32, to: u8, more: &[bpf_insn]) -> Vec<(u8, u8, u8, i16, i32)> {
        let constants = Constants { map: 7, bytes: (0..16).collect() };
        let mut instructions =
            vec![instruction(WIDE, 1, 2, 0, map), instruction(0, 0, 0, 0, 4), instruction(0x61, to, 1, 4, 0)];
        instructions.extend(more);
        constants.fill(&mut instructions);
        instructions.truncate(3);
        instructions.into_iter().map(shape).collect()
    }

    #[test]
    fn a_number_takes_the_place_of_an_address_and_a_load() {
        let number = vec![(WIDE, 1, 0, 0, 0x0b0a_0908), (0, 0, 0, 0, 0), (5, 0, 0, 0, 0)];
        assert_eq!(filled(7, 1, &[]), number);
        // The jump leads elsewhere.
        assert_eq!(filled(7, 1, &[instruction(5, 0, 0, -4, 0)]), number);
    }

    #[test]
    fn all_else_stays() {
        let stays = |to| vec![(WIDE, 1, 2, 0, 7), (0, 0, 0, 0, 4), (0x61, to, 1, 4, 0)];
        // The address may be used again.
        assert_eq!(filled(7, 2, &[]), stays(2));
        // Another map's, and a jump to the load alone.
        assert_eq!(filled(8, 1, &[])[0], (WIDE, 1, 2, 0, 8));
        assert_eq!(filled(7, 1, &[instruction(5, 0, 0, -2, 0)]), stays(1));
        // What is not there is left to the verifier.
        let constants = Constants { map: 7, bytes: vec![0; 6] };
        assert_eq!(constants.number(instruction(0x61, 1, 1, 3, 0), 0), None);
        assert_eq!(constants.number(instruction(0x79, 1, 1, 0, 0), -1), None);
        assert_eq!(constants.number(instruction(0x69, 1, 1, 4, 0), 0), Some([[0; 4]; 2]));
    }
}
