//! Texts of a trace, the kernel or the file system as they can be shown: nothing in them is obeyed by a terminal, or taken for something else.

use std::{fmt::Write as _, io::Write as _};

/// Appends a text: what is not a text, and what a terminal would obey, as `\xNN` (and `\u{N}` beyond the first 256).
pub fn push_escaped(text: &mut Vec<u8>, of: &[u8]) {
    if of.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        text.extend_from_slice(of);
        return;
    }
    for chunk in of.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_obeyed(c) {
                // Writing to a Vec cannot fail.
                let _ = if u32::from(c) < 0x100 {
                    write!(text, "\\x{:02x}", u32::from(c))
                } else {
                    write!(text, "\\u{{{:x}}}", u32::from(c))
                };
            } else {
                text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
}

/// How XML and HTML write a character that could begin or end an element or an attribute.
pub(crate) fn entity(c: char) -> Option<&'static str> {
    Some(match c {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '"' => "&quot;",
        _ => return None,
    })
}

/// Appends a value: escaped, and between quotes where it has what stands between fields, so that none can be forged.
pub fn push_quoted(text: &mut Vec<u8>, of: &[u8]) {
    let is_plain = |byte: &u8| !matches!(byte, b' ' | b'"' | b'=' | b'\\');
    if !of.is_empty() && of.iter().all(is_plain) {
        push_escaped(text, of);
        return;
    }
    push_in_quotes(text, of);
}

/// A text in quotes, escaped.
pub fn push_in_quotes(text: &mut Vec<u8>, of: &[u8]) {
    text.push(b'"');
    for part in of.split_inclusive(|byte| matches!(byte, b'"' | b'\\')) {
        match part {
            [before @ .., special @ (b'"' | b'\\')] => {
                push_escaped(text, before);
                text.extend([b'\\', *special]);
            }
            _ => push_escaped(text, part),
        }
    }
    text.push(b'"');
}

/// A text, escaped.
#[must_use]
pub fn escaped(of: &str) -> String {
    let mut text = Vec::new();
    push_escaped(&mut text, of.as_bytes());
    String::from_utf8_lossy(&text).into_owned()
}

/// Lines of a message, escaped but for their ends.
#[must_use]
pub fn escaped_lines(of: &str) -> String {
    let mut lines = String::with_capacity(of.len());
    for (index, line) in of.split('\n').enumerate() {
        let _ = write!(lines, "{}{}", if index > 0 { "\n" } else { "" }, escaped(line));
    }
    lines
}

/// Controls, and what turns the direction of writing round.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(of: &[u8]) -> String {
        let mut text = Vec::new();
        push_quoted(&mut text, of);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        assert_eq!(escaped("a\x1b[31m\u{9b}b\u{7f}\n"), "a\\x1b[31m\\x9bb\\x7f\\x0a");
        assert_eq!(escaped("grün \u{202e}nredluos"), "grün \\u{202e}nredluos");
        assert_eq!(escaped_lines("a\x07\nb"), "a\\x07\nb");
    }

    #[test]
    fn no_field_can_be_forged() {
        assert_eq!(quoted(b"/etc/passwd"), "/etc/passwd");
        assert_eq!(quoted(b"x ret=0"), "\"x ret=0\"");
        assert_eq!(quoted(b"say \"hi\" \\"), "\"say \\\"hi\\\" \\\\\"");
        assert_eq!(quoted(b""), "\"\"");
        assert_eq!(quoted(b"a\nb"), "a\\x0ab");
        assert_eq!(quoted(b"\xff b"), "\"\\xff b\"");
    }
}
