//! Programs of a few instructions, without a compiler (elf(5)).

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// The address of a program's start.
pub const BASE: u64 = 0x40_0000;
/// The place of the first instruction, after the headers, in bytes.
pub const CODE_AT: u64 = 0x40 + 0x38;

/// The image of a program: its headers, one segment that is read and executed, and the instructions. `sections` are the place and the number of the
/// headers of sections that the caller adds, of which the last is of their names; zeros for none.
#[must_use]
pub fn image(machine: u16, code: &[u8], sections: (u64, u16)) -> Vec<u8> {
    let (sections_at, count) = (sections.0, u64::from(sections.1));
    let mut image = Vec::new();
    let mut put =
        |values: &[(u64, usize)]| values.iter().for_each(|(value, len)| image.extend(&value.to_le_bytes()[..*len]));
    put(&[(0x0001_0102_464c_457f, 8), (0, 8), (2, 2), (machine.into(), 2), (1, 4), (BASE + CODE_AT, 8), (0x40, 8)]);
    put(&[(sections_at, 8), (0, 4), (0x40, 2), (0x38, 2), (1, 2), (0x40, 2), (count, 2), (count.saturating_sub(1), 2)]);
    let len = CODE_AT + code.len() as u64;
    put(&[(1, 4), (5, 4), (0, 8), (BASE, 8), (BASE, 8), (len, 8), (len, 8), (0x1000, 8)]);
    image.extend(code);
    image
}

/// The place of the first instruction of a program of 32 bits, in bytes.
pub const CODE_32_AT: u64 = 0x34 + 0x20;

/// The image of a program of 32 bits for x86: its headers, one segment that is read and executed, and the instructions.
#[must_use]
pub fn image_32(code: &[u8]) -> Vec<u8> {
    let mut image = Vec::new();
    let mut put =
        |values: &[(u64, usize)]| values.iter().for_each(|(value, len)| image.extend(&value.to_le_bytes()[..*len]));
    put(&[
        (0x0001_0101_464c_457f, 8),
        (0, 8),
        (2, 2),
        (3, 2),
        (1, 4),
        (BASE + CODE_32_AT, 4),
        (0x34, 4),
        (0, 4),
        (0, 4),
    ]);
    put(&[(0x34, 2), (0x20, 2), (1, 2), (0x28, 2), (0, 2), (0, 2)]);
    let len = CODE_32_AT + code.len() as u64;
    put(&[(1, 4), (0, 4), (BASE, 4), (BASE, 4), (len, 4), (len, 4), (5, 4), (0x1000, 4)]);
    image.extend(code);
    image
}

/// Writes an image as a program that can be run.
///
/// # Panics
/// When it cannot be written.
pub fn write_program(path: &Path, image: &[u8]) {
    fs::write(path, image).expect("a place for the program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the right to run it");
}
