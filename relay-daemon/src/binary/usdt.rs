//! USDT probes: the notes that `<sys/sdt.h>` leaves in a program, one for each place where a probe is.
//!
//! A note (owner `stapsdt`, type 3) has the probe's names, its address, its semaphore's and, as text in the assembler's words,
//! where its arguments are at that place. An argument that is not understood is kept as text: the probe works without it.

use crate::values::registers::{INSTRUCTION_POINTER, Register, RegisterPart, arm64, x86_64};

/// Most arguments of a probe; `<sys/sdt.h>` makes at most 12.
const MAX_ARGUMENTS: usize = 32;
/// The type of the notes.
const TYPE: u32 = 3;

/// A place of a probe. A probe may have many: each is one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usdt {
    /// Whose probe.
    pub provider: String,
    /// Which.
    pub name: String,
    /// Where in the file the instruction is.
    pub offset: u64,
    /// Where in the file the counter is that tells the program that somebody listens.
    pub semaphore: Option<u64>,
    /// Its arguments at this place.
    pub arguments: Vec<UsdtArgument>,
}

/// Where an argument is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsdtArgument {
    /// Bytes: 1, 2, 4 or 8; never more than the register has that it is in.
    pub size: u8,
    /// Whether it is a signed number.
    pub signed: bool,
    /// Where it is.
    pub operand: UsdtOperand,
}

/// Where an argument's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsdtOperand {
    /// Nowhere: always this number, already of the argument's size. An unsigned one of 8 bytes has its bits.
    Constant(i64),
    /// In a register, from the bit `shift` on.
    Register {
        /// The register.
        register: Register,
        /// Bits below it: 8 in `%ah`, else 0.
        shift: u8,
    },
    /// In memory at `base` + `index` * scale + `offset`.
    Memory {
        /// The address.
        base: Register,
        /// Added to it, times 1, 2, 4 or 8.
        index: Option<(Register, u8)>,
        /// Added to it.
        offset: i64,
    },
    /// In memory at a symbol's address + `offset`. Where the file does not say where that is, it is not understood.
    Symbol {
        /// The symbol.
        name: String,
        /// Added to its address.
        offset: i64,
    },
    /// Somewhere that is not understood, in the assembler's words: a floating-point number, a symbol that the file does not have.
    Unsupported(String),
}

/// Why notes were not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UsdtError {
    /// They end in the middle of one.
    #[error("the USDT notes are cut off")]
    CutOff,
    /// A text is not there, or it is not printable.
    #[error("a USDT note without proper names")]
    Names,
    /// There are too many arguments.
    #[error("the USDT probe {0} has more than {MAX_ARGUMENTS} arguments")]
    Arguments(String),
}

/// A note as it is in the file: addresses, not offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note<'a> {
    pub(crate) provider: &'a str,
    pub(crate) name: &'a str,
    pub(crate) location: u64,
    /// Where the linker put the section `.stapsdt.base`: tells whether the file was moved after that.
    pub(crate) base: u64,
    /// 0: there is none.
    pub(crate) semaphore: u64,
    pub(crate) arguments: Vec<UsdtArgument>,
}

/// Parses the section `.note.stapsdt`; notes of others are skipped.
pub(crate) fn notes(mut bytes: &[u8]) -> Result<Vec<Note<'_>>, UsdtError> {
    let mut notes = Vec::new();
    while !bytes.is_empty() {
        let (Some(owner_size), Some(size), Some(kind)) = (word(bytes, 0), word(bytes, 4), word(bytes, 8)) else {
            return Err(UsdtError::CutOff);
        };
        let rest = bytes.get(12..).ok_or(UsdtError::CutOff)?;
        let (owner, rest) = padded(rest, owner_size)?;
        let (description, rest) = padded(rest, size)?;
        bytes = rest;
        if kind == TYPE && owner == b"stapsdt\0" {
            notes.push(note(description)?);
        }
    }
    Ok(notes)
}

impl Note<'_> {
    /// The symbols that its arguments are at.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().filter_map(|argument| match &argument.operand {
            UsdtOperand::Symbol { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }
}

impl UsdtArgument {
    /// Where it is, seen from the instruction at `location`, when the addresses of symbols are known.
    pub(crate) fn placed(mut self, location: u64, address: impl Fn(&str) -> Option<u64>) -> Self {
        if let UsdtOperand::Symbol { name, offset } = &self.operand {
            let there = address(name).map(|there| there.wrapping_sub(location).cast_signed().wrapping_add(*offset));
            self.operand = match there {
                // At a probe the register holds the address of its instruction (kernel/events/uprobes.c, `handle_swbp`).
                Some(offset) => UsdtOperand::Memory { base: Register(INSTRUCTION_POINTER), index: None, offset },
                None => UsdtOperand::Unsupported(match offset {
                    0 => format!("{name}(%rip)"),
                    _ => format!("{name}{offset:+}(%rip)"),
                }),
            };
        }
        self
    }
}

fn note(description: &[u8]) -> Result<Note<'_>, UsdtError> {
    let address = |at: usize| {
        let bytes = description.get(at..at + 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    };
    let (Some(location), Some(base), Some(semaphore)) = (address(0), address(8), address(16)) else {
        return Err(UsdtError::CutOff);
    };
    let mut texts = description.get(24..).unwrap_or_default().split(|byte| *byte == 0);
    let mut text = || {
        let text = std::str::from_utf8(texts.next()?).ok()?;
        // They come to people's terminals.
        (!text.contains(char::is_control)).then_some(text)
    };
    let named = |text: &&str| !text.is_empty();
    let provider = text().filter(named).ok_or(UsdtError::Names)?;
    let name = text().filter(named).ok_or(UsdtError::Names)?;
    let arguments = parse_arguments(text().ok_or(UsdtError::Names)?, NATIVE)
        .ok_or_else(|| UsdtError::Arguments(format!("{provider}:{name}")))?;
    Ok(Note { provider, name, location, base, semaphore, arguments })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Splits off `size` bytes and what fills them up to words; at the very end the filling may be left out.
fn padded(bytes: &[u8], size: u32) -> Result<(&[u8], &[u8]), UsdtError> {
    let size = usize::try_from(size).map_err(|_| UsdtError::CutOff)?;
    let (part, rest) = bytes.split_at_checked(size).ok_or(UsdtError::CutOff)?;
    let filling = size.next_multiple_of(4) - size;
    Ok((part, rest.get(filling..).unwrap_or_default()))
}

/// What an operand's text means, the bytes of it if that is less than a word, or nothing.
type ParseOperand = fn(&str) -> Option<(UsdtOperand, u8)>;

/// This machine's.
const NATIVE: ParseOperand = if cfg!(target_arch = "aarch64") { arm64_operand } else { x86_64_operand };

/// Parses a probe's arguments: `-4@%eax 8@8(%rsp)`. Nothing when there are too many.
fn parse_arguments(text: &str, operand: ParseOperand) -> Option<Vec<UsdtArgument>> {
    let mut arguments = Vec::new();
    let (mut depth, mut start) = (0_u32, None);
    // Spaces part arguments, but not within brackets: `8@[sp, 16]`.
    for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let space = character.is_ascii_whitespace() && (depth == 0 || at == text.len());
        match start {
            None if !space => start = Some(at),
            Some(from) if space => {
                if arguments.len() == MAX_ARGUMENTS {
                    return None;
                }
                arguments.push(parse_argument(text.get(from..at)?, operand));
                start = None;
            }
            _ => {}
        }
    }
    Some(arguments)
}

fn parse_argument(text: &str, operand: ParseOperand) -> UsdtArgument {
    // Without a size it is a word.
    let (prefix, rest) = text.split_once('@').unwrap_or(("8", text));
    let (signed, digits) = prefix.strip_prefix('-').map_or((false, prefix), |digits| (true, digits));
    let (floating, digits) = digits.strip_suffix('f').map_or((false, digits), |digits| (true, digits));
    let size = match digits {
        "1" => Some(1),
        "2" => Some(2),
        "4" => Some(4),
        "8" => Some(8),
        _ => None,
    };
    let understood = size.filter(|_| !floating).and_then(|size| Some((size, operand(rest)?)));
    match understood {
        Some((size, (UsdtOperand::Constant(value), _))) => {
            UsdtArgument { size, signed, operand: UsdtOperand::Constant(narrow(value, size, signed)) }
        }
        Some((size, (operand, most))) => UsdtArgument { size: size.min(most), signed, operand },
        None => UsdtArgument { size: size.unwrap_or(8), signed, operand: UsdtOperand::Unsupported(text.to_owned()) },
    }
}

/// The number that is left of `value` in `size` bytes.
fn narrow(value: i64, size: u8, signed: bool) -> i64 {
    let unused = 64 - 8 * u32::from(size);
    if signed { value << unused >> unused } else { (value.cast_unsigned() << unused >> unused).cast_signed() }
}

/// `%rdi`, `$5`, `-0x14(%rbp)`, `(%rax,%rbx,8)`.
fn x86_64_operand(text: &str) -> Option<(UsdtOperand, u8)> {
    if let Some(number) = text.strip_prefix('$') {
        return Some((UsdtOperand::Constant(sum(number)?), 8));
    }
    if let Some(name) = text.strip_prefix('%') {
        return x86_64::named(name).map(in_register);
    }
    let (offset, inner) = text.strip_suffix(')')?.split_once('(')?;
    if inner.trim() == "%rip" {
        return Some((symbol(offset.trim())?, 8));
    }
    let offset = if offset.trim().is_empty() { 0 } else { sum(offset)? };
    let mut parts = inner.split(',').map(str::trim);
    let whole = |text: &str| {
        let part = x86_64::named(text.strip_prefix('%')?)?;
        // Relative to an instruction that need not be the probe's own; half a register would need to be cut out first.
        (part.size == 8 && part.register.0 != INSTRUCTION_POINTER).then_some(part.register)
    };
    let (base, index, scale) = (parts.next()?, parts.next(), parts.next());
    if parts.next().is_some() {
        return None;
    }
    let scale = match scale {
        None | Some("1") => 1,
        Some("2") => 2,
        Some("4") => 4,
        Some("8") => 8,
        Some(_) => return None,
    };
    let (base, index) = match index {
        None => (whole(base)?, None),
        // `(,%rbx,1)`
        Some(index) if base.is_empty() && scale == 1 => (whole(index)?, None),
        Some(index) => (whole(base)?, Some((whole(index)?, scale))),
    };
    Some((UsdtOperand::Memory { base, index, offset }, 8))
}

/// `name`, `name+8`, `8+name`.
fn symbol(text: &str) -> Option<UsdtOperand> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
    let start = text.find(|c: char| is_part(c) && !c.is_ascii_digit())?;
    // `0x10` has a letter, and is not a name.
    if start > 0 && !text[..start].ends_with('+') {
        return None;
    }
    let end = text[start..].find(|c| !is_part(c)).map_or(text.len(), |len| start + len);
    let before = text[..start].strip_suffix('+').map_or(Some(0), sum)?;
    let after = if end == text.len() { 0 } else { sum(&text[end..])? };
    Some(UsdtOperand::Symbol { name: text[start..end].to_owned(), offset: before.wrapping_add(after) })
}

/// `x0`, `5`, `#5`, `[sp, 16]`, `[x0, x1, lsl 3]`.
fn arm64_operand(text: &str) -> Option<(UsdtOperand, u8)> {
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let mut parts = inner.split(',').map(str::trim);
        let whole = |text: &str| arm64::named(text).filter(|part| part.size == 8).map(|part| part.register);
        let (base, second, shift) = (whole(parts.next()?)?, parts.next(), parts.next());
        if parts.next().is_some() {
            return None;
        }
        let memory = |index, offset| Some((UsdtOperand::Memory { base, index, offset }, 8));
        let Some(second) = second else { return memory(None, 0) };
        if let Some(index) = whole(second) {
            let scale = match shift.map(|shift| shift.strip_prefix("lsl")).map(|shift| shift.and_then(immediate)) {
                None | Some(Some(0)) => 1,
                Some(Some(1)) => 2,
                Some(Some(2)) => 4,
                Some(Some(3)) => 8,
                Some(_) => return None,
            };
            return memory(Some((index, scale)), 0);
        }
        let offset = immediate(second)?;
        return if shift.is_none() { memory(None, offset) } else { None };
    }
    if matches!(text, "xzr" | "wzr") {
        return Some((UsdtOperand::Constant(0), 8));
    }
    match arm64::named(text) {
        Some(part) => Some(in_register(part)),
        None => Some((UsdtOperand::Constant(immediate(text)?), 8)),
    }
}

fn in_register(part: RegisterPart) -> (UsdtOperand, u8) {
    (UsdtOperand::Register { register: part.register, shift: part.shift }, part.size)
}

/// A number of arm64's: `5` or `#5`.
fn immediate(text: &str) -> Option<i64> {
    let text = text.trim();
    sum(text.strip_prefix('#').unwrap_or(text))
}

/// A number, or several that compilers leave to the assembler to add: `-0x14`, `8+16`.
fn sum(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut total = 0_i64;
    let mut first = true;
    while first || !rest.is_empty() {
        let negative = rest.starts_with('-');
        rest = match rest.strip_prefix(['+', '-']) {
            Some(rest) => rest,
            None if first => rest,
            None => return None,
        };
        let (number, after) = rest.split_at(rest.find(['+', '-']).unwrap_or(rest.len()));
        let value = match number.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok()?,
            None => number.parse().ok()?,
        };
        let value = value.cast_signed();
        total = total.wrapping_add(if negative { value.wrapping_neg() } else { value });
        (rest, first) = (after, false);
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(word: u16) -> UsdtOperand {
        UsdtOperand::Register { register: Register(word), shift: 0 }
    }

    fn memory(base: u16, index: Option<(u16, u8)>, offset: i64) -> UsdtOperand {
        UsdtOperand::Memory {
            base: Register(base),
            index: index.map(|(index, scale)| (Register(index), scale)),
            offset,
        }
    }

    fn at_symbol(name: &str, offset: i64) -> UsdtOperand {
        UsdtOperand::Symbol { name: name.to_owned(), offset }
    }

    fn unsupported(text: &str) -> UsdtOperand {
        UsdtOperand::Unsupported(text.to_owned())
    }

    fn check(operand: ParseOperand, cases: impl IntoIterator<Item = (&'static str, u8, bool, UsdtOperand)>) {
        for (text, size, signed, expected) in cases {
            let parsed = parse_arguments(text, operand).unwrap();
            assert_eq!(parsed, [UsdtArgument { size, signed, operand: expected }], "{text}");
        }
    }

    #[test]
    fn operands_of_x86_64() {
        check(
            x86_64_operand,
            [
                ("8@%rdi", 8, false, register(14)),
                ("%rdi", 8, false, register(14)),
                ("-4@%eax", 4, true, register(10)),
                ("-8@%eax", 4, true, register(10)),
                ("2@%r8d", 2, false, register(9)),
                ("1@%ah", 1, false, UsdtOperand::Register { register: Register(10), shift: 8 }),
                ("4@$5", 4, false, UsdtOperand::Constant(5)),
                ("-4@$-5", 4, true, UsdtOperand::Constant(-5)),
                ("4@$-1", 4, false, UsdtOperand::Constant(0xffff_ffff)),
                ("-4@$4294967295", 4, true, UsdtOperand::Constant(-1)),
                ("8@$18446744073709551615", 8, false, UsdtOperand::Constant(-1)),
                ("8@$0x10", 8, false, UsdtOperand::Constant(16)),
                ("-4@-0x14(%rbp)", 4, true, memory(4, None, -0x14)),
                ("8@8+16(%rsp)", 8, false, memory(19, None, 24)),
                ("8@-1+8-2(%rsp)", 8, false, memory(19, None, 5)),
                ("8@(%rax,%rbx,8)", 8, false, memory(10, Some((5, 8)), 0)),
                ("8@16(%rax,%rbx)", 8, false, memory(10, Some((5, 1)), 16)),
                ("8@16(%rax, %rbx, 4)", 8, false, memory(10, Some((5, 4)), 16)),
                ("8@16(,%rbx,1)", 8, false, memory(5, None, 16)),
                ("-4@sym(%rip)", 4, true, at_symbol("sym", 0)),
                ("8@sym+8(%rip)", 8, false, at_symbol("sym", 8)),
                ("1@8+.sym.1-4(%rip)", 1, false, at_symbol(".sym.1", 4)),
            ],
        );
        for text in [
            "8@8(%rip)",
            "8@0x8(%rip)",
            "8@sym@GOTPCREL(%rip)",
            "8@-sym(%rip)",
            "8@sym+other(%rip)",
            "8@(%rip)",
            "8@sym",
            "8@$sym",
            "8@%fs:8(%rax)",
            "8f@%xmm0",
            "-8f@%rdi",
            "8@%xmm0",
            "8@(%eax)",
            "8@(,%rbx,8)",
            "8@(%rax,%rbx,3)",
            "8@(%rax,%rbx,8,1)",
            "8@()",
            "8@",
            "8@$",
            "8@$--5",
            "8@$5+",
            "8@)(%rax",
        ] {
            check(x86_64_operand, [(text, 8, text.starts_with('-'), unsupported(text))]);
        }
        check(x86_64_operand, [("16@%rdi", 8, false, unsupported("16@%rdi")), ("@", 8, false, unsupported("@"))]);
    }

    #[test]
    fn a_symbol_is_seen_from_the_probe() {
        let argument = |offset| UsdtArgument { size: 4, signed: true, operand: at_symbol("sym", offset) };
        let placed = |offset, address| argument(offset).placed(0x1014, |_| address).operand;
        assert_eq!(placed(4, Some(0x3000)), memory(INSTRUCTION_POINTER, None, 0x3004 - 0x1014));
        assert_eq!(placed(0, Some(0x1000)), memory(INSTRUCTION_POINTER, None, -0x14));
        assert_eq!((placed(0, None), placed(-4, None)), (unsupported("sym(%rip)"), unsupported("sym-4(%rip)")));
    }

    #[test]
    fn operands_of_arm64() {
        check(
            arm64_operand,
            [
                ("8@x0", 8, false, register(0)),
                ("-4@w1", 4, true, register(1)),
                ("8@w1", 4, false, register(1)),
                ("8@sp", 8, false, register(31)),
                ("4@[sp, 16]", 4, false, memory(31, None, 16)),
                ("4@[sp,#16]", 4, false, memory(31, None, 16)),
                ("8@[x29, -8]", 8, false, memory(29, None, -8)),
                ("8@[x3]", 8, false, memory(3, None, 0)),
                ("8@[x3, x4]", 8, false, memory(3, Some((4, 1)), 0)),
                ("8@[x3, x4, lsl 3]", 8, false, memory(3, Some((4, 8)), 0)),
                ("8@[x3, x4, lsl #2]", 8, false, memory(3, Some((4, 4)), 0)),
                ("8@5", 8, false, UsdtOperand::Constant(5)),
                ("-4@-5", 4, true, UsdtOperand::Constant(-5)),
                ("8@#5", 8, false, UsdtOperand::Constant(5)),
                ("8@xzr", 8, false, UsdtOperand::Constant(0)),
            ],
        );
        for text in [
            "8@[x3, w4, sxtw 3]",
            "8@[x3, x4, lsl 4]",
            "8@[x3, x4, lsl]",
            "8@[x3, 8, lsl 3]",
            "8@[x3, :lo12:sym]",
            "8@[x3, 8]!",
            "8@[w3]",
            "8@[",
            "8@[]",
            "8@d0",
            "8@sym",
            "8f@d0",
        ] {
            check(arm64_operand, [(text, 8, false, unsupported(text))]);
        }
    }

    #[test]
    fn arguments_are_parted_by_spaces_outside_of_brackets() {
        let arguments = parse_arguments(" 8@x0  4@[sp, 16] -4@5 ", arm64_operand).unwrap();
        let operands: Vec<_> = arguments.into_iter().map(|argument| argument.operand).collect();
        assert_eq!(operands, [register(0), memory(31, None, 16), UsdtOperand::Constant(5)]);
        // Unbalanced: the rest is one argument.
        assert_eq!(parse_arguments("8@x0 8@[sp 8@x1", arm64_operand).unwrap().len(), 2);
        assert_eq!(parse_arguments("", arm64_operand), Some(vec![]));
        assert_eq!(parse_arguments(&"8@x0 ".repeat(MAX_ARGUMENTS), arm64_operand).unwrap().len(), MAX_ARGUMENTS);
        assert_eq!(parse_arguments(&"8@x0 ".repeat(MAX_ARGUMENTS + 1), arm64_operand), None);
    }

    fn a_note(owner: &[u8], kind: u32, texts: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [owner.len(), 24 + texts.len(), usize::try_from(kind).unwrap()] {
            bytes.extend_from_slice(&u32::try_from(word).unwrap().to_le_bytes());
        }
        bytes.extend_from_slice(owner);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        for address in [0x1234_u64, 0x2000, 0x3000] {
            bytes.extend_from_slice(&address.to_le_bytes());
        }
        bytes.extend_from_slice(texts);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn notes_have_names_addresses_and_arguments() {
        let mut bytes = a_note(b"stapsdt\0", 3, b"libc\0setjmp\08@$1 8@$2\0");
        bytes.extend(a_note(b"other\0", 3, b"x\0y\0\0"));
        bytes.extend(a_note(b"stapsdt\0", 4, b"x\0y\0\0"));
        bytes.extend(a_note(b"stapsdt\0", 3, b"libc\0longjmp\0\0"));
        let parsed = notes(&bytes).unwrap();
        let names: Vec<_> = parsed.iter().map(|note| (note.provider, note.name, note.arguments.len())).collect();
        assert_eq!(names, [("libc", "setjmp", 2), ("libc", "longjmp", 0)]);
        assert_eq!((parsed[0].location, parsed[0].base, parsed[0].semaphore), (0x1234, 0x2000, 0x3000));
        assert_eq!(notes(&[]), Ok(vec![]));
    }

    #[test]
    fn damaged_notes_are_refused() {
        let good = a_note(b"stapsdt\0", 3, b"libc\0setjmp\0\0");
        // Only what fills up the last word may be missing.
        for length in 1..12 + 8 + 24 + 13 {
            assert_eq!(notes(&good[..length]), Err(UsdtError::CutOff), "{length}");
        }
        for texts in [&b""[..], b"libc", b"libc\0", b"\0setjmp\0\0", b"libc\0set\x1bjmp\0\0", b"libc\0\xff\0\0"] {
            assert_eq!(notes(&a_note(b"stapsdt\0", 3, texts)), Err(UsdtError::Names), "{texts:?}");
        }
        let many = format!("libc\0setjmp\0{}\0", "1@1 ".repeat(MAX_ARGUMENTS + 1));
        let many = a_note(b"stapsdt\0", 3, many.as_bytes());
        assert_eq!(notes(&many), Err(UsdtError::Arguments("libc:setjmp".to_owned())));
        let short = [8_u32, 8, 3].map(u32::to_le_bytes).concat();
        assert_eq!(notes(&[&short[..], b"stapsdt\0", &[0; 8]].concat()), Err(UsdtError::CutOff));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_notes_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = notes(&bytes);
        }

        #[test]
        fn any_description_is_a_note_or_refused(texts in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let _ = notes(&a_note(b"stapsdt\0", 3, &texts));
        }

        /// Every argument is understood or kept; sizes are those of numbers.
        #[test]
        fn any_text_is_arguments(
            text in "(-?[0-9]{1,2}f?@)?([$%#]?(rax|r9d|ah|x1|w30|sp|rip)?|[-+0-9x#$]{0,22})?[(\\[]?[%a-z0-9, ]{0,16}[)\\]]?|.{0,40}"
        ) {
            for operand in [x86_64_operand as ParseOperand, arm64_operand] {
                for argument in parse_arguments(&text, operand).unwrap_or_default() {
                    assert!(matches!(argument.size, 1 | 2 | 4 | 8), "{argument:?}");
                }
            }
        }
    }
}
