//! Parses a tracepoint's `format` file: which fields it has, where they lie, and what they are.
//!
//! The files are the kernel's, but dynamic events can put nearly anything into them: what cannot be described field by field
//! is described as bytes, and nothing here panics on any input.

use std::{fmt::Write as _, ops::Range};

use relay_common::trace::{COMMON_FIELDS, MAX_PAYLOAD};

/// A tracepoint's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its id in this boot of this kernel.
    pub id: u64,
    /// Its fields, common ones left out, in the order of memory.
    pub fields: Vec<Field>,
}

/// One field of a tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its bytes in the context.
    pub bytes: Range<usize>,
    /// What they are.
    pub kind: FieldKind,
    /// Their type, as C spells it, without the brackets of an array.
    pub c_type: String,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// An integer as wide as the field.
    Integer(Element),
    /// As many elements as fit.
    Array(Element),
    /// A location word; the elements are after the fixed part, in the order of the location words.
    Dynamic {
        /// What is there.
        element: Element,
        /// The offset counts from the end of the location word.
        relative: bool,
    },
}

/// One element of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// Bytes: 1, 2, 4 or 8.
    pub size: usize,
    /// Whether it is a signed number.
    pub signed: bool,
    /// How people read it.
    pub display: Display,
}

/// How people read an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// As a decimal number.
    Decimal,
    /// As an address.
    Hexadecimal,
    /// As a character of a text.
    Text,
    /// As a character of one of several texts, each ended by a NUL.
    Texts,
}

/// The type of elements of [`Display::Texts`].
pub const TEXTS: &str = "strv";

/// Why a format was not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FormatError {
    /// There is no `ID:` line.
    #[error("no ID line")]
    NoId,
    /// A field line is not of the known form.
    #[error("a field line that is not understood: {0:?}")]
    Field(String),
    /// The layout cannot be recorded: it is longer than a perf buffer.
    #[error("{0} bytes of fields are more than a tracepoint can have")]
    TooLong(usize),
}

/// Bytes of the common fields at the start, which records leave out.
#[expect(clippy::cast_possible_truncation, reason = "a few bytes")]
pub const COMMON: usize = COMMON_FIELDS as usize;
/// Most bytes of a layout.
#[expect(clippy::cast_possible_truncation, reason = "a few thousand bytes")]
const MAX: usize = MAX_PAYLOAD as usize;

impl Format {
    /// Parses a `format` file.
    ///
    /// # Errors
    /// What is not understood.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let id = text.lines().find_map(|line| line.strip_prefix("ID:")?.trim().parse().ok());
        let mut fields = Vec::new();
        for line in text.lines().filter(|line| line.trim_start().starts_with("field:")) {
            let field = parse_field(line).ok_or_else(|| FormatError::Field(line.trim().to_owned()))?;
            // A length of zero: an array at the end of an entry that perf never passes on.
            if field.bytes.start >= COMMON && !field.bytes.is_empty() {
                fields.push(field);
            }
        }
        fields.sort_by_key(|field| field.bytes.start);
        let format = Self { id: id.ok_or(FormatError::NoId)?, fields };
        if format.size() > MAX {
            return Err(FormatError::TooLong(format.size()));
        }
        Ok(format)
    }

    /// The format's text, as the kernel would write it.
    #[must_use]
    pub fn describe(&self, name: &str) -> String {
        let mut text = format!("name: {name}\nID: {}\nformat:\n", self.id);
        for field in &self.fields {
            let Field { name, bytes, c_type, kind } = field;
            let (declaration, signed) = match kind {
                FieldKind::Integer(element) => (format!("{c_type} {name}"), element.signed),
                FieldKind::Array(element) => {
                    (format!("{c_type} {name}[{}]", bytes.len() / element.size), element.signed)
                }
                FieldKind::Dynamic { element, relative: false } => {
                    (format!("__data_loc {c_type}[] {name}"), element.signed)
                }
                FieldKind::Dynamic { element, relative: true } => {
                    (format!("__rel_loc {c_type}[] {name}"), element.signed)
                }
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "\tfield:{declaration};\toffset:{};\tsize:{};\tsigned:{};",
                bytes.start,
                bytes.len(),
                u8::from(signed)
            );
        }
        text
    }

    /// Bytes of the fixed part, common fields included: where dynamic data begin.
    #[must_use]
    pub fn size(&self) -> usize {
        self.fields.iter().map(|field| field.bytes.end).max().unwrap_or(COMMON)
    }

    /// Bytes of a record's payload before its dynamic data.
    #[must_use]
    pub fn payload_size(&self) -> usize {
        self.size() - COMMON
    }
}

/// The dynamic fields in the order of their data: what each has, and whether its offset counts from the end of its location word.
pub fn dynamic(fields: &[Field]) -> impl DoubleEndedIterator<Item = (&Field, Element, bool)> {
    fields.iter().filter_map(|field| match field.kind {
        FieldKind::Dynamic { element, relative } => Some((field, element, relative)),
        FieldKind::Integer(_) | FieldKind::Array(_) => None,
    })
}

/// Parses `field:__data_loc char[] name; offset:8; size:4; signed:0;`.
fn parse_field(line: &str) -> Option<Field> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declaration = parts.next()?.strip_prefix("field:")?.trim();
    let (mut offset, mut size, mut signed) = (None, None, None);
    for part in parts.filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once(':')?;
        let value: usize = value.trim().parse().ok()?;
        match key {
            "offset" => offset = Some(value),
            "size" => size = Some(value),
            "signed" => signed = Some(value != 0),
            _ => {}
        }
    }
    let (start, size, signed) = (offset?, size?, signed?);
    let bytes = start..start.checked_add(size).filter(|end| *end <= usize::from(u16::MAX))?;
    let (name, c_type, kind) = parse_declaration(declaration, size, signed)?;
    is_identifier(&name).then_some(Field { name, bytes, kind, c_type })
}

/// Whether a field can have the name: it becomes one in the metadata.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn parse_declaration(declaration: &str, size: usize, signed: bool) -> Option<(String, String, FieldKind)> {
    for (prefix, relative) in [("__data_loc ", false), ("__rel_loc ", true)] {
        if let Some(rest) = declaration.strip_prefix(prefix) {
            // `char[] name`
            let (of, name) = rest.rsplit_once(' ')?;
            let of = of.trim().trim_end_matches("[]").trim();
            let element = element(of, c_size(of).unwrap_or(1), signed);
            return (size == 4).then(|| (name.to_owned(), of.to_owned(), FieldKind::Dynamic { element, relative }));
        }
    }
    // `unsigned long args[6]`, `char comm[16]`, `struct page * page`, `u8 addr[IFHWADDRLEN]`
    let (declarator, count) = match declaration.split_once('[') {
        Some((before, after)) => (before.trim(), Some(after.split(']').next()?.trim())),
        None => (declaration, None),
    };
    let at = declarator.rfind([' ', '*']).map_or(0, |at| at + 1);
    let (of, name) = (declarator[..at].trim(), declarator[at..].trim());
    let kind = match count {
        None if is_integer(size) => {
            let display = if of.contains('*') { Display::Hexadecimal } else { Display::Decimal };
            FieldKind::Integer(Element { size, signed: signed && display == Display::Decimal, display })
        }
        // A structure, or a length that no integer has.
        None => FieldKind::Array(element("", 1, false)),
        Some(count) => {
            let width = count
                .parse()
                .ok()
                .filter(|count| *count > 0 && size.is_multiple_of(*count))
                .map(|count: usize| size / count);
            let width = width.or(c_size(of)).filter(|width| is_integer(*width) && size.is_multiple_of(*width));
            FieldKind::Array(width.map_or(element("", 1, false), |width| element(of, width, signed)))
        }
    };
    Some((name.to_owned(), of.to_owned(), kind))
}

fn element(of: &str, size: usize, signed: bool) -> Element {
    let words = || of.split_whitespace();
    let display = if size == 1 && of == TEXTS {
        Display::Texts
    } else if size == 1 && words().any(|word| word == "char") && !words().any(|word| word == "unsigned") {
        Display::Text
    } else if of.contains('*') {
        Display::Hexadecimal
    } else {
        Display::Decimal
    };
    // A character is signed where `char` is; as a part of a text it is a byte.
    Element { size, signed: signed && display == Display::Decimal, display }
}

fn is_integer(size: usize) -> bool {
    matches!(size, 1 | 2 | 4 | 8)
}

/// Bytes of the C types that tracepoints make arrays of.
fn c_size(of: &str) -> Option<usize> {
    let of = of.strip_prefix("const ").unwrap_or(of).trim();
    Some(match of {
        "char" | "unsigned char" | "signed char" | "u8" | "s8" | "__u8" | "__s8" | "uint8_t" | "bool" => 1,
        "short" | "unsigned short" | "u16" | "s16" | "__u16" | "__s16" | "uint16_t" | "__le16" | "__be16" => 2,
        "int" | "unsigned int" | "unsigned" | "u32" | "s32" | "__u32" | "__s32" | "uint32_t" | "__le32" | "__be32" => 4,
        "long long" | "unsigned long long" | "u64" | "s64" | "__u64" | "__s64" | "uint64_t" | "__le64" | "__be64" => 8,
        "long" | "unsigned long" | "size_t" | "ssize_t" => size_of::<usize>(),
        _ if of.ends_with('*') => size_of::<usize>(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXEC: &str = "name: sched_process_exec\nID: 314\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;\n\n\
        print fmt: \"filename=%s\", __get_str(filename)\n";

    fn kind(line: &str) -> FieldKind {
        parse_field(line).unwrap().kind
    }

    #[test]
    fn a_format_file_gives_id_and_fields_without_the_common_ones() {
        let format = Format::parse(EXEC).unwrap();
        assert_eq!((format.id, format.size()), (314, 16));
        let names: Vec<_> = format.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["filename", "pid"]);
        let text = Element { size: 1, signed: false, display: Display::Text };
        assert_eq!(format.fields[0].kind, FieldKind::Dynamic { element: text, relative: false });
    }

    #[test]
    fn arrays_have_elements_of_the_declared_count() {
        let long = Element { size: 8, signed: false, display: Display::Decimal };
        assert_eq!(kind("field:unsigned long args[6]; offset:16; size:48; signed:0;"), FieldKind::Array(long));
        let text = Element { size: 1, signed: false, display: Display::Text };
        assert_eq!(kind("field:char comm[16]; offset:8; size:16; signed:0;"), FieldKind::Array(text));
        // The count is a macro's name: the type says it.
        let byte = Element { size: 1, signed: false, display: Display::Decimal };
        assert_eq!(kind("field:u8 mac[ETH_ALEN]; offset:8; size:6; signed:0;"), FieldKind::Array(byte));
    }

    #[test]
    fn pointers_are_addresses_and_structures_are_bytes() {
        let address = Element { size: 8, signed: false, display: Display::Hexadecimal };
        assert_eq!(kind("field:const void * skb; offset:8; size:8; signed:0;"), FieldKind::Integer(address));
        assert_eq!(kind("field:void *skb; offset:8; size:8; signed:0;"), FieldKind::Integer(address));
        let byte = Element { size: 1, signed: false, display: Display::Decimal };
        assert_eq!(kind("field:struct in6_addr addr; offset:8; size:16; signed:0;"), FieldKind::Array(byte));
    }

    #[test]
    fn what_is_not_a_format_is_refused_and_never_panics() {
        assert_eq!(Format::parse(""), Err(FormatError::NoId));
        for line in [
            "field:",
            "field:int x;",
            "field:int x; offset:a; size:4; signed:0;",
            "field:x[; offset:8; size:1; signed:0;",
        ] {
            let text = format!("ID: 1\n\t{line}\n");
            assert!(Format::parse(&text).is_err() || Format::parse(&text).is_ok_and(|f| f.fields.len() <= 1), "{line}");
        }
        let huge = "ID: 1\n\tfield:char x[9000]; offset:8; size:9000; signed:0;\n";
        assert_eq!(Format::parse(huge), Err(FormatError::TooLong(9008)));
    }

    proptest::proptest! {
        /// Whatever the lines hold, they are refused, or every field lies in the record and is described to its last byte.
        #[test]
        fn any_lines_are_refused_or_described(
            lines in proptest::collection::vec(
                "(field:)?(__data_loc |__rel_loc |const )?(char|u8|struct x|unsigned long|void \\*)(\\[\\])? ?[a-z]{0,3}(\\[[0-9a-z]{0,3}\\])?;\
                 (offset:[0-9]{1,6};)?(size:[0-9]{1,6};)?(signed:[01];)?|.*",
                0..8,
            )
        ) {
            let text = format!("ID: 7\n{}\n", lines.join("\n"));
            if let Ok(format) = Format::parse(&text) {
                assert!(format.size() <= MAX && format.payload_size() <= MAX);
                for field in &format.fields {
                    let described = match field.kind {
                        FieldKind::Integer(element) => element.size,
                        FieldKind::Array(element) => field.bytes.len() / element.size * element.size,
                        FieldKind::Dynamic { .. } => 4,
                    };
                    assert_eq!(described, field.bytes.len(), "{field:?}");
                }
            }
        }
    }
}
