//! How the kernel prints a tracepoint: the `print fmt` of its `format` file, a C format string and its arguments.
//!
//! Records are printed field by field, so only a part of it is of use: the conversions that show one field, such as the flags of
//! `prev_state=%s%s`. They are kept as the field's [`Decoder`], and show the whole of the field: where one of them is not understood, or shows
//! a part of what others show too, the field is left as its type says. Nothing here panics on any input.

mod calls;
mod conversion;
mod evaluate;
mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::{
    conversion::Conversion,
    parse::{Piece, Shown},
};
use crate::{form::format::Field, read::value::Value};

/// What a trace knows of the addresses in it.
pub trait Lookup {
    /// `FUNCTION+0xOFFSET [MODULE]` of an address in the kernel's code.
    fn symbol(&self, address: u64) -> Option<String>;
    /// The constant text that the kernel has at an address.
    fn string(&self, address: u64) -> Option<String>;
}

/// The decoders of an event's fields.
#[derive(Debug, Default)]
pub struct PrintFormat {
    /// By the index of the field.
    decoders: Vec<Option<Decoder>>,
}

/// How one field is printed.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    parts: Vec<Part>,
    /// It gives words for the field's values, and does not only write them otherwise.
    has_words: bool,
    /// They stand beside the number, not in its place.
    is_beside: bool,
    /// It depends on no other field.
    is_alone: bool,
    /// The index of its event's first field, where the fields of several follow one another.
    first: usize,
}

/// Names of numbers.
type Names = &'static [(u64, Cow<'static, str>)];
/// Names of numbers, of which most are read from a format.
type Table = Cow<'static, [(u64, Cow<'static, str>)]>;

/// How a number is shown that is not in a table.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Otherwise {
    /// As a hexadecimal number.
    Number,
    /// Not by words.
    Nothing,
}

#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most are values")]
enum Part {
    Literal(String),
    Value { conversion: Conversion, width: Option<Expression>, precision: Option<Expression>, value: Expression },
}

/// A C expression over a record's fields, which are told by their index.
#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Constant(i128),
    Text(String),
    Field(usize),
    /// One element of a field.
    Element(usize, Box<Self>),
    /// Bytes of a dynamic field.
    Length(usize),
    Unary(char, Box<Self>),
    Binary(&'static str, Box<Self>, Box<Self>),
    Choose(Box<Self>, Box<Self>, Box<Self>),
    Cast {
        bits: u32,
        signed: bool,
        of: Box<Self>,
    },
    /// `__print_symbolic`
    Symbolic(Box<Self>, Table, Otherwise),
    /// `__print_flags`
    Flags(Box<Self>, String, Table),
    /// `__print_hex` with spaces between, `__print_hex_str` without.
    Hex {
        of: Box<Self>,
        len: Box<Self>,
        between: bool,
    },
    /// `__print_array`
    Array {
        of: Box<Self>,
        count: Box<Self>,
        size: Box<Self>,
    },
    /// `__get_bitmask`, `__get_cpumask`
    Bitmap(usize),
}

impl PrintFormat {
    /// How an event is printed: its fields as `format` says, but for what is known of the arguments of system calls on a machine (as
    /// uname(1) calls it).
    #[must_use]
    pub fn of(event: &str, machine: &str, format: &str, fields: &[Field]) -> Self {
        let mut own = Self::parse(format, fields);
        own.decoders.resize(fields.len(), None);
        for (index, decoder) in own.decoders.iter_mut().enumerate() {
            if let Some(words) = calls::decoder(event, index, fields, machine) {
                *decoder = Some(words);
            }
        }
        own
    }

    /// Finds what `format` says of the fields.
    #[must_use]
    pub fn parse(format: &str, fields: &[Field]) -> Self {
        let Some((_, text)) = format.split_once("print fmt:") else { return Self::default() };
        let runs = runs(parse::parse(text, fields));
        let decoders = (0..).zip(fields).map(|(index, field)| {
            let shows = runs.iter().filter(|run| run.fields.contains(&index));
            let is_only = shows.clone().count() == 1;
            let usable = shows.filter(|run| run.fields.len() == 1).filter_map(|run| run.decoder(index, field, is_only));
            // The first that has words for the value; else the first.
            let usable: Vec<Decoder> = usable.collect();
            let best = usable.iter().position(|decoder| decoder.has_words).unwrap_or(0);
            // What a field's type says anyhow is not said again.
            usable.into_iter().nth(best).filter(|decoder| !decoder.is_plain(field))
        });
        Self { decoders: decoders.collect() }
    }

    /// This one, of an event with so many fields, and after it another, whose fields follow.
    #[must_use]
    pub fn followed_by(mut self, fields: usize, other: &Self) -> Self {
        self.decoders.resize(fields, None);
        let moved = |decoder: &Decoder| Decoder { first: decoder.first + fields, ..decoder.clone() };
        self.decoders.extend(other.decoders.iter().map(|decoder| decoder.as_ref().map(moved)));
        self
    }

    /// How a field is printed, where that is not as its type says.
    #[must_use]
    pub fn decoder(&self, field: usize) -> Option<&Decoder> {
        self.decoders.get(field)?.as_ref()
    }

    /// Whether any field has words for its values.
    #[must_use]
    pub fn has_words(&self) -> bool {
        self.decoders.iter().flatten().any(|decoder| decoder.has_words)
    }

    /// Whether this field's words stand beside its number, as in `ret=-2 ENOENT`, and not in its place.
    #[must_use]
    pub fn is_beside(&self, field: usize) -> bool {
        self.decoder(field).is_some_and(|decoder| decoder.is_beside)
    }

    /// Whether this field has words for its values.
    #[must_use]
    pub fn has_words_for(&self, field: usize) -> bool {
        self.decoder(field).is_some_and(|decoder| decoder.has_words)
    }
}

impl Decoder {
    /// Prints a record's field. `fields` gives the values of the record by their index. `None` when this value cannot be printed so.
    pub fn print<'a>(&'a self, fields: &dyn Fn(usize) -> Option<Value<'a>>, lookup: &dyn Lookup) -> Option<Vec<u8>> {
        let fields: &dyn Fn(usize) -> Option<Value<'a>> = &|index| fields(self.first + index);
        let mut text = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                Part::Value { conversion, width, precision, value } => {
                    let size = |of: &Option<Expression>| of.as_ref().and_then(|of| of.number(fields));
                    let value = value.evaluate(fields)?;
                    conversion.print(&value, size(width), size(precision), lookup, &mut text)?;
                }
            }
        }
        Some(text)
    }

    /// One that has words and depends on no other field.
    fn words(is_beside: bool, parts: Vec<Part>) -> Self {
        Self { parts, has_words: true, is_beside, is_alone: true, first: 0 }
    }

    /// Whether what it prints depends on this field alone.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// It says no more than the field's type.
    fn is_plain(&self, field: &Field) -> bool {
        let [Part::Value { conversion, value, .. }] = &self.parts[..] else { return false };
        let mut inner = value;
        while let Expression::Cast { of, .. } = inner {
            inner = of;
        }
        matches!(inner, Expression::Field(_)) && conversion.is_plain(field)
    }
}

impl Expression {
    /// Whether it gives names to numbers.
    fn has_table(&self) -> bool {
        match self {
            Self::Symbolic(..) | Self::Flags(..) => true,
            Self::Choose(_, yes, no) => yes.has_table() || no.has_table(),
            _ => false,
        }
    }

    /// Whether different values of its field are printed differently.
    fn is_whole(&self) -> bool {
        match self {
            Self::Field(_) | Self::Bitmap(_) => true,
            Self::Cast { of, .. }
            | Self::Symbolic(of, ..)
            | Self::Flags(of, ..)
            | Self::Hex { of, .. }
            | Self::Array { of, .. } => of.is_whole(),
            Self::Choose(_, yes, no) => yes.is_whole() || no.is_whole(),
            Self::Constant(_)
            | Self::Text(_)
            | Self::Element(..)
            | Self::Length(_)
            | Self::Unary(..)
            | Self::Binary(..) => false,
        }
    }

    /// The fields whose values it shows, each once.
    fn shows(&self) -> Vec<usize> {
        let mut fields = match self {
            Self::Constant(_) | Self::Text(_) | Self::Length(_) => Vec::new(),
            Self::Field(index) | Self::Element(index, _) | Self::Bitmap(index) => vec![*index],
            Self::Unary(_, of) | Self::Cast { of, .. } | Self::Symbolic(of, ..) | Self::Flags(of, ..) => of.shows(),
            // How much of it is shown is another field's value.
            Self::Hex { of, .. } | Self::Array { of, .. } => of.shows(),
            Self::Binary(_, left, right) => [left.shows(), right.shows()].concat(),
            Self::Choose(condition, yes, no) => match [yes.shows(), no.shows()].concat() {
                none if none.is_empty() => condition.shows(),
                fields => fields,
            },
        };
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// All fields that its value depends on.
    fn depends_on(&self, fields: &mut Vec<usize>) {
        match self {
            Self::Constant(_) | Self::Text(_) => {}
            Self::Field(index) | Self::Bitmap(index) | Self::Length(index) => fields.push(*index),
            Self::Element(index, at) => {
                fields.push(*index);
                at.depends_on(fields);
            }
            Self::Unary(_, of) | Self::Cast { of, .. } | Self::Symbolic(of, ..) | Self::Flags(of, ..) => {
                of.depends_on(fields)
            }
            Self::Binary(_, a, b) | Self::Hex { of: a, len: b, .. } => {
                [a, b].iter().for_each(|of| of.depends_on(fields))
            }
            Self::Choose(a, b, c) | Self::Array { of: a, count: b, size: c } => {
                [a, b, c].iter().for_each(|of| of.depends_on(fields));
            }
        }
    }

    /// The bits of an unsigned number, where it is one whatever the fields are; so that `-9ULL` is a large number.
    fn unsigned_bits(&self) -> Option<u32> {
        match self {
            Self::Cast { bits, signed: false, .. } => Some((*bits).max(32)),
            Self::Unary(_, of) => of.unsigned_bits(),
            Self::Binary("+" | "-" | "*" | "|" | "&" | "^", left, right) => {
                left.unsigned_bits().max(right.unsigned_bits())
            }
            Self::Binary("<<" | ">>", left, _) => left.unsigned_bits(),
            _ => None,
        }
    }
}

/// Conversions, one after the other, that show the same field.
struct Run {
    /// More than one only where a single conversion shows several.
    fields: Vec<usize>,
    /// What stands before it as its name; empty when nothing does.
    label: String,
    parts: Vec<Part>,
    /// All of its conversions are.
    is_understood: bool,
}

impl Run {
    /// What shows the field, if it does that well enough. `is_only`: nothing else shows it.
    fn decoder(&self, index: usize, field: &Field, is_only: bool) -> Option<Decoder> {
        let values = || {
            self.parts.iter().filter_map(|part| match part {
                Part::Literal(_) => None,
                Part::Value { conversion, value, .. } => Some((conversion, value)),
            })
        };
        let is_whole = values().any(|(_, value)| value.is_whole());
        let elements = values().filter(|(_, value)| matches!(value, Expression::Element(..))).count();
        let has_words = elements > 1
            || values().any(|(conversion, value)| {
                value.has_table()
                    || matches!(value, Expression::Hex { .. } | Expression::Array { .. } | Expression::Bitmap(_))
                    || (value.is_whole() && conversion.is_word_for(field))
            });
        let is_its_own = self.label.is_empty() || self.label == field.name;
        if !self.is_understood || !(is_only || is_whole) || !(is_its_own || has_words || values().count() > 1) {
            return None;
        }
        let mut fields = Vec::new();
        for part in &self.parts {
            let Part::Value { width, precision, value, .. } = part else { continue };
            [width.as_ref(), precision.as_ref(), Some(value)]
                .into_iter()
                .flatten()
                .for_each(|of| of.depends_on(&mut fields));
        }
        let is_alone = fields.iter().all(|other| *other == index);
        Some(Decoder { parts: self.parts.clone(), has_words, is_beside: false, is_alone, first: 0 })
    }
}

/// Finds the runs. Between two conversions of one there is at most punctuation, as in the `%d,%d` of a device.
fn runs(pieces: Vec<Piece>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut before = String::new();
    // Whether the last run can go on.
    let mut open = false;
    for piece in pieces {
        let Shown { conversion, width, precision, value, fields } = match piece {
            Piece::Literal(literal) => {
                let between = literal.replace("0x", "");
                open = open && !between.contains(|c: char| c.is_whitespace() || c.is_alphanumeric() || c == '=');
                before = literal;
                continue;
            }
            Piece::Value(shown) => shown,
        };
        let literal = std::mem::take(&mut before);
        let is_understood = value.is_some();
        let value = value.map(|value| Part::Value { conversion, width, precision, value });
        match runs.last_mut() {
            Some(run) if open && run.fields == fields => {
                run.is_understood &= is_understood;
                run.parts.extend((!literal.is_empty()).then_some(Part::Literal(literal)).into_iter().chain(value));
            }
            _ => {
                let prefix = literal.ends_with("0x").then(|| Part::Literal("0x".to_owned()));
                let label = label(literal.strip_suffix("0x").unwrap_or(&literal));
                runs.push(Run { fields, label, parts: prefix.into_iter().chain(value).collect(), is_understood });
                open = true;
            }
        }
    }
    runs
}

/// The name at the end of a text, before `=` or `:`.
fn label(text: &str) -> String {
    let text = text.trim_end();
    let Some(text) = text.strip_suffix(['=', ':']) else { return String::new() };
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.trim_end().rsplit(|c| !is_name(c)).next().unwrap_or_default().to_owned()
}
