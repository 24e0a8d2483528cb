//! `.relayd/kallsyms`: where the kernel's functions were while a trace was recorded.
//!
//! The lines are `/proc/kallsyms`' own, of functions alone, and what comes after the last of several functions, so that their ends are known
//! too. `docs/format.md` has the form.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::folder::Folder;

/// Its name in the trace's own folder.
pub const FILE: &str = "kallsyms";

/// The most bytes that it can have: a kernel with all its modules takes a quarter of that.
const LONGEST: u64 = 64 << 20;

/// The file of a trace; `None` when it has not kept one.
///
/// # Errors
/// When it cannot be read.
pub fn read(folder: &Folder) -> Result<Option<String>> {
    let text = folder.read(FILE, LONGEST).with_context(|| format!("reading {}", folder.path().join(FILE).display()))?;
    Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
}

/// Symbols at which text ends.
const ENDS: [&str; 2] = ["_etext", "_einittext"];
/// No function is longer: what is farther from the last symbol is something that has none.
const MAX_FUNCTION: u64 = 1 << 20;

/// A line of `kallsyms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'a> {
    address: u64,
    /// A function, or a place in one.
    is_text: bool,
    name: &'a str,
    module: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        let module = match words.next() {
            Some(word) => Some(word.strip_prefix('[')?.strip_suffix(']')?),
            None => None,
        };
        if words.next().is_some() || kind.len() != 1 || name.contains(char::is_control) {
            return None;
        }
        let is_text = matches!(kind, "t" | "T" | "w" | "W") && !ENDS.contains(&name);
        Some(Self { address: u64::from_str_radix(address, 16).ok()?, is_text, name, module })
    }
}

/// The lines of `/proc/kallsyms` that are kept, by address; nothing when the kernel hides its addresses.
#[must_use]
pub fn excerpt(kallsyms: &str) -> Option<String> {
    let mut lines: Vec<(Line<'_>, &str)> =
        kallsyms.lines().filter_map(|line| Some((Line::parse(line)?, line))).collect();
    // Of several names of one place the kernel has the best one first: that stays.
    lines.sort_by_key(|(line, _)| line.address);
    if lines.last().is_none_or(|(line, _)| line.address == 0) {
        return None;
    }
    let mut text = String::new();
    let mut in_text = false;
    for place in lines.chunk_by(|a, b| a.0.address == b.0.address) {
        let has_text = place.iter().any(|(line, _)| line.is_text);
        let kept: &mut dyn Iterator<Item = &(Line<'_>, &str)> =
            if has_text { &mut place.iter().filter(|(line, _)| line.is_text) } else { &mut place.iter().take(1) };
        for (_, line) in kept.filter(|_| has_text || in_text) {
            text.push_str(line);
            text.push('\n');
        }
        in_text = has_text;
    }
    Some(text)
}

/// One excerpt with what a later one has at other places: modules that were loaded in between.
#[must_use]
pub fn merge(first: &str, later: &str) -> String {
    let parsed = first.lines().filter_map(Line::parse);
    let known: BTreeSet<u64> = parsed.filter(|line| line.is_text).map(|line| line.address).collect();
    let is_new = |line: &&str| Line::parse(line).is_some_and(|line| !known.contains(&line.address));
    let new: String = later.lines().filter(is_new).flat_map(|line| [line, "\n"]).collect();
    excerpt(&(first.to_owned() + &new)).unwrap_or_default()
}

/// A place in a function of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSymbol {
    /// The function.
    pub name: String,
    /// How far after its beginning.
    pub offset: u64,
    /// The module that has it.
    pub module: Option<String>,
}

/// The file's contents, to look addresses up.
#[derive(Debug, Default)]
pub struct Kallsyms {
    text: String,
    /// Address, and where in the text its line begins; sorted.
    places: Vec<(u64, u32)>,
    /// Lines that are not symbols.
    skipped: usize,
}

impl Kallsyms {
    /// Takes the text apart. What is not understood is left out and counted. A text of 4 GiB or more is cut off.
    #[must_use]
    pub fn parse(text: String) -> Self {
        let (mut places, mut skipped, mut at) = (Vec::new(), 0, 0);
        for line in text.split_inclusive('\n') {
            match (Line::parse(line), u32::try_from(at)) {
                (Some(symbol), Ok(at)) => places.push((symbol.address, at)),
                _ => skipped += 1,
            }
            at += line.len();
        }
        places.sort_by_key(|(address, _)| *address);
        Self { text, places, skipped }
    }

    /// How many lines are not symbols.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The function that has an address.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<KernelSymbol> {
        let after = self.places.partition_point(|(begin, _)| *begin <= address);
        let (begin, _) = *self.places.get(after.checked_sub(1)?)?;
        let offset = address.checked_sub(begin).filter(|offset| *offset < MAX_FUNCTION)?;
        let first = self.places.partition_point(|(other, _)| *other < begin);
        let mut lines = self.places.get(first..after)?.iter().filter_map(|(_, at)| {
            let rest = self.text.get(usize::try_from(*at).ok()?..)?;
            Line::parse(rest.lines().next()?)
        });
        let symbol = lines.find(|line| line.is_text)?;
        Some(KernelSymbol { name: symbol.name.to_owned(), offset, module: symbol.module.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _stext\nffffffff81000000 T _text\n\
        ffffffff81000010 t vfs_read\nffffffff81000080 T _etext\nffffffff82000000 R rodata\nffffffff82000010 D data\n\
        ffffffffc0000000 t nf_hook\t[nf_tables]\nffffffffc0001000 d nf_data\t[nf_tables]\nffffffffc0001008 d nf_more\t[nf_tables]\n";

    fn found(kallsyms: &Kallsyms, address: u64) -> String {
        kallsyms.find(address).map_or_else(
            || "-".to_owned(),
            |symbol| format!("{}+{:#x} {}", symbol.name, symbol.offset, symbol.module.unwrap_or_default()),
        )
    }

    #[test]
    fn functions_and_their_ends_are_kept() {
        let excerpt = excerpt(KALLSYMS).unwrap();
        let names: Vec<_> = excerpt.lines().map(|line| line.split_ascii_whitespace().nth(2).unwrap()).collect();
        assert_eq!(names, ["_stext", "_text", "vfs_read", "_etext", "nf_hook", "nf_data"]);
        let kallsyms = Kallsyms::parse(excerpt);
        assert_eq!((kallsyms.places.len(), kallsyms.skipped()), (6, 0));
        assert_eq!(found(&kallsyms, 0xffff_ffff_8100_0008), "_stext+0x8 ");
        assert_eq!(found(&kallsyms, 0xffff_ffff_8100_0010), "vfs_read+0x0 ");
        assert_eq!(found(&kallsyms, 0xffff_ffff_c000_0fff), "nf_hook+0xfff nf_tables");
        for nowhere in [0, 0x1000, 0xffff_ffff_80ff_ffff, 0xffff_ffff_8100_0080, 0xffff_ffff_c000_1000, u64::MAX] {
            assert_eq!(found(&kallsyms, nowhere), "-", "{nowhere:#x}");
        }
    }

    #[test]
    fn hidden_addresses_are_no_addresses() {
        assert_eq!(excerpt("0000000000000000 T vfs_read\n0000000000000000 t other\n"), None);
        assert_eq!(excerpt(""), None);
    }

    #[test]
    fn modules_that_come_later_are_added() {
        let first = excerpt(KALLSYMS).unwrap();
        let later =
            "ffffffffc0000000 t other\t[other]\nffffffffc0002000 t late\t[late]\nffffffffc0003000 b end\t[late]\n";
        let both = Kallsyms::parse(merge(&first, later));
        assert_eq!(found(&both, 0xffff_ffff_c000_0001), "nf_hook+0x1 nf_tables");
        assert_eq!(found(&both, 0xffff_ffff_c000_2001), "late+0x1 late");
        assert_eq!(found(&both, 0xffff_ffff_c000_3000), "-");
        assert_eq!(merge(&first, &first), first);
    }

    #[test]
    fn what_is_no_symbol_is_skipped() {
        let text = "ffffffff81000000 T good\n\nxyz T bad\nffffffff81000001 T\nffffffff81000001 TT bad\n\
                    ffffffff81000002 T bad\x1b[31m\nffffffff81000003 T bad module\nfffffffff81000003 T bad\n\u{e9}\u{e9}\u{e9}";
        let kallsyms = Kallsyms::parse(text.to_owned());
        assert_eq!((kallsyms.places.len(), kallsyms.skipped()), (1, 8));
        assert_eq!(found(&kallsyms, 0xffff_ffff_8100_0009), "good+0x9 ");
        assert!(Kallsyms::parse(String::new()).places.is_empty());
    }
}
