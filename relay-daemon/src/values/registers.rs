//! Where the kernel has registers: their words in `struct pt_regs`, and which of them hold arguments.
//!
//! Both architectures are compiled everywhere, so that both are tested everywhere; what this module exports by itself is that
//! of the machine it runs on.

#[cfg(target_arch = "aarch64")]
pub use arm64::{
    INSTRUCTION_POINTER, RETURN, STACK_POINTER, WORDS, argument, named, stack_argument, system_call_argument,
};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    INSTRUCTION_POINTER, RETURN, STACK_POINTER, WORDS, argument, named, stack_argument, system_call_argument,
};

/// A register: the index of its word of 8 bytes in `struct pt_regs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u16);

/// What a register's name in assembly means: all of a register, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterPart {
    /// The whole register.
    pub register: Register,
    /// Bytes of the part.
    pub size: u8,
    /// Bits of the register below the part.
    pub shift: u8,
}

/// x86-64: `struct pt_regs` in arch/x86/include/asm/ptrace.h.
pub mod x86_64 {
    use super::{Register, RegisterPart};

    /// Words of `struct pt_regs`.
    pub const WORDS: u16 = 21;
    /// The register with a function's result.
    pub const RETURN: u16 = 10;
    /// The stack pointer.
    pub const STACK_POINTER: u16 = 19;
    /// The instruction pointer.
    pub const INSTRUCTION_POINTER: u16 = 16;

    /// di, si, dx, cx, r8, r9.
    const ARGUMENTS: [u16; 6] = [14, 13, 12, 11, 9, 8];
    /// di, si, dx, r10, r8, r9: the instruction overwrites cx.
    const SYSTEM_CALL_ARGUMENTS: [u16; 6] = [14, 13, 12, 7, 9, 8];

    /// Names of 8, 4, 2 and 1 bytes from the lowest on.
    const NAMES: [(u16, [&str; 4]); 8] = [
        (10, ["rax", "eax", "ax", "al"]),
        (5, ["rbx", "ebx", "bx", "bl"]),
        (11, ["rcx", "ecx", "cx", "cl"]),
        (12, ["rdx", "edx", "dx", "dl"]),
        (13, ["rsi", "esi", "si", "sil"]),
        (14, ["rdi", "edi", "di", "dil"]),
        (4, ["rbp", "ebp", "bp", "bpl"]),
        (19, ["rsp", "esp", "sp", "spl"]),
    ];
    /// Names of a register's second byte.
    const SECOND_BYTES: [(&str, u16); 4] = [("ah", 10), ("bh", 5), ("ch", 11), ("dh", 12)];
    /// Words that no operand names in part. `orig_rax` is a system call's number.
    const OTHERS: [(&str, u16); 5] = [("orig_rax", 15), ("rip", 16), ("cs", 17), ("eflags", 18), ("ss", 20)];

    /// The register with a function's argument, counted from 0; those from 6 on are on the stack.
    #[must_use]
    pub fn argument(n: usize) -> Option<u16> {
        ARGUMENTS.get(n).copied()
    }

    /// The register with a system call's argument, counted from 0.
    #[must_use]
    pub fn system_call_argument(n: usize) -> Option<u16> {
        SYSTEM_CALL_ARGUMENTS.get(n).copied()
    }

    /// Where an argument on the stack is at a function's entry: bytes from the stack pointer. The return address is at 0.
    #[must_use]
    pub fn stack_argument(n: usize) -> Option<i32> {
        i32::try_from(n.checked_sub(ARGUMENTS.len())?).ok()?.checked_add(1)?.checked_mul(8)
    }

    /// What a name means, without `%`.
    #[must_use]
    pub fn named(name: &str) -> Option<RegisterPart> {
        let part = |word, size, shift| Some(RegisterPart { register: Register(word), size, shift });
        for (word, names) in NAMES {
            if let Some((_, size)) = names.into_iter().zip([8, 4, 2, 1]).find(|(part, _)| *part == name) {
                return part(word, size, 0);
            }
        }
        if let Some((_, word)) = SECOND_BYTES.into_iter().find(|(second, _)| *second == name) {
            return part(word, 1, 8);
        }
        if let Some((_, word)) = OTHERS.into_iter().find(|(other, _)| *other == name) {
            return part(word, 8, 0);
        }
        let numbered = name.strip_prefix('r')?;
        let (number, size) = match numbered.strip_suffix(['d', 'w', 'b']) {
            Some(number) if numbered.ends_with('d') => (number, 4),
            Some(number) if numbered.ends_with('w') => (number, 2),
            Some(number) => (number, 1),
            None => (numbered, 8),
        };
        let word = match number {
            "8" => 9,
            "9" => 8,
            "10" => 7,
            "11" => 6,
            "12" => 3,
            "13" => 2,
            "14" => 1,
            "15" => 0,
            _ => return None,
        };
        part(word, size, 0)
    }
}

/// arm64: `struct user_pt_regs` in arch/arm64/include/uapi/asm/ptrace.h, with which `struct pt_regs` begins.
pub mod arm64 {
    use super::{Register, RegisterPart};

    /// Words of `struct user_pt_regs`.
    pub const WORDS: u16 = 34;
    /// The register with a function's result.
    pub const RETURN: u16 = 0;
    /// The stack pointer.
    pub const STACK_POINTER: u16 = 31;
    /// The program counter.
    pub const INSTRUCTION_POINTER: u16 = 32;

    /// Registers with a function's arguments: x0 to x7.
    const ARGUMENTS: usize = 8;
    /// Registers with a system call's arguments: x0 to x5.
    const SYSTEM_CALL_ARGUMENTS: usize = 6;

    /// The register with a function's argument, counted from 0; those from 8 on are on the stack.
    #[must_use]
    pub fn argument(n: usize) -> Option<u16> {
        u16::try_from(n).ok().filter(|_| n < ARGUMENTS)
    }

    /// The register with a system call's argument, counted from 0.
    #[must_use]
    pub fn system_call_argument(n: usize) -> Option<u16> {
        u16::try_from(n).ok().filter(|_| n < SYSTEM_CALL_ARGUMENTS)
    }

    /// Where an argument on the stack is at a function's entry: bytes from the stack pointer.
    #[must_use]
    pub fn stack_argument(n: usize) -> Option<i32> {
        i32::try_from(n.checked_sub(ARGUMENTS)?).ok()?.checked_mul(8)
    }

    /// What a name means.
    #[must_use]
    pub fn named(name: &str) -> Option<RegisterPart> {
        let (word, size) = match name {
            "fp" => (29, 8),
            "lr" => (30, 8),
            "sp" => (STACK_POINTER, 8),
            "wsp" => (STACK_POINTER, 4),
            "pc" => (INSTRUCTION_POINTER, 8),
            "pstate" => (33, 8),
            _ => {
                let size = match name.bytes().next()? {
                    b'x' => 8,
                    b'w' => 4,
                    _ => return None,
                };
                let number = &name[1..];
                // Not "+5", not "05".
                let plain = number == "0" || number.starts_with(|first: char| matches!(first, '1'..='9'));
                (number.parse().ok().filter(|word| plain && *word <= 30)?, size)
            }
        };
        Some(RegisterPart { register: Register(word), size, shift: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::{Register, RegisterPart, arm64, x86_64};

    #[test]
    fn every_word_of_x86_64_has_its_name() {
        let names = [
            "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
            "orig_rax", "rip", "cs", "eflags", "rsp", "ss",
        ];
        assert_eq!(names.len(), usize::from(x86_64::WORDS));
        for (name, word) in names.into_iter().zip(0..) {
            assert_eq!(
                x86_64::named(name),
                Some(RegisterPart { register: Register(word), size: 8, shift: 0 }),
                "{name}"
            );
        }
        let words = |names: [&str; 6]| names.map(|name| x86_64::named(name).map(|part| part.register.0));
        assert_eq!(words(["rdi", "rsi", "rdx", "rcx", "r8", "r9"]), [0, 1, 2, 3, 4, 5].map(x86_64::argument));
        let system_call = [0, 1, 2, 3, 4, 5].map(x86_64::system_call_argument);
        assert_eq!(words(["rdi", "rsi", "rdx", "r10", "r8", "r9"]), system_call);
        assert_eq!((x86_64::argument(6), x86_64::system_call_argument(6)), (None, None));
    }

    #[test]
    fn parts_of_x86_64_registers_have_sizes_and_places() {
        let part = |name| x86_64::named(name).map(|part| (part.register.0, part.size, part.shift));
        assert_eq!(part("eax"), Some((10, 4, 0)));
        assert_eq!(part("ax"), Some((10, 2, 0)));
        assert_eq!(part("al"), Some((10, 1, 0)));
        assert_eq!(part("ah"), Some((10, 1, 8)));
        assert_eq!(part("sil"), Some((13, 1, 0)));
        assert_eq!(part("r8d"), Some((9, 4, 0)));
        assert_eq!(part("r15w"), Some((0, 2, 0)));
        assert_eq!(part("r10b"), Some((7, 1, 0)));
        for name in ["", "r", "r7", "r16", "rd", "r8q", "xmm0", "RAX", "rü"] {
            assert_eq!(part(name), None, "{name}");
        }
    }

    #[test]
    fn every_word_of_arm64_has_its_name() {
        for word in 0..=30 {
            assert_eq!(
                arm64::named(&format!("x{word}")),
                Some(RegisterPart { register: Register(word), size: 8, shift: 0 })
            );
            assert_eq!(
                arm64::named(&format!("w{word}")),
                Some(RegisterPart { register: Register(word), size: 4, shift: 0 })
            );
        }
        let word = |name| arm64::named(name).map(|part| part.register.0);
        assert_eq!([word("sp"), word("pc"), word("pstate")], [Some(31), Some(32), Some(33)]);
        for name in ["", "x", "x31", "x+1", "x01", "q0", "xü", "ü"] {
            assert_eq!(word(name), None, "{name}");
        }
        assert_eq!((arm64::argument(7), arm64::argument(8)), (Some(7), None));
        assert_eq!((arm64::system_call_argument(5), arm64::system_call_argument(6)), (Some(5), None));
    }

    #[test]
    fn what_registers_do_not_hold_is_on_the_stack() {
        assert_eq!([5, 6, 7].map(x86_64::stack_argument), [None, Some(8), Some(16)]);
        assert_eq!([7, 8, 9].map(arm64::stack_argument), [None, Some(0), Some(8)]);
        assert_eq!((x86_64::stack_argument(usize::MAX), arm64::stack_argument(usize::MAX)), (None, None));
    }
}
