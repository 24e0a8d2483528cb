//! How the kernel prints a tracepoint: the `print fmt` of its `format` file, a C format string and its arguments.
//!
//! Records are printed field by field, so only a part of it is of use: the conversions that show one field alone, such as the flags of
//! `prev_state=%s%s`. They are kept as the field's [`Decoder`]. What is not understood leaves the field as its type says; nothing
//! here panics on any input.

mod evaluate;
mod parse;
#[cfg(test)]
mod tests;

use self::parse::{Argument, Conversion, Piece};
use crate::{form::format::Field, read::value::Value};

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
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(String),
    Value(Conversion, Expression),
}

/// A C expression in which one field is the only variable.
#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Constant(i128),
    Text(String),
    /// The field's value.
    Field,
    Unary(char, Box<Self>),
    Binary(&'static str, Box<Self>, Box<Self>),
    Choose(Box<Self>, Box<Self>, Box<Self>),
    Cast {
        bits: u32,
        signed: bool,
        of: Box<Self>,
    },
    /// `__print_symbolic`
    Symbolic(Box<Self>, Vec<(u64, String)>),
    /// `__print_flags`
    Flags(Box<Self>, String, Vec<(u64, String)>),
}

impl PrintFormat {
    /// Finds what `format` says of the fields.
    #[must_use]
    pub fn parse(format: &str, fields: &[Field]) -> Self {
        let Some((_, text)) = format.split_once("print fmt:") else { return Self::default() };
        let mut decoders: Vec<Option<Decoder>> = vec![None; fields.len()];
        for run in runs(&parse::parse(text, fields)) {
            // The first that has words for the value; else the first that stands below the field's own name, or none.
            let decoder = &mut decoders[run.field];
            let is_its_own = run.label.is_empty() || run.label == fields[run.field].name;
            let is_better = decoder.as_ref().is_none_or(|other| !other.has_words() && run.decoder.has_words());
            if is_better && (is_its_own || run.decoder.has_words()) {
                *decoder = Some(run.decoder);
            }
        }
        // What a field's type says anyhow is not said again.
        for (decoder, field) in decoders.iter_mut().zip(fields) {
            if decoder.as_ref().is_some_and(|decoder| decoder.is_plain(field)) {
                *decoder = None;
            }
        }
        Self { decoders }
    }

    /// How a field is printed, where that is not as its type says.
    #[must_use]
    pub fn decoder(&self, field: usize) -> Option<&Decoder> {
        self.decoders.get(field)?.as_ref()
    }

    /// Whether any field has names for its values.
    #[must_use]
    pub fn has_words(&self) -> bool {
        self.decoders.iter().flatten().any(Decoder::has_words)
    }

    /// Whether this field has names for its values.
    #[must_use]
    pub fn has_words_for(&self, field: usize) -> bool {
        self.decoder(field).is_some_and(Decoder::has_words)
    }
}

impl Decoder {
    /// Prints the field's value. `symbol` gives the name of an address in the kernel. `None` when this value cannot be printed so.
    pub fn print(&self, value: Value<'_>, symbol: &mut dyn FnMut(u64) -> Option<String>) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                Part::Value(conversion, expression) => {
                    conversion.print(&expression.evaluate(value)?, symbol, &mut text)?;
                }
            }
        }
        Some(text)
    }

    /// Whether it has names for values, and does not only write them otherwise.
    #[must_use]
    pub fn has_words(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Literal(_) => false,
            Part::Value(conversion, expression) => conversion.is_symbol() || expression.has_table(),
        })
    }

    /// It says no more than the field's type.
    fn is_plain(&self, field: &Field) -> bool {
        let [Part::Value(conversion, expression)] = &self.parts[..] else { return false };
        let mut inner = expression;
        while let Expression::Cast { of, .. } = inner {
            inner = of;
        }
        *inner == Expression::Field && conversion.is_plain(field)
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
}

/// Conversions, one after the other, that show nothing but one field.
struct Run {
    field: usize,
    /// What stands before it as its name; empty when nothing does.
    label: String,
    decoder: Decoder,
}

/// Finds the runs. Between two conversions of one there is at most punctuation, as in the `%d,%d` of a device.
fn runs(pieces: &[Piece]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut before = "";
    // Whether the last run can go on.
    let mut open = false;
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => {
                open = open && !literal.contains(|c: char| c.is_whitespace() || c.is_alphanumeric() || c == '=');
                before = literal;
                continue;
            }
            Piece::Value(conversion, Some(Argument { field, expression })) => {
                let value = Part::Value(conversion.clone(), expression.clone());
                match runs.last_mut() {
                    Some(run) if open && run.field == *field => {
                        if !before.is_empty() {
                            run.decoder.parts.push(Part::Literal(before.to_owned()));
                        }
                        run.decoder.parts.push(value);
                    }
                    _ => {
                        let (text, prefix) = match before.strip_suffix("0x") {
                            Some(text) => (text, Some(Part::Literal("0x".to_owned()))),
                            None => (before, None),
                        };
                        let decoder = Decoder { parts: prefix.into_iter().chain([value]).collect() };
                        runs.push(Run { field: *field, label: label(text), decoder });
                        open = true;
                    }
                }
            }
            Piece::Value(_, None) => open = false,
        }
        before = "";
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
