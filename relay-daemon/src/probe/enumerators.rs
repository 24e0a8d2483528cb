//! Names of enumerators in the kernel's descriptions of tracepoints: a reader elsewhere does not know their values, so they are replaced.

use std::collections::HashMap;

use crate::btf::Btf;

/// The values of the enumerators that have the same one everywhere.
#[derive(Debug)]
pub(super) struct Enumerators(HashMap<String, Option<i64>>);

/// What stands in print formats and is not an enumerator.
const WORDS: [&str; 40] = [
    "REC", "bool", "char", "const", "dev_t", "gfp_t", "int", "int16_t", "int32_t", "int64_t", "int8_t", "loff_t",
    "long", "s16", "s32", "s64", "s8", "sector_t", "short", "signed", "size_t", "sizeof", "ssize_t", "struct", "u16",
    "u32", "u64", "u8", "uint16_t", "uint32_t", "uint64_t", "uint8_t", "unsigned", "void", "__u8", "__u16", "__u32",
    "__u64", "__le32", "__le16",
];

impl Enumerators {
    pub(super) fn of(kernel: &Btf) -> Self {
        let mut values: HashMap<String, Option<i64>> = HashMap::new();
        for (name, value) in kernel.ids().flat_map(|id| kernel.enumerators(id)) {
            values
                .entry(name.to_owned())
                .and_modify(|known| *known = known.filter(|known| *known == value))
                .or_insert(Some(value));
        }
        Self(values)
    }

    /// A `format` file with values in place of the names that are known.
    pub(super) fn replace(&self, format: &str) -> String {
        let mut replaced = String::with_capacity(format.len());
        let mut end = 0;
        for name in names(format) {
            let Some(Some(value)) = self.0.get(&format[name.clone()]) else { continue };
            replaced += &format[end..name.start];
            // Between parentheses, for what stands before it.
            replaced += &if *value < 0 { format!("({value})") } else { value.to_string() };
            end = name.end;
        }
        replaced + &format[end..]
    }
}

/// Whether a `format` file has names that may be enumerators'.
pub(super) fn has_names(format: &str) -> bool {
    names(format).next().is_some()
}

/// Where names stand in a print format: outside of texts, and neither fields nor functions.
fn names(format: &str) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut at = format.find("print fmt:").map_or(format.len(), |at| at + "print fmt:".len());
    std::iter::from_fn(move || {
        loop {
            let rest = &format[at..];
            let first = rest.chars().next()?;
            if first == '"' {
                at += text_len(rest);
            } else if first.is_ascii_alphanumeric() || first == '_' {
                let len = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                let name = at..at + len;
                at += len;
                let is_field = format[..name.start].trim_end().ends_with("->");
                let is_function = format[at..].trim_start().starts_with('(');
                let word = &format[name.clone()];
                if !first.is_ascii_digit() && !is_field && !is_function && !WORDS.contains(&word) {
                    return Some(name);
                }
            } else {
                at += first.len_utf8();
            }
        }
    })
}

/// Bytes of the text between quotes that begins here.
fn text_len(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_and_nothing_else_does() {
        let known = [("A", Some(3)), ("MINUS", Some(-1)), ("TWICE", None), ("x", Some(9)), ("f", Some(8))];
        let known = Enumerators(known.map(|(name, value)| (name.to_owned(), value)).into());
        let format = "field:int x;\nprint fmt: \"A %s \\\" A\", f(REC->x), { A, \"A\" }, { MINUS, \"M\" }, { TWICE , \"T\" }, A|B, 0xA";
        let replaced = format.replace("{ A,", "{ 3,").replace("MINUS", "(-1)").replace("A|B", "3|B");
        assert_eq!(known.replace(format), replaced);
        assert!(has_names(format));
        assert!(!has_names("field:int A;\nprint fmt: \"A=%d\", (unsigned long)REC->A"));
        assert_eq!(known.replace("no print format A"), "no print format A");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "(print fmt:)?[ -~é\n]{0,60}") {
            let nothing = Enumerators(HashMap::new());
            assert_eq!(nothing.replace(&text), text);
        }
    }
}
