//! A stack in one line: the functions, outermost first.

use super::text::{kernel_frames, may_go_on, user_frames};
use crate::read::symbolize::Symbols;

/// The functions of a stack as they lie in a record, outermost first, separated by `;`.
#[must_use]
pub fn folded(kernel: &[u8], (process, user): (u32, &[u8]), symbols: &mut Symbols) -> String {
    let frames = kernel_frames(kernel).chain(user_frames(process, user));
    let mut functions: Vec<String> = frames.map(|frame| function(&frame.name(symbols))).collect();
    // As if it were the outermost: what called the others is not known.
    if may_go_on(user_frames(process, user).count()) {
        functions.push("[cut]".to_owned());
    }
    functions.reverse();
    functions.join(";")
}

/// A frame without its offset: calls from one function are one.
fn function(frame: &str) -> String {
    match frame.rsplit_once("+0x") {
        Some((function, rest)) => {
            let module = rest.split_once(' ').map_or("", |(_, module)| module);
            clean(&if module.starts_with('[') { format!("{function} {module}") } else { function.to_owned() })
        }
        None => clean(frame),
    }
}

/// What separates frames and lines cannot be in one.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c == ';' || c.is_control() { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_functions() {
        for (frame, expected) in [
            ("vfs_read+0x8", "vfs_read"),
            ("hook+0x1 [nf]", "hook [nf]"),
            ("operator+(a;b)+0x10 (/usr/bin/x)", "operator+(a_b)"),
            ("0x12 (no file)", "0x12 (no file)"),
        ] {
            assert_eq!(function(frame), expected);
        }
    }
}
