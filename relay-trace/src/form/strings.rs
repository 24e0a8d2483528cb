//! `.relayd/printk_formats`: the constant texts of the kernel that records point to.
//!
//! The lines are those of tracefs' file of this name. `docs/format.md` has the form.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context as _, Result};

use super::folder::Folder;

/// Its name in the trace's own folder.
pub const FILE: &str = "printk_formats";

/// The most bytes that it can have: a kernel has a few hundred such texts.
const LONGEST: u64 = 16 << 20;

/// The file of a trace; `None` when it has not kept one.
///
/// # Errors
/// When it cannot be read.
pub fn read(folder: &Folder) -> Result<Option<String>> {
    let text = folder.read(FILE, LONGEST).with_context(|| format!("reading {}", folder.path().join(FILE).display()))?;
    Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
}

/// The lines of one reading, and of a later one what is new: of modules that were loaded in between.
#[must_use]
pub fn merge(first: &str, later: &str) -> String {
    let mut known = BTreeSet::new();
    let lines = first.lines().chain(later.lines()).filter(|line| known.insert(*line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The texts by their addresses. Lines that are not understood are left out.
#[must_use]
pub fn parse(text: &str) -> HashMap<u64, String> {
    let line = |line: &str| {
        let (address, text) = line.split_once(" : ")?;
        let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        Some((address, unescaped(text.strip_prefix('"')?.strip_suffix('"')?)))
    };
    text.lines().filter_map(line).collect()
}

/// A text of which kernel/trace/trace_printk.c, `t_show`, has escaped four characters.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                other => plain.extend(other),
            },
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_by_their_address() {
        let text =
            "0xffffffff8281972f : \"thaw_processes\"\nnonsense\n0x10 : \"a \\\"b\\\"\\\\n\\n\"\n0x : \"c\"\n0x11 : \"d";
        let strings = parse(text);
        assert_eq!(strings.len(), 2, "{strings:?}");
        assert_eq!(strings[&0xffff_ffff_8281_972f], "thaw_processes");
        assert_eq!(strings[&0x10], "a \"b\"\\n\n");
    }

    #[test]
    fn texts_of_modules_that_come_and_go_stay() {
        let both = merge("0x1 : \"a\"\n0x2 : \"b\"\n", "0x1 : \"a\"\n0x3 : \"c\"\n");
        assert_eq!(both, "0x1 : \"a\"\n0x2 : \"b\"\n0x3 : \"c\"\n");
    }
}
