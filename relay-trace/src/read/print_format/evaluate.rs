//! The value of an expression for the fields of one record.

use std::borrow::Cow;

use super::{
    Expression, Otherwise, Value,
    conversion::{bitmap, hex, joined},
};

/// The values of a record's fields, by their index.
pub(super) type Fields<'f, 'a> = dyn Fn(usize) -> Option<Value<'a>> + 'f;

/// What an expression can be.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome<'a> {
    Number(i128),
    Text(Cow<'a, [u8]>),
    /// What a pointer is to.
    Bytes(&'a [u8]),
}

impl Outcome<'_> {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Number(_) => None,
            Self::Text(text) => Some(text),
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

impl Expression {
    /// `None` when it has no value, or none that is known.
    pub(super) fn evaluate<'a>(&'a self, fields: &Fields<'_, 'a>) -> Option<Outcome<'a>> {
        let owned = |text: String| Outcome::Text(Cow::Owned(text.into_bytes()));
        Some(match self {
            Self::Text(text) => Outcome::Text(Cow::Borrowed(text.as_bytes())),
            Self::Field(index) => match fields(*index)? {
                Value::Number(number) => Outcome::Number(number.wide()),
                Value::Text(text) => Outcome::Text(Cow::Borrowed(text)),
                Value::List(_, bytes) | Value::Texts(bytes) => Outcome::Bytes(bytes),
            },
            Self::Choose(condition, yes, no) => {
                if condition.number(fields)? != 0 {
                    yes.evaluate(fields)?
                } else {
                    no.evaluate(fields)?
                }
            }
            Self::Symbolic(value, table, otherwise) => {
                let value = word(value.number(fields)?);
                match table.iter().find(|(other, _)| *other == value) {
                    Some((_, name)) => Outcome::Text(Cow::Borrowed(name.as_bytes())),
                    None if *otherwise == Otherwise::Nothing => return None,
                    None => owned(format!("{value:#x}")),
                }
            }
            Self::Flags(value, delimiter, table) => owned(flags(word(value.number(fields)?), delimiter, table)),
            Self::Hex { of, len, between } => {
                let (of, len) = (of.evaluate(fields)?, usize::try_from(len.number(fields)?).ok()?);
                let of = of.bytes()?.get(..len)?;
                owned(if *between { joined(of, " ") } else { hex(of) })
            }
            Self::Array { of, count, size } => {
                let of = of.evaluate(fields)?;
                let (count, size) =
                    (usize::try_from(count.number(fields)?).ok()?, usize::try_from(size.number(fields)?).ok()?);
                let of = of.bytes()?.get(..count.checked_mul(size)?)?;
                owned(array(of, size)?)
            }
            Self::Bitmap(index) => match fields(*index)? {
                Value::List(_, bytes) => owned(bitmap(bytes, 8 * bytes.len())?),
                Value::Text(_) | Value::Texts(_) | Value::Number(_) => return None,
            },
            _ => Outcome::Number(self.number(fields)?),
        })
    }

    /// The value of an expression without a field.
    pub(super) fn constant(&self) -> Option<u64> {
        self.number(&|_| None).map(word)
    }

    pub(super) fn number(&self, fields: &Fields<'_, '_>) -> Option<i128> {
        match self {
            Self::Unary(operator, of) => {
                let of = of.number(fields)?;
                Some(match operator {
                    '!' => i128::from(of == 0),
                    '~' => !of,
                    '-' => of.checked_neg()?,
                    _ => of,
                })
            }
            Self::Cast { bits, signed, of } => Some(cut(of.number(fields)?, *bits, *signed)),
            Self::Binary(operator, left, right) => binary(operator, left.number(fields)?, || right.number(fields)),
            Self::Constant(number) => Some(*number),
            Self::Field(index) => match fields(*index)? {
                Value::Number(number) => Some(number.wide()),
                Value::Text(_) | Value::Texts(_) | Value::List(..) => None,
            },
            Self::Element(index, at) => {
                let at = usize::try_from(at.number(fields)?).ok()?;
                fields(*index)?.elements().nth(at).map(|number| number.wide())
            }
            Self::Length(index) => match fields(*index)? {
                Value::List(_, bytes) => i128::try_from(bytes.len()).ok(),
                Value::Text(_) | Value::Texts(_) | Value::Number(_) => None,
            },
            Self::Choose(condition, yes, no) => {
                if condition.number(fields)? != 0 {
                    yes.number(fields)
                } else {
                    no.number(fields)
                }
            }
            _ => None,
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
pub(super) fn cut(number: i128, bits: u32, signed: bool) -> i128 {
    let unused = 128 - bits.clamp(1, 64);
    if signed { number << unused >> unused } else { (number.cast_unsigned() << unused >> unused).cast_signed() }
}

pub(super) fn word(number: i128) -> u64 {
    u64::try_from(cut(number, 64, false)).unwrap_or_default()
}

/// The names of the bits that are set, and what is left of them (kernel/trace/trace_output.c, trace_print_flags_seq).
fn flags(mut value: u64, delimiter: &str, table: &[(u64, Cow<'static, str>)]) -> String {
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

/// `{0x1,0x2}` (kernel/trace/trace_output.c, trace_print_array_seq).
fn array(of: &[u8], size: usize) -> Option<String> {
    if !matches!(size, 1 | 2 | 4 | 8) {
        return None;
    }
    let elements = of.chunks_exact(size).map(|element| format!("{:#x}", crate::read::value::unsigned(element)));
    Some(format!("{{{}}}", elements.collect::<Vec<_>>().join(",")))
}
