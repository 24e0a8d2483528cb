//! The value of an expression for one value of its field, and how a conversion prints it.

use std::{borrow::Cow, io::Write as _, net::Ipv4Addr, net::Ipv6Addr};

use super::{Expression, Value, parse::Conversion};

/// What an expression can be.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome<'a> {
    Number(i128),
    Text(Cow<'a, [u8]>),
}

impl Expression {
    /// `None` when it has no value, or none that the program knows.
    pub(crate) fn evaluate<'a>(&'a self, field: Value<'a>) -> Option<Outcome<'a>> {
        Some(match self {
            Self::Constant(number) => Outcome::Number(*number),
            Self::Text(text) => Outcome::Text(Cow::Borrowed(text.as_bytes())),
            Self::Field => match field {
                Value::Number(number) => Outcome::Number(number.wide()),
                Value::Text(text) => Outcome::Text(Cow::Borrowed(text)),
                // Only conversions of pointers to bytes take it as it is.
                Value::List(element, bytes) if element.size == 1 => Outcome::Text(Cow::Borrowed(bytes)),
                Value::List(..) => return None,
            },
            Self::Choose(condition, yes, no) => {
                if condition.number(field)? != 0 {
                    yes.evaluate(field)?
                } else {
                    no.evaluate(field)?
                }
            }
            Self::Symbolic(value, table) => {
                let value = word(value.number(field)?);
                let name = table.iter().find(|(other, _)| *other == value).map(|(_, name)| name.clone());
                Outcome::Text(Cow::Owned(name.unwrap_or_else(|| format!("{value:#x}")).into_bytes()))
            }
            Self::Flags(value, delimiter, table) => {
                Outcome::Text(Cow::Owned(flags(word(value.number(field)?), delimiter, table).into_bytes()))
            }
            Self::Unary(..) | Self::Binary(..) | Self::Cast { .. } => Outcome::Number(self.number(field)?),
        })
    }

    /// The value of an expression without a field.
    pub(crate) fn constant(&self) -> Option<u64> {
        self.number(Value::Text(b"")).map(word)
    }

    fn number(&self, field: Value<'_>) -> Option<i128> {
        match self {
            Self::Unary(operator, of) => {
                let of = of.number(field)?;
                Some(match operator {
                    '!' => i128::from(of == 0),
                    '~' => !of,
                    '-' => of.checked_neg()?,
                    _ => of,
                })
            }
            Self::Cast { bits, signed, of } => Some(cut(of.number(field)?, *bits, *signed)),
            Self::Binary(operator, left, right) => binary(operator, left.number(field)?, || right.number(field)),
            _ => match self.evaluate(field)? {
                Outcome::Number(number) => Some(number),
                Outcome::Text(_) => None,
            },
        }
    }
}

fn binary(operator: &str, left: i128, right: impl FnOnce() -> Option<i128>) -> Option<i128> {
    let truth = |is: bool| Some(i128::from(is));
    match operator {
        "&&" if left == 0 => return Some(0),
        "||" if left != 0 => return Some(1),
        _ => {}
    }
    let right = right()?;
    // In C, numbers have 64 bits at most, and shifts less.
    let shift = || u32::try_from(right).ok().filter(|shift| *shift < 64);
    match operator {
        "&&" | "||" => truth(right != 0),
        "|" => Some(left | right),
        "^" => Some(left ^ right),
        "&" => Some(left & right),
        "==" => truth(word(left) == word(right)),
        "!=" => truth(word(left) != word(right)),
        "<=" => truth(left <= right),
        ">=" => truth(left >= right),
        "<" => truth(left < right),
        ">" => truth(left > right),
        "<<" => Some(cut(left, 64, true) << shift()?),
        ">>" => Some(left >> shift()?),
        "+" => left.checked_add(right),
        "-" => left.checked_sub(right),
        "*" => left.checked_mul(right),
        "/" => left.checked_div(right),
        "%" => left.checked_rem(right),
        _ => None,
    }
}

/// The low `bits` bits of a number.
fn cut(number: i128, bits: u32, signed: bool) -> i128 {
    let unused = 128 - bits.clamp(1, 64);
    if signed { number << unused >> unused } else { (number.cast_unsigned() << unused >> unused).cast_signed() }
}

fn word(number: i128) -> u64 {
    u64::try_from(cut(number, 64, false)).unwrap_or_default()
}

/// The names of the bits that are set, and what is left of them (kernel/trace/trace_output.c, trace_print_flags_seq).
fn flags(mut value: u64, delimiter: &str, table: &[(u64, String)]) -> String {
    let mut names: Vec<Cow<'_, str>> = Vec::new();
    for (mask, name) in table {
        if value == 0 {
            break;
        }
        if value & mask == *mask {
            names.push(Cow::Borrowed(name));
            value &= !mask;
        }
    }
    if value != 0 {
        names.push(Cow::Owned(format!("{value:#x}")));
    }
    names.join(delimiter)
}

impl Conversion {
    /// Prints a value. `None` when this conversion does not take it.
    pub(crate) fn print(
        &self,
        value: &Outcome<'_>,
        symbol: &mut dyn FnMut(u64) -> Option<String>,
        text: &mut Vec<u8>,
    ) -> Option<()> {
        let printed: Cow<'_, [u8]> = match (self.letter, value) {
            ('d', Outcome::Number(number)) => {
                let number = cut(*number, self.bits, true);
                let sign = if self.plus && number >= 0 { "+" } else { "" };
                Cow::Owned(format!("{sign}{}", self.padded(&number.to_string())).into_bytes())
            }
            ('u' | 'x' | 'X' | 'o', Outcome::Number(number)) => {
                let number = cut(*number, self.bits, false);
                Cow::Owned(match (self.letter, self.alternate) {
                    ('u', _) => self.padded(&number.to_string()).into_bytes(),
                    ('x', true) if number != 0 => format!("0x{}", self.padded(&format!("{number:x}"))).into_bytes(),
                    ('x', _) => self.padded(&format!("{number:x}")).into_bytes(),
                    ('X', _) => self.padded(&format!("{number:X}")).into_bytes(),
                    (_, true) => format!("0{number:o}").into_bytes(),
                    (_, false) => self.padded(&format!("{number:o}")).into_bytes(),
                })
            }
            ('c', Outcome::Number(number)) => Cow::Owned(vec![u8::try_from(*number).ok()?]),
            ('s', Outcome::Text(of)) => {
                let len = self.precision.map_or(of.len(), |precision| precision.min(of.len()));
                Cow::Borrowed(of.get(..len)?)
            }
            ('p', Outcome::Number(number)) if self.is_symbol() => {
                let address = word(*number);
                Cow::Owned(symbol(address).unwrap_or_else(|| format!("{address:#x}")).into_bytes())
            }
            ('p', Outcome::Number(number)) if self.pointer.is_empty() => {
                Cow::Owned(format!("{:#x}", word(*number)).into_bytes())
            }
            ('p', Outcome::Text(of)) => Cow::Owned(address(&self.pointer, of)?.into_bytes()),
            _ => return None,
        };
        let fill = self.width.saturating_sub(printed.len());
        if self.left {
            text.extend_from_slice(&printed);
        }
        text.extend(std::iter::repeat_n(b' ', if self.fills_with_zeros() { 0 } else { fill }));
        if !self.left {
            text.extend_from_slice(&printed);
        }
        Some(())
    }

    fn fills_with_zeros(&self) -> bool {
        self.zero && !self.left && matches!(self.letter, 'd' | 'u' | 'x' | 'X' | 'o')
    }

    /// A number's digits with the zeros that the conversion wants before them.
    fn padded(&self, digits: &str) -> String {
        let width = if self.fills_with_zeros() { self.width } else { 0 }.max(self.precision.unwrap_or(0));
        match digits.strip_prefix('-') {
            Some(digits) => format!("-{digits:0>width$}", width = width.saturating_sub(1)),
            None => format!("{digits:0>width$}"),
        }
    }
}

/// The address in a network or of a network card.
fn address(kind: &str, bytes: &[u8]) -> Option<String> {
    let mut text = Vec::new();
    match kind {
        "I4" => write!(text, "{}", Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)).ok()?,
        "I6" | "I6c" => write!(text, "{}", Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).ok()?,
        "M" => {
            let parts: Vec<_> = bytes.get(..6)?.iter().map(|byte| format!("{byte:02x}")).collect();
            return Some(parts.join(":"));
        }
        _ => return None,
    }
    String::from_utf8(text).ok()
}
